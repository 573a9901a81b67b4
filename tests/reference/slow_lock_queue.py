"""A FIFO lock, event by event: what cost/lock_queue.py says in formulas."""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Sequence
from itertools import groupby

Operation = tuple[float, int, Sequence[tuple[float, float]]]
"""When it is asked for, on which CPU, and its holds: (hold, time to the next one)."""


def waits(operations: Iterable[Operation], handover: float = 0.0) -> list[tuple[float, int, float]]:
    """(when, CPU, wait) of every acquisition. A CPU does its operations one after another, none before its time.

    Who finds the lock taken gets it ``handover`` after the release.
    """
    ordered = sorted(operations, key=lambda operation: (operation[1], operation[0]))
    todo = {cpu: list(some)[::-1] for cpu, some in groupby(ordered, key=lambda operation: operation[1])}
    asking: list[tuple[float, int, int]] = []
    """(when, CPU, hold of its current operation)"""
    for cpu, some in todo.items():
        heapq.heappush(asking, (some[-1][0], cpu, 0))
    free_at = 0.0
    found = []
    while asking:
        when, cpu, k = heapq.heappop(asking)
        start = when if free_at <= when else free_at + handover
        found.append((when, cpu, start - when))
        hold, gap = todo[cpu][-1][2][k]
        free_at = start + hold
        after = free_at + gap
        if k + 1 == len(todo[cpu][-1][2]):
            todo[cpu].pop()
            if not todo[cpu]:
                continue
            after, k = max(after, todo[cpu][-1][0]), -1
        heapq.heappush(asking, (after, cpu, k + 1))
    return found
