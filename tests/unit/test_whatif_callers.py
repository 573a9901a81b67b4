"""Sampling by caller: exact where all are taken, how often intervals hold, refusals."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from typer.testing import CliRunner

from tracereplay.cli.app import app
from tracereplay.demand.spec import DemandSpec
from tracereplay.demand.spool import Spool
from tracereplay.errors import SamplingError, UsageError
from tracereplay.machine.counters import COUNTERS
from tracereplay.machine.from_trace import configured_machine
from tracereplay.replay.run import prepared, recorded_demand
from tracereplay.strategies.registry import choose
from tracereplay.trace.reader import Trace
from tracereplay.whatif.callers_estimate import Estimate, estimate
from tracereplay.whatif.callers_split import Split, heavy_callers, split
from tracereplay.whatif.grid import Plan, plan
from tracereplay.whatif.sampled_callers import PURE, callers_tasks, check, refuse_scarce, share_of, taken

PAGES = Path(__file__).parents[2] / "traces" / "pages-6.12"


def question(*strategies: str, path: str | None = None) -> Plan:
    demand = DemandSpec(path=path)
    return plan(["t"], strategies, ["pcp.batch=31"], machine={}, demand=demand, profile="brouer-2021")


# ---------------------------------------------------------------- the estimate
CALLERS = 200


def demand_of_callers(skew: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Requests and pages of callers, [caller, 2]; calls of a bulk allocator, of which a fifth get none of it, pages
    freed, pages zeroed, [caller, 3]."""
    random = np.random.default_rng(seed)
    requests = np.maximum(1, random.lognormal(3, skew, CALLERS)).astype(np.int64)
    pages = requests * random.choice([1, 2, 8, 32], CALLERS)
    calls = np.where(random.random(CALLERS) < 0.2, pages, requests)
    freed = (pages * random.beta(8, 1, CALLERS)).astype(np.int64)
    return np.stack([requests, pages], axis=1), np.stack([calls, freed, pages * (random.random(CALLERS) < 0.3)], axis=1)


def drawn(sizes: np.ndarray, counted: np.ndarray, share: float, seed: int) -> Estimate:
    heavy = heavy_callers(sizes)
    names = np.array([taken(f"caller {i}", share, seed) for i in range(CALLERS)])
    order = np.concatenate([np.flatnonzero(heavy), np.flatnonzero(names & ~heavy)])
    known = {"heavy": int(heavy.sum()), "fixed": [False] * counted.shape[1]}
    return estimate(sizes[order], counted[order], sizes.sum(axis=0), CALLERS, seed, **known)


@pytest.mark.parametrize("skew", [0.3, 1.2])
def test_intervals_hold_the_sums_of_all_callers(skew: float) -> None:
    """In 250 draws of a tenth; and they would not if they were an eighth as wide."""
    sizes, counted = demand_of_callers(skew, 1)
    truth = counted.sum(axis=0)
    found = [drawn(sizes, counted, 0.1, seed) for seed in range(250)]
    held = np.mean([(f.low <= truth) & (truth <= f.high) for f in found], axis=0)
    assert (held >= 0.93).all(), held
    narrow = [np.abs(truth - (f.high + f.low) / 2) <= (f.high - f.low) / 16 for f in found]
    assert np.mean(narrow, axis=0).min() < 0.93


def test_all_callers_leave_no_doubt() -> None:
    sizes, counted = demand_of_callers(1.2, 2)
    found = drawn(sizes, counted, 1.0, 0)
    for values in (found.values, found.low, found.high):
        assert (values == counted.sum(axis=0)).all()


def test_what_no_drawn_caller_had_may_be_there() -> None:
    """17 of 100 callers had none: 3 in 20 of the other pages may have it; not of a counter that is one a page."""
    sizes = np.tile([10, 40], (17, 1))
    counted = np.stack([np.zeros(17, np.int64), np.full(17, 40)], axis=1)
    found = estimate(sizes, counted, np.array([1000, 4000]), 100, 0, fixed=[False, True])
    assert found.values == pytest.approx([0, 4000])
    assert found.low == pytest.approx([0, 4000])
    assert found.high == pytest.approx([83 * 40 * 3 / 20, 4000])


# ---------------------------------------------------------------- refusals
@pytest.mark.parametrize("name", [name for name in COUNTERS if name not in PURE["bulk"]])
def test_counters_that_callers_share_are_refused_by_name(name: str) -> None:
    with pytest.raises(SamplingError, match=f"^{name} of bulk depends on .* would not be a tenth") as refused:
        callers_tasks(question("bulk"), 0.1, [name])
    assert "--sample blocks" in refused.value.hint


