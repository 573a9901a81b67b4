"""Traces of several hosts or boots as one."""

from __future__ import annotations

import shutil
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from tests.trace_samples import metadata, page_batch, rows_batch
from tracereplay import Trace, TraceWriter
from tracereplay.analysis.derived import derived
from tracereplay.analysis.sql_tables import sql_tables
from tracereplay.cli.app import app
from tracereplay.demand import open_demand
from tracereplay.errors import MergeError, SeveralHostsError
from tracereplay.trace.clock_map import to_wall_clock
from tracereplay.trace.merge import merge_traces
from tracereplay.trace.merge_rows import merge_sorted
from tracereplay.trace.sql_run import run
from tracereplay.trace.validate import validate_trace

TRACES = Path(__file__).parents[2] / "traces"
WALL = 1_795_000_000_000_000_000


def capture(path: Path, name: str, boot: str | None, begin: int, rows: list[dict[str, Any]], **more: Any) -> Trace:
    """A small capture of a host: page events, a task, a stack per event that asks for one."""
    facts = {"hostname": name, "page_size": 4096, **({"boot_id": boot} if boot else {})}
    clock = {"name": "monotonic", "resolution_ns": 1, "triples": [[begin, begin, WALL], [begin + 1000, 0, WALL + 1000]]}
    with TraceWriter(path, metadata(host=facts, clock=clock, **more)) as writer:
        stacks = sorted({r["stack_id"] for r in rows if r.get("stack_id") is not None})
        frames = [{"stack_id": s, "depth": d, "address": 7, "symbol": f"f{s}_{name}"} for s in stacks for d in (0, 1)]
        frames += [{"stack_id": 99, "depth": 0, "address": 8, "symbol": "shared"}]
        writer.write("stacks", rows_batch("stacks", frames))
        writer.write("tasks", rows_batch("tasks", [{"pid": 5, "comm": name, "first_ns": begin, "last_ns": begin + 9}]))
        for phase, at in (("start", 0), ("end", 9)):
            row = {"ts_ns": begin + at, "phase": phase, "source": "vmstat", "name": "x", "value": 1}
            other = {**row, "source": "read_ns", "value": begin + at}
            writer.write("snapshots", rows_batch("snapshots", [row, other]))
        event = {"cpu": 0, "kind": "alloc", "pfn": 1, "order": 0, "gfp": 0, "migratetype": 0, "pid": 5}
        made = [{**event, **{k: v for k, v in r.items() if k != "at"}, "ts_ns": begin + r["at"]} for r in rows]
        writer.write("page_events", rows_batch("page_events", made))
    return Trace.open(path)


def rows_at(*times: int, **more: Any) -> list[dict[str, Any]]:
    return [{"at": t, "pfn": i, **more} for i, t in enumerate(times)]


# ---------------------------------------------------------------- rows
@settings(max_examples=60, deadline=None)
@given(st.lists(st.lists(st.lists(st.integers(0, 6), max_size=5), max_size=4), min_size=1, max_size=4))
def test_sorted_streams_become_one(streams: list[list[list[int]]]) -> None:
    """Nothing lost, in order, equal keys in the order of the streams and then of their rows: a stable sort."""
    sources, wanted = [], []
    for number, pieces in enumerate(streams):
        rows = sorted(key for piece in pieces for key in piece)
        cuts = np.cumsum([len(p) for p in pieces])[:-1] if pieces else []
        named = [(key, number, i) for i, key in enumerate(rows)]
        wanted += named
        parts = np.split(np.array(named, np.int64).reshape(-1, 3), cuts)
        sources.append(
            iter([pa.RecordBatch.from_arrays([pa.array(p[:, c]) for c in range(3)], ["ts", "n", "i"]) for p in parts])
        )
    found = [tuple(r.values()) for batch in merge_sorted(sources, "ts") for r in batch.to_pylist()]
    assert found == sorted(wanted, key=lambda row: row[0])


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 10**6), st.integers(-(10**5), 10**5)), min_size=1, max_size=5),
    st.lists(st.integers(-(10**4), 2 * 10**6), min_size=1, max_size=20),
)
def test_a_clock_map_keeps_the_order(knots: list[tuple[int, int]], times: list[int]) -> None:
    triples = [[mono, 0, WALL + mono + drift] for mono, drift in knots]
    ordered = np.array(sorted(times), np.int64)
    clock = {"name": "mono", "triples": triples}
    known = sorted(dict(knots).items())
    if any(b[0] + b[1] < a[0] + a[1] for a, b in pairwise(known)):
        with pytest.raises(MergeError, match="set back"):
            to_wall_clock(clock, 0, 10**6, "x")
        return
    made = to_wall_clock(clock, 0, 10**6, "x")
    assert (np.diff(made(ordered)) >= 0).all()
    for mono, drift in known:
        assert made(np.array([mono])).tolist() == [WALL + mono + drift]


