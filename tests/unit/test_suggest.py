"""What is worth varying: the changes, their effects, the answer."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from tests.unit.test_whatif_ranking import counters_like, row, sampled_row
from tracereplay.cost.profile import DEFAULT_PROFILE
from tracereplay.demand.prefix import Prefix
from tracereplay.demand.spec import DemandSpec
from tracereplay.demand.spool import Spool
from tracereplay.demand.stream import ALLOC, FIRST, TARGETED
from tracereplay.errors import TracereplayError, UsageError
from tracereplay.machine.config import default_machine
from tracereplay.machine.counters import COUNTERS
from tracereplay.machine.options import machine_options
from tracereplay.replay.run import recorded_demand
from tracereplay.report.suggestions import suggestions
from tracereplay.trace.reader import Trace
from tracereplay.whatif import suggest as module
from tracereplay.whatif.axes import axes_of
from tracereplay.whatif.effects import NO_EFFECT, Here, effect_of
from tracereplay.whatif.grid import Plan, plan
from tracereplay.whatif.ranking import point
from tracereplay.whatif.steps import Change, changes_of, grid_of
from tracereplay.whatif.suggest import Suggested, suggest

TRACE = Path(__file__).parents[2] / "traces" / "pages-6.12"
STRATEGIES = ("per-page", "few=bulk:batch_cap=8", "compound", "unmapped-cache")


def asked(strategies: tuple[str, ...] = STRATEGIES, **options: Any) -> Plan:
    return plan([str(TRACE)], strategies, [], profile=DEFAULT_PROFILE, **options)


# ---------------------------------------------------------------- changes
def test_every_change_is_one_that_a_grid_takes() -> None:
    question = asked(demand=DemandSpec(path="dm-crypt"))
    changes = changes_of(question, default_machine())
    assert len(changes) == len(set(changes))
    assert all(change.value != change.keeps for change in changes)
    axes = axes_of(
        [f"{change.name}={change.value}" for change in {c.name: c for c in changes}.values()], question.choices
    )
    assert {"pcp.batch", "generation", "copies", "request_pages", "max_write", "few.batch_cap"} <= set(axes)
    for change in changes:
        axes_of([f"{change.name}={change.value}"], question.choices)
        try:
            machine_options(
                default_machine(), dict(question.task(str(TRACE), "per-page", {change.name: change.value}).machine)
            )
        except TracereplayError as error:
            pytest.fail(f"{change}: {error}")


def test_steps_go_both_ways_from_where_the_machine_is() -> None:
    machine = replace(default_machine(), pcp_batch=40, generation="6.7", pcp_high=200)
    changes = changes_of(asked(), machine)
    values = {name: [c.value for c in changes if c.name == name] for name in ("pcp.batch", "pcp.high", "generation")}
    assert values == {"pcp.batch": ["20", "80"], "pcp.high": ["100", "400"], "generation": ["6.1", "6.12"]}
    assert [c.value for c in changes if c.name == "few.batch_cap"] == ["4", "16"]
    assert grid_of("generation", changes) == "generation=6.1,6.7,6.12"
    assert grid_of("pcp.batch", changes) == "pcp.batch=20,40,80"


def test_a_base_without_a_number_stands_in_the_grid_as_default() -> None:
    changes = changes_of(asked(), default_machine())
    assert grid_of("pcp.high", changes) == "pcp.high=default,378,1512"


# ---------------------------------------------------------------- effects
def here(**counters: float) -> tuple[Here, dict[str, Any]]:
    """A strategy ``a`` with counters, and ``b`` that costs more."""
    mine = sampled_row("a", counters_like(1, **counters))
    points = [point(mine), point(row("b", mine["per_page"] * 1.2))]
    return Here([p for p in points if p]), mine


def test_an_effect_is_judged_with_draws_in_common() -> None:
    now, mine = here(alloc_calls=10, zone_lock_acquisitions=5)
    counters = counters_like(1, alloc_calls=10, zone_lock_acquisitions=5)
    found = effect_of(Change("x", "1", "2"), now, [mine])
    assert (found["effect_percent"], found["low95"], found["high95"]) == (0, 0, 0)
    assert found["verdict"] == NO_EFFECT
    counters[:, COUNTERS.index("alloc_calls")] += 1
    more = sampled_row("a", counters)
    found = effect_of(Change("x", "1", "2"), now, [more])
    assert found["effect_percent"] == pytest.approx(100 * (more["per_page"] / mine["per_page"] - 1))
    assert 0 < found["low95"] < found["effect_percent"] < found["high95"]
    assert (found["strategy"], found["changes_ranking"]) == ("a", False)


def test_words_for_what_happens_to_the_ranking() -> None:
    now = Here([p for p in map(point, (row("a", 10.0, 1), row("b", 14.0, 1))) if p])

    def verdict(cost: float, spread: float) -> tuple[bool, str]:
        found = effect_of(Change("x", "1", "2"), now, [row("a", cost, spread), row("b", 14.0, 1)])
        return found["changes_ranking"], found["verdict"]

    assert verdict(30.0, 1) == (True, "makes b cheapest")
    assert verdict(14.5, 1) == (True, "may make b cheapest")
    assert verdict(13.0, 1) == (False, "leaves open whether a is cheapest")
    assert verdict(5.0, 1) == (False, "a cheaper, same ranking")
    assert verdict(10.01, 1) == (False, NO_EFFECT)
    near = Here([p for p in map(point, (row("a", 10.0, 1), row("b", 10.5, 1))) if p])
    assert effect_of(Change("x", "1", "2"), near, [row("a", 5.0, 1)])["verdict"] == "settles that a is cheapest"


def test_a_change_that_cannot_be_run_says_why() -> None:
    now, _ = here(alloc_calls=10)
    found = effect_of(Change("memory", "1GiB", "64MiB"), now, [row("a", None) | {"error": "too little memory"}])
    assert found["verdict"] == "not run: too little memory"


# ---------------------------------------------------------------- the part of a trace
@pytest.fixture(scope="module")
def whole() -> Spool:
    return Spool(recorded_demand(Trace.open(TRACE), DemandSpec()))


@pytest.mark.parametrize("operations", [1, 1000, 20_000])
def test_a_prefix_is_the_first_operations(whole: Spool, operations: int) -> None:
    part = Prefix(whole, operations)
    found, all_of_it = np.concatenate([*part]), np.concatenate([*whole])
    assert operations <= len(found) < len(all_of_it)
    assert (found == all_of_it[: len(found)]).all()
    assert not part.whole
    assert part.info.end_ns == max(found["ts_ns"].max(), whole.info.start_ns + 1)
    assert all_of_it["ts_ns"][len(found)] > found["ts_ns"][-1]  # no request is cut
    asked_for = found[(found["kind"] == ALLOC) & (found["flags"] & FIRST != 0)]
    assert part.report.requests == len(asked_for)
    assert part.report.pages == asked_for["pages"].sum()
    targeted = asked_for[asked_for["flags"] & TARGETED != 0]
    assert (part.report.targeted_requests, part.report.targeted_pages) == (len(targeted), targeted["pages"].sum())


def test_a_prefix_may_be_all_of_it(whole: Spool) -> None:
    part = Prefix(whole, len(whole))
    assert sum(len(batch) for batch in part) == len(whole)
    assert part.whole
    assert part.report is whole.report
    assert part.info is whole.info


# ---------------------------------------------------------------- all of it
def test_suggestions_of_a_real_trace(monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = ("init_on_alloc", "pcp.batch", "bulk.batch_cap", "memory", "nodes")

    def few(question: Plan, machine: Any) -> list[Change]:
        found = [c for c in changes_of(question, machine) if c.name in wanted]
        return [*found, Change("memory", "recorded", "64MiB"), Change("copies", "1", "1000")]

    monkeypatch.setattr(module, "changes_of", few)
    monkeypatch.setattr(module, "LEAST", 6000)
    monkeypatch.setattr(module, "WORK", 1)
    calls: list[tuple[int, int]] = []
    with ThreadPoolExecutor(2) as pool:
        found = suggest(asked(("per-page", "bulk")), pool, workers=2, done=lambda n, of: calls.append((n, of)))
    assert calls == [(n + 1, len(found.frame)) for n in range(len(found.frame))]
    assert 6000 <= found.operations < 7000
    assert not found.whole
    assert 0 < found.seconds < found.of_seconds
    (zeroed,) = found.frame.filter(tunable="init_on_alloc").to_dicts()
    assert (zeroed["from"], zeroed["to"]) == ("false", "true")
    assert zeroed["effect_percent"] > 50
    assert zeroed["low95"] > 0
    cap = found.frame.filter(tunable="bulk.batch_cap")
    assert set(cap["strategy"]) <= {"bulk"}
    failed = found.frame.filter(pl.col("verdict").str.starts_with("not run"))
    assert "copies" in failed["tunable"].to_list()
    assert found.command is not None
    assert found.command.startswith(f"tracereplay whatif {TRACE} -s per-page -s bulk --grid ")
    assert "--grid init_on_alloc=false,true" in found.command
    text = suggestions(found, str(TRACE))
    *told, command = text.splitlines()
    assert command == found.command
    assert max(map(len, told)) <= 80


def test_nothing_matters() -> None:
    frame = pl.DataFrame([effect_of(Change("pcp.batch", "1", "2"), here(alloc_calls=9)[0], [here(alloc_calls=9)[1]])])
    text = suggestions(Suggested(frame, 10, True, 1.0, 1.0, 5, {"a": 1.0}, "ns", None), "web.trace")
    assert "No effect beyond its interval, or under 0.5 %: pcp.batch." in text
    assert text.splitlines()[-1] == "Nothing that was changed matters for this trace."


def test_suggest_takes_one_trace_and_no_grid() -> None:
    with ThreadPoolExecutor(1) as pool:
        for question in (
            plan([str(TRACE)], ("bulk",), ["copies=1,2"], profile=DEFAULT_PROFILE),
            plan([str(TRACE), "b"], ("bulk",), [], profile=DEFAULT_PROFILE),
        ):
            with pytest.raises(UsageError, match="one trace and no --grid"):
                suggest(question, pool, workers=1)


def test_no_target_is_named() -> None:
    with ThreadPoolExecutor(1) as pool, pytest.raises(UsageError, match="no request is targeted"):
        suggest(asked(("per-page",), demand=DemandSpec(target=("comm:nobody",))), pool, workers=1)
