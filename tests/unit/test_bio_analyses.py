"""Analyses of streams and addresses of bios: by hand on a few I/Os, and against DuckDB on many."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import polars as pl
import pytest

from tests.bio_samples import DISK, OTHER, bio_trace, random_bios
from tracereplay import Trace
from tracereplay.analysis.analysis import Analysis
from tracereplay.analysis.registry import analyses
from tracereplay.analysis.selection import Selection
from tracereplay.analysis.view import View
from tracereplay.errors import EmptyTraceError, UsageError

NAMES = (
    *("ops", "sizes", "throughput", "processes-io", "lba-heatmap", "subsecond", "hot-regions"),
    *("sequential", "seeks", "run-lengths", "interarrival", "burstiness"),
    *("working-set", "reuse-distance", "miss-ratio"),
)
DEEP = ("queue-depth", "depth-over-time", "latency-heatmap", "concurrency")
KNOWN = analyses()
ROWS = random_bios(12_000, 1)


@pytest.fixture(scope="module")
def trace(tmp_path_factory: pytest.TempPathFactory) -> Trace:
    return bio_trace(
        tmp_path_factory.mktemp("bios") / "t",
        ROWS,
        [
            {"pid": 7, "tgid": 7, "comm": "fio", "cgroup": "/a", "first_ns": 0, "last_ns": 1 << 60},
            {"pid": 8, "tgid": 7, "comm": "fio", "cgroup": "/b", "first_ns": 0, "last_ns": 1 << 60},
        ],
    )


@pytest.fixture(scope="module")
def duck(trace: Trace) -> Iterator[duckdb.DuckDBPyConnection]:
    """DuckDB with ``io``: the queued reads and writes that have an address, by number in trace order."""
    connection = duckdb.connect()
    files = [str(f.path) for f in trace.files["bio_events"]]
    connection.execute(
        f"create table io as select *, nr_sectors * 512::bigint as bytes, row_number() over () as i from"
        f" (select * from read_parquet({files}) where kind = 'queue' and op in ('R', 'W'))"
    )
    connection.execute(
        "create table placed as select * replace (sector::bigint as sector, nr_sectors::bigint as nr_sectors) from io"
        " where nr_sectors > 0"
    )
    yield connection
    connection.close()


def device(dev: int) -> str:
    return f"{dev >> 20}:{dev & 0xFFFFF}"


def rows(duck: duckdb.DuckDBPyConnection, sql: str) -> list[tuple[Any, ...]]:
    return duck.execute(sql).fetchall()


START = ROWS[0]["ts_ns"]


@pytest.mark.parametrize("name", NAMES)
def test_every_analysis_takes_every_option_and_an_empty_view(name: str, trace: Trace) -> None:
    analysis: Analysis = KNOWN[name]
    for option in analysis.options:
        for choice in option.choices:
            if choice in ("issue", "complete"):
                with pytest.raises(UsageError, match="no such events"):
                    analysis(trace, **{option.name: choice})
            elif choice != option.default:
                analysis(trace, **{option.name: choice})
    whole = analysis.answer(trace)
    assert whole.frame.height
    assert "I/Os at queue (block_bio_queue)" in whole.method
    picture = analysis.picture
    if picture is not None:
        named = {picture.x, picture.y, picture.value, picture.group} - {""}
        assert named <= set(whole.frame.columns)
    nothing = analysis(View(trace, Selection(pid=(999,))))
    assert nothing.schema == whole.frame.schema
    assert nothing.is_empty()
    part = analysis(View(trace, Selection(time=(1000, 10**9), comm=("fio",), device=(DISK,), cpu=(1,))))
    assert part.schema == whole.frame.schema


@pytest.mark.parametrize("name", NAMES)
def test_without_bios(name: str, tmp_path: Path) -> None:
    with pytest.raises(EmptyTraceError, match="this trace has no"):
        KNOWN[name](bio_trace(tmp_path / "t", []))


def test_ops_and_flags(trace: Trace) -> None:
    found = {(r["device"], r["op"]): r for r in KNOWN["ops"](trace).to_dicts()}
    for dev in (DISK, OTHER):
        for op in "RWD":
            mine = [r for r in ROWS if r["kind"] == "queue" and r["dev"] == dev and r["op"] == op]
            tails = [r["flags"].removeprefix("F").removeprefix(op) for r in mine]
            row = found[device(dev), op]
            assert row["ios"] == len(mine)
            assert row["preflush"] == sum(r["flags"].startswith("F") for r in mine)
            assert row["fua"] == sum("F" in t for t in tails)
            assert (row["sync"], row["meta"], row["readahead"]) == tuple(sum(c in t for t in tails) for c in "SMA")


def test_sizes(trace: Trace, duck: duckdb.DuckDBPyConnection) -> None:
    sql = "select dev, op, {} as size, count(*), sum(bytes)::bigint from io group by all order by all"
    exact = KNOWN["sizes"](trace, op="data", sizes="exact").drop("share").rows()
    assert exact == [(device(d), *r) for d, *r in rows(duck, sql.format("bytes"))]
    power = "if(bytes = 0, 0, 1::bigint << (length(bin(bytes)) - 1))"
    binned = KNOWN["sizes"](trace, op="data").drop("share").rows()
    assert binned == [(device(d), *r) for d, *r in rows(duck, sql.format(power))]


def test_throughput(trace: Trace, duck: duckdb.DuckDBPyConnection) -> None:
    found = KNOWN["throughput"](trace, bin="50ms")
    sql = (
        f"select dev, (ts_ns - {START}) // 50000000 * 50000000 as t, count(*), sum(bytes)::bigint from io group by all"
    )
    full = found.filter(pl.col("ios") > 0).select("of", "start_ns", "ios", "bytes").rows()
    assert full == [(device(d), *r) for d, *r in rows(duck, sql + " order by all")]
    assert found["start_ns"].n_unique() * 2 == len(found)
    last = ROWS[-1]["ts_ns"] + 1 - START - found["start_ns"].max()
    assert found["iops"][-1] == pytest.approx(found["ios"][-1] / last * 1e9)


def test_processes(trace: Trace, duck: duckdb.DuckDBPyConnection) -> None:
    found = KNOWN["processes-io"](trace, by="cgroup").rows()
    name = "case pid when 7 then '/a' when 8 then '/b' else '(unknown)' end"
    sql = f"""select {name} as who, count(*), count(*) filter (op = 'R'), count(*) filter (op = 'W'), sum(bytes)::bigint
              from io group by all order by 5 desc"""
    assert [r[:5] for r in found] == rows(duck, sql)
    assert KNOWN["processes-io"](trace, by="process")["who"].to_list().count("7 fio") == 1


def test_heat_maps(trace: Trace, duck: duckdb.DuckDBPyConnection) -> None:
    found = KNOWN["lba-heatmap"](trace, rows=20, bin="100ms").select("device", "start_ns", "lba_bytes", "ios", "bytes")
    sql = f"""select dev, (ts_ns - {START}) // 100000000 * 100000000, sector // 256 * 256 * 512::bigint, count(*),
              sum(bytes)::bigint from placed group by all order by all"""
    assert found.rows() == [(device(d), *r) for d, *r in rows(duck, sql)]
    offsets = KNOWN["subsecond"](trace, period="10ms", rows=10).rows()
    sql = f"""select (ts_ns - {START}) // 10000000 * 10000000, (ts_ns - {START}) % 10000000 // 1000000 * 1000000,
              count(*),
              sum(bytes)::bigint from io group by all order by all"""
    assert offsets == rows(duck, sql)


def test_hot_regions(trace: Trace, duck: duckdb.DuckDBPyConnection) -> None:
    found = KNOWN["hot-regions"](trace, region="8K").select("device", "lba_bytes", "ios", "bytes")
    sql = """with parts as (select dev, unnest(range(sector // 16, (sector + nr_sectors - 1) // 16 + 1)) as r,
               sector as a, sector + nr_sectors as b from placed)
             select dev, r * 8192::bigint, count(*),
               sum((least(b, (r + 1) * 16) - greatest(a, r * 16)) * 512)::bigint as n
             from parts group by all order by n desc, 1, 2"""
    assert found.rows() == [(device(d), *r) for d, *r in rows(duck, sql)]
    with pytest.raises(UsageError, match="no size"):
        KNOWN["hot-regions"](trace, region="1000")


GAP = "sector::bigint - lag(sector + nr_sectors) over (partition by {} order by i) as gap"


@pytest.mark.parametrize(("by", "keys"), [("device", "dev"), ("op", "dev, op"), ("thread", "dev, pid")])
def test_order(by: str, keys: str, trace: Trace, duck: duckdb.DuckDBPyConnection) -> None:
    gaps = (
        f"(select *, {GAP.format(keys)}, ts_ns - lag(ts_ns) over (partition by {keys} order by i) as since from placed)"
    )
    sql = f"""select {keys}, count(*), sum(bytes)::bigint, count(*) filter (gap = 0), coalesce(avg(abs(gap)) filter
              (gap <> 0) * 512, 0) from {gaps} group by all"""
    columns = [*keys.replace("dev", "device").split(", "), "ios", "bytes", "sequential_ios", "seek_bytes_mean"]
    found = KNOWN["sequential"](trace, by=by)
    wanted = sorted((device(d), *r) for d, *r in rows(duck, sql))
    for have, want in zip(sorted(found.select(columns).rows()), wanted, strict=True):
        assert have == pytest.approx(want)
    power = "if({0} = 0, 0, 1::bigint << (length(bin({0}::bigint)) - 1))"
    sql = f"""select {keys}, case when gap > 0 then 'forward' when gap < 0 then 'backward' else 'none' end,
              {power.format("abs(gap) * 512")}, count(*) from {gaps} where gap is not null group by all order by all"""
    seeks = KNOWN["seeks"](trace, by=by).drop("share").rows()
    assert seeks == [(device(d), *r) for d, *r in rows(duck, sql)]
    sql = f"""select {keys}, {power.format("since")}, count(*) from {gaps} where since is not null
              group by all order by all"""
    arrivals = KNOWN["interarrival"](trace, by=by).drop("share", "cumulative_share").rows()
    assert arrivals == [(device(d), *r) for d, *r in rows(duck, sql)]
    sql = f"""with numbered as (select *, sum(if(gap = 0, 0, 1)) over (partition by {keys} order by i) as run
                from {gaps}),
                runs as (select {keys}, run, count(*) as ios, sum(bytes)::bigint as bytes from numbered group by all)
              select {keys}, {power.format("bytes")}, count(*), sum(ios)::bigint, sum(bytes)::bigint from runs
              group by all order by all"""
    runs = KNOWN["run-lengths"](trace, by=by).drop("byte_share").rows()
    assert runs == [(device(d), *r) for d, *r in rows(duck, sql)]


def test_order_across_batches(trace: Trace, monkeypatch: pytest.MonkeyPatch) -> None:
    names = ("sequential", "seeks", "run-lengths", "interarrival")
    whole = [*(KNOWN[name](trace, by="op") for name in names), KNOWN["burstiness"](trace)]
    batches = Trace.batches
    monkeypatch.setattr(Trace, "batches", lambda *a: batches(*a, rows=97))
    cut = [*(KNOWN[name](trace, by="op") for name in names), KNOWN["burstiness"](trace)]
    assert all(a.equals(b) for a, b in zip(whole, cut, strict=True))


def test_burstiness(trace: Trace, duck: duckdb.DuckDBPyConnection, tmp_path: Path) -> None:
    found = KNOWN["burstiness"](trace).filter(pl.col("window_ns") == 10**7).row(0, named=True)
    n = (ROWS[-1]["ts_ns"] + 1 - START) // 10**7
    sql = f"""select avg(n), max(n), var_pop(n) from (select count(i) as n from range({n}) w(w) left join
              (select * from io where dev = {DISK}) on (ts_ns - {START}) // 10000000 = w group by w)"""
    mean, peak, variance = rows(duck, sql)[0]
    assert (found["windows"], found["ios_peak"]) == (n, peak)
    assert found["ios_mean"] == pytest.approx(mean)
    assert found["dispersion"] == pytest.approx(variance / mean)
    metronome = bio_trace(tmp_path / "m", [{"ts_ns": i * 10**6} for i in range(1000)])
    assert KNOWN["burstiness"](metronome).filter(pl.col("window_ns") == 10**7)["dispersion"].to_list() == [0]


def test_stages(tmp_path: Path) -> None:
    """Complete: requests where they were recorded, bios on devices without. Layers: said, counted once each."""
    upper = 253 << 20
    trace = bio_trace(
        tmp_path / "t",
        [
            {"ts_ns": 1, "dev": upper},
            {"ts_ns": 2, "kind": "remap", "dev": DISK, "old_dev": upper, "old_sector": 0},
            {"ts_ns": 3, "dev": DISK},
            {"ts_ns": 4, "kind": "issue"},
            {"ts_ns": 5, "kind": "complete"},
            {"ts_ns": 6, "kind": "bio_complete"},
            {"ts_ns": 7, "kind": "bio_complete", "dev": upper},
        ],
    )
    ops = KNOWN["ops"]
    assert sorted(ops(trace).select("device", "ios").rows()) == [("253:0", 1), ("8:0", 1)]
    assert ops(trace, at="issue").select("device", "ios").rows() == [("8:0", 1)]
    assert sorted(ops(trace, at="complete").select("device", "ios").rows()) == [("253:0", 1), ("8:0", 1)]
    assert "253:0 over 8:0" in ops.answer(trace).notes[0]
    assert KNOWN["miss-ratio"](trace, by="all").rows()[-1] == ("all", 8192, 1.0, 0.0)


def test_a_sample_says_so(trace: Trace) -> None:
    exact, sampled = (KNOWN["miss-ratio"].answer(trace, by="all", hold=hold, block="512") for hold in (1 << 20, 1024))
    assert "exact (Olken)" in exact.method
    assert exact.frame["error95"].sum() == 0
    assert "sampled (SHARDS-adj), at least one block in 16 by hash" in sampled.method
    assert sampled.frame["error95"].max() > 0
    assert sampled.account["block_accesses"] == exact.account["block_accesses"]
    window = KNOWN["working-set"].answer(trace, hold=1024, block="512")
    assert "sampled, one block in" in window.method


def test_absurd_addresses_are_left_out_and_counted(tmp_path: Path) -> None:
    trace = bio_trace(
        tmp_path / "t", [{"ts_ns": 1}, {"ts_ns": 2, "sector": 2**64 - 1}, {"ts_ns": 3, "nr_sectors": 1 << 30}]
    )
    for name in ("hot-regions", "miss-ratio", "working-set", "sequential"):
        answer = KNOWN[name].answer(trace)
        assert answer.account["absurd_addresses"] == 2
    assert KNOWN["hot-regions"](trace)["bytes"].to_list() == [4096]


def test_fields_that_are_missing(tmp_path: Path) -> None:
    """Any field but time, CPU and kind may be null, as foreign sources leave it."""
    rng = np.random.default_rng(9)
    kinds = ["queue", "issue", "complete", "bio_complete", "requeue", "remap", "split"]
    made = []
    for row in random_bios(3000, 8):
        row["kind"] = str(rng.choice(kinds))
        gone = [k for k in ("dev", "op", "flags", "sector", "nr_sectors", "pid") if rng.random() < 0.2]
        made.append({**row, **dict.fromkeys(gone)})
    trace = bio_trace(tmp_path / "t", made)
    for name in (*NAMES, *DEEP):
        for at in ("queue", "issue", "complete"):
            if not (name in DEEP and at == "complete"):
                assert KNOWN[name](trace, at=at).height
    assert KNOWN["sizes"](trace, at="queue")["ios"].sum() == sum(r["kind"] == "queue" for r in made)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("throughput", {"bin": "5"}),
        ("throughput", {"bin": "1ns"}),
        ("working-set", {"block": "1000"}),
        ("miss-ratio", {"hold": 10}),
        ("miss-ratio", {"per_octave": 3}),
        ("subsecond", {"rows": 0}),
        ("subsecond", {"period": "0s"}),
    ],
)
def test_values_that_cannot_be(name: str, options: dict[str, Any], trace: Trace) -> None:
    with pytest.raises(UsageError):
        KNOWN[name](trace, **options)
