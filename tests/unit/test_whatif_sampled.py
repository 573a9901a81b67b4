"""Sampled sweeps: exactness where nothing differs, coverage where something does, refusals, rows."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from typer.testing import CliRunner

from tests.sampling_samples import Case, baseline_of, case_of, coverage, ends_of, figures_of, prices, sampled
from tracereplay.cli.app import app
from tracereplay.demand.spec import DemandSpec
from tracereplay.demand.spool import Spool
from tracereplay.demand.synthetic import write_trace
from tracereplay.errors import GridError, TooLittleMemoryError, UsageError
from tracereplay.machine.counters import COUNTERS
from tracereplay.machine.from_trace import configured_machine
from tracereplay.replay.run import prepared, recorded_demand
from tracereplay.strategies.registry import choose
from tracereplay.trace.reader import Trace
from tracereplay.whatif import sampled_baseline
from tracereplay.whatif.grid import Plan, plan
from tracereplay.whatif.sampled import sampled_tasks
from tracereplay.whatif.sampled_baseline import LEAD, blocks_of, run_baseline
from tracereplay.whatif.sampled_estimate import Drawn, estimate
from tracereplay.whatif.sampled_point import Point, Sampler

SMALL = {"memory": "96MiB", "generation": "6.1", "pcp.high": "200"}
BLOCK_OPS = 2048


@pytest.fixture(scope="module")
def trace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Some hundred blocks of demand for a small machine."""
    return write_trace(tmp_path_factory.mktemp("sampled") / "t.trace", events=250_000, cpus=2, memory=64 << 20)


@pytest.fixture(scope="module")
def case(trace: Path) -> Case:
    """A smaller batch than the baseline's."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sampled_baseline, "BLOCK_OPS", BLOCK_OPS)
        return case_of(baseline_of(trace, "per-page", SMALL), "per-page", {"pcp.batch": "16"}, SMALL, trace)


def test_the_baselines_own_settings_give_the_baselines_counters(case: Case) -> None:
    """From any checkpoint, to the last integer; so is any estimate, with nothing to either side of it."""
    base = case.point.base
    point = Point(base, base.choice, base.ready.machine)
    for k in [*base.order[:4], LEAD - 1]:
        assert (point.block(k) == base.known(k)).all()
    found = Sampler(Point(base, base.choice, base.ready.machine), prices()).measured(4, 50, 0)
    whole = base.outcome.totals[: len(COUNTERS)] + base.outcome.worker[: len(COUNTERS)]
    for values in (found.values, found.low, found.high, found.draws[7]):
        assert (np.round(values[:-1]) == whole).all()


def test_all_blocks_with_their_whole_history_are_the_full_replay(case: Case) -> None:
    """The settings differ, no block is left out, none begins anew: the full replay's integers, and no error."""
    base, rows = case.point.base, np.diff(case.rows, axis=0)[LEAD:]
    known = np.array([base.known(k) for k in range(LEAD, base.blocks - 1)], np.float64)
    none = np.zeros((4, len(COUNTERS)))
    found = estimate(Drawn(known.sum(axis=0), len(rows), known, rows - known, none[0] + 9, none), 50, 0)
    rest = case.rows[LEAD] + case.full - case.rows[-1]
    for values in (found.values, found.low, found.high):
        assert (np.round(values + rest) == case.full).all()
    assert (case.point.drawn(0).lead().sum(axis=0) == case.rows[LEAD]).all()


def test_intervals_hold_the_full_replays_figures(case: Case) -> None:
    """And would not if they were a quarter as wide: what makes them wide is needed."""
    held, _, work = coverage(case, 100, precision=0.5)
    assert (held >= 0.93).all(), held
    assert work < 0.7
    truth = figures_of(case.full)
    found = [m for seed in range(100) if (m := sampled(case, seed, 0.5))]
    quarter = []
    for m in found:
        middle = ends_of(m).mean(axis=0)
        quarter.append(np.abs(truth - middle) <= (ends_of(m)[1] - middle) / 4)
    assert np.mean(quarter, axis=0).min() < 0.93


