"""Power cuts: after every file operation of a writer, what a disk may hold then opens and validates.

The operations are recorded while a writer runs. A disk keeps data of a file from its fsync on and names of a
directory from the directory's fsync on; everything later it may keep or lose. Three such disks are looked at
after each operation: one that keeps only what it must, one that keeps all names and no unsynced data, and one
that keeps everything (the process was killed, the power stayed on).
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.trace_samples import metadata, page_batch, rows_batch
from tracereplay import Trace, TraceWriter
from tracereplay.errors import TraceNotFoundError
from tracereplay.trace.flight import FlightRecorder
from tracereplay.trace.manifest import MANIFEST_NAME
from tracereplay.trace.validate import validate_trace

SECOND = 1_000_000_000
ROWS = 40
MODELS = ("least", "names", "all")


class Disk:
    """Records operations below a directory, and rebuilds what the disk may hold after each of them."""

    def __init__(self, root: Path, keep: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.root = root
        self.points: list[tuple[str, Callable[[], None]]] = []
        self.on_point: Callable[[str], None] = lambda _name: None
        self._keep = keep
        self._data: dict[int, bytes] = {}
        self._names: dict[int, dict[str, int]] = {root.stat().st_ino: {}}
        self._directories = {root.stat().st_ino}
        keep.mkdir()
        for name in ("fsync", "rename", "replace", "unlink", "mkdir"):
            monkeypatch.setattr(os, name, self._wrap(name, getattr(os, name)))

    def _wrap(self, name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **more: Any) -> Any:
            result = None if name == "fsync" else real(*arguments, **more)  # this disk is a model
            where = Path(f"/proc/self/fd/{arguments[0]}").readlink() if name == "fsync" else Path(arguments[0])
            if where.is_relative_to(self.root):
                if name == "fsync":
                    self._synced(where)
                self.on_point(f"{name} {where.relative_to(self.root)}")
            return result

        return call

    def _synced(self, path: Path) -> None:
        inode = path.stat().st_ino
        if path.is_dir():
            self._names[inode] = {p.name: p.stat().st_ino for p in path.iterdir()}
            self._directories |= {p.stat().st_ino for p in path.iterdir() if p.is_dir()}
        else:
            self._data[inode] = path.read_bytes()
            link = self._keep / str(inode)
            if not link.exists():  # a removed file's inode must not be used again
                os.link(path, link)

    def held(self, model: str) -> dict[str, bytes | None]:
        """What a disk of this kind holds now: files, and directories (None)."""
        if model == "least":
            return dict(self._least(self.root.stat().st_ino, ""))
        found: dict[str, bytes | None] = {}
        for path in sorted(self.root.rglob("*")):
            name = str(path.relative_to(self.root))
            if path.is_dir():
                found[name] = None
            else:
                found[name] = path.read_bytes() if model == "all" else self._data.get(path.stat().st_ino, b"")
        return found

    def _least(self, inode: int, prefix: str) -> Iterator[tuple[str, bytes | None]]:
        for name, child in self._names.get(inode, {}).items():
            if child in self._directories:
                yield prefix + name, None
                yield from self._least(child, f"{prefix}{name}/")
            else:
                yield prefix + name, self._data.get(child, b"")


ALLOWED = {"incomplete", "unfinished-file", "not-listed", "dropped-file", "empty"}


class Checked:
    """Checks every disk after every operation."""

    def __init__(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        root = tmp_path / "disk"
        root.mkdir()
        self.path = root / "t"
        self.disk = Disk(root, tmp_path / "keep", monkeypatch)
        self.disk.on_point = self.check
        self.written: list[int] = []
        self.safe_from = 0
        """Events from this one on and ..."""
        self.safe_to = 0
        """... before this one must be there."""
        self.complete = False
        self.points = 0
        self._seen: dict[str, Any] = {}
        self._tmp = tmp_path

    def check(self, operation: str) -> None:
        self.points += 1
        for model in MODELS:
            held = self.disk.held(model)
            state = (held, self.safe_from, self.safe_to, self.complete)
            if self._seen.get(model) == state:
                continue
            self._seen[model] = state
            target = self._tmp / "rebuilt"
            saved, self.disk.on_point = self.disk.on_point, lambda _name: None
            target.mkdir()
            for name, data in held.items():
                if data is None:
                    (target / name).mkdir()
                else:
                    (target / name).write_bytes(data)
            self._look(target / "t", f"{model} after {operation}")
            shutil.rmtree(target)
            self.disk.on_point = saved

    def _look(self, path: Path, what: str) -> None:
        try:
            trace = Trace.open(path)
        except TraceNotFoundError:
            assert self.safe_to == self.safe_from, what
            return
        report = validate_trace(trace)
        assert report.ok, (what, report.errors)
        assert {f.code for f in report.findings} <= ALLOWED, what
        times = [t for b in trace.batches("page_events", ["ts_ns"]) for t in b.column(0).to_pylist()]
        # A run of what was written, without a hole, with at least what was promised.
        first = self.written.index(times[0]) if times else self.safe_to
        assert times == self.written[first : first + len(times)], what
        if self.safe_from < self.safe_to:
            assert first <= self.safe_from, what
            assert first + len(times) >= self.safe_to, what
        if self.complete:
            assert trace.complete, what


@pytest.fixture
def checked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Checked:
    return Checked(tmp_path, monkeypatch)


def task(number: int) -> dict[str, Any]:
    return {"pid": number, "comm": "c", "first_ns": number}


def test_every_prefix_of_a_plain_trace(checked: Checked) -> None:
    writer = TraceWriter(checked.path, metadata(), rotate_rows=3 * ROWS, row_group_rows=ROWS)
    last = 0
    for number in range(10):
        batch = page_batch(ROWS, seed=number, start_ns=last + 1)
        last = batch.column("ts_ns")[-1].as_py()
        checked.written += batch.column("ts_ns").to_pylist()
        writer.write("page_events", batch)
        writer.write("tasks", rows_batch("tasks", [task(number)]))
        if number % 4 == 3:
            writer.rotate()
            checked.safe_to = len(checked.written)
    writer.finish()
    checked.safe_to = len(checked.written)
    checked.complete = True
    checked.check("the end")
    assert checked.points > 30


def test_every_prefix_of_a_flight_recorder(checked: Checked) -> None:
    """Dropping is where a wrong order would show: a file that is listed and gone, or read twice."""
    writer = TraceWriter(checked.path, metadata(), row_group_rows=ROWS)
    window = 3 * SECOND // 10
    flight = FlightRecorder(writer, window)
    writer.on_rows = flight.on_rows
    memory = {"source": "vmstat", "name": "nr_free_pages", "value": 7}
    writer.write("snapshots", rows_batch("snapshots", [{"ts_ns": 1, "phase": "start", **memory}]))
    now = 0
    flight.on_time(now)
    for number in range(1, 13):
        start, now = now, number * SECOND // 10
        batch = page_batch(ROWS, seed=number, start_ns=start)
        checked.written += batch.column("ts_ns").to_pylist()
        writer.write("page_events", batch)
        gap = {"t0_ns": start, "t1_ns": now - 1, "table": "page_events", "cpu": 0, "n": 1, "class": "ring_full"}
        writer.write("loss", rows_batch("loss", [gap]))
        if number % 4 == 0:
            writer.write("snapshots", rows_batch("snapshots", [{"ts_ns": now - 1, "phase": "tick", **memory}]))
        # What is older than the window may go from now on.
        checked.safe_from = sum(t < now - window for t in checked.written)
        flight.on_time(now)
        checked.safe_to = len(checked.written)
    writer.write("tasks", rows_batch("tasks", [task(1), task(2)]))
    flight.freeze(now, "asked")
    writer.finish()
    checked.complete = True
    checked.check("the end")
    assert checked.points > 150
    trace = Trace.open(checked.path)
    assert "start" in trace.snapshots.collect()["phase"].cast(str).to_list()
    assert not list(checked.path.rglob("*.tmp"))


def test_leftovers_are_named_and_not_read(tmp_path: Path) -> None:
    """A power cut between the manifest and the removal of a dropped file, and one while a file was written."""
    writer = TraceWriter(tmp_path / "t", metadata())
    for number in range(3):
        writer.write("page_events", page_batch(ROWS, seed=number, start_ns=number * SECOND))
        writer.rotate()
    oldest = writer.files("page_events")[0].file
    data = (tmp_path / "t" / oldest).read_bytes()
    writer.drop([oldest])
    writer.finish()
    (tmp_path / "t" / oldest).write_bytes(data)
    (tmp_path / "t" / "page_events" / "part-000003.parquet.tmp").write_bytes(b"PAR1")
    (tmp_path / "t" / f"{MANIFEST_NAME}.tmp").write_bytes(b"{")
    trace = Trace.open(tmp_path / "t")
    assert trace.rows("page_events") == 2 * ROWS
    report = validate_trace(trace)
    assert report.ok
    assert {(f.code, f.where) for f in report.findings} == {
        ("dropped-file", oldest),
        ("unfinished-file", "page_events/part-000003.parquet.tmp"),
        ("unfinished-file", f"{MANIFEST_NAME}.tmp"),
    }


def test_a_file_that_is_missing_is_still_an_error_after_a_drop(tmp_path: Path) -> None:
    writer = TraceWriter(tmp_path / "t", metadata())
    for number in range(4):
        writer.write("page_events", page_batch(ROWS, seed=number, start_ns=number * SECOND))
        writer.rotate()
    files = [e.file for e in writer.files("page_events")]
    writer.drop(files[:1])
    writer.finish()
    (tmp_path / "t" / files[2]).unlink()
    report = validate_trace(Trace.open(tmp_path / "t"))
    assert ("damaged", files[2]) in {(f.code, f.where) for f in report.errors}


def test_numbers_beyond_six_digits_keep_their_order(tmp_path: Path) -> None:
    """A recorder that cuts twice a second comes to a million files in six days."""
    writer = TraceWriter(tmp_path / "t", metadata())
    writer._count["page_events"] = 999_999
    writer._manifest.dropped_below["page_events"] = 999_999
    for number in range(3):
        writer.write("page_events", page_batch(ROWS, seed=number, start_ns=number * SECOND))
        writer.rotate()
    writer.finish()
    trace = Trace.open(tmp_path / "t")
    assert [p.path.name for p in trace.files["page_events"]] == [
        f"part-{n}.parquet" for n in (999_999, 1_000_000, 1_000_001)
    ]
    times = [t for b in trace.batches("page_events", ["ts_ns"]) for t in b.column(0).to_pylist()]
    assert times == sorted(times)
    assert not validate_trace(trace).findings
