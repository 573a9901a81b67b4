"""Compare the import of blktrace files with what an installed blkparse says of them, line for line.

``python tests/reference/compare_blkparse.py DIRECTORY``, where DIRECTORY holds DEVICE.blktrace.CPU files, plain or
compressed with zstd. blkparse up to 1.2 refuses records with a cgroup's id: it is given copies without them.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import zstandard

from tests.blktrace_records import Record, decode, encode, line_row, row
from tracereplay.importers.convert import import_trace
from tracereplay.trace.reader import Trace


def blkparse_lines(folder: Path) -> list[str]:
    """Event lines of blkparse for all devices of a directory."""
    with tempfile.TemporaryDirectory() as copies:
        devices = set()
        for file in sorted(folder.glob("*.blktrace.*")):
            data = file.read_bytes()
            if file.suffix == ".zst":
                data = zstandard.ZstdDecompressor().decompressobj().decompress(data)
            name = file.name.removesuffix(".zst")
            devices.add(name.partition(".blktrace.")[0])
            plain = b"".join(encode(replace(r, cgroup=None)) for r in decode(data))
            Path(copies, name).write_bytes(plain)
        inputs = [word for device in sorted(devices) for word in ("-i", device)]
        done = subprocess.run(["blkparse", "-q", *inputs], cwd=copies, capture_output=True, check=True)
    return done.stdout.decode("utf-8", "replace").splitlines()


def compare(folder: Path) -> int:
    """Number of differing rows; the first few are printed."""
    lines = [line for line in blkparse_lines(folder) if re.match(r" *\d+,\d+ ", line)]
    said = [found for line in lines if (found := line_row(line))]
    with tempfile.TemporaryDirectory() as out:
        result = import_trace(folder, Path(out, "trace"))
        columns = list(row(Record(1, 0)) or ())
        got = Trace.open(result.path).bio_events.collect().select(columns).to_dicts()
    begin = min(r["ts_ns"] for r in got)
    for mine in got:
        mine["ts_ns"] -= begin
        mine["kind"] = mine["kind"].removeprefix("bio_")
    for found in (got, said):  # events of one nanosecond have no order between devices
        found.sort(key=lambda r: (r["ts_ns"], r["dev"], r["kind"]))
    different = abs(len(got) - len(said))
    for mine, theirs in zip(got, said, strict=False):
        if theirs["sector"] is None:
            mine["sector"] = None
        if {name: mine[name] for name in theirs} != theirs:
            different += 1
            if different <= 5:
                print(f"import   {mine}\nblkparse {theirs}")
    print(f"{len(got)} rows, {len(said)} lines of blkparse, {different} differ")
    return different


if __name__ == "__main__":
    sys.exit(1 if compare(Path(sys.argv[1])) else 0)