def test_a_remembered_point_is_the_point(case: Case) -> None:
    """What the drawing of blocks by arithmetic stands on: a point from its checkpoints is as those drawn say."""
    remembered = sampled(case, 5, 0.5)
    base = case.point.base
    found = Sampler(Point(base, case.point.choice, case.point.machine), prices()).measured(remembered.drawn, 400, 5)
    assert np.array_equal(found.values, remembered.values)
    assert np.array_equal(found.low, remembered.low)
    assert found.work == pytest.approx(remembered.work)


# ---------------------------------------------------------------- the estimate
def made(off: list[float], left: list[float], base: list[float] | None = None, blocks: int = 40) -> Drawn:
    """One figure: of 40 blocks the baseline paid 1000."""
    column = np.array(off)[:, None]
    paid = np.array(base or [25.0] * len(off))[:, None]
    return Drawn(np.array([1000.0]), blocks, paid, column, np.abs(column).max(axis=0), np.array(left)[:, None])


def test_an_estimate_adds_the_mean_difference_of_each_block() -> None:
    found = estimate(made([1.0, 2.0, 3.0, 2.0], [0.0, 0.0]), 200, 0)
    assert found.values == pytest.approx([1000 + 40 * 2.0])
    assert found.low[0] < 1080 < found.high[0]
    assert (found.warmup == 0).all()


def test_where_the_difference_goes_with_what_the_baseline_paid_it_follows_that() -> None:
    """Half as much as the baseline everywhere, and the drawn blocks are dearer than others: the mean would mislead."""
    found = estimate(made([-20.0, -15.0, -10.0, -30.0, -25.0], [0.0] * 3, [40.0, 30.0, 20.0, 60.0, 50.0]), 400, 0)
    assert found.values == pytest.approx([500])


def test_a_burst_in_one_block_may_be_in_others_too() -> None:
    """36 blocks were not drawn: three more as far off as the farthest of four, in seven, are added."""
    found = estimate(made([0.0, 0.0, 0.0, 50.0], [0.0, 0.0]), 200, 0)
    assert found.low[0] <= 1500 - 36 * 3 * 50 / 7
    assert found.high[0] >= 1500 + 36 * 3 * 50 / 7


def test_what_the_warmup_left_out_widens_the_side_to_which_it_points() -> None:
    found = estimate(made([2.0] * 4, [3.0] * 3), 200, 0)
    assert found.low == pytest.approx([1080.0 - 36 * 3 * 2 / 7])
    assert found.high == pytest.approx([1080.0 + 36 * 3 * 2 / 7 + 40 * 3])
    assert estimate(made([2.0] * 4, [-3.0, 3.0]), 200, 0).warmup[0, 0] < 0


# ---------------------------------------------------------------- what can be sampled
def question(trace: Path | str, *grid: str, strategies: tuple[str, ...] = ("per-page",)) -> Plan:
    machine = {name: text for name, text in SMALL.items() if not any(g.startswith(f"{name}=") for g in grid)}
    demand = DemandSpec(target=("all",))
    return plan([str(trace)], strategies, grid, machine=machine, demand=demand, profile="brouer-2021")


@pytest.mark.parametrize(
    ("grid", "strategies", "named"),
    [
        (["memory=1GiB,2GiB"], ("per-page",), "memory changes"),
        (["generation=5.14,6.1", "copies=1,2"], ("per-page",), "generation changes"),
        (["copies=1,2"], ("per-page",), "copies changes what is asked for"),
        (["mempool-bulk.pool_pages=64,128"], ("mempool-bulk",), "mempool-bulk.pool_pages changes what the strategy"),
    ],
)
def test_what_needs_a_history_of_its_own_is_refused_alone(
    grid: list[str], strategies: tuple[str, ...], named: str
) -> None:
    with pytest.raises(GridError, match=named) as refused:
        sampled_tasks(question("t", *grid, strategies=strategies), 0.02)
    assert "--method replay" in refused.value.hint


