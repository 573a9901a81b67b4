"""Speed of importing blktrace records and blkparse text: the compiled passes alone, end to end with Parquet, and
blkparse on the same files where it is installed, in one run. Under other load the CPU time of the two threads tells
what two free cores would do: the slower of them is the speed.

``pytest tests/bench/bench_import_blktrace.py -m bench -s``
"""

from __future__ import annotations

import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import zstandard

from tests.blktrace_records import NOTIFY, decode, encode
from tracereplay.importers.base import BLOCK_BYTES
from tracereplay.importers.blkparse_reader import BlkparseReader
from tracereplay.importers.blktrace_reader import BlktraceReader
from tracereplay.importers.convert import import_trace
from tracereplay.importers.source import Source

pytestmark = pytest.mark.bench

SOURCE = Path(__file__).parents[1] / "data" / "blktrace" / "6.12"
COPIES = 1500


def shifted_copies(folder: Path, copies: int) -> int:
    """Write the recording again and again, each copy later than the one before; the number of records."""
    folder.mkdir()
    parts = {}
    for file in sorted(SOURCE.iterdir()):
        data = zstandard.ZstdDecompressor().decompressobj().decompress(file.read_bytes())
        parts[file.name.removesuffix(".zst")] = (data, decode(data))
    times = [r.time for _, records in parts.values() for r in records if not r.category & NOTIFY]
    span = max(times) - min(times) + 1
    total = 0
    for name, (data, records) in parts.items():
        ends = np.cumsum([len(encode(r)) for r in records])
        begins = np.concatenate([[0], ends[:-1]])
        events = np.array([not r.category & NOTIFY for r in records])
        when = np.array([r.time for r in records])
        numbers = np.array([r.sequence for r in records])
        body = np.frombuffer(data, np.uint8).copy()
        with (folder / name).open("wb") as out:
            for copy in range(copies):
                put(body, begins + 8, when + copy * span, 8)
                put(body, (begins + 4)[events], (numbers + copy * events.sum())[events], 4)
                out.write(body.tobytes())
        total += copies * len(records)
    return total


def put(body: np.ndarray, places: np.ndarray, values: np.ndarray, width: int) -> None:
    """Write little-endian numbers at places."""
    body[places[:, None] + np.arange(width)] = values.astype(f"<u{width}").view(np.uint8).reshape(-1, width)


def seconds(run: Callable[[], object]) -> float:
    """Wall time of one call."""
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def exhaust(reader: BlktraceReader | BlkparseReader) -> None:
    """Parse all of a source and drop the rows."""
    for _ in reader.chunks(lambda _n: None):
        pass


def report(what: str, n: int, wall: float) -> None:
    print(f"{what:<34}{n / wall / 1e6:7.2f} M/s")


def test_blktrace_speed(tmp_path: Path) -> None:
    folder = tmp_path / "recording"
    records = shifted_copies(folder, COPIES)
    size = sum(file.stat().st_size for file in folder.iterdir())
    import_trace(SOURCE, tmp_path / "warm.trace")  # compiles, or loads compiled code
    print(f"\n{records:,} records in {len(list(folder.iterdir()))} files, {size / 1e6:.0f} MB")

    def parse() -> None:
        with Source(folder) as source:
            exhaust(BlktraceReader(source, BLOCK_BYTES))

    alone = min(seconds(parse) for _ in range(3))
    report("read, hash, merge and decode", records, alone)
    cpu, writing = time.process_time(), time.thread_time()
    wall = seconds(lambda: import_trace(folder, tmp_path / "out.trace"))
    cpu, writing = time.process_time() - cpu, time.thread_time() - writing
    report("end to end", records, wall)
    report("the thread that parses, CPU", records, cpu - writing)
    report("the thread that writes, CPU", records, writing)
    if shutil.which("blkparse"):
        command = ["blkparse", "-q", "-i", "sda", "-i", "dm-0", "-o", str(tmp_path / "text.txt")]
        theirs = seconds(lambda: subprocess.run(command, cwd=folder, check=True, capture_output=True))
        report("blkparse, text", records, theirs)
        print(f"end to end is {theirs / wall:.1f} times as fast as blkparse")


def test_blkparse_speed(tmp_path: Path) -> None:
    packed = SOURCE.with_name("6.12.blkparse.txt.zst")
    text = zstandard.ZstdDecompressor().decompressobj().decompress(packed.read_bytes())
    lines = [line for line in text.partition(b"CPU0 (")[0].splitlines(keepends=True) if line.strip()]
    source = tmp_path / "text.txt"
    with source.open("wb") as out:
        for copy in range(COPIES // 5):
            for line in lines:
                out.write(line[:20] + b"%5d" % (int(line[20:25]) + 10 * copy) + line[25:])
    n = len(lines) * (COPIES // 5)
    import_trace(packed, tmp_path / "warm.trace")
    print(f"\n{n:,} lines, {source.stat().st_size / 1e6:.0f} MB of text")

    def parse() -> None:
        with Source(source) as opened:
            exhaust(BlkparseReader(opened, BLOCK_BYTES))

    report("parse", n, min(seconds(parse) for _ in range(3)))
    report("end to end", n, seconds(lambda: import_trace(source, tmp_path / "out.trace")))
