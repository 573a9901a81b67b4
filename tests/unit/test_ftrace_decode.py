"""From ring-buffer pages to the tables of a trace: fields by each kernel's formats, names of tasks, and exact loss."""

from __future__ import annotations

import os
import random
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from collectors.protocol import FrameType
from tests.ftrace_samples import ALL_PROBES, RINGS, Page, Stream, all_formats, event, hello, stats
from tests.kernel_formats import KERNELS
from tracereplay.errors import CollectorError
from tracereplay.trace import frames
from tracereplay.trace.decode import RingLayout
from tracereplay.trace.ftrace_decode import FtraceDecoder, kernel_losses
from tracereplay.trace.metadata import TraceMetadata
from tracereplay.trace.reader import Trace
from tracereplay.trace.recording import Recording
from tracereplay.trace.validate import validate_trace
from tracereplay.trace.writer import TraceWriter

FORMATS = all_formats("6.18")
IDS = {p["event"]: p["id"] for p in hello()["probes"]}
LAYOUTS = [RingLayout.from_hello(ring) for ring in hello()["rings"]]


def decoder(**changes: Any) -> FtraceDecoder:
    return FtraceDecoder(hello(**changes), LAYOUTS)


def alloc(pfn: int = 7, pid: int = 42, order: int = 0) -> bytes:
    values = {"pfn": pfn, "order": order, "gfp_flags": 0xCC0, "migratetype": 1}
    return event(FORMATS["kmem:mm_page_alloc"], IDS["kmem:mm_page_alloc"], values, pid)


def free(pfn: int = 7, pid: int = 42) -> bytes:
    return event(FORMATS["kmem:mm_page_free"], IDS["kmem:mm_page_free"], {"pfn": pfn, "order": 0}, pid)


def newtask(pid: int, maker: int, comm: bytes, *, thread: bool) -> bytes:
    values = {"pid": pid, "comm": comm, "clone_flags": 0x10000 if thread else 0x11}
    return event(FORMATS["task:task_newtask"], IDS["task:task_newtask"], values, maker)


def rename(pid: int, comm: bytes) -> bytes:
    values = {"pid": pid, "newcomm": comm, "oldcomm": b"before"}
    return event(FORMATS["task:task_rename"], IDS["task:task_rename"], values, pid)


def recorded(stream: Stream, folder: Path) -> Trace:
    path = folder / "stream.raw"
    path.write_bytes(stream.data)
    fd = os.open(path, os.O_RDONLY)
    try:
        writer = TraceWriter(folder / "trace", TraceMetadata(source={"kind": "capture", "format": "ebpf"}))
        Recording(writer).run(frames.read_packets(fd))
    finally:
        os.close(fd)
    return Trace.open(folder / "trace")


@pytest.mark.parametrize("kernel", KERNELS)
def test_every_event_of_every_kernel_fills_its_record_by_the_formats(kernel: str) -> None:
    """Each probe's event, with random fields, against the rules applied to the values as they went in."""
    rng = random.Random(kernel)
    greeting = hello(kernel)
    formats = all_formats(kernel)
    decoding = FtraceDecoder(greeting, LAYOUTS)
    page = Page(10**12)
    expected = []
    for kind, told in enumerate(greeting["probes"]):
        fmt = formats[told["event"]]
        values: dict[str, Any] = {}
        for field in fmt.fields.values():
            if field.name.startswith("common_"):
                continue
            values[field.name] = (
                rng.choice([b"WS\0", b"RA"]) if field.array else rng.randrange(1 << (8 * field.size - 1))
            )
        pid = rng.randrange(1 << 22)
        page.event(10, event(fmt, told["id"], values, pid, fill=0xEE))
        expected.append((kind, told, values, pid))
    decoding.feed(3, page.bytes(cut=True), 0)
    slabs = decoding.take()
    assert {cpu for _, cpu in slabs} == {3}
    assert len(expected) == len([p for p in ALL_PROBES if p.event in formats])
    for kind, told, values, pid in expected:
        layout = LAYOUTS[told["ring"]]
        records = slabs[told["ring"], 3].view(layout.dtype)
        (record,) = records[records["kind"] == kind]
        wanted: dict[str, Any] = dict.fromkeys((f.name for f in RINGS[told["ring"]].fields), 0)
        wanted.update(ts=10**12 + 10 * (kind + 1), kind=kind, pid=pid)
        for target, source in told["copy"].items():
            if source.rstrip("?") in values:
                wanted[target] = values[source.rstrip("?")]
        for rule in told["packed"]:
            if rule["source"] in values:
                value = values[rule["source"]]
                wanted[rule["target"]] |= (int(value != 0) if rule["mask"] == 1 else value & rule["mask"]) << rule[
                    "shift"
                ]
        wanted.pop("tgid", None)
        for field in RINGS[told["ring"]].fields:
            if field.name not in wanted:
                continue
            got = record[field.name]
            if field.base == "char":
                text = wanted[field.name] or b""
                assert bytes(got) == text.rstrip(b"\0"), (told["event"], field.name)
            else:
                mask = (1 << 8 * field.size) - 1
                assert int(got) & mask == wanted[field.name] & mask, (told["event"], field.name)


