"""Two traces side by side: the figures, their intervals, what cannot be compared."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pytest
from typer.testing import CliRunner

from tests.trace_samples import metadata, page_batch, rows_batch
from tracereplay import Trace, TraceWriter
from tracereplay.analysis import diff as compared
from tracereplay.analysis.derived import derived
from tracereplay.analysis.diff import diff
from tracereplay.analysis.diff_series import OCTAVE, SLICES, Series
from tracereplay.cli.app import app
from tracereplay.errors import EmptyTraceError, UsageError

TRACES = Path(__file__).parents[2] / "traces"
SECONDS = np.full(SLICES, 0.1)


def rate(counts: Any) -> Series:
    return Series("x", "1/s", "pages", np.asarray(counts, np.float64), SECONDS)


def steady(path: Path, *, every_ns: int, seed: int, seconds: float = 1.0, **facts: Any) -> Trace:
    """Page events at a steady rate."""
    rows = int(seconds * 1e9 / every_ns)
    batch = page_batch(rows, seed=seed)
    times = np.sort(np.random.default_rng(seed).integers(0, int(seconds * 1e9), rows))
    with TraceWriter(path, metadata(**facts)) as writer:
        writer.write("page_events", batch.set_column(0, "ts_ns", pa.array(times)))
    return Trace.open(path)


def by_figure(frame: pl.DataFrame) -> dict[str, dict[str, Any]]:
    return {row["figure"]: row for row in frame.to_dicts()}


# ---------------------------------------------------------------- intervals
def test_intervals_hold_what_they_say() -> None:
    """Pairs of the same process: about one in twenty is judged different; of twice the rate: all are, at 2."""
    random = np.random.default_rng(1)
    same = [compared._row(rate(random.poisson(50, SLICES)), rate(random.poisson(50, SLICES)), n) for n in range(150)]
    assert sum(r["verdict"] == "beyond" for r in same) <= 18
    twice = [compared._row(rate(random.poisson(50, SLICES)), rate(random.poisson(100, SLICES)), n) for n in range(60)]
    assert all(r["verdict"] == "beyond" for r in twice)
    assert sum(r["ratio_low"] <= 2 <= r["ratio_high"] for r in twice) >= 50


def test_bursts_make_intervals_wide() -> None:
    random = np.random.default_rng(2)
    bursts = np.repeat(random.choice([20.0, 80.0], SLICES // 4), 4)
    mixed = random.permutation(bursts)

    def width(row: dict[str, Any]) -> float:
        return float(np.log(row["ratio_high"] / row["ratio_low"]))

    assert width(compared._row(rate(bursts), rate(bursts[::-1]), 0)) > 1.5 * width(
        compared._row(rate(mixed), rate(mixed[::-1]), 0)
    )


def test_a_ratio_and_its_inverse_say_the_same() -> None:
    random = np.random.default_rng(3)
    a, b = rate(random.poisson(40, SLICES)), rate(random.poisson(60, SLICES))
    there, back = compared._row(a, b, 0), compared._row(b, a, 0)
    assert there["ratio"] == pytest.approx(1 / back["ratio"])
    assert there["verdict"] == back["verdict"] == "beyond"
    assert there["ratio_low"] == pytest.approx(1 / back["ratio_high"], rel=0.05)


def test_what_cannot_be_judged() -> None:
    nothing, some = np.zeros(SLICES), np.ones(SLICES)
    few = np.where(np.arange(SLICES) < 3, 5.0, 0)
    row = compared._row(rate(nothing), rate(nothing), 0)
    assert (row["a"], row["ratio"], row["verdict"]) == (0, None, "within")
    assert compared._row(rate(nothing), rate(some), 0)["verdict"] == "beyond"
    assert compared._row(rate(few), rate(nothing), 0)["verdict"] == "within"  # one burst, perhaps by chance
    quotient = Series("x", "pages", "pages", few, few)  # of three slices
    row = compared._row(quotient, quotient, 0)
    assert (row["ratio"], row["ratio_low"], row["verdict"]) == (1, None, None)
    absent = Series("x", "pages", "pages", nothing, nothing)
    assert compared._row(absent, quotient, 0)["a"] is None


def test_quantiles_are_those_of_the_values() -> None:
    values = np.random.default_rng(4).lognormal(12, 2, 20_000)
    place = np.floor(np.log2(values) * OCTAVE).astype(int)
    counts = np.zeros((SLICES, place.max() + 1))
    np.add.at(counts, (np.arange(len(values)) % SLICES, place), 1)
    for share in (0.5, 0.99):
        (found,) = Series("x", "ns", "io", counts, share=share).values(np.ones((1, SLICES)))
        exact = np.quantile(values, share, method="inverted_cdf")
        assert abs(found / exact - 1) <= 0.006


# ---------------------------------------------------------------- traces
def test_figures_of_page_events(tmp_path: Path) -> None:
    a = steady(tmp_path / "a", every_ns=20_000, seed=1)
    b = steady(tmp_path / "b", every_ns=10_000, seed=2, seconds=0.5)
    found = by_figure(diff(a, b, only=["pages"]).frame)
    for side, trace in (("a", a), ("b", b)):
        events = trace.page_events.filter(pl.col("kind") == "alloc").select("ts_ns", "order").collect()
        ends = trace.sort_range("page_events")
        assert ends is not None
        seconds = (ends[1] - ends[0] + 1) / 1e9
        assert found["allocations"][side] == pytest.approx(len(events) / seconds)
        pages = (2 ** events["order"].cast(pl.Int64)).sum()
        assert found["pages allocated"][side] == pytest.approx(pages / seconds)
        assert found["pages per allocation"][side] == pytest.approx(pages / len(events))
    assert found["allocations"]["verdict"] == "beyond"
    assert found["allocations"]["ratio_low"] < 2 < found["allocations"]["ratio_high"]
    assert found["pages per allocation"]["verdict"] == "within"


def test_a_trace_against_itself(tmp_path: Path) -> None:
    """All groups, on a real trace: nothing differs, and latencies and lifetimes are those of the tables."""
    shutil.copytree(TRACES / "dmcrypt-6.12-bulk", tmp_path / "t", ignore=shutil.ignore_patterns("derived"))
    trace = Trace.open(tmp_path / "t")
    found = diff(trace, trace)
    assert set(found.frame["group"]) >= {"pages", "lifetimes", "callers", "io"}
    assert found.frame.filter(pl.col("ratio").is_not_null())["ratio"].unique().to_list() == [1.0]
    assert found.frame.filter(pl.col("verdict") == "beyond").is_empty()
    figures = by_figure(found.frame)
    lived = derived(trace, "lifetimes").filter(pl.col("lifetime_ns").is_not_null()).collect()
    exact = lived["lifetime_ns"].quantile(0.99, "higher")
    assert figures["lifetime p99"]["a"] == pytest.approx(exact, rel=0.01)
    remote = (lived["alloc_cpu"] != lived["free_cpu"]).mean()
    assert figures["freed on another CPU"]["a"] == pytest.approx(remote)
    writes = derived(trace, "io").filter((pl.col("layer") == 0) & (pl.col("op").cast(pl.String) == "W")).collect()
    assert figures["bytes per I/O (W)"]["a"] == pytest.approx(writes["bytes"].mean())
    slow = np.quantile(writes["q2c_ns"].drop_nulls().to_numpy(), 0.99, method="inverted_cdf")
    assert figures["q2c p99 (W)"]["a"] == pytest.approx(slow, rel=0.006)


def test_what_one_trace_lacks_is_said(tmp_path: Path) -> None:
    a = steady(tmp_path / "a", every_ns=100_000, seed=1)
    with TraceWriter(tmp_path / "b", metadata(events=["block:block_bio_queue"])) as writer:
        bio = {"cpu": 0, "kind": "queue", "dev": 1, "sector": 0, "nr_sectors": 8, "op": "W", "flags": "W"}
        writer.write("bio_events", rows_batch("bio_events", [{**bio, "ts_ns": t} for t in range(9)]))
    b = Trace.open(tmp_path / "b")
    with pytest.raises(EmptyTraceError, match="no events of the same kind"):
        diff(a, b)
    with pytest.raises(UsageError, match="no group") as caught:
        diff(a, b, only=["page"])
    assert "'pages'" in str(caught.value.hint)


def test_the_command(tmp_path: Path) -> None:
    steady(tmp_path / "a", every_ns=50_000, seed=1)
    steady(tmp_path / "b", every_ns=50_000, seed=2, host={"release": "6.18.0"})
    args = ["diff", str(tmp_path / "a"), str(tmp_path / "b"), "--only", "pages"]
    done = CliRunner().invoke(app, args)
    assert done.exit_code == 0, done.stderr
    assert done.stdout.split()[:6] == ["figure", "a", "b", "ratio", "95", "%"]
    assert "kernels: A 6.12.95, B 6.18.0" in done.stderr
    assert done.stderr.count("completeness:") == 2
    said = json.loads(CliRunner().invoke(app, [*args, "--format", "json"]).stdout)
    assert said["b"]["kernel"] == "6.18.0"
    assert {"figure", "ratio_low", "verdict"} <= said["figures"][0].keys()
    assert CliRunner().invoke(app, args).stdout == done.stdout  # draws are seeded