# ---------------------------------------------------------------- several hosts
@pytest.fixture
def fleet(tmp_path: Path) -> Trace:
    a = capture(tmp_path / "a", "web1", "b1", 1000, rows_at(0, 5, 5, 30, stack_id=1))
    b = capture(tmp_path / "b", "web2", "b2", 777_000, rows_at(5, 6, 31))
    return merge_traces(tmp_path / "all", [a, b])


def test_hosts_side_by_side(fleet: Trace) -> None:
    assert fleet.hosts == ["web1", "web2"]
    events = fleet.page_events.collect()
    assert (events["ts_ns"] - WALL).to_list() == [0, 5, 5, 5, 6, 30, 31]
    assert events["host"].cast(pl.String).to_list() == ["web1"] * 3 + ["web2"] * 2 + ["web1", "web2"]
    assert events["pfn"].to_list() == [0, 1, 2, 0, 1, 3, 2]
    assert validate_trace(fleet).errors == []
    assert [(h["offset_ns"], h["uncertainty_ns"]) for h in fleet.metadata.hosts] == [
        (WALL - 1000, 1),
        (WALL - 777_000, 1),
    ]
    snapshots = fleet.snapshots.filter(pl.col("source").cast(pl.String) == "read_ns").collect()
    assert (snapshots["value"] == snapshots["ts_ns"]).all()
    stacks = fleet.stacks.collect()
    assert stacks.n_unique(["stack_id", "depth"]) == len(stacks) == 3  # the shared one is there once
    names = dict(stacks.filter(pl.col("depth") == 0).select("stack_id", pl.col("symbol").cast(pl.String)).iter_rows())
    assert {names[s] for s in events["stack_id"].drop_nulls()} == {"f1_web1"}


def test_one_host_of_several(fleet: Trace, tmp_path: Path) -> None:
    one = Trace.open(f"{fleet.path}#web2")
    assert (one.rows("page_events"), one.rows("tasks"), one.host) == (3, 1, "web2")
    assert one.metadata.host["hostname"] == "web2"
    assert sum(b.num_rows for b in one.batches("page_events", ["pfn"])) == 3
    assert one.page_events.collect().height == 3
    assert one.sort_range("page_events") == (WALL + 5, WALL + 31)
    assert one.tasks.collect()["comm"].to_list() == ["web2"]
    list(stream := open_demand(one, target="none"))
    assert stream.report.accounting.allocations == 3
    derived(one, "requests")
    derived(Trace.open(f"{fleet.path}#web1"), "requests")
    assert len(list(fleet.derived.glob("requests-*.parquet"))) == 2
    again = merge_traces(tmp_path / "again", [fleet])  # taken apart and put together: the same
    assert again.page_events.collect().equals(fleet.page_events.collect())


def test_what_would_mix_up_hosts_is_refused(fleet: Trace) -> None:
    for attempt in (
        lambda: open_demand(fleet),
        lambda: derived(fleet, "lifetimes"),
        lambda: run(fleet, "SELECT * FROM refills", extra=sql_tables(fleet)),
        lambda: Trace.open(f"{fleet.path}#web3"),
    ):
        with pytest.raises(SeveralHostsError, match="web") as caught:
            attempt()
        assert "web1" in str(caught.value.hint)
    with pytest.raises(SeveralHostsError, match="is of one host"):
        Trace.open(f"{fleet.path.parent / 'a'}#web1")
    assert run(fleet, "SELECT host, COUNT(*) AS n FROM page_events GROUP BY host ORDER BY host").rows() == [
        ("web1", 4),
        ("web2", 3),
    ]


def test_a_trace_of_one_host_has_no_column(tmp_path: Path) -> None:
    a = capture(tmp_path / "a", "web1", "b1", 1000, rows_at(0))
    names = a.files["page_events"][0].footer.schema.to_arrow_schema().names
    assert "host" not in names
    assert a.page_events.collect()["host"].to_list() == [None]
    assert validate_trace(a).findings == []