def test_cpus_are_merged_by_time_and_the_trace_validates(tmp_path: Path) -> None:
    stream = Stream()
    stream.json(FrameType.STATUS, {"event": "started", "started_ns": 1000, "cost": {"cpu_seconds": 0.1}})
    stream.pages(0, Page(2000).event(0, alloc(1)).event(20, free(1)))
    stream.pages(1, Page(2005).event(0, alloc(2)).event(10, free(2)), floor=1500)
    stream.pages(0, Page(2100).event(5, alloc(3)), floor=2050)
    stream.close({"0": stats(3), "1": stats(2)})
    trace = recorded(stream, tmp_path)
    rows = trace.page_events.select("ts_ns", "cpu", pl.col("kind").cast(pl.String), "pfn", "pid", "gfp").collect()
    assert rows.rows() == [
        (2000, 0, "alloc", 1, 42, 0xCC0),
        (2005, 1, "alloc", 2, 42, 0xCC0),
        (2015, 1, "free", 2, 42, None),
        (2020, 0, "free", 1, 42, None),
        (2105, 0, "alloc", 3, 42, 0xCC0),
    ]
    assert validate_trace(trace).ok
    assert trace.metadata.source["tracer"] == "tracefs"
    assert trace.metadata.source["format"] == "tracefs"
    assert trace.metadata.loss["by_class"] == {}
    assert any("the kernel refuses bpf()" in note for note in trace.metadata.notes)


def test_a_failed_allocation_is_one(tmp_path: Path) -> None:
    stream = Stream().pages(0, Page(2000).event(0, alloc(-1, order=9))).close({"0": stats(1)})
    rows = recorded(stream, tmp_path).page_events.select(pl.col("kind").cast(pl.String), "pfn", "order").collect()
    assert rows.rows() == [("alloc_failed", None, 9)]


def test_names_of_tasks_come_from_proc_from_births_and_from_renames(tmp_path: Path) -> None:
    stream = Stream()
    scan = [[10, 10, "shell"], [11, 10, "shell-thread"], [2, 2, "kthreadd"]]
    stream.json(FrameType.STATUS, {"event": "tasks", "t_ns": 500, "tasks": scan, "ftrace": {}})
    # A process of a thread, and a thread of that process made on the other CPU; the pages come the other way round.
    stream.pages(1, Page(3000).event(0, newtask(21, 20, b"child", thread=True)))
    stream.pages(0, Page(2000).event(0, newtask(20, 11, b"shell-thread", thread=False)).event(50, rename(20, b"child")))
    stream.close({"0": stats(2), "1": stats(1)})
    trace = recorded(stream, tmp_path)
    rows = trace.tasks.select("pid", "tgid", "comm", "first_ns", "last_ns").filter(pl.col("pid") > 0).collect()
    assert sorted(rows.rows()) == [
        (2, 2, "kthreadd", 500, None),
        (10, 10, "shell", 500, None),
        (11, 10, "shell-thread", 500, None),
        (20, 20, "child", 2050, None),
        (20, 20, "shell-thread", 2000, 2050),
        (21, 20, "child", 3000, None),
    ]