def test_beside_what_can_be_sampled_it_gets_a_baseline_for_each_value(trace: Path) -> None:
    asked = question(trace, "generation=6.1,6.12", "bulk.batch_cap=4,8", "pcp.batch=16", strategies=("bulk",))
    tasks = list(sampled_tasks(asked, 0.02))
    assert [dict(task.base_machine)["generation"] for task in tasks] == ["6.1", "6.1", "6.12", "6.12"]
    assert {task.base_params for task in tasks} == {()}
    assert {dict(task.machine)["pcp.batch"] for task in tasks} == {"16"}
    assert all("pcp.batch" not in dict(task.base_machine) for task in tasks)
    assert len({task.key for task in tasks}) == 4
    assert {task.key for task in sampled_tasks(asked, 0.01)}.isdisjoint(task.key for task in tasks)


def test_a_strategy_of_ones_own_and_no_precision_are_refused() -> None:
    own = str(Path(__file__).parents[1] / "waiting_strategy.py")
    with pytest.raises(UsageError, match="strategy of your own"):
        sampled_tasks(question("t", "pcp.batch=16,31", strategies=(own,)), 0.02)
    with pytest.raises(UsageError, match="--precision 0"):
        sampled_tasks(question("t", "pcp.batch=16,31"), 0)


def test_few_operations_are_not_cut_into_blocks() -> None:
    assert blocks_of(10_000) == 0
    assert blocks_of((80 << 14) - 1) == 0
    assert blocks_of(80 << 14) == 80
    assert blocks_of(1 << 40) == 256


# ---------------------------------------------------------------- rows
def test_copies_without_room_for_them_are_refused_as_in_a_replay(trace: Path) -> None:
    machine = SMALL | {"memory": "64MiB"}
    spec, copied = DemandSpec(target=("all",)), DemandSpec(target=("all",), copies=8)
    opened = Trace.open(trace)
    spool = Spool(recorded_demand(opened, spec))
    ready = prepared(opened, spool, copied, lambda cpus: configured_machine(opened, cpus, machine, 0))
    with pytest.raises(TooLittleMemoryError):
        run_baseline(ready, choose(["per-page"])[0], 0)


def test_a_sampled_sweep(trace: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows that say how they came about and that hold the full replay's figures; nothing is run twice."""
    out, whole = tmp_path / "s.parquet", tmp_path / "f.parquet"
    options = ["--target", "all", "-s", "per-page", "--workers", "1", "--format", "csv"]
    options += [f"--machine={name}={text}" for name, text in SMALL.items()]
    given = ["whatif", str(trace), *options, "--grid", "pcp.batch=16,24"]
    monkeypatch.setattr(sampled_baseline, "BLOCK_OPS", BLOCK_OPS)
    more = ["--method", "sampled", "--precision", "0.3"]
    assert CliRunner().invoke(app, [*given, *more, "-o", str(out)]).exit_code == 0
    assert CliRunner().invoke(app, [*given, "-o", str(whole)]).exit_code == 0
    rows, full = (pl.read_parquet(path).sort("pcp.batch").to_dicts() for path in (out, whole))
    for row, true in zip(rows, full, strict=True):
        assert row["method"] == "sampled"
        assert row["per_page_low95"] < row["per_page"] < row["per_page_high95"]
        within, told = json.loads(row["intervals"]), json.loads(row["sampling"])
        assert within["per_page"][0] <= true["per_page"] <= within["per_page"][1]
        assert within["splits"][0] <= true["splits"] <= within["splits"][1]
        for name in ("requests", "pages", "alloc_calls", "pages_freed", "trace_id", "unit"):
            assert row[name] == true[name]
        assert told["drawn"] >= 16
        assert told["replayed_share"] < 0.7
        sample = json.loads(row["sample"])
        assert sum(sample["counters"]["splits"]) == row["splits"]
    monkeypatch.setattr("tracereplay.whatif.sampled_row.sampled_row", lambda _task: 1 / 0)
    again = CliRunner().invoke(app, [*given, *more, "-o", str(out), "--resume"])
    assert again.exit_code == 0
    monkeypatch.undo()
    short = CliRunner().invoke(app, [*given, "--method", "sampled", "--seed", "1", "-o", str(out), "--force"])
    assert short.exit_code == 0
    assert pl.read_parquet(out)["method"].to_list() == ["replay"] * 2, "a demand so short is replayed whole"
