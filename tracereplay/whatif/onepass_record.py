"""The pass that turns a demand into steps of the per-CPU lists (onepass_words.py).

It follows the replay loop (replay/loop.py, serve.py, blocks.py) with one difference: a block in use is not a frame but
what decides about its end, its zone and migratetype. Which frame it is does not matter while the conditions of
onepass_conditions.py hold: an allocation then comes from the first zone of its zonelist and from pageblocks of its own
type, and a free goes back to the list of that type. Frames matter for pages in use since before the trace alone; there
the machine's own functions say which frame stands for which (``free_held``), and no setting changes that.
"""

# mypy: disable-error-code="no-untyped-def, no-untyped-call"

from __future__ import annotations

import numpy as np

from tracereplay.compiled import hot, inner, kernel
from tracereplay.demand import stream
from tracereplay.kernel.constants import MIGRATE_PCPTYPES, NR_PAGE_ORDERS, PAGE_ALLOC_COSTLY_ORDER, PAGEBLOCK_ORDER
from tracereplay.kernel.gfp import GFP_ACCOUNT
from tracereplay.machine.buddy import block_type, get_info, info_type, set_info, zone_of
from tracereplay.machine.layout import (
    BUDDY,
    CFG_CPUS,
    CFG_FRAMES,
    CFG_VMSTAT_INTERVAL,
    CFG_ZONES,
    HELD,
    INFO_ORDER,
    INFO_STATE,
    PCP,
    POOL_GFP,
    TK,
    USED,
    Z_RESERVE,
    Z_WORDS,
)
from tracereplay.machine.page_free import is_held, next_held
from tracereplay.machine.vmstat import next_tick_after, tick_due
from tracereplay.machine.zonelist import highest_zone, migratetype, zonelist
from tracereplay.whatif.onepass_words import (
    ACCOUNTED,
    ALLOC,
    BACKGROUND,
    CLASS_SHIFT,
    E_BITS,
    E_ORDER_SHIFT,
    E_PATH,
    E_PRESENT,
    E_SPREAD,
    E_SPREAD_SHIFT,
    E_TARGETED,
    E_TYPE_SHIFT,
    E_ZONE_SHIFT,
    FLUSH,
    FREE,
    HEAD_BITS,
    LEFT_BITS,
    LIST_SHIFT,
    MOST,
    NETS,
    RECORDED,
    REQUEST,
    S_BAD_TYPE_NS,
    S_PATH_LIVE,
    S_PATH_PEAK,
    S_REASON,
    S_ROOM,
    S_SMALL,
    S_STEPS,
    S_TOGETHER_NS,
    S_WORDS,
    SETUP,
    SPARE_WORDS,
    TARGETED,
    TICK,
    UNSEEN,
    ZF_ASKED,
    ZF_ASKED_NS,
    ZF_CUT_NS,
    ZF_ORDERS,
    ZF_THP,
    ZF_THP_BACK,
    ZF_WORDS,
)


@hot
def entry_of(z, order, mt):
    """A block as the frame map has it."""
    return E_PRESENT | order << E_ORDER_SHIFT | mt << E_TYPE_SHIFT | z << E_ZONE_SHIFT


@hot
def entry_order(v):
    """Order of an entry."""
    return v >> E_ORDER_SHIFT & 0xF


@inner
def put_word(r, p, head, n, repeats):
    """Write ``n`` repeats of a step of page set ``p``; with ``repeats`` into the set's last word where it is alike."""
    r.x[S_STEPS] += n
    at = r.last[p]
    if repeats and at >= 0:
        word = np.int64(r.words[at])
        if word & ((1 << HEAD_BITS) - 1) == head and (word >> HEAD_BITS) + n <= MOST:
            r.words[at] = word + (n << HEAD_BITS)
            return
    at = r.x[S_WORDS]
    r.sets[at] = p
    r.words[at] = head | n << HEAD_BITS
    r.last[p] = at if repeats else -1
    r.x[S_WORDS] += 1