def losses(decoding: FtraceDecoder) -> list[tuple[Any, ...]]:
    out = [(x.table, x.cpu, x.t0_ns, x.t1_ns, x.n, x.cls) for x in decoding.losses]
    decoding.losses.clear()
    return out


def test_a_page_that_says_how_many_makes_a_row_between_the_neighbours() -> None:
    decoding = decoder()
    decoding.feed(0, Page(100).event(1, alloc()).bytes(cut=True), 0)
    decoding.feed(0, Page(500).lost(17).event(2, alloc()).event(1, alloc()).bytes(cut=True), 0)
    decoding.feed(1, Page(90).lost(3).event(0, alloc()).bytes(cut=True), 0)
    decoding.take()
    assert losses(decoding) == [("all", 0, 101, 502, 17, "overwritten"), ("all", 1, None, 90, 3, "overwritten")]
    assert decoding.totals() == {"seen": 4, "lost": 20}


def test_a_gap_may_begin_in_one_frame_and_end_in_a_later_one() -> None:
    decoding = decoder()
    decoding.feed(0, Page(100).event(1, alloc()).bytes(cut=True), 0)
    decoding.feed(0, Page(500).lost(17).extend(5).bytes(cut=True), 0)
    decoding.take()
    assert losses(decoding) == []
    decoding.feed(0, Page(700).event(2, alloc()).bytes(cut=True), 0)
    decoding.take()
    assert losses(decoding) == [("all", 0, 101, 702, 17, "overwritten")]


def test_gaps_of_unknown_size_are_settled_by_the_counter_of_an_emptied_buffer() -> None:
    decoding = decoder()
    decoding.feed(0, Page(100).event(1, alloc()).bytes(), 0)
    decoding.feed(0, Page(500).lost(-1).event(2, alloc()).bytes(cut=True), 0)
    decoding.take()
    overrun = {"event": "overrun", "ftrace": {"0": stats(2, 40)}}
    decoding.status({**overrun, "emptied": []}, 600)
    assert losses(decoding) == []  # the buffer may have been overwritten again: not yet certain
    decoding.status({**overrun, "emptied": ["0"]}, 600)
    assert losses(decoding) == [("all", 0, 101, 502, 40, "overwritten")]
    decoding.feed(0, Page(600).lost(-1).event(0, alloc()).bytes(), 0)
    decoding.feed(0, Page(700).lost(5).event(0, alloc()).bytes(), 0)
    decoding.feed(0, Page(800).lost(-1).event(0, alloc()).bytes(), 0)
    decoding.take()
    decoding.close({"0": stats(5, 100)}, 9000)
    assert losses(decoding) == [
        ("all", 0, 600, 700, 5, "overwritten"),
        ("all", 0, 502, 800, 55, "overwritten"),
    ]
    assert decoding.notes == []


def test_what_the_kernel_refused_is_placed_between_two_looks() -> None:
    decoding = decoder()
    decoding.status({"event": "started", "ftrace": {"0": stats(0)}}, 1000)
    decoding.status({"event": "tick", "ftrace": {"0": stats(0, **{"dropped events": 4})}}, 2000)
    decoding.status({"event": "tick", "ftrace": {"0": stats(0, **{"dropped events": 4})}}, 3000)
    decoding.close({"0": stats(0, **{"dropped events": 4, "commit overrun": 2})}, 3500)
    assert losses(decoding) == [("all", 0, 1000, 2000, 4, "ring_full"), ("all", 0, 3000, 3500, 2, "ring_full")]


def test_the_sum_of_the_rows_is_the_kernels_count_whatever_is_left_at_the_end() -> None:
    decoding = decoder()
    decoding.feed(0, Page(100).lost(6).event(1, alloc()).bytes(cut=True), 0)
    decoding.feed(1, Page(100).lost(-1).extend(4).bytes(cut=True), 0)
    decoding.take()
    final = {"0": stats(4, 10, **{"commit overrun": 1}), "1": stats(0, 3)}
    decoding.close(final, 9000)
    rows = losses(decoding)
    by_class: dict[str, int] = {}
    for row in rows:
        by_class[row[5]] = by_class.get(row[5], 0) + row[4]
    assert by_class == {**kernel_losses(final), "reader": 3}
    assert ("all", 0, 101, 9000, 3, "reader") in rows
    assert decoding.notes == []


