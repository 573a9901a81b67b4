"""Gaps between page events in a loop over many pages, by how much the buddy lists had to be cut or joined for each.

Neither splits nor merges fire an event, but they follow from the addresses. Blocks that leave one large free block
come in ascending order, and block p of a run splits as many levels as p has trailing zero bits (where the run
reaches that far back: [p - 2^n, p) left it before, so [p, p + 2^n) was still whole). Pages drained in ascending
order merge as many levels as p + 1 has trailing zeros.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

MOST_LEVELS = 4
FEWEST = 8
"""Gaps of one level that a mean is made of."""


@dataclass(frozen=True, slots=True)
class RingGaps:
    """``found``: (letters of both events, levels) -> ns; levels None where they are not known."""

    found: Mapping[tuple[str, int | None], Sequence[float]]

    def of(self, pair: str, level: int | None) -> Sequence[float]:
        """Gaps of a pair of events at one level."""
        return self.found.get((pair, level), ())

    def all(self, pair: str) -> list[float]:
        """Gaps of a pair of events."""
        return [g for (name, _), gaps in self.found.items() if name == pair for g in gaps]


def ring_gaps(tapes: Sequence[Mapping[str, Any]], order: int = 0) -> RingGaps:
    """Gaps between neighbouring events of blocks of one order."""
    found: dict[tuple[str, int | None], list[float]] = defaultdict(list)
    digit = "0123456789abcdef"[order]
    for tape in tapes:
        kinds, orders, times, pages = tape["k"], tape["o"], tape["t"], tape["p"]
        run = 1
        for i in range(1, len(kinds)):
            pair = kinds[i - 1] + kinds[i]
            follows = pages[i] == pages[i - 1] + (1 << order)
            run = run + 1 if follows and kinds[i] == kinds[i - 1] else 1
            if orders[i] != digit or orders[i - 1] != digit:
                continue
            level: int | None = None
            if run > 1:
                at = (pages[i] >> order) + (kinds[i] in "DF")
                zeros = (at & -at).bit_length() - 1 if at else MOST_LEVELS + 1
                if zeros <= MOST_LEVELS and run > (1 << zeros) - (kinds[i] in "DF"):
                    level = zeros
            found[pair, level].append(float(times[i] - times[i - 1]))
    return RingGaps(found)
