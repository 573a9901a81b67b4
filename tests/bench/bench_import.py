"""Import speed: the compiled parser alone, end to end with Parquet, and against the regex reference, in one run.

``pytest tests/bench/bench_import.py -m bench -s``
"""

from __future__ import annotations

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
