"""Timelines: held to the Trace Event Format, event by event, and to what the trace says."""

from __future__ import annotations

import io
import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from tests.unit.test_export import DISK, UPPER, alloc, bio, trace_of
from tracereplay.analysis.selection import Selection
from tracereplay.analysis.view import View
from tracereplay.export import perfetto_tracks
from tracereplay.export.perfetto import DEVICES, LOST, PAGES, write_timeline
from tracereplay.trace.reader import Trace

REQUIRED = {
    "M": {"name", "pid", "args"},
    "C": {"name", "pid", "ts", "args"},
    "i": {"name", "pid", "tid", "ts", "s"},
    "X": {"name", "pid", "tid", "ts", "dur"},
    "b": {"name", "cat", "id", "pid", "tid", "ts"},
    "e": {"name", "cat", "id", "pid", "tid", "ts"},
}
"""Fields by phase: "Trace Event Format", Google."""


def sample(path: Path) -> Trace:
    pages = [alloc(1_000 + i, i % 3, 1) for i in range(8)] + [alloc(2_000, 0, 1, "free")]
    lower = bio(20_000, "W", 108, 8)
    bios = [
        bio(10_000, "W", 8, 8, dev=UPPER),
        {**bio(15_000, "W", 108, 8, kind="remap"), "old_dev": UPPER, "old_sector": 8},
        lower,
        {**lower, "ts_ns": 21_000, "kind": "issue", "nr_bytes": 4096},
        {**lower, "ts_ns": 31_500, "kind": "complete", "error": 0},
        bio(32_000, "W", 8, 8, dev=UPPER, kind="bio_complete"),
        bio(40_000, "R", 8, 8, dev=UPPER),
    ]
    stalls = [
        {"ts_ns": 5_000, "cpu": 1, "kind": "reclaim_begin", "pid": 7, "order": 2, "gfp": 0},
        {"ts_ns": 9_250, "cpu": 1, "kind": "reclaim_end", "pid": 7, "result": 32},
        {"ts_ns": 9_300, "cpu": 1, "kind": "reclaim_begin", "pid": 8},
    ]
    return trace_of(
        path,
        page_events=pages,
        bio_events=bios,
        mm_events=stalls,
        loss=[
            {"t0_ns": 1_500, "t1_ns": 1_900, "table": "all", "cpu": 1, "n": 7, "class": "ring_full"},
            {"t0_ns": None, "t1_ns": 1_700, "table": "all", "cpu": 0, "n": None, "class": "reported"},
        ],
        tasks=[{"pid": 7, "tgid": 5, "comm": 'a "quoted" name\\', "cgroup": "/x"}],
        stacks=[{"stack_id": 1, "depth": 0, "address": 1, "symbol": "do_fault"}],
    )


def timeline(trace: Trace, **selected: Any) -> tuple[list[dict[str, Any]], list[str]]:
    out = io.BytesIO()
    done = write_timeline(View(trace, Selection(**selected)), out)
    document = json.loads(out.getvalue(), parse_constant=lambda text: pytest.fail(text))
    assert set(document) == {"traceEvents", "displayTimeUnit", "otherData"}
    assert document["displayTimeUnit"] == "ns"
    for event in document["traceEvents"]:
        assert REQUIRED[event["ph"]] <= event.keys(), event
        assert event.get("ts", 0) >= 0
        assert all(isinstance(event[k], int) for k in ("pid", "tid") if k in event)
        assert event.get("s", "t") in "gpt"
        assert event["pid"] < 2**31
    return document["traceEvents"], done.notes


def test_every_event_follows_the_format(tmp_path: Path) -> None:
    events, notes = timeline(sample(tmp_path / "t"))
    opened: dict[tuple[Any, ...], list[str]] = {}
    for event in events:  # slices of one id nest, in the order of the file
        if event["ph"] in "be":
            stack = opened.setdefault((event["cat"], event["id"], event["pid"]), [])
            if event["ph"] == "b":
                stack.append(event["name"])
            else:
                assert stack.pop() == event["name"]
    assert sorted(map(len, opened.values())) == [0, 0, 0, 0, 1]  # the read never completes
    assert Counter(e["ph"] for e in events if e.get("cat") == "page") == {"i": 9}
    named = {e["args"]["name"] for e in events if e["ph"] == "M" and "name" in e["args"]}
    assert {"pages", "events lost", "block device 254:0", "block device 253:1", 'a "quoted" name\\'} <= named
    assert notes == ["1 stalls of which one end is not in the trace are left out"]


def test_what_the_tracks_say(tmp_path: Path) -> None:
    events, _ = timeline(sample(tmp_path / "t"))
    origin = 1_000
    held = [e["args"]["pages"] for e in events if e["name"] == "pages allocated less freed"]
    assert held[-1] == sum(2 ** (i % 3) for i in range(8)) - 1
    stall = next(e for e in events if e["ph"] == "X")
    assert (stall["name"], stall["pid"], stall["tid"], stall["ts"], stall["dur"]) == ("reclaim", 5, 7, 4.0, 4.25)
    assert stall["args"] == {"order": 2, "reclaimed_pages": 32, "cpu": 1}
    page = next(e for e in events if e["ph"] == "i")
    assert page["args"] == {"pfn": 16000, "order": 0, "pid": 7, "comm": 'a "quoted" name\\', "caller": "do_fault"}
    assert (page["name"], page["pid"], page["tid"]) == ("alloc", PAGES, 0)
    ios = [e for e in events if e.get("cat") == "io" and e["ph"] == "b" and e["name"] == "write"]
    assert sorted((e["ts"], e["pid"] >= DEVICES) for e in ios) == [(9.0, True), (19.0, True)]
    depth = [e["args"]["peak"] for e in events if e["name"] == "I/Os in flight" and e["pid"] == ios[0]["pid"]]
    assert max(depth) == 1
    served = next(e for e in events if e["name"] == "served" and e["ph"] == "e" and e["ts"] == (31_500 - origin) / 1000)
    assert served["cat"] == "io"
    lost = [(e["name"], e["ts"]) for e in events if e["pid"] == LOST and e["ph"] == "b"]
    assert lost == [("7 lost: all (ring_full)", 0.5), ("some lost: all (reported)", 0.0)]


def test_filters(tmp_path: Path) -> None:
    trace = sample(tmp_path / "t")
    disk, _ = timeline(trace, device=(DISK,))
    assert {e["args"]["dev"] for e in disk if e.get("cat") == "io" and "args" in e} == {DISK}
    early, _ = timeline(trace, time=(0, 3_000))
    assert {e.get("cat") for e in early if e["ph"] != "M"} == {"page", "loss", None}
    nobody, _ = timeline(trace, comm=("x*",))
    assert {e.get("cat") for e in nobody if e["ph"] != "M"} <= {"loss"}
    late, _ = timeline(trace, time=(25_000, None))
    assert [e["ts"] for e in late if e["name"] == "read"] == [39.0]
    assert [e["ts"] for e in late if e["name"] == "write" and e["ph"] == "b"] == [19.0, 9.0]


def test_too_many_page_events_become_counters(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(perfetto_tracks, "MOST_INSTANTS", 5)
    events, notes = timeline(sample(tmp_path / "t"))
    assert not [e for e in events if e["ph"] == "i"]
    assert [e for e in events if e["ph"] == "C"]
    assert "--time" in notes[0]
