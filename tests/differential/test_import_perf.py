"""The compiled parser on perf script text against the slow reference: same rows, refusals, losses, tasks and stacks."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.differential.test_import_ftrace import COMMS, OTHERS, Lines, check
from tests.reference.ftrace_reference import Parsed
from tests.reference.perf_reference import PerfReference
from tracereplay.importers.ftrace_vocabulary import PERF_SCRIPT

GOOD = b"bash 1 [000] 1.000001: kmem:mm_page_free: page=0x1 pfn=0x1 order=0\n"
PERF_COMMS = (*COMMS, "a 12 [3]", "12", ":1234", "cafe", "VM:", "x 1/2", "swapper", "1/1 1")
MODIFIERS = ("", "", "", ":", ":u:", ":kH:", ":ukhGHpppSD:", ":ukhGHpppSDI:")
SYMBOLS = (
    "kmalloc+0x10",
    "[unknown]",
    "std::vector<int, std::allocator<int> >::push_back(int const&)+0x1",
    "operator()() const",
    "(anonymous namespace)::f+0x12345678",
    "x+0x+0x1f",
    "foo+0xg",
    "+0x1",
    "",
    "s" * 1100,
)
DSOS = (
    " ([kernel.kallsyms])",
    " ([dm_crypt])",
    " (/lib/modules/6.1.0/kernel/drivers/md/dm-bufio.ko.xz)",
    " (/usr/lib/libc.so.6)",
    " (/memfd:x (deleted))",
    " (inlined)",
    " (",
    "",
)
PERF_OTHERS = (
    *OTHERS,
    "# ========",
    "# os release : 6.1.0",
    "perf 1 [000] 1.5: PERF_RECORD_LOST lost 10",
    "perf 1/1 [001] 1.5: PERF_RECORD_LOST_SAMPLES lost 3 ",
    "perf 1/1 [001] 1.5: PERF_RECORD_LOST",
    "perf 1/1 [001] 1.5: PERF_RECORD_LOST lost",
    ":-1 -1 [001] 1.5: PERF_RECORD_LOST lost 99999999999999999999",
    "perf 1 [000] 1.5: PERF_RECORD_COMM exec: ls:1/1",
    "perf 1 [000] 1.5: <stack trace>",
    "perf 1 [000] 1.5: kernel_stack: <stack trace>",
    "\tffffffff81000000 orphan ([kernel.kallsyms])",
    "   ffffffff81000000 blanks+0x1 ([kernel.kallsyms])",
    "\tnot an address",
    "cafe 1 [000] 1.5: x:y: z",
    "Processed 5 events and lost 3 chunks!",
)


class PerfLines(Lines):
    """Random lines of perf script, most of them right or nearly so."""

    def header(self) -> str:
        r = self.r
        comm, pid = self.pick(PERF_COMMS), 7
        if r.random() < 0.1:
            pid = self.pick((0, 25, -1, 4194304, 4194304 * 1024, 2**32))
        who = self.pick((f"{pid:7}", f"{pid:7}", f"{pid:7}/{pid:<7}", f"{pid:>5}/-1", f"-1/{pid}", f"{pid}/"))
        cpu = self.pick((0, 1, 2, 127, 65535, 65536)) if r.random() < 0.2 else r.randrange(2)
        guest = self.pick(("VM: 123 VCPU:001 ", "VM:1 ", "VM: ", "VM:x ")) if r.random() < 0.05 else ""
        period = self.pick(("1 ", "     4000 ", "1x ")) if r.random() < 0.1 else ""
        comm = f"{guest}{comm:{self.pick(('', '>16'))}}"
        return f"{comm} {who} [{cpu:03}] {self.time():>12}: {period}{self.pick(('', '      '))}"

    def with_modifiers(self, line: str) -> str:
        name, colon, rest = line.partition(": ")
        system = "" if ":" in name else "block:" if name.startswith("block") else "kmem:"
        modifiers = self.pick(MODIFIERS) if self.r.random() < 0.2 else ":"
        return f"{system}{name}{modifiers or colon.strip()} {rest}"

    def page(self) -> str:
        line = self.with_modifiers(super().page())
        return line.replace(": page=", ": [FAILED TO PARSE] page=") if self.r.random() < 0.05 else line

    def bio(self) -> str:
        return self.with_modifiers(super().bio())

    def chain(self) -> list[str]:
        frames = []
        for _ in range(self.r.randrange(6)):
            address = self.pick(("ffffffff8162184b", "           f838f", "deadbeefdeadbeef0", "xyz", "0"))
            indent = self.pick(("\t", "\t", "\t", "        ", ""))
            frames.append(f"{indent}{address} {self.pick(SYMBOLS)}{self.pick(DSOS)}")
        return [*frames, *([""] if self.r.random() < 0.9 else [])]

    def some(self, n: int) -> bytes:
        lines: list[str] = []
        while len(lines) < n:
            roll = self.r.random()
            if roll < 0.08:
                lines.append(self.pick(PERF_OTHERS))
                continue
            body: Any = self.page if roll < 0.6 else self.bio if roll < 0.9 else None
            lines.append(self.header() + (body() if body else self.pick(("sched:sched_switch: a", "cycles:", "x:"))))
            if self.r.random() < 0.5:
                lines += self.chain()
        ends = [self.pick(("\n", "\n", "\n", "\r\n")) for _ in lines]
        data = "".join(line + end for line, end in zip(lines, ends, strict=True)).encode("latin-1")
        return data if self.r.random() < 0.5 else data[: -self.r.randrange(1, 30)]


def check_perf(data: bytes, block_bytes: int = 1 << 16) -> Parsed:
    return check(data, block_bytes, reference=PerfReference, form=PERF_SCRIPT)


@pytest.mark.parametrize("seed", range(40))
def test_generated_lines(seed: int) -> None:
    parsed = check_perf(GOOD + PerfLines(seed).some(600))
    assert parsed.page
    assert parsed.bio
    assert parsed.rejected
    assert any(row["stack"] for row in parsed.page)


def test_blocks_of_any_size_give_the_same() -> None:
    """Samples, chains and losses across the borders of blocks."""
    for seed, block_bytes in enumerate((3300, 4099, 5000, 9001), 100):
        check_perf(GOOD + PerfLines(seed).some(400), block_bytes)


@settings(max_examples=100)
@given(st.lists(st.sampled_from(PERF_OTHERS) | st.text(st.characters(max_codepoint=255), max_size=80), max_size=30))
def test_any_bytes(lines: list[str]) -> None:
    check_perf(GOOD + "\n".join(lines).encode("latin-1"))