@inner
def step_of(m, r, kind, whose, z, cpu, order, mt, n, account):
    """``n`` blocks pass a list, or the buddy lists where no generation (of the sort) has lists for their order."""
    if order > 0 and (r.x[S_SMALL] or (order > PAGE_ALLOC_COSTLY_ORDER and order != PAGEBLOCK_ORDER)):
        r.buddy[whose] += n
        return
    code = order if order <= PAGE_ALLOC_COSTLY_ORDER else PAGE_ALLOC_COSTLY_ORDER + 1
    head = kind | whose << CLASS_SHIFT | account | (code * MIGRATE_PCPTYPES + mt) << LIST_SHIFT
    put_word(r, z * m.w[CFG_CPUS] + cpu, head, n, kind <= FREE)


@inner
def take(m, r, kind, whose, cpu, order, gfp, n, now):
    """``n`` blocks are allocated: the step, and what the conditions need to know. Returns the entry of one of them."""
    z = m.w[zonelist(m, cpu, gfp)]
    mt = migratetype(gfp)
    account = ACCOUNTED if kind >= REQUEST and gfp & GFP_ACCOUNT else 0
    step_of(m, r, kind, whose, z, cpu, order, mt, n, account)
    f = z * ZF_WORDS
    # single ones are tested one by one, a bulk call for all at once
    asked = m.w[z * Z_WORDS + Z_RESERVE + highest_zone(gfp)] + ((1 << order) - 1 if kind == ALLOC else n)
    if asked > r.zone[f + ZF_ASKED]:
        r.zone[f + ZF_ASKED] = asked
        r.zone[f + ZF_ASKED_NS] = now
    r.zone[f + ZF_ORDERS] |= 1 << order
    at = z * NETS + order * MIGRATE_PCPTYPES + mt
    r.net[at] += n
    if r.net[at] > r.peak[at]:
        r.peak[at] = r.net[at]
        r.peak_ns[at] = now
    if order == PAGEBLOCK_ORDER:
        r.zone[f + ZF_THP] |= 1 << mt
    return entry_of(z, order, mt)


@inner
def give(m, r, whose, v, order, cpu):
    """A block of entry ``v`` goes back, as one of ``order``."""
    z, mt = v >> E_ZONE_SHIFT & 0x1F, v >> E_TYPE_SHIFT & 3
    step_of(m, r, FREE, whose, z, cpu, order, mt, 1, 0)
    r.net[z * NETS + order * MIGRATE_PCPTYPES + mt] -= 1
    if v & E_PATH:
        r.x[S_PATH_LIVE] -= 1


# ---------------------------------------------------------------- frees of a part, or of several (replay/blocks.py)
@inner
def containing(r, key):
    """Key of the block's head that covers a page without an entry of its own; -1 when none does."""
    for o in range(1, NR_PAGE_ORDERS):
        head = key & ~((1 << o) - 1)
        if head != key and r.fm[head] > 0 and entry_order(np.int64(r.fm[head])) >= o:
            return head
    return -1


@inner
def spread(r, head, now):
    """Give every page of a block an entry of its own."""
    v = np.int64(r.fm[head])
    order = entry_order(v)
    if v & E_TARGETED:
        r.left[head] = (v & ((1 << E_BITS) - 1)) << LEFT_BITS | 1 << order
        for k in range(1 << order):
            r.fm[head + k] = -head - 1
        return
    z = v >> E_ZONE_SHIFT & 0x1F
    if order == PAGEBLOCK_ORDER and r.zone[z * ZF_WORDS + ZF_CUT_NS] < 0:
        r.zone[z * ZF_WORDS + ZF_CUT_NS] = now
    for k in range(1 << order):
        r.fm[head + k] = entry_of(z, 0, v >> E_TYPE_SHIFT & 3) | E_SPREAD | order << E_SPREAD_SHIFT


