"""The frame table: which frames are live, as which blocks, and what is known of the others (compiled).

Frees may cover part of a block, several blocks, or frames whose allocation nobody saw (page-allocator.md 6, 7.4).
Blocks are aligned, so a block that holds a frame starts at one of its aligned parents.
"""

# mypy: disable-error-code="no-untyped-def, no-untyped-call"

from __future__ import annotations

import numpy as np

from tracereplay.compiled import hot, kernel
from tracereplay.demand.ring import put
from tracereplay.demand.state import (
    BROKEN,
    C_LIVE_BLOCKS,
    C_LIVE_PAGES,
    C_REUSED_PAGES,
    C_SECOND_KEYS,
    COLOUR,
    FLIPPED,
    HEAD,
    KNOWN,
    NEVER,
    REFILLED,
    S_ALIAS,
    S_FRAMES,
    S_LIFE_N,
    S_START_NS,
    STATE_MASK,
    TAIL,
)
from tracereplay.demand.stream import FREE
from tracereplay.kernel.constants import MAX_PAGE_ORDER

_SPAN_MAX = 0xFFFFFFFF


@hot
def key_of(w, pfn, state):
    """Key under which the frame's page is in the stream."""
    return pfn + w.scalar[S_ALIAS] if state & COLOUR else pfn


@hot
def span_up(ns):
    """A duration in units of 1024 ns, rounded up, saturating."""
    units = (ns >> 10) + 1
    return units if units < _SPAN_MAX else _SPAN_MAX


@kernel
def place(w, pfn, order, t, cpu, colour):
    """Mark a block live."""
    bits = 0
    if colour:
        bits = COLOUR | FLIPPED
        w.counts[C_SECOND_KEYS] += 1
    for p in range(pfn, pfn + (1 << order)):
        f = w.frames[p]
        f.state = TAIL | bits | (f.state & FLIPPED)
    f = w.frames[pfn]
    f.state = (f.state & ~STATE_MASK) | HEAD
    f.ts = t
    f.cpu = cpu
    f.order = order
    w.counts[C_LIVE_BLOCKS] += 1
    w.counts[C_LIVE_PAGES] += 1 << order


@hot
def forget(w, pfn, order, t, cpu):
    """Mark a live block free, released now."""
    head = w.frames[pfn]
    span = span_up(t - head.ts)
    if order == 0:
        head.state = (head.state & ~(STATE_MASK | REFILLED)) | KNOWN
        head.ts = t
        head.span = span
        head.cpu = cpu
    else:
        for p in range(pfn, pfn + (1 << order)):
            f = w.frames[p]
            f.state = (f.state & ~(STATE_MASK | REFILLED)) | KNOWN
            f.ts = t
            f.span = span
            f.cpu = cpu
    w.counts[C_LIVE_BLOCKS] -= 1
    w.counts[C_LIVE_PAGES] -= 1 << order


@hot
def refilled(w, pfn, order, t, cpu):
    """The block passed between buddy lists and a CPU's list: its frames were free then, on that CPU."""
    end = min(pfn + (1 << order), w.scalar[S_FRAMES])
    for p in range(pfn, end):
        f = w.frames[p]
        st = f.state & STATE_MASK
        if st in (HEAD, TAIL):
            continue
        if st == NEVER:
            f.ts = w.scalar[S_START_NS]
        f.state = (f.state & ~STATE_MASK) | KNOWN | REFILLED
        span = (t - f.ts) >> 10
        f.span = span if span < _SPAN_MAX else _SPAN_MAX
        f.cpu = cpu


@hot
def known_since(f):
    """Latest time at which the frame was surely free (a lower bound within 1024 ns)."""
    return f.ts + (np.int64(f.span) << 10) if f.state & REFILLED else f.ts


