"""Buddy caches of pages that left the direct map: what the strategies that keep such caches share.

A cache is eleven lists of the machine's, orders 0 to 10, from ``lists`` on. Blocks merge within their cache only.
"""

# mypy: disable-error-code="no-untyped-def, no-untyped-call"

from __future__ import annotations

from tracereplay.machine import ops
from tracereplay.strategies.contract import compiled

LARGEST = 10
NR_LISTS = LARGEST + 1
REFILL_FROM = 9
"""Largest order that a refill asks for: a pageblock, which is an entry of 2 MiB."""


@compiled
def put(m, lists, frame, order, largest):
    """Put a block into a cache, merging with free buddies up to ``largest``. The caller holds the cache's lock.

    The order that it has then.
    """
    ops.reserve_add(m, 1 << order)
    while order < largest and ops.cache_list(m, frame ^ (1 << order)) == lists + order:
        frame = ops.cache_join(m, frame, order)
        order += 1
    ops.cache_put(m, lists + order, frame, order, False)
    return order


@compiled
def take(m, lists, cpu, order):
    """The smallest cached block that fits, cut to ``order``: its lower part. Frame or -1. Counts a hold of the lock."""
    ops.cache_lock(m)
    frame = -1
    for o in range(order, LARGEST + 1):
        frame = ops.cache_first(m, lists + o)
        if frame >= 0:
            ops.cache_take(m, frame, order, cpu)
            while o > order:
                o -= 1
                ops.cache_put(m, lists + o, frame + (1 << o), o, False)
            ops.reserve_add(m, -(1 << order))
            break
    ops.cache_unlock(m)
    return frame


@compiled
def put_locked(m, lists, frame, order, largest):
    """``put`` under a hold of the lock of its own."""
    ops.cache_lock(m)
    order = put(m, lists, frame, order, largest)
    ops.cache_unlock(m)
    return order


@compiled
def unmap_all(m, cpu, frame, order):
    """Take a block out of the direct map with one flush. False: a split failed, and all of it is mapped."""
    pages = 1 << order
    out = ops.unmap_pages(m, cpu, frame, pages)
    if out < pages:
        ops.map_pages(m, frame, out)
        return False
    ops.flush_range(m, pages)
    return True