@inner
def free_run(m, r, key, order, cpu, now):
    """Pages of one cut block that go back together go as one block. True if so.

    Single pages of different blocks might lie together in some replays and not in others: noted, since then nothing is
    certain.
    """
    v = np.int64(r.fm[key])
    alike = True
    for k in range(1 << order):
        u = np.int64(r.fm[key + k])
        if u <= 0 or u & E_TARGETED or entry_order(u) > 0:
            return False
        alike &= u == v
    if not alike or not v & E_SPREAD or (v >> E_SPREAD_SHIFT) < order:
        if r.x[S_TOGETHER_NS] < 0:
            r.x[S_TOGETHER_NS] = now
        return False
    for k in range(1 << order):
        r.fm[key + k] = 0
    give(m, r, BACKGROUND, v, order, cpu)
    return True


@inner
def free_keys(m, r, key, order, cpu, now):
    """``free_keys`` of replay/loop.py."""
    v = np.int64(r.fm[key])
    if v > 0 and entry_order(v) > order:
        spread(r, key, now)
    elif v == 0:
        head = containing(r, key)
        if head >= 0:
            spread(r, head, now)
    if order > 0 and r.fm[key] > 0 and not r.fm[key] & E_TARGETED and free_run(m, r, key, order, cpu, now):
        return
    k = key
    while k < key + (1 << order):
        v = np.int64(r.fm[k])
        r.fm[k] = 0
        if v < 0:
            head = -v - 1
            r.left[head] -= 1
            if r.left[head] & ((1 << LEFT_BITS) - 1) == 0:
                v = np.int64(r.left[head]) >> LEFT_BITS
                give(m, r, TARGETED, v, entry_order(v), cpu)
            k += 1
        elif v == 0:
            k += 1
        else:
            give(m, r, TARGETED if v & E_TARGETED else BACKGROUND, v, entry_order(v), cpu)
            k += 1 << entry_order(v)


@inner
def free_initial(m, r, pfn, order, cpu, now):
    """``free_held`` of machine/page_free.py, up to the list."""
    if not is_held(m, pfn, order):
        pfn = next_held(m, order)
        if pfn < 0:
            return
    set_info(m, pfn, USED | order)  # held no longer, whatever becomes of it
    mt = block_type(m, pfn)
    if mt >= MIGRATE_PCPTYPES:
        if r.x[S_BAD_TYPE_NS] < 0:
            r.x[S_BAD_TYPE_NS] = now
        return
    z = zone_of(m, pfn)
    if order == PAGEBLOCK_ORDER:
        r.zone[z * ZF_WORDS + ZF_THP] |= 1 << mt
        r.zone[z * ZF_WORDS + ZF_THP_BACK] += 1
    give(m, r, BACKGROUND, entry_of(z, order, mt), order, cpu)


# ---------------------------------------------------------------- the loop
@inner
def serve(m, r, ops, i, extents, cpu):
    """A targeted or unseen request of ``extents`` operations from ``i`` on."""
    flags, gfp, now = np.int64(ops[i].flags), np.int64(ops[i].gfp), ops[i].ts_ns
    if flags & stream.TARGETED and flags & stream.REQUIRED:
        for x in range(extents):
            v = take(m, r, ALLOC, TARGETED, cpu, np.int64(ops[i + x].order), gfp, 1, now)
            r.fm[ops[i + x].pfn] = v | E_TARGETED
        return
    pages = np.int64(ops[i].pages)
    if flags & stream.TARGETED:
        marks = E_TARGETED
        if flags & stream.ON_PATH:
            gfp = m.w[POOL_GFP]
            marks |= E_PATH
            r.x[S_PATH_LIVE] += pages
            r.x[S_PATH_PEAK] = max(r.x[S_PATH_PEAK], r.x[S_PATH_LIVE])
        v = take(m, r, REQUEST, TARGETED, cpu, 0, gfp, pages, now) | marks
    else:
        v = take(m, r, UNSEEN, BACKGROUND, cpu, 0, gfp, pages, now)
    for x in range(extents):
        for k in range(1 << np.int64(ops[i + x].order)):
            r.fm[ops[i + x].pfn + k] = v