def test_what_does_not_add_up_is_said() -> None:
    decoding = decoder()
    decoding.feed(0, Page(100).lost(6).event(1, alloc()).event(1, alloc()).bytes(cut=True), 0)
    decoding.take()
    decoding.close({"0": stats(1, 5)}, 9000)
    assert [n.split(":")[0] for n in decoding.notes] == ["CPU 0", "CPU 0"]
    assert "6 overwritten" in decoding.notes[0]
    assert "2 events came, the kernel counts 1" in decoding.notes[1]


def test_losses_reach_the_trace_and_its_metadata(tmp_path: Path) -> None:
    stream = Stream()
    stream.json(FrameType.STATUS, {"event": "started", "started_ns": 1000, "cost": {"cpu_seconds": 0.1}, "ftrace": {}})
    stream.pages(0, Page(2000).event(0, alloc()), Page(2500).lost(11).event(0, free()))
    stream.close({"0": stats(2, 11)})
    trace = recorded(stream, tmp_path)
    rows = trace.loss.select("table", "cpu", "t0_ns", "t1_ns", "n", pl.col("class").cast(pl.String)).collect()
    assert rows.rows() == [("all", 0, 2000, 2500, 11, "overwritten")]
    assert trace.metadata.loss["by_class"] == {"overwritten": 11}
    assert validate_trace(trace).ok


def test_a_big_endian_host_is_refused() -> None:
    with pytest.raises(CollectorError, match="big-endian"):
        decoder(byteorder="big")


def test_an_event_that_hello_does_not_name_is_refused() -> None:
    decoding = decoder()
    decoding.feed(0, Page(1).event(1, event(FORMATS["kmem:mm_page_free"], 9999, {})).bytes(cut=True), 0)
    with pytest.raises(CollectorError, match="id 9999"):
        decoding.take()


def test_an_event_shorter_than_its_format_is_refused() -> None:
    decoding = decoder()
    decoding.feed(0, Page(1).event(1, alloc()[:16]).bytes(cut=True), 0)
    with pytest.raises(CollectorError, match="mm_page_alloc is shorter"):
        decoding.take()


def _without(name: str) -> dict[str, Any]:
    probes = hello()["probes"]
    probes[0] = {**probes[0], "format": probes[0]["format"].replace(f" {name};", " renamed;")}
    return {"probes": probes}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"ftrace": {}}, "hello is damaged"),
        ({"ftrace": {"header_page": "?", "buffer_bytes_per_cpu": 1}}, "no field"),
        (_without("pfn"), "no field pfn"),
        (_without("common_type"), "begin with their type"),
        (_without("common_pid"), "no field common_pid"),
        ({"probes": [{**hello()["probes"][0], "copy": {"nothing": "pfn"}}]}, "has no field nothing"),
        ({"probes": [{**hello()["probes"][0], "ring": 99}]}, "hello is damaged"),
    ],
)
def test_a_hello_that_does_not_fit_is_refused(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(CollectorError, match=words):
        decoder(**changes)


@pytest.mark.parametrize(
    "value", [{"event": "tasks"}, {"event": "tick", "ftrace": {"x": {}}}, {"ftrace": {"0": {"commit overrun": "?"}}}]
)
def test_a_damaged_status_is_refused(value: dict[str, Any]) -> None:
    with pytest.raises(CollectorError, match="status frame"):
        decoder().status(value, 1)


def test_pages_before_a_hello_that_announces_them_are_refused(tmp_path: Path) -> None:
    stream = Stream(hello(tracer="ebpf")).pages(0, Page(1).event(1, alloc()))
    with pytest.raises(CollectorError, match="does not announce"):
        recorded(stream, tmp_path)
