"""Which points of a grid to run next, given what is known at those that were run: a coarse pass, then halving.

The grid is cut into cells between neighbours that were run: at first the ends and the middle of every axis. A cell is
*open* while points in it or on its sides have different winners, or one of them is not settled. An open cell is cut in
halves along every axis until its sides are neighbours in the grid. What lies in a closed cell is not run.

Where one strategy is cheapest in a convex region of settings, as with costs that are straight in every axis, no change
of the winner between neighbours is missed. An island of another winner inside a closed cell is.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise, product
from math import prod

Place = tuple[int, ...]
"""Index along each axis."""
Cell = tuple[tuple[int, int], ...]
"""First and last index along each axis; equal for an axis of one value."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What is known at a place."""

    winner: str | None
    """None where no strategy has a price."""
    unsettledness: float
    """0 where the winner is settled, to 1."""


class Refinement:
    """The cells of one grid of axes with an order."""

    def __init__(self, sizes: Sequence[int]) -> None:
        ends = [sorted({0, (size - 1) // 2, size - 1}) for size in sizes]
        self._cells: list[Cell] = [*product(*(tuple(pairwise(e)) or ((0, 0),) for e in ends))]

    def wanted(self, known: Mapping[Place, Answer]) -> list[Place]:
        """Places to run next, the most doubtful first; at first the coarse pass, at last none."""
        while True:
            lacking = [p for cell in self._cells for p in product(*map(_both, cell)) if p not in known]
            if lacking:
                return list(dict.fromkeys(lacking))
            doubts = sorted((-_doubt(cell, known), cell) for cell in self._cells)
            cells = [part for doubt, cell in doubts for part in (_halves(cell) if doubt else [cell])]
            if len(cells) == len(self._cells):
                return []
            self._cells = cells


def _both(ends: tuple[int, int]) -> tuple[int, ...]:
    return tuple(dict.fromkeys(ends))


def _halves(cell: Cell) -> list[Cell]:
    """The cell cut at the middle of each axis; the cell itself where its sides are neighbours."""
    return [*product(*(tuple(pairwise(sorted({a, (a + b) // 2, b}))) or ((a, a),) for a, b in cell))]


def _doubt(cell: Cell, known: Mapping[Place, Answer]) -> float:
    """0 of a closed cell. Else 1 where winners differ, and the mean of how unsettled its points are."""
    if prod(b - a + 1 for a, b in cell) < len(known):
        inside = [known[p] for p in product(*(range(a, b + 1) for a, b in cell)) if p in known]
    else:
        inside = [answer for p, answer in known.items() if all(a <= i <= b for i, (a, b) in zip(p, cell, strict=True))]
    if not inside:
        return 0.0
    return (len({a.winner for a in inside}) > 1) + sum(a.unsettledness for a in inside) / len(inside)
