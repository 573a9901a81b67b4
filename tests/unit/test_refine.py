"""Refined sweeps on made-up answers; progress."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Executor, Future
from pathlib import Path
from typing import Any

import pytest

from tests.unit.test_sweep_table import row as measured
from tracereplay.cost.profile import DEFAULT_PROFILE
from tracereplay.errors import UsageError
from tracereplay.whatif.grid import Plan, plan
from tracereplay.whatif.progress import Pace, clock_text
from tracereplay.whatif.refine import run_refined
from tracereplay.whatif.task import Row, Task, place

TRACE = str(Path(__file__).parents[2] / "traces" / "pages-6.12")


class Surface(Executor):
    """Answers each task with a made-up cost."""

    def __init__(self, cost: Callable[[Task], float], spread: float = 0.0) -> None:
        self.cost, self.spread = cost, spread
        self.tasks: list[Task] = []

    def submit(self, _function: Any, task: Task, /, *_more: Any) -> Future[Row]:  # type: ignore[override]
        self.tasks.append(task)
        done: Future[Row] = Future()
        done.set_result(measured("", self.cost(task), self.spread) | place(task))
        return done


def asked(grid: list[str], strategies: tuple[str, ...] = ("per-page", "bulk")) -> Plan:
    return plan([TRACE], strategies, grid, profile=DEFAULT_PROFILE)


def refined(
    question: Plan, surface: Surface, known: list[Row] | None = None
) -> tuple[list[dict[str, str]], list[str], list[int]]:
    """Settings of the points run, in order; what was told; how many were expected."""
    rows: list[Row] = []
    told: list[str] = []
    expected: list[int] = []
    run_refined(question, surface, rows.append, workers=1, known=known or [], tell=told.append, expect=expected.append)
    assert len(rows) == len({row["key"] for row in rows}) == len(surface.tasks)
    return [dict(task.settings) for task in surface.tasks], told, expected


def by_batch(task: Task) -> float:
    """bulk is cheaper from a batch of 300 on."""
    batch = int(dict(task.settings)["pcp.batch"])
    return 300.0 if task.label == "per-page" else 600.0 - batch


def test_few_points_find_where_the_winner_changes() -> None:
    settings, told, expected = refined(asked(["pcp.batch=1:1000:1"]), Surface(by_batch))
    run = {int(s["pcp.batch"]) for s in settings}
    assert {299, 300} <= run  # equal at 300, where the name decides
    assert len(run) < 20
    assert told[0] == "so far: pcp.batch: per-page at 1, bulk at 500 to 1000"
    assert told[-2] == "so far: pcp.batch: per-page at 1 to 299, bulk at 300 to 1000"
    assert told[-1] == f"ran {len(settings)} of 2000 points; the others lie between points of the same settled ranking"
    assert expected == sorted(expected)
    assert expected[-1] == len(settings)


def test_what_is_known_is_not_run_again() -> None:
    question = asked(["pcp.batch=1:1000:1"])
    rows: list[Row] = []
    run_refined(question, Surface(by_batch), rows.append, workers=1)
    settings, told, _ = refined(question, Surface(by_batch), known=rows)
    assert settings == []
    assert told[-1].startswith(f"ran {len(rows)} of 2000 points")


def test_all_of_a_grid_is_run_where_nothing_is_settled() -> None:
    settings, told, _ = refined(asked(["pcp.batch=1:20:1", "copies=1..8"]), Surface(by_batch, spread=1000.0))
    assert len(settings) == 2 * 20 * 4
    assert told[-1] == "ran 160 of 160 points"


def test_every_value_of_names_is_run_and_told_apart() -> None:
    def cost(task: Task) -> float:
        at = dict(task.settings)
        change = {"6.1": 10, "6.12": 90}[at["generation"]]
        return 0.0 if (task.label == "bulk") == (int(at["pcp.batch"]) > change) else 1.0

    settings, told, _ = refined(asked(["pcp.batch=1:100:1", "generation=6.1,6.12"]), Surface(cost))
    run = {(s["generation"], int(s["pcp.batch"])) for s in settings}
    assert {("6.1", 10), ("6.1", 11), ("6.12", 90), ("6.12", 91)} <= run
    assert len(run) < 40
    assert told[-2] == (
        "so far: generation=6.1: pcp.batch: per-page at 1 to 10, bulk at 11 to 100; "
        "generation=6.12: pcp.batch: per-page at 1 to 90, bulk at 91 to 100"
    )


def test_an_axis_of_one_strategy_runs_the_others_once() -> None:
    def cost(task: Task) -> float:
        cap = dict(task.settings).get("compound.max_order")
        return 3.5 if cap is None else float(cap)

    settings, told, _ = refined(asked(["compound.max_order=0:10:1"], ("per-page", "compound")), Surface(cost))
    assert settings.count({}) == 1
    assert {"3", "4"} <= {s["compound.max_order"] for s in settings if s}
    assert "compound at 0 to 3, per-page at 4 to 10" in told[-2]


def test_one_strategy_has_no_ranking() -> None:
    with pytest.raises(UsageError, match="one strategy"):
        run_refined(asked(["pcp.batch=1,2"], ("bulk",)), Surface(by_batch), lambda _row: None, workers=1)


def test_time_to_finish_is_that_of_recent_points_over_the_workers() -> None:
    now = [0.0]
    pace = Pace(100, done=10, clock=lambda: now[0])
    pace.workers = 2
    assert pace.line() == "10 of 100 points"
    assert pace.left_s is None
    now[0] = 5.0
    for _ in range(10):
        pace.point(4.0)
    assert pace.left_s == 80 * 4.0 / 2
    assert pace.line() == "20 of 100 points, 2.0 a second, 3 min to finish"
    for _ in range(40):
        pace.point(1.0)
    assert pace.left_s == 40 / 2
    pace.total = 70
    assert pace.line() == "60 of 70 points so far, 100 at most, 10.0 a second, 5 s to the next answer"


@pytest.mark.parametrize(("seconds", "text"), [(0.2, "0 s"), (99, "99 s"), (150, "2 min"), (7500, "2 h 5 min")])
def test_times_in_words(seconds: float, text: str) -> None:
    assert clock_text(seconds) == text
