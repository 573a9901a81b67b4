"""Import speed: the compiled parser alone, end to end with Parquet, and against the regex reference, in one run.

ftrace text, the same events as perf script prints them (without and with call chains), and as bpftrace's records.

``pytest tests/bench/bench_import.py -m bench -s``
"""

from __future__ import annotations

import re
import time
from pathlib import Path

import numpy as np
import pytest

from tests.reference.ftrace_reference import Reference
from tracereplay.importers import ftrace_state as st
from tracereplay.importers.base import BLOCK_BYTES
from tracereplay.importers.blocks import PADDING
from tracereplay.importers.convert import import_trace
from tracereplay.importers.ftrace_blocks import FtraceBlocks
from tracereplay.importers.ftrace_parser import DONE, parse
from tracereplay.kernel.gfp import gfp_table

pytestmark = pytest.mark.bench

SOURCE = Path(__file__).parents[1] / "data" / "import" / "mix-6.18.ftrace.txt.zst"
LINES = 2_000_000


def shifted_copies(path: Path, lines: int) -> int:
    """Write the sample again and again, each copy later than the one before; the number of lines."""
    import zstandard

    text = zstandard.ZstdDecompressor().decompressobj().decompress(SOURCE.read_bytes())
    body = [line for line in text.splitlines(keepends=True) if not line.startswith(b"#")]
    cut = [line.index(b":", line.index(b"] ")) for line in body]
    times = [line[:at].rsplit(b" ", 1) for line, at in zip(body, cut, strict=True)]
    micros = [int(t[1].replace(b".", b"")) for t in times]
    span = max(micros) - min(micros) + 1
    written = 0
    with path.open("wb") as out:
        copy = 0
        while written < lines:
            for line, at, (head, _), us in zip(body, cut, times, micros, strict=True):
                later = us + copy * span
                out.write(b"%b %d.%06d%b" % (head, later // 10**6, later % 10**6, line[at:]))
            written += len(body)
            copy += 1
    return written


FTRACE_LINE = re.compile(rb"\s*(.*)-(\d+)\s+(?:\(\s*[-\d]+\)\s+)?(\[\d+\])\s+(?:\S+\s+)?(\d+\.\d+): (\w+): (.*)\n")
CHAIN = b"".join(
    b"\tffffffff8%07x %s+0x%x ([kernel.kallsyms])\n" % (address, name, offset)
    for address, name, offset in (
        (0x162184B, b"__alloc_frozen_pages_noprof", 0x26B),
        (0x165ADD6, b"alloc_pages_mpol", 0x86),
        (0x165B09C, b"alloc_pages_noprof", 0x4C),
        (0x16C93F8, b"anon_pipe_write", 0x1A8),
        (0x16BB758, b"vfs_write", 0x398),
        (0x21EF691, b"do_syscall_64", 0x71),
    )
)


def rewritten(source: Path, path: Path, form: str) -> int:
    """The events of an ftrace text in another form; the number of lines written."""
    written = 0
    with source.open("rb") as lines, path.open("wb") as out:
        for line in lines:
            match = FTRACE_LINE.match(line)
            assert match is not None
            comm, pid, cpu, time, name, rest = match.groups()
            system = b"block" if name.startswith(b"block") else b"kmem"
            if form == "bpftrace":
                text = b"%b-%b (%b) %b %b: %b: %b" % (comm, pid, pid, cpu, time, name, rest)
                out.write(b'{"type": "printf", "data": "%b\\n"}\n' % text)
                written += 1
            else:
                out.write(b"%16b %7b %b %12b: %27b: %b\n" % (comm, pid, cpu, time, system + b":" + name, rest))
                written += 1
                if form == "chains":
                    out.write(CHAIN + b"\n")
                    written += 7
    return written


def parse_seconds(blocks: FtraceBlocks, block: np.ndarray, end: int) -> float:
    """One call of the compiled parser over a block."""
    state = blocks._state
    for slot in (st.POSITION, st.PAGES, st.BIOS, st.MMS, st.REJECTS, st.SPECIALS, st.CLOSES, st.PATCHES):
        state.scalars[slot] = 0
    start = time.perf_counter()
    assert parse(block, end, state) == DONE
    return time.perf_counter() - start


def test_import_speed(tmp_path: Path) -> None:
    source = tmp_path / "mix.txt"
    lines = shifted_copies(source, LINES)
    size = source.stat().st_size
    import_trace(source, tmp_path / "warm.trace")  # compiles, or loads compiled code

    data = np.fromfile(source, np.uint8)
    blocks = FtraceBlocks(BLOCK_BYTES)
    end = int(np.flatnonzero(data[: BLOCK_BYTES - 1] == 10)[-1]) + 1
    block = np.zeros(end + PADDING, np.uint8)
    block[:end] = data[:end]
    in_block = int((block == 10).sum())
    parse_s = min(parse_seconds(blocks, block, end) for _ in range(5))

    wall, cpu = time.perf_counter(), time.process_time()
    imported = import_trace(source, tmp_path / "out.trace")
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    assert sum(imported.summary.events.values()) == lines
    assert imported.summary.rejected == 0

    few = block[:end].tobytes()[: 20_000 * 135].rpartition(b"\n")[0] + b"\n"
    start = time.perf_counter()
    parsed = Reference(gfp_table("6.12")).parse(few)
    reference = (len(parsed.page) + len(parsed.bio)) / (time.perf_counter() - start)

    print(f"\n{lines:,} lines, {size / 1e6:.0f} MB of text")
    print(f"parser kernel   {in_block / parse_s / 1e6:6.2f} M lines/s  {end / parse_s / 1e6:6.0f} MB/s")
    print(f"end to end      {lines / wall / 1e6:6.2f} M lines/s  {size / wall / 1e6:6.0f} MB/s")
    print(f"per CPU second  {lines / cpu / 1e6:6.2f} M lines/s")
    print(
        f"regex reference {reference / 1e6:6.3f} M lines/s; end to end is {lines / wall / reference:.0f} times as fast"
    )


def test_other_forms(tmp_path: Path) -> None:
    """The same events in ftrace's form and in others, one after the other."""
    source = tmp_path / "mix.txt"
    events = shifted_copies(source, LINES // 4)
    paths = {"ftrace": (source, events)}
    for form in ("perf", "chains", "bpftrace"):
        path = tmp_path / form
        paths[form] = path, rewritten(source, path, form)
    import_trace(source, tmp_path / "warm.trace")
    print(f"\n{events:,} events")
    for form, (path, lines) in paths.items():
        wall, cpu = time.perf_counter(), time.process_time()
        imported = import_trace(path, tmp_path / f"{form}.trace")
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
        assert sum(imported.summary.events.values()) == events
        assert imported.summary.rejected == 0
        size = path.stat().st_size
        print(
            f"{form:9} {lines / wall / 1e6:6.2f} M lines/s  {events / wall / 1e6:6.2f} M events/s  "
            f"{size / wall / 1e6:6.0f} MB/s  {lines / cpu / 1e6:6.2f} M lines per CPU second"
        )
