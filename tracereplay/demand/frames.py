"""The frame table: which frames are live, as which blocks, and what is known of the others (compiled).

Frees may cover part of a block, several blocks, or frames whose allocation nobody saw (page-allocator.md 6, 7.4).
Blocks are aligned, so a block that holds a frame starts at one of its aligned parents.
"""

# mypy: disable-error-code="no-untyped-def, no-untyped-call"

from __future__ import annotations

import numpy as np

from tracereplay.compiled import hot, intrinsic, kernel
from tracereplay.demand.state import (
    C_LIVE_BLOCKS,
    C_LIVE_PAGES,
    C_SECOND_KEYS,
    COLOUR,
    FLIPPED,
    HEAD,
    KEPT,
    KNOWN,
    NEVER,
    REFILLED,
    S_ALIAS,
    S_FRAMES,
    S_START_NS,
    STATE_MASK,
    TAIL,
)
from tracereplay.kernel.constants import MAX_PAGE_ORDER

_SPAN_MAX = 0xFFFFFFFF
AHEAD = 16
"""Events between asking for a frame's record and using it: frames are anywhere in memory, and waiting for them would be
more than half of the time."""


@intrinsic
def fetch(typingctx, array, index):
    """Have the processor load a record of an array early; the index need not be one of it."""
    from llvmlite import ir  # type: ignore[import-untyped]
    from numba.core import types
    from numba.core.cgutils import create_struct_proxy

    def codegen(context, builder, signature, args):
        struct = create_struct_proxy(signature.args[0])(context, builder, args[0])
        place = builder.bitcast(builder.gep(struct.data, [args[1]]), ir.IntType(8).as_pointer())
        word = ir.IntType(32)
        kind = ir.FunctionType(ir.VoidType(), [place.type, word, word, word])
        function = builder.module.declare_intrinsic("llvm.prefetch", [place.type], kind)
        builder.call(function, [place, ir.Constant(word, 1), ir.Constant(word, 3), ir.Constant(word, 1)])
        return context.get_dummy_value()

    return types.void(array, types.int64), codegen


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
    block = np.int64(w.frames[head].order)
    while block > order:
        block -= 1
        # go on with the half that holds pfn; the other one is a block now
        half = head + (1 << block)
        _part(w, head, half, block)
        if pfn >= half:
            w.frames[head].order = block
            head = int(half)
    w.frames[head].order = order
    return True


@hot
def _part(w, head, pfn, order):
    """Make (pfn, order) a live block of the allocation whose block starts at ``head``."""
    f = w.frames[pfn]
    state = f.state
    w.frames[pfn] = w.frames[head]
    f.state = (state & ~(STATE_MASK | KEPT)) | HEAD | (w.frames[head].state & KEPT)
    f.order = order
    w.counts[C_LIVE_BLOCKS] += 1
