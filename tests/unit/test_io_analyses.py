"""Analyses of I/Os: what they add up to, against plain loops over the rows of table ``io``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import polars as pl
import pytest

from tests.io_samples import DISK, DM, Stack, write_bios
from tracereplay import Trace
from tracereplay.analysis import io_rows
from tracereplay.analysis.derived import derived
from tracereplay.analysis.ios import IO, LATENCY, LATENCY_HISTOGRAM, LAYERS, MERGES, SLOWEST
from tracereplay.analysis.selection import Selection
from tracereplay.analysis.view import View
from tracereplay.errors import EmptyTraceError

TASKS = [
    {"pid": 7, "tgid": 7, "comm": "fio", "cgroup": "/a", "first_ns": 0, "last_ns": 1},
    {"pid": 9, "tgid": 9, "comm": "cat", "cgroup": "/b", "first_ns": 0, "last_ns": 1},
]
Rows = list[dict[str, Any]]


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory) -> tuple[Trace, Rows]:
    """A stack of two devices, every third I/O another task's, and a compaction."""
    stack = Stack(3, bios=60)
    for e in stack.events:
        e["pid"] = 9 if e["kind"] == "queue" and e["dev"] == DM and e["sector"] % 192 == 0 else 7
    first, last = stack.events[0]["ts_ns"], stack.events[-1]["ts_ns"]
    mm = [
        {"ts_ns": (first + last) // 2, "cpu": 0, "kind": "compaction_begin", "pid": 5},
        {"ts_ns": (first + last) // 2 + 500, "cpu": 0, "kind": "compaction_end", "pid": 5},
    ]
    path = tmp_path_factory.mktemp("io") / "trace"
    trace = write_bios(path, stack.events, tasks=TASKS, mm_events=mm)
    return trace, derived(trace, "io").collect().to_dicts()


def nearest_rank(values: list[int], share: float) -> int:
    ranked = sorted(values)
    return ranked[max(0, -(-len(ranked) * round(share * 1000) // 1000) - 1)]


def test_io(sample: tuple[Trace, Rows]) -> None:
    trace, rows = sample
    found = IO(trace).to_dicts()
    assert [(r["layer"], r["device"]) for r in found] == [(0, "253:0"), (1, "8:0")]
    for r, dev in zip(found, (DM, DISK), strict=True):
        own = [x for x in rows if x["disk"] == dev]
        assert r["ios"] == len(own)
        assert r["bytes"] == sum(x["bytes"] for x in own)
        assert r["merged"] == sum(x["merged_into"] is not None for x in own)
        assert (r["splits"], r["requeues"]) == tuple(sum(x[n] for x in own) for n in ("splits", "requeues"))
        for stage in ("q2c", "q2d", "d2c"):
            times = [x[f"{stage}_ns"] for x in own if x[f"{stage}_ns"] is not None]
            assert r[f"{stage}_mean_ns"] == pytest.approx(sum(times) / len(times), abs=1)
            assert r[f"{stage}_p50_ns"] == nearest_rank(times, 0.5)
            assert r[f"{stage}_p99_ns"] == nearest_rank(times, 0.99)
    assert IO(trace, by="op")["op"].to_list() == ["W", "W"]


@pytest.mark.parametrize("by", ["device", "op", "size", "process", "cgroup", "layer", "all"])
def test_latency(sample: tuple[Trace, Rows], by: str) -> None:
    trace, rows = sample
    comm = {7: "fio", 9: "cat"}
    keys = {
        "device": lambda r: f"{r['disk'] >> 20}:0",
        "op": lambda r: r["op"],
        "size": lambda r: 1 << (r["bytes"].bit_length() - 1),
        "process": lambda r: comm[r["root_pid"]],
        "cgroup": lambda r: {7: "/a", 9: "/b"}[r["root_pid"]],
        "layer": lambda r: str(r["layer"]),
        "all": lambda r: "all",
    }
    groups: dict[Any, list[int]] = {}
    for r in rows:
        if by in ("device", "layer") or r["layer"] == 0:
            groups.setdefault(keys[by](r), []).append(r["q2c_ns"])
    answer = LATENCY.answer(trace, by=by)
    assert {r["by"]: r["ios"] for r in answer.frame.to_dicts()} == {k: len(v) for k, v in groups.items()}
    for r in answer.frame.to_dicts():
        for name, share in (("p50", 0.5), ("p90", 0.9), ("p99", 0.99), ("p999", 0.999), ("max", 1.0)):
            assert r[f"{name}_ns"] == nearest_rank(groups[r["by"]], share)
    bins = LATENCY_HISTOGRAM(trace, by=by).to_dicts()
    assert sum(b["ios"] for b in bins) == sum(map(len, groups.values()))
    for b in bins:
        assert b["ios"] == sum(b["low_ns"] <= v < b["high_ns"] for v in groups[b["by"]])


def test_percentiles_of_many_are_near(sample: tuple[Trace, Rows], monkeypatch: pytest.MonkeyPatch) -> None:
    trace, _ = sample
    exact = LATENCY(trace, by="all").row(0, named=True)
    monkeypatch.setattr(io_rows, "EXACT", 10)
    binned = LATENCY.answer(trace, by="all")
    assert "0.4 %" in binned.method
    for name, value in binned.frame.row(0, named=True).items():
        if name != "by":
            assert value == pytest.approx(exact[name], rel=0.004, abs=1)


def test_filters(sample: tuple[Trace, Rows]) -> None:
    trace, rows = sample
    start = View.of(trace).start_ns

    def ios(**chosen: Any) -> int:
        return int(IO(View(trace, Selection(**chosen)))["ios"].sum())

    assert ios(comm=("ca*",)) == ios(pid=(9,)) == ios(cgroup=("/b",)) == sum(r["root_pid"] == 9 for r in rows)
    assert ios(device=(DISK,)) == sum(r["disk"] == DISK for r in rows)
    assert ios(cpu=(1,)) == sum(r["cpu"] == 1 for r in rows)
    assert ios(time=(1000, 5000)) == sum(1000 <= r["q_ns"] - start < 5000 for r in rows)


def test_slowest(sample: tuple[Trace, Rows]) -> None:
    trace, rows = sample
    found = SLOWEST(trace, top=5, stage="d2c").to_dicts()
    alone = [r for r in rows if r["merged_into"] is None]
    wanted = sorted(alone, key=lambda r: (-r["d2c_ns"], r["id"]))[:5]
    assert [r["d2c_ns"] for r in found] == [r["d2c_ns"] for r in wanted]
    for r, x in zip(found, wanted, strict=True):
        same = [y for y in alone if y["disk"] == x["disk"]]
        assert r["depth"] == sum(y["d_ns"] <= x["d_ns"] < y["c_ns"] for y in same)
        before = [y for y in same if y["d_ns"] <= x["d_ns"] and y["id"] != x["id"]]
        if before:
            last = max(before, key=lambda y: y["d_ns"])
            assert r["before_ns"] == x["d_ns"] - last["d_ns"]
            assert r["seek_bytes"] == 512 * (x["sector"] - last["sector"] - last["nr_sectors"])
        assert r["comm"] == {7: "fio", 9: "cat"}[x["root_pid"]]
    assert SLOWEST(trace, top=60, stage="q2c")["stalls"].sum() > 0


def test_layers_and_merges(sample: tuple[Trace, Rows]) -> None:
    trace, rows = sample
    upper, lower = LAYERS(trace).to_dicts()
    assert (upper["device"], upper["below"], lower["below"]) == ("253:0", "8:0", None)
    own = [r for r in rows if r["disk"] == DM]
    parts = {r["id"]: [x for x in rows if x["parent_id"] == r["id"]] for r in own}
    below = [max(x["c_ns"] for x in parts[r["id"]]) - r["d_ns"] for r in own]
    assert upper["below_mean_ns"] == pytest.approx(sum(below) / len(own), abs=1)
    assert upper["own_share"] == pytest.approx(1 - sum(below) / sum(r["q2c_ns"] for r in own))
    found = MERGES(trace).row(1, named=True)
    assert found["merged"] + found["requests"] - found["splits"] == found["ios"] == sum(r["disk"] == DISK for r in rows)


def test_what_was_not_recorded_is_said(tmp_path: Path) -> None:
    bio = {"cpu": 0, "dev": DISK, "sector": 8, "nr_sectors": 8, "op": "R", "pid": 7}
    events = [{**bio, "ts_ns": 1, "kind": "issue"}, {**bio, "ts_ns": 5, "kind": "complete"}]
    trace = write_bios(tmp_path / "t", events)
    answer = LATENCY.answer(trace)
    assert answer.method.startswith("d2c")
    assert answer.frame["p50_ns"].to_list() == [4]
    assert answer.account == {"complete": 1}
    with pytest.raises(EmptyTraceError, match="q2c"):
        LATENCY(trace, stage="q2c")
    with pytest.raises(EmptyTraceError, match="queue"):
        MERGES(trace)


def test_percentiles_of_groups_without_values() -> None:
    rows = pl.DataFrame({"k": [1, 1, 2], "v": [5, None, None]}, schema={"k": pl.Int64, "v": pl.Int64}).lazy()
    found, _ = io_rows.percentiles(rows, ["k"], "v", {"p50": 0.5})
    assert found.rows() == [(1, 5)]
