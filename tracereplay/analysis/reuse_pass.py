"""How long frames lie free between two owners (compiled)."""

# mypy: disable-error-code="no-untyped-def, no-untyped-call"

from __future__ import annotations

from tracereplay.compiled import kernel
from tracereplay.demand.state import BROKEN, Array


@kernel
def reuse_times(pfn: Array, order: Array, t_alloc: Array, t_free: Array, how: Array, last: Array, idle: Array) -> None:
    """Of each lifetime, for how long its first frame had been free; -1 where that is not known.

    Lifetimes come in order of their end, so the last free on record of a frame is the one before its allocation.
    ``last``: one more than the time of a frame's last free, 0 unknown.
    """
    for i in range(pfn.shape[0]):
        p = pfn[i]
        idle[i] = -1
        if t_alloc[i] >= 0 and last[p] > 0:
            idle[i] = t_alloc[i] + 1 - last[p]
        ended = t_free[i] + 1
        if how[i] == BROKEN and t_alloc[i] >= 0:  # when it was freed nobody saw
            ended = 0
        if t_free[i] >= 0:
            for q in range(p, p + (1 << order[i])):
                last[q] = ended
