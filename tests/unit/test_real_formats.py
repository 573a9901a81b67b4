"""Format files of real kernels: the programs for 6.1 and 6.12 are generated from what these kernels say."""

from __future__ import annotations

import re

import pytest

from collectors import programs
from collectors.filters import Filters
from collectors.tracepoints import PROBES, parse_format
from tests.kernel_formats import formats
from tests.real_formats import KERNELS, real_formats
from tracereplay.trace.printfmt import gfp_names


@pytest.mark.parametrize("kernel", KERNELS)
def test_every_probe_finds_its_fields(kernel: str) -> None:
    texts = real_formats(kernel)
    assert set(texts) == {p.event for p in PROBES}
    for probe in PROBES:
        probe.check(parse_format(texts[probe.event]))


@pytest.mark.parametrize("kernel", KERNELS)
def test_made_up_formats_are_those_of_the_kernel(kernel: str) -> None:
    made, real = formats(kernel), real_formats(kernel)
    for event, text in real.items():
        expected = {n: (f.offset, f.size, f.signed, f.array) for n, f in parse_format(text).fields.items()}
        fields = {n: (f.offset, f.size, f.signed, f.array) for n, f in parse_format(made[event]).fields.items()}
        used = next(p for p in PROBES if p.event == event)
        wanted = {source.rstrip("?") for source in used.copy.values()} | {x.source for x in used.packed}
        for name in wanted & (set(expected) | set(fields)):
            # Whether a char array is signed is the architecture's; sizes and places are what programs read.
            assert fields.get(name, ())[:2] == expected.get(name, ())[:2], (event, name)


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("raw", [False, True])
def test_programs_are_generated(kernel: str, raw: bool) -> None:
    parsed = {event: parse_format(text) for event, text in real_formats(kernel).items()}
    lanes = programs.lanes_of(PROBES, raw=raw)
    plan = programs.Plan(lanes, parsed, Filters(comms=["fio"], orders=[0]), stacks=True)
    text = programs.source(plan)
    for lane in lanes:
        assert re.search(rf"^int {lane.function}\(", text, re.M), lane.function
    assert not re.search(r"\$\{?\w", text), "a placeholder is left"
    declared = re.search(r"struct tr_block_rq_issue_args \{(.*?)\n\};", text, re.S)
    assert declared is not None
    assert ("u16 ioprio;" in declared[1]) == (kernel == "6.12")
    assert "char rwbs[8];" in declared[1]


@pytest.mark.parametrize("kernel", KERNELS)
def test_gfp_names_come_from_the_kernel(kernel: str) -> None:
    names = gfp_names(real_formats(kernel)["kmem:mm_page_alloc"])
    assert names["__GFP_DIRECT_RECLAIM"] == 0x400
    assert names["__GFP_ZERO"] == 0x100
