"""Early answers: a coarse pass over a large grid, then only points between which the ranking is not settled.

Axes of numbers are refined (whatif/refinement.py), every value of an axis of names is taken. At a place of the grid
all strategies run; what is asked there is which of them is cheapest, and whether that is settled.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from concurrent.futures import Executor
from dataclasses import dataclass, field
from itertools import groupby, product
from typing import TYPE_CHECKING

from tracereplay.errors import UsageError
from tracereplay.whatif.crossings import is_numeric, number_of
from tracereplay.whatif.ranking import own_axes, point, standings
from tracereplay.whatif.refinement import Answer, Place, Refinement
from tracereplay.whatif.run import run_tasks

if TYPE_CHECKING:
    from tracereplay.whatif.grid import Plan
    from tracereplay.whatif.task import Row, Task

TOLD = 4
"""Parts of an answer that a line holds."""


@dataclass(slots=True)
class Field:
    """The numeric axes of a plan at one trace and one value of each axis of names."""

    plan: Plan
    trace: str
    names: dict[str, str]
    axes: dict[str, list[str]]
    """Numeric axis -> its values, rising."""
    refinement: Refinement = field(init=False)
    known: dict[Place, Answer] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.refinement = Refinement([len(values) for values in self.axes.values()])

    def tasks(self, place: Place) -> list[Task]:
        """A task for each strategy."""
        chosen = self.names | {axis: values[i] for (axis, values), i in zip(self.axes.items(), place, strict=True)}
        plan = self.plan
        return [plan.task(self.trace, s, {axis: chosen[axis] for axis in plan.axes_for(s)}) for s in plan.labels]

    def told(self) -> str:
        """The answer so far: which strategy where."""
        lead = ", ".join(f"{name}={value}" for name, value in self.names.items())
        varied = [(axis, values) for axis, values in self.axes.items() if len(values) > 1]
        if len(varied) == 1:
            said = f"{varied[0][0]}: {self._along(*varied[0])}"
        else:
            wins = Counter(a.winner or "nothing" for a in self.known.values())
            said = ", ".join(f"{winner} cheapest at {n}" for winner, n in wins.most_common())
            said += f" of {sum(wins.values())} settings"
        return f"{lead}: {said}" if lead else said

    def _along(self, axis: str, values: list[str]) -> str:
        """Runs of one winner along the only axis, and between which points they meet."""
        at = list(self.axes).index(axis)
        places = sorted((place[at], answer.winner or "nothing") for place, answer in self.known.items())
        runs = [(winner, [i for i, _ in part]) for winner, part in groupby(places, key=lambda p: p[1])]
        said = []
        for n, (winner, found) in enumerate(runs):
            first, last = values[found[0]], values[found[-1]]
            span = first if first == last else f"{first} to {last}"
            said.append(f"{winner} at {span}")
            if n == TOLD and len(runs) > TOLD + 1:
                return ", ".join(said) + f" and {len(runs) - 1 - n} changes more"
        return ", ".join(said)


def run_refined(
    plan: Plan,
    executor: Executor,
    add: Callable[[Row], None],
    *,
    workers: int,
    known: Iterable[Row] = (),
    expect: Callable[[int], None] = lambda _points: None,
    tell: Callable[[str], None] = lambda _text: None,
) -> None:
    """Run the points of a plan that its answer needs, the most doubtful first; all of them where nothing is settled.

    ``known``: rows that are there already. ``expect`` is called with the number of points, these among them, that will
    be there after the next pass. ``tell``: the answer after the coarse pass and whenever it changes; at last, how many
    points it took. Raises UsageError where there is nothing to rank.
    """
    if len(plan.labels) < 2:
        raise UsageError(
            "--refine looks for where the ranking of strategies changes, and there is one strategy",
            hint="name another with -s, or leave --refine out",
        )
    own = own_axes(list(plan.axes), plan.labels)
    rows = {row["key"]: row for row in known}

    def keep(row: Row) -> None:
        rows[row["key"]] = row
        add(row)

    def answer(keys: list[str]) -> Answer:
        found = [rows[key] for key in keys if key in rows]
        points = [p for row in found if (p := point(row, own.get(row["label"], ())))]
        best = next((s for s in zip(points, standings(points), strict=True) if s[1].rank == 1), None)
        return Answer(best[0].label, best[1].unsettledness) if best else Answer(None, 0.0)

    fields, used, last = fields_of(plan), set[str](), ""
    while wanted := [(f, place) for f in fields for place in f.refinement.wanted(f.known)]:
        tasks = {(id(f), place): {task.key: task for task in f.tasks(place)} for f, place in wanted}
        needed = {key: task for found in tasks.values() for key, task in found.items()}
        used |= needed.keys()
        expect(len(used | rows.keys()))
        run_tasks((task for key, task in needed.items() if key not in rows), executor, keep, workers=workers, note=tell)
        for f, place in wanted:
            f.known[place] = answer(list(tasks[id(f), place]))
        if (text := told(fields)) != last:
            tell(text)
        last = text
    rest = "; the others lie between points of the same settled ranking" if len(used) < plan.points else ""
    tell(f"ran {len(used)} of {plan.points} points{rest}")


def fields_of(plan: Plan) -> list[Field]:
    """A field for each trace and each combination of names."""
    numeric = {axis: sorted(values, key=_number) for axis, values in plan.axes.items() if is_numeric(axis, values)}
    named = {axis: values for axis, values in plan.axes.items() if axis not in numeric}
    return [
        Field(plan, trace, dict(zip(named, names, strict=True)), numeric)
        for trace in plan.traces
        for names in product(*named.values())
    ]


def _number(value: str) -> float:
    return number_of(value) or 0.0


def told(fields: list[Field]) -> str:
    """The answer so far in a line."""
    traces = len({f.trace for f in fields}) > 1
    said = [f"{f.trace}: {f.told()}" if traces else f.told() for f in fields[:TOLD]]
    more = f"; {len(fields) - TOLD} more" if len(fields) > TOLD else ""
    return "so far: " + "; ".join(said) + more
