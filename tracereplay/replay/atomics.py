"""What per-CPU lists without a lock would count: atomic operations instead of locks (M. Gorman, 2021-03-12).

The machine counts locks; which pages move where is the same. With ``llist`` lists every page is pushed and popped by an
atomic operation of its own, and so is every page of a drain, since a part of such a list cannot be spliced off. A
refill adds its chain with one (``llist_add_batch``). Nobody has built this: what drains and refills do to the order of
pages in such a list is not modelled, and a block of order k counts 2^k times at a drain, of which the lists hold few.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from tracereplay.machine.counters import (
    FREES_PCP,
    PCP_ATOMICS,
    PCP_DRAIN_PAGES,
    PCP_HITS,
    PCP_LOCK_ACQUISITIONS,
    PCP_REFILLS,
)

if TYPE_CHECKING:
    from tracereplay.machine.layout import I64
    from tracereplay.replay.engine import Outcome

PER_OPERATION = ((PCP_HITS, 1), (PCP_REFILLS, 2), (FREES_PCP, 1), (PCP_DRAIN_PAGES, 1))
"""Atomic operations for each: a pop, the chain of a refill and the pop after it, a push, a page of a drain."""


def without_locks(rows: I64) -> I64:
    """Counter rows, [..., counters], with the locks of the per-CPU lists turned into atomic operations."""
    found = rows.copy()
    found[..., PCP_ATOMICS] = sum(times * rows[..., counter] for counter, times in PER_OPERATION)
    found[..., PCP_LOCK_ACQUISITIONS] = 0
    return np.asarray(found)


def lockless(outcome: Outcome) -> Outcome:
    """A finished replay as if its per-CPU lists had no lock."""
    return replace(
        outcome,
        totals=without_locks(outcome.totals),
        worker=without_locks(outcome.worker),
        background=without_locks(outcome.background),
        vectors=without_locks(outcome.vectors),
        bio_vectors=without_locks(outcome.bio_vectors),
        series=without_locks(outcome.series),
        background_series=without_locks(outcome.background_series),
        worker_series=without_locks(outcome.worker_series),
    )