def test_reasons_name_what_is_shared() -> None:
    def refusal(strategy: str, *names: str) -> str:
        with pytest.raises(SamplingError) as refused:
            callers_tasks(question(strategy), 0.1, names)
        return refused.value.message

    assert "pcp_refills of bulk depends on lists that all callers share" in refusal(
        "bulk", "alloc_calls", "pcp_refills"
    )
    assert "which blocks are free" in refusal("compound", "alloc_calls")
    assert "keeps for all callers together" in refusal("background-pool")
    assert "code that is not known here" in refusal(str(Path(__file__).parents[1] / "waiting_strategy.py"))
    with pytest.raises(SamplingError, match="requests of a path"):
        callers_tasks(question("bulk", path="dm-crypt"), 0.1, [])
    with pytest.raises(UsageError, match="no counter 'alloc_call'"):
        callers_tasks(question("bulk"), 0.1, ["alloc_call"])


def test_shares_that_are_none_are_refused() -> None:
    assert share_of("blocks") is None
    assert share_of("callers:0.25") == 0.25
    for text in ("callers", "callers:0", "callers:1.1", "callers:x", "callers:nan", "frames:0.1"):
        with pytest.raises(UsageError, match="--sample"):
            share_of(text)


def parts_of(target: str, share: float) -> Split:
    spec = DemandSpec(target=(target,))
    return split(Spool(recorded_demand(Trace.open(PAGES), spec)), lambda name: taken(name, share, 0))


def test_few_callers_and_requests_that_others_may_deny_are_refused() -> None:
    with pytest.raises(SamplingError, match="callers that are not heavy were drawn; an interval needs 8"):
        check(parts_of("batches", 0.1), 0.1)
    with pytest.raises(SamplingError, match="no request was targeted"):
        check(parts_of("none", 0.1), 0.1)
    whole = parts_of("all", 1.0)
    assert whole.sizes.sum(axis=0).tolist() == whole.totals.tolist()
    with pytest.raises(SamplingError, match="targeted requests need contiguous blocks"):
        check(whole, 1.0)


def test_scarce_memory_is_refused() -> None:
    trace, spec = Trace.open(PAGES), DemandSpec(target=("batches",))
    parts = parts_of("batches", 1.0)
    for memory, scarce in (("64MiB", True), ("1GiB", False)):
        options = {"memory": memory, "occupancy": "0.6"}
        ready = prepared(trace, parts.spool, spec, lambda cpus, o=options: configured_machine(trace, cpus, o, 0))
        engine = ready.engine(choose(["per-page"])[0])
        if scarce:
            with pytest.raises(SamplingError, match="memory may run short"):
                refuse_scarce(parts, engine)
        else:
            refuse_scarce(parts, engine)


# ---------------------------------------------------------------- rows
def test_all_callers_are_the_full_replay(tmp_path: Path) -> None:
    """Every pure counter to the last integer; of some callers, intervals that hold it, and nothing else in the rows."""
    given = ["whatif", str(PAGES), "-s", "per-page", "-s", "bulk", "-s", "compound", "--grid", "pcp.batch=16"]
    by_caller = [*given, "--method", "sampled", "--sample"]
    runs = {"full": given, "all": [*by_caller, "callers:1"], "some": [*by_caller, "callers:0.7"]}
    found = {}
    for name, arguments in runs.items():
        out = str(tmp_path / f"{name}.parquet")
        done = CliRunner().invoke(app, [*arguments, "-o", out, "--workers", "1"])
        assert done.exit_code == 0, done.output
        found[name] = {row["label"]: row for row in pl.read_parquet(out).to_dicts()}
    for label, names in PURE.items():
        full, row, some = (found[run][label] for run in ("full", "all", "some"))
        assert row["status"] == some["status"] == "ok", some["error"]
        within = json.loads(some["intervals"])
        for name in names:
            assert row[name] == full[name]
            assert json.loads(row["intervals"])[name] == [full[name]] * 2
            assert within[name][0] <= full[name] <= within[name][1]
        assert row["method"] == "sampled"
        assert {name for name in COUNTERS if row.get(name) is not None} == set(names)
        assert row.get("per_page") is None
        assert json.loads(some["sampling"])["drawn"] < json.loads(row["sampling"])["drawn"]
    refused = CliRunner().invoke(app, [*by_caller, "callers:0.5", "--counters", "pcp_refills"])
    assert refused.exit_code == 2
    assert "pcp_refills" in refused.output