# ---------------------------------------------------------------- one boot
def test_parts_of_one_boot(tmp_path: Path) -> None:
    first = capture(tmp_path / "a", "web1", "b1", 1000, rows_at(0, 5, stack_id=1))
    second = capture(tmp_path / "b", "web1", "b1", 2000, [{"at": 3, "kind": "free", "pfn": 0}])
    whole = merge_traces(tmp_path / "whole", [second, first])
    assert (whole.hosts, whole.metadata.clock["name"], len(whole.metadata.clock["triples"])) == ([], "monotonic", 4)
    assert whole.page_events.collect()["ts_ns"].to_list() == [1000, 1005, 2003]
    assert whole.loss.collect().select("t0_ns", "t1_ns", "n", pl.col("class").cast(pl.String)).rows() == [
        (1005, 2003, None, "unknown")
    ]
    assert sorted(whole.snapshots.collect()["phase"].cast(pl.String)) == ["end"] * 2 + ["start"] * 2 + ["tick"] * 4
    assert validate_trace(whole).errors == []
    joined = merge_traces(tmp_path / "joined", [first, second], contiguous=True)
    assert joined.rows("loss") == 0
    assert derived(joined, "lifetimes").collect()["class"].cast(pl.String).to_list() == ["complete", "right_censored"]


def test_real_parts_of_one_boot_give_the_whole_again(tmp_path: Path) -> None:
    """A trace cut in two and put together has the same demand."""
    source = Trace.open(TRACES / "dmcrypt-6.12-bulk")
    cut = source.page_events.select(pl.col("ts_ns").quantile(0.5).cast(pl.Int64)).collect().item()
    for name, kept in (("a", pl.col("ts_ns") <= cut), ("b", pl.col("ts_ns") > cut)):
        meta = Trace.open(source.path).metadata
        meta.trace_id = name
        with TraceWriter(tmp_path / name, meta) as writer:
            for table in ("stacks", "tasks"):
                for batch in source.batches(table):
                    writer.write(table, batch)
            for table in ("page_events", "bio_events"):
                rows = source.table(table).filter(kept).collect().to_arrow()
                writer.write(table, rows)
    whole = merge_traces(tmp_path / "whole", [Trace.open(tmp_path / n) for n in "ab"], contiguous=True)
    for table in ("page_events", "bio_events", "stacks"):
        assert whole.table(table).collect().equals(source.table(table).collect()), table


# ---------------------------------------------------------------- refusals, by the command
def test_the_command(tmp_path: Path) -> None:
    capture(tmp_path / "a", "web", "b1", 1000, rows_at(0, 50))
    capture(tmp_path / "b", "web", "b2", 5000, rows_at(1))
    capture(tmp_path / "c", "web", "b1", 1010, rows_at(1))
    with TraceWriter(tmp_path / "foreign", metadata(clock={"name": "mono", "resolution_ns": 1000})) as writer:
        writer.write("page_events", page_batch(10))
    with TraceWriter(tmp_path / "empty", metadata()) as writer:
        writer.write("tasks", rows_batch("tasks", [{"pid": 1}]))
    shutil.copytree(tmp_path / "a", tmp_path / "copy")

    def merge(*args: str) -> tuple[int, str, str]:
        done = CliRunner().invoke(app, ["merge", *(str(tmp_path / a) if a.isalpha() else a for a in args)])
        return done.exit_code, done.stdout, done.stderr

    for args, code, message in (
        (("out", "a", "a"), 3, "the same trace"),
        (("out", "a", "copy"), 3, "the same trace"),
        (("out", "a", "c"), 3, "events would count twice"),
        (("out", "a", "foreign"), 3, "no instant"),
        (("out", "a", "empty"), 3, "no events"),
        (("out", "a", "b", "--offset=web=5"), 3, "no such host"),
        (("out", "a", "b", "--offset=web"), 2, "no offset"),
        (("a", "b"), 2, "output exists"),
    ):
        got, out, err = merge(*args)
        assert (got, out) == (code, ""), args
        assert message in err
        assert "  next: " in err
        assert not (tmp_path / "out").exists()
    code, out, err = merge("out", "a", "b", "foreign", "--align=start", "--format=csv")
    assert code == 0, err
    assert [line.split(",")[:3] for line in out.splitlines()[1:]] == [
        ["web@b1", "b1", "2"],
        ["web@b2", "b2", "1"],
        ["sample", "", "10"],
    ]
    merged = Trace.open(tmp_path / "out")
    assert merged.metadata.clock["name"] == "since start"
    assert merged.page_events.select(pl.col("ts_ns").min()).collect().item() == 0
    assert merge("placed", "a", "foreign", f"--offset=sample={WALL}")[0] == 0
