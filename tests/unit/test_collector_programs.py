"""Generated C and format files: what other kernels have is taken from their own formats."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from collectors import programs, protocol, stubtree
from collectors.filters import Filters
from collectors.layout import PAGE, RING_HEADER, rings_for
from collectors.pagegeometry import PageGeometry, solve
from collectors.tracepoints import PROBES, UnusableProbeError, chosen, find_formats, parse_format
from tests.kernel_formats import KERNELS, format_text, formats


def source(kernel: str, *, raw: bool = False, **more: Any) -> str:
    parsed = {event: parse_format(text) for event, text in formats(kernel).items()}
    return programs.source(programs.Plan(programs.lanes_of(PROBES, raw=raw), parsed, **more))


def part(text: str, start: str) -> str:
    """From a line to the closing brace in the first column."""
    return text[text.index(start) :].split("\n}", 1)[0]


def test_the_running_kernels_layout_is_reproduced() -> None:
    fields = parse_format(formats("6.18")["kmem:mm_page_alloc"]).fields
    assert {n: (f.offset, f.size, f.signed) for n, f in fields.items() if not n.startswith("common")} == {
        "pfn": (8, 8, False),
        "order": (16, 4, False),
        "gfp_flags": (24, 8, False),
        "migratetype": (32, 4, True),
    }


@pytest.mark.parametrize(("kernel", "declared"), [("5.10", "u32 gfp_flags;"), ("6.1", "u64 gfp_flags;")])
def test_gfp_has_the_width_of_the_kernel(kernel: str, declared: str) -> None:
    struct = part(source(kernel), "struct tr_mm_page_alloc_args {")
    assert declared in struct


@pytest.mark.parametrize(("kernel", "present"), [("5.10", False), ("6.1", True), ("6.12", True), ("6.18", True)])
def test_percpu_refill_is_read_only_where_it_is(kernel: str, present: bool) -> None:
    program = part(source(kernel), "int tr_mm_page_alloc_zone_locked(")
    assert ("args->percpu_refill" in program) is present


@pytest.mark.parametrize(
    ("kernel", "offset", "width"), [("5.10", 32, 8), ("6.1", 32, 8), ("6.12", 34, 8), ("6.18", 34, 10)]
)
def test_rwbs_is_copied_from_its_place_in_aligned_pieces(kernel: str, offset: int, width: int) -> None:
    program = part(source(kernel), "int tr_block_rq_issue(")
    copies = [line for line in program.splitlines() if "memcpy(e->rwbs" in line]
    at = 0
    for line in copies:
        numbers = [int(n) for n in "".join(c if c.isdigit() else " " for c in line).split()]
        target, start, size = numbers[-3:]
        assert (target, start) == (at, offset + at)
        assert start % size == 0
        at += size
    assert at == width
    assert "memset(e->rwbs, 0, 12)" in program


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("raw", [False, True])
def test_every_byte_of_a_record_is_written(kernel: str, raw: bool) -> None:
    text = source(kernel, raw=raw)
    for lane in programs.lanes_of(PROBES, raw=raw):
        probe = lane.probe
        program = part(text, f"int {'record_' if lane.role == 'raw' else ''}{lane.function}(")
        ring = next(r for r in rings_for() if r.name == probe.ring)
        for field in ring.fields:
            if field.name in ("ts", "seq", "flags"):
                continue  # by reserve_*
            assert f"e->{field.name} " in program or f"(e->{field.name}" in program, (probe.event, field.name)


def test_a_probe_without_a_needed_field_is_refused_with_the_reason(tmp_path: Path) -> None:
    folder = tmp_path / "events" / "kmem" / "mm_page_alloc"
    folder.mkdir(parents=True)
    (folder / "format").write_text(format_text("mm_page_alloc", "unsigned long pfn", "unsigned int order"))
    found, missing = find_formats(tmp_path, chosen(["page"]))
    assert found == {}
    assert "no field gfp_flags, migratetype" in missing["kmem:mm_page_alloc"]
    assert missing["kmem:mm_page_free"] == "the kernel has no tracepoint kmem:mm_page_free"


@pytest.mark.parametrize("text", ["", "name: x\nformat:\n", "field:int a;\toffset:0;\tsize:4;\tsigned:1;"])
def test_a_text_that_is_no_format_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="format"):
        parse_format(text)


def test_groups_choose_probes_and_tasks_always_come_along() -> None:
    assert {p.group for p in chosen(["bio"])} == {"bio", "task"}
    assert [p.event for p in chosen(["page"])] == ["kmem:mm_page_alloc", "kmem:mm_page_free", "task:task_rename"]
    assert issubclass(UnusableProbeError, Exception)


def test_a_raw_tap_has_two_programs_and_the_nested_ones_come_last() -> None:
    """The nested program relies on running after the raw one, which relies on being attached after it."""
    lanes = programs.lanes_of(chosen(["page", "buddy"]), raw=True)
    roles = [(lane.probe.kind, lane.role) for lane in lanes]
    assert roles[:3] == [("alloc", "raw"), ("free", "raw"), ("zone_locked", "tracepoint")]
    assert roles[-2:] == [("alloc", "nested"), ("free", "nested")]
    assert {lane.role for lane in programs.lanes_of(PROBES, raw=False)} == {"tracepoint"}


def test_every_program_counts_in_a_lane_of_its_own() -> None:
    text = source("6.18", raw=True)
    lanes = programs.lanes_of(PROBES, raw=True)
    for index, lane in enumerate(lanes):
        program = part(text, f"int {'record_' if lane.role == 'raw' else ''}{lane.function}(")
        assert f"&s->lane[{index}]" in program
        assert f"e->kind = {index};" in program
    assert f"struct lane_state lane[{len(lanes)}];" in text


def test_a_nested_program_asks_after_the_raw_one_of_its_event() -> None:
    text = source("6.18", raw=True)
    lanes = programs.lanes_of(PROBES, raw=True)
    for lane in lanes:
        if lane.role == "nested":
            first = lanes.index(programs.Lane(lane.probe, "raw"))
            nested = part(text, f"int {lane.function}(")
            raw = part(text, f"int {lane.probe.function}(struct")
            assert f"if (!s->running[{first}] && claim && *claim == claim_by(page))" in nested
            assert f"s->running[{first}] = 0;" in raw
            tap = {"alloc": 0, "free": 1}[lane.probe.kind]
            assert f"claim_of({tap}, " in nested
            assert f"claim_of({tap}, " in raw


def line(base: int, size: int, frames: list[int]) -> list[tuple[int, int]]:
    return [(base + size * pfn, pfn) for pfn in frames]


def test_page_geometry_is_found_from_pointers_and_frames() -> None:
    base = 0xFFFF_EA00_0000_0000
    frames = [5 * n * n + 17 for n in range(60)]
    assert solve(line(base, 64, frames)) == PageGeometry(base, 6)
    mixed = line(base, 64, frames)
    mixed[7] = (mixed[7][0], mixed[30][1])  # an interrupt swapped a pair
    assert solve(mixed) == PageGeometry(base, 6)


@pytest.mark.parametrize(
    "pairs",
    [
        [],
        line(1 << 40, 64, list(range(20))),  # too few
        line(1 << 40, 56, list(range(100))),  # no power of two
        line(1 << 40, 64, list(range(50))) + line(1 << 41, 64, list(range(1000, 1050))),  # sections
        [(1 << 40, 3)] * 100,
    ],
)
def test_page_geometry_is_refused_where_it_does_not_hold(pairs: list[tuple[int, int]]) -> None:
    assert solve(pairs) is None


def test_records_are_packed_and_page_records_stay_small() -> None:
    for ring in (*rings_for(), *rings_for(stacks=True, bulk=True)):
        ring.offsets()
        assert ring.stride == ring.size + RING_HEADER
    assert PAGE.size <= 32


def test_stub_tree_is_private_and_leaves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BCC_KERNEL_SOURCE", "/before")
    import os

    with stubtree.stub_tree() as root:
        assert os.environ["BCC_KERNEL_SOURCE"] == str(root)
        assert root.stat().st_mode & 0o777 == 0o700
        assert (root / "include/linux/kconfig.h").is_file()
    assert not root.exists()
    assert os.environ["BCC_KERNEL_SOURCE"] == "/before"


def test_version_header_takes_any_release_text() -> None:
    text = stubtree.stub_files("x86_64", "6.18.44-fc-v669")["include/linux/version.h"]
    assert "KERNEL_VERSION(6, 18, 44)" in text
    assert "KERNEL_VERSION(6, 12, 0)" in stubtree.stub_files("x86_64", "6.12-rc1+")["include/linux/version.h"]


def test_frame_types_are_numbered_without_gaps() -> None:
    numbers = [v for n, v in vars(protocol.FrameType).items() if n.isupper()]
    assert sorted(numbers) == list(range(1, 12))


ORDER = {"page_frames": 1 << 20}


def test_without_options_programs_hold_no_code_for_them() -> None:
    text = source("6.18", raw=True)
    for word in ("traced", "in_sample", "follow_bio", "take_stack", "bpf_get_stack", "ancestor_cgroup"):
        assert word not in text


@pytest.mark.parametrize("raw", [False, True])
def test_frees_and_completions_follow_what_was_recorded(raw: bool) -> None:
    text = source("6.18", raw=raw, filters=Filters(comms=["fio"], **ORDER))
    prefix = "int record_" if raw else "int "
    alloc = part(text, f"{prefix}tr_mm_page_alloc(")
    assert alloc.index("u32 keep = s->task_ok;") < alloc.index("set_traced(frame, size, keep)") < alloc.index("reserve")
    free = part(text, f"{prefix}tr_mm_page_free(")
    assert free.index("keep = is_traced(frame)") < free.index("set_traced(frame, size, 0)") < free.index("reserve")
    assert "is_followed(args->dev, args->sector)" in part(text, "int tr_block_rq_complete(")
    assert "follow_bio(args->dev, args->other_sector)" not in text
    assert "follow_bio(args->dev, args->new_sector)" in part(text, "int tr_block_split(")
    remap = part(text, "int tr_block_bio_remap(")
    assert "is_followed(args->old_dev, args->old_sector)" in remap
    assert "follow_bio(args->dev, args->sector)" in remap


def test_values_of_one_filter_are_alternatives_and_filters_add_up() -> None:
    text = source("6.18", filters=Filters(pids=[5, 6], tgids=[7], cgroups=[(99, 2)], **ORDER))
    wanted = part(text, "static __always_inline u32 wanted_task(")
    assert "(pid == 5u || pid == 6u)" in wanted
    assert "(tgid == 7u)" in wanted
    assert "bpf_get_current_ancestor_cgroup_id(2) == 99ULL" in wanted


def test_a_device_filter_follows_nothing_and_lets_the_remap_out() -> None:
    text = source("6.18", filters=Filters(devices=[8 << 20]))
    assert "follow_bio" not in text
    assert f"(u32)args->dev == {8 << 20}u || (u32)args->old_dev == {8 << 20}u" in part(text, "int tr_block_bio_remap(")
    assert "keep" not in part(text, "int tr_mm_page_alloc(")


def test_gfp_and_order_choose_allocations() -> None:
    text = source("6.18", filters=Filters(orders=[0, 3], gfp=0x100, **ORDER))
    alloc = part(text, "int tr_mm_page_alloc(")
    assert "(0x9u >> (u32)(args->order) & 1)" in alloc
    assert "((u32)(args->gfp_flags) & 0x100u) == 0x100u" in alloc
    # A free has no mask: only a traced page's free is recorded.
    assert "keep = (u32)(args->order) < 32 && (0x9u >> (u32)(args->order) & 1) && 0" in part(
        text, "int tr_mm_page_free("
    )


def test_stacks_make_event_records_carry_a_hash() -> None:
    text = source("6.18", raw=True, stacks=True, stack_every_ns=1000)
    assert "e->stack = stack;" in part(text, "int record_tr_mm_page_alloc(")
    assert "e->stack = stack;" in part(text, "int tr_block_bio_queue(")
    assert "e->stack = 0;" in part(text, "int record_tr_mm_page_free(")
    assert "now - *last < 1000ULL" in text
    names = [ring.name for ring in rings_for(stacks=True)]
    assert "stack" in names
    assert "stack" not in [ring.name for ring in rings_for()]