@kernel
def set_up(m, r, pages, gfp):
    """Fill a path's reserve of ``pages``."""
    if pages > 0:
        take(m, r, ALLOC, SETUP, 0, 0, gfp, pages, 0)


@kernel
def record(m, r, ops, i):
    """Write the steps of ``ops`` from index ``i`` on. Index of the first operation not done; S_REASON says why."""
    n = ops.shape[0]
    cpus = m.w[CFG_CPUS]
    r.x[S_REASON] = RECORDED
    while i < n:
        if r.x[S_WORDS] + SPARE_WORDS > r.x[S_ROOM]:
            r.x[S_REASON] = FLUSH
            return i
        op = ops[i]
        cpu = np.int64(op.cpu) % cpus
        if m.w[CFG_VMSTAT_INTERVAL] > 0 and tick_due(m, cpu, op.ts_ns):
            if m.w[TK + cpu] > 0:
                for z in range(m.w[CFG_ZONES]):
                    put_word(r, z * cpus + cpu, TICK, 1, False)
            m.w[TK + cpu] = next_tick_after(op.ts_ns, m.w[CFG_VMSTAT_INTERVAL], cpu)
        order = np.int64(op.order)
        extents = 1
        if op.kind == stream.FREE:
            v = np.int64(r.fm[op.pfn])
            if v > 0 and not v & E_TARGETED and entry_order(v) == order:
                r.fm[op.pfn] = 0
                give(m, r, BACKGROUND, v, order, cpu)
            else:
                free_keys(m, r, np.int64(op.pfn), order, cpu, op.ts_ns)
        elif op.kind == stream.FREE_INITIAL:
            free_initial(m, r, np.int64(op.pfn), order, cpu, op.ts_ns)
        elif op.kind == stream.ALLOC and op.flags & (stream.TARGETED | stream.UNSEEN):
            while (
                i + extents < n and ops[i + extents].kind == stream.ALLOC and not ops[i + extents].flags & stream.FIRST
            ):
                extents += 1
            serve(m, r, ops, i, extents, cpu)
        elif op.kind == stream.ALLOC:
            r.fm[op.pfn] = take(m, r, ALLOC, BACKGROUND, cpu, order, np.int64(op.gfp), 1, op.ts_ns)
        i += extents
    return i


# ---------------------------------------------------------------- pageblocks
@kernel
def misplaced(m):
    """Blocks on free or per-CPU lists of another type than that of their pageblocks."""
    found = 0
    pfn = 0
    while pfn < m.w[CFG_FRAMES]:
        info = get_info(m, pfn)
        state, order = info & INFO_STATE, info & INFO_ORDER
        if state == HELD:
            pfn += 1
            continue
        if state in (BUDDY, PCP):
            for f in range(pfn, pfn + (1 << order), 1 << PAGEBLOCK_ORDER):
                if block_type(m, f) != info_type(info):
                    found += 1
                    break
        pfn += 1 << order
    return found


@kernel
def mergeable(m):
    """First frame of a pair of pageblocks of different types that may become free together, and merge; -1: none may.

    That takes every one of their pages to come back; a page that is still held at the end prevents it.
    """
    pair = 2 << PAGEBLOCK_ORDER
    for start in range(0, m.w[CFG_FRAMES] - pair + 1, pair):
        middle = start + (1 << PAGEBLOCK_ORDER)
        if zone_of(m, start) < 0 or zone_of(m, start) != zone_of(m, middle + (1 << PAGEBLOCK_ORDER) - 1):
            continue
        if block_type(m, start) == block_type(m, middle):
            continue
        pfn = start
        while pfn < start + pair:
            info = get_info(m, pfn)
            if info & INFO_STATE == HELD:
                break
            pfn += 1 << (info & INFO_ORDER)
        if pfn >= start + pair:
            return start
    return -1