@kernel
def colour_for(w, pfn, order, arrival):
    """A key for a block that joins a request that arrived earlier; -1 when both may be taken at that time.

    Between the request's arrival and now the frame may have been released by its previous owner, whose key is
    then still live at the place where the request goes into the stream.
    """
    ok0 = True
    ok1 = w.scalar[S_ALIAS] > 0
    for p in range(pfn, pfn + (1 << order)):
        f = w.frames[p]
        st = f.state
        if st & STATE_MASK == NEVER:
            continue
        last_taken = f.ts >= arrival
        other_taken = False
        if st & FLIPPED:  # the other key was released before the last owner came, span or a little less ago
            taken_until = f.ts if st & REFILLED else f.ts - ((np.int64(f.span) - 1) << 10)
            other_taken = taken_until >= arrival
        if st & COLOUR:
            ok1 = ok1 and not last_taken
            ok0 = ok0 and not other_taken
        else:
            ok0 = ok0 and not last_taken
            ok1 = ok1 and not other_taken
    if ok0:
        return 0
    return 1 if ok1 else -1


@kernel
def carve(w, pfn, order):
    """Make the live block that holds ``pfn`` fall apart so that one of its parts is (pfn, order).

    ``pfn`` is inside a block of a higher order. The other aligned parts become blocks of their own, with the
    same allocation. False when no such block is found.
    """
    head = -1
    for k in range(order + 1, MAX_PAGE_ORDER + 1):
        p = (pfn >> k) << k
        f = w.frames[p]
        if f.state & STATE_MASK == HEAD:
            if f.order >= k:
                head = p
                break
            if p != pfn:
                return False
    if head < 0:
        return False
    block = w.frames[head]
    k = block.order
    w.counts[C_LIVE_BLOCKS] -= 1
    lifetimes = w.who.shape[0] > 1
    while k > order:
        k -= 1
        # keep cutting the half that holds pfn; the other one is a block now
        half = head + (1 << k)
        other = half if pfn < half else head
        _part(w, block.ts, block.cpu, other, k)
        if lifetimes and other != head:
            w.who[other] = w.who[head]
        if pfn >= half:
            if lifetimes:
                w.who[half] = w.who[head]
            ts = block.ts
            cpu = block.cpu
            head = half
            block = w.frames[head]
            block.ts = ts
            block.cpu = cpu
    _part(w, block.ts, block.cpu, head, order)
    return True


@hot
def _part(w, ts, cpu, pfn, order):
    f = w.frames[pfn]
    f.state = (f.state & ~STATE_MASK) | HEAD
    f.ts = ts
    f.cpu = cpu
    f.order = order
    w.counts[C_LIVE_BLOCKS] += 1


@hot
def life(w, pfn, order, t_alloc, t_free, cpu_alloc, cpu_free, censoring):
    """One row of lifetimes, if they are wanted."""
    if w.who.shape[0] > 1:
        n = w.scalar[S_LIFE_N]
        row = w.life[n]
        row.t_alloc = t_alloc
        row.t_free = t_free
        row.pfn = pfn
        row.cpu_alloc = cpu_alloc
        row.cpu_free = cpu_free
        row.order = order
        row.censoring = censoring
        row.pid = w.who[pfn].pid
        row.gfp = w.who[pfn].gfp
        row.caller = w.who[pfn].caller
        w.scalar[S_LIFE_N] = n + 1


@hot
def free_block(w, pfn, t, cpu, censoring):
    """Release the live block that starts at ``pfn``: operation, lifetime, state."""
    f = w.frames[pfn]
    order = f.order
    put(w, t, key_of(w, pfn, f.state), order, FREE, 0, cpu)
    life(w, pfn, order, f.ts, t, f.cpu, cpu, censoring)
    forget(w, pfn, order, t, cpu)


@kernel
def close_live(w, pfn, order, t, cpu):
    """Close whatever is live in a range that is being allocated again: its free was not seen.

    Time of the oldest allocation closed, or -1 when nothing was live.
    """
    oldest = -1
    p = pfn
    end = pfn + (1 << order)
    while p < end:
        st = w.frames[p].state & STATE_MASK
        if st == TAIL:
            if not carve(w, p, 0 if p != pfn else order) and not carve(w, p, 0):
                p += 1
                continue
        elif st != HEAD:
            p += 1
            continue
        elif p + (1 << w.frames[p].order) > end:
            carve(w, p, order if p == pfn else 0)
        f = w.frames[p]
        if oldest < 0 or f.ts < oldest:
            oldest = f.ts
        pages = 1 << f.order
        w.counts[C_REUSED_PAGES] += pages
        free_block(w, p, t, cpu, BROKEN)
        p += pages
    return oldest
