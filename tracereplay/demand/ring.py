"""Held-back operations: requests go out whole and at their arrival, so what came after waits (compiled).

Operations get a place in the ring in event order. A burst keeps the place of its first event; its extents follow
as they are seen and are linked to it. Nothing after an open burst leaves the ring.
"""

# mypy: disable-error-code="no-untyped-def, no-untyped-call"

from __future__ import annotations

from tracereplay.compiled import hot, kernel
from tracereplay.demand.state import (
    C_AGREED_BIO,
    C_CRYPT_REQUESTS,
    C_CUT_AGE,
    C_CUT_FORCED,
    C_FAILED_REQUESTS,
    CRYPT,
    DEAD,
    EXTENT,
    INFERRED,
    PATH,
    RING,
    RING_MARGIN,
    S_AGE_NS,
    S_HEAD_SEQ,
    S_NOW,
    S_OUT_N,
    S_TAIL_SEQ,
    S_TRUST,
    SIZES,
    Array,
    Work,
)
from tracereplay.demand.stream import ALLOC, BATCH, FIRST, FREE, FREE_INITIAL, ON_PATH, PIECE

_MASK = RING - 1
TRUST_MOST, TRUST_LOSS = 16, 4


@hot
def put(w, ts, pfn, order, kind, flags, cpu):
    """Append one operation; its place."""
    seq = w.scalar[S_TAIL_SEQ]
    s = seq & _MASK
    w.ring64[s, 1] = 0
    w.ring64[s, 2] = 0
    w.ring64[s, 3] = 0
    op = w.ring[s]
    op.ts_ns = ts
    op.pfn = pfn
    op.cpu = cpu
    op.flags = flags
    op.kind = kind
    op.order = order
    w.scalar[S_TAIL_SEQ] = seq + 1
    return seq


@hot
def put_request(w, ts, pfn, order, flags, cpu, gfp, caller, group, pages, owner, extents):
    """Append the FIRST extent of a request; its place."""
    seq = put(w, ts, pfn, order, ALLOC, flags | FIRST, cpu)
    s = seq & _MASK
    op = w.ring[s]
    op.gfp = gfp
    op.caller = caller
    op.pages = pages
    op.reserved = group
    movable = (gfp >> 3) & 3
    op.migratetype = movable if movable < 3 else 0
    link = w.links[s]
    link.next = 0
    link.owner = owner
    link.extents = extents
    return seq


@hot
def put_piece(w, ts, bio, to_come, cpu):
    """Announce that the next request is a piece of a bio."""
    seq = put(w, ts, bio, 0, PIECE, 0, cpu)
    w.ring[seq & _MASK].pages = to_come


@hot
def put_extent(w, b, pfn, order):
    """Append an extent of an open burst."""
    seq = put(w, 0, pfn, order, EXTENT, 0, 0)
    w.links[seq & _MASK].next = 0
    w.links[b.last & _MASK].next = seq - b.last
    b.last = seq


@kernel
def end_burst(w, index, reason):
    """Close an open burst; its request is then complete."""
    b = w.bursts[index]
    if b.first < 0:
        return
    s = b.first & _MASK
    if b.extents == 0:  # failed attempts only
        w.ring[s].kind = DEAD
        w.counts[C_FAILED_REQUESTS] += 1
    else:
        w.ring[s].pages = b.pages
        w.links[s].extents = b.extents
        if b.pages >= 2 and index % 3 != INFERRED:
            w.ring[s].flags |= BATCH
        if w.caller_flags[b.caller] & PATH:
            w.ring[s].flags |= ON_PATH
        if w.caller_flags[b.caller] & CRYPT:
            w.counts[C_CRYPT_REQUESTS] += 1
            _consume_part(w, b.pages, b.arrival_ns)
        w.counts[reason] += 1
    w.links[s].owner = -1
    b.first = -1


@hot
def has_part(w, pages, arrival):
    """Whether a WRITE part of this size is there for a buffer that dm-crypt began at ``arrival``.

    Parts that were done before are out; one may be done while the burst is still open, since its worker did
    nothing since.
    """
    taken = w.parts[1, pages]
    if taken < w.parts_done[0, pages] and w.parts_done[1, pages] < arrival:
        taken = w.parts_done[0, pages]
    return w.parts[0, pages] > taken


@hot
def _consume_part(w, pages, arrival):
    if pages < SIZES and has_part(w, pages, arrival):
        w.parts[1, pages] += 1
        w.counts[C_AGREED_BIO] += 1
        w.scalar[S_TRUST] = min(w.scalar[S_TRUST] + 1, TRUST_MOST)
    else:
        w.scalar[S_TRUST] = max(w.scalar[S_TRUST] - TRUST_LOSS, 0)


@kernel
def flush(w: Work, out64: Array, out: Array, final: bool) -> bool:
    """Move what is ready to ``out``. False when it is full: nothing was lost, call again with an empty one."""
    head = w.scalar[S_HEAD_SEQ]
    tail = w.scalar[S_TAIL_SEQ]
    n = w.scalar[S_OUT_N]
    room = out64.shape[0]
    fits = True
    while head < tail:
        s = head & _MASK
        kind = w.ring[s].kind
        if kind in (FREE, FREE_INITIAL, PIECE):
            if n >= room:
                fits = False
                break
            for k in range(4):
                out64[n, k] = w.ring64[s, k]
            n += 1
        elif kind == ALLOC:
            owner = w.links[s].owner
            if owner >= 0:
                if final or w.scalar[S_NOW] - w.bursts[owner].seen_ns > w.scalar[S_AGE_NS]:
                    end_burst(w, owner, C_CUT_AGE)
                elif tail - head > RING - 2 * RING_MARGIN:
                    end_burst(w, owner, C_CUT_FORCED)
                else:
                    break
                continue
            if n + w.links[s].extents > room:
                fits = False
                break
            n = _emit(w, s, head, out64, out, n)
        head += 1
    w.scalar[S_HEAD_SEQ] = head
    w.scalar[S_OUT_N] = n
    return fits


@hot
def _emit(w, s, seq, out64, out, n):
    for k in range(4):
        out64[n, k] = w.ring64[s, k]
    n += 1
    step = w.links[s].next
    while step:
        seq += step
        e = seq & _MASK
        for k in range(4):
            out64[n, k] = w.ring64[s, k]
        op = out[n]
        op.pfn = w.ring[e].pfn
        op.order = w.ring[e].order
        op.pages = 0
        op.flags &= ~FIRST
        n += 1
        step = w.links[e].next
    return n
