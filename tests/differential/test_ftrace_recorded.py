"""Real pages of other kernels: every row of the trace against a slow reader that knows nothing of the fast one."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import zstandard

from collectors.tracepoints import Format, parse_format
from tests.reference.slow_ftrace import read_page
from tracereplay.trace import frames
from tracereplay.trace.metadata import TraceMetadata
from tracereplay.trace.reader import Trace
from tracereplay.trace.recording import Recording
from tracereplay.trace.validate import validate_trace
from tracereplay.trace.writer import TraceWriter

DATA = Path(__file__).parents[1] / "data" / "ftrace"
SAMPLES = sorted(path.name for path in DATA.glob("*.zst"))
PAGE = 4096


class Sample:
    """A recorded stream, its messages, and the trace made of it."""

    def __init__(self, name: str, folder: Path) -> None:
        self.path = folder / "stream"
        self.path.write_bytes(zstandard.ZstdDecompressor().decompress((DATA / name).read_bytes(), 1 << 24))
        packets = self.packets()
        messages = [p for p in packets if isinstance(p, frames.Message)]
        self.hello = next(m.value for m in messages if m.type == frames.HELLO)
        self.closing = messages[-1].value
        self.blobs = [blob for p in packets if isinstance(p, frames.Batches) for blob in p.pages]
        fd = os.open(self.path, os.O_RDONLY)
        try:
            writer = TraceWriter(folder / "trace", TraceMetadata(source={"kind": "capture", "format": "ebpf"}))
            Recording(writer).run(frames.read_packets(fd))
        finally:
            os.close(fd)
        self.trace = Trace.open(folder / "trace")

    def packets(self) -> list[frames.Packet]:
        fd = os.open(self.path, os.O_RDONLY)
        try:
            return list(frames.read_packets(fd))
        finally:
            os.close(fd)

    def events(self) -> list[tuple[int, int, dict[str, Any], dict[str, Any]]]:
        """(time, CPU, its probe in hello, fields by the format) of every event, by the slow reader."""
        by_id = {p["id"]: (p, parse_format(p["format"])) for p in self.hello["probes"]}
        found = []
        for blob in self.blobs:
            for at in range(0, len(blob.payload), PAGE):
                page = bytes(blob.payload[at : at + PAGE]).ljust(PAGE, b"\0")
                for ts, data in read_page(page).events:
                    probe, fmt = by_id[int.from_bytes(data[:2], "little")]
                    found.append((ts, blob.cpu, probe, _fields(fmt, data)))
        return found


def _fields(fmt: Format, data: bytes) -> dict[str, Any]:
    out: dict[str, Any] = {}
    for field in fmt.fields.values():
        raw = data[field.offset : field.offset + field.size]
        out[field.name] = raw.split(b"\0")[0] if field.array else int.from_bytes(raw, "little", signed=field.signed)
    return out


@pytest.fixture(scope="module", params=SAMPLES)
def sample(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Sample:
    """One of the recorded streams."""
    return Sample(request.param, tmp_path_factory.mktemp("sample"))


def test_page_events_are_those_of_the_slow_reader(sample: Sample) -> None:
    wanted = []
    for ts, cpu, probe, f in sample.events():
        if not probe["event"].startswith("kmem:"):
            continue
        gfp = f["gfp_flags"] if probe["kind"] == "alloc" else None
        order = f.get("order")
        typed = f.get("migratetype")
        wanted.append((ts, cpu, probe["kind"], f["pfn"], order, gfp, typed, f["common_pid"], _refill(probe, f)))
    columns = ["ts_ns", "cpu", pl.col("kind").cast(pl.String), "pfn", "order", "gfp", "migratetype", "pid"]
    got = sample.trace.page_events.select(*columns, "percpu_refill").collect().rows()
    key = str
    assert sorted(got, key=key) == sorted(wanted, key=key)
    assert [row[0] for row in got] == sorted(row[0] for row in got)


def _refill(probe: dict[str, Any], fields: dict[str, Any]) -> bool | None:
    return bool(fields["percpu_refill"]) if probe["kind"] == "zone_locked" else None


def test_bio_events_are_those_of_the_slow_reader(sample: Sample) -> None:
    wanted = [
        (ts, cpu, p["kind"], f["dev"], f["sector"], f["nr_sector"], f["rwbs"].decode(), f["common_pid"], f.get("error"))
        for ts, cpu, p, f in sample.events()
        if p["event"].startswith("block:")
    ]
    text = [pl.col("kind").cast(pl.String), "dev", "sector", "nr_sectors", pl.col("flags").cast(pl.String)]
    got = sample.trace.bio_events.select("ts_ns", "cpu", *text, "pid", "error").collect().rows()
    assert sorted(got, key=str) == sorted(wanted, key=str)
    assert len(got) > 50


def test_the_accounts_add_up_to_the_kernels(sample: Sample) -> None:
    stats = sample.closing["ftrace"]
    assert len(sample.events()) == sum(c["read events"] for c in stats.values())
    overrun = sum(c["overrun"] for c in stats.values())
    loss = sample.trace.loss.select("n", "t0_ns", "t1_ns", pl.col("class").cast(pl.String)).collect()
    assert int(loss["n"].sum()) == overrun
    assert sample.trace.metadata.loss["by_class"] == ({"overwritten": overrun} if overrun else {})
    assert not [note for note in sample.trace.metadata.notes if note.startswith("CPU ")]
    assert (loss["t0_ns"] < loss["t1_ns"]).all()


def test_gaps_lie_between_events_of_their_cpu(sample: Sample) -> None:
    loss = sample.trace.loss.select("cpu", "t0_ns", "t1_ns").collect().rows()
    times: dict[int, set[int]] = {}
    for ts, cpu, _, _ in sample.events():
        times.setdefault(cpu, set()).add(ts)
    for cpu, t0, t1 in loss:
        assert {t0, t1} <= times[cpu]


def test_tasks_have_their_process_and_the_bundle_validates(sample: Sample) -> None:
    tasks = sample.trace.tasks.collect()
    births = [f for _, _, p, f in sample.events() if p["event"] == "task:task_newtask"]
    assert births
    for f in births:
        row = tasks.filter((pl.col("pid") == f["pid"]) & (pl.col("comm") == f["comm"].decode()))
        assert len(row) >= 1
        if not f["clone_flags"] & 0x10000:
            assert set(row["tgid"].to_list()) == {f["pid"]}
    seen = {f["common_pid"] for _, _, p, f in sample.events() if p["group"] != "task"}
    if not any(c["overrun"] for c in sample.closing["ftrace"].values()):
        assert seen <= set(tasks["pid"].to_list())
    assert validate_trace(sample.trace).ok


def test_the_samples_are_of_two_kernels_one_with_losses(tmp_path: Path) -> None:
    lossy = {}
    for name in SAMPLES:
        folder = tmp_path / name
        folder.mkdir()
        sample = Sample(name, folder)
        lossy[sample.hello["host"]["release"][:4]] = sum(c["overrun"] for c in sample.closing["ftrace"].values())
    assert set(lossy) == {"6.1.", "6.12"}
    assert lossy["6.1."] == 0
    assert lossy["6.12"] > 500
