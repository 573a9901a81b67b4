"""The kernel's drains: a run of events is one drain, compared with what the twin predicted for the same free.

Its events put the pages into the buddy lists, in the kernel's order; what it shows of counts and of ``high`` is taken
over where the twin had it wrong.
"""

# mypy: disable-error-code="no-untyped-def, no-untyped-call"

from __future__ import annotations

from tracereplay.compiled import inner
from tracereplay.machine.buddy import free_one_page, get_info, set_info, zone_of
from tracereplay.machine.layout import (
    BUDDY,
    CACHED,
    CFG_CPUS,
    CFG_KEEPS_TYPE,
    CFG_PCP_RULE,
    HELD,
    INFO_STATE,
    P_BATCH,
    P_COUNT,
    P_FREE_FACTOR,
    P_HIGH,
    P_HIGH_MAX,
    P_HIGH_MIN,
    P_UNLISTED,
    P_WORDS,
    PCP,
    Z_BELOW_HIGH,
    Z_HIGH,
    Z_RECLAIM_ACTIVE,
    Z_WORDS,
    ZONE_MOVABLE,
)
from tracereplay.machine.pcp_sizes import clamp
from tracereplay.machine.watermarks import watermark_ok
from tracereplay.verify import layout as at
from tracereplay.verify.displace import free_block_with, learn_type, take_from_list
from tracereplay.verify.journal import disagree
from tracereplay.verify.predictions import STORE_MASK, forget, move_count, put_back, run_tick, take_back


@inner
def on_drain(m, v, cpu, pfn, order, mt, pid):
    """``mm_page_pcpu_drain``: the block goes to the buddy lists; a run of them is one drain."""
    c = cpu * at.C_WORDS
    z = zone_of(m, pfn)
    if z < 0:
        v[at.OUTSIDE] += 1
        return
    n = v[c + at.C_DRAIN_N]
    # a worker goes from zone to zone, and may follow a task: a drain itself is one hold of the zone lock
    if n > 0 and (v[c + at.C_DRAIN_ZONE] != z or v[c + at.C_DRAIN_PID] != pid):
        end_drain(m, v, cpu)
        n = 0
    if n == 0:
        trigger = v[c + at.C_TRIGGER]
        v[c + at.C_DRAIN_TRIGGER] = trigger if v[c + at.C_TRIGGER_PID] == pid else -1
        if v[c + at.C_DRAIN_TRIGGER] < 0 and v[c + at.C_TICK_DUE] > 0:
            run_tick(m, v, cpu)
        v[c + at.C_DRAIN_ZONE] = z
        v[c + at.C_DRAIN_PID] = pid
        v[c + at.C_DRAIN_PAGES] = 0
        v[c + at.C_DRAIN_STRANGE] = 0
    if n < at.DRAIN_ROOM:
        v[at.C_DRAIN + c + n] = pfn
    v[c + at.C_DRAIN_N] = n + 1
    v[c + at.C_DRAIN_PAGES] += 1 << order
    info = get_info(m, pfn)
    state = info & INFO_STATE
    if state == PCP:
        take_from_list(m, pfn, info)
        v[c + at.C_DRAIN_STRANGE] += 1
    elif state == BUDDY or free_block_with(m, pfn) >= 0:
        v[at.RS + at.RS_DRAIN_IN_USE] += 1
        return
    elif state != CACHED:
        p = z * m.w[CFG_CPUS] + cpu
        v[at.RS + at.RS_DRAIN_IN_USE] += 1
        v[c + at.C_DRAIN_STRANGE] += 1
        if m.w[p * P_WORDS + P_UNLISTED] >= 1 << order:  # one of those that lay on the lists since before the trace
            m.w[p * P_WORDS + P_UNLISTED] -= 1 << order
            m.w[p * P_WORDS + P_COUNT] -= 1 << order
    set_info(m, pfn, HELD)
    if m.w[CFG_KEEPS_TYPE]:
        learn_type(m, v, z, pfn, order, mt)
    free_one_page(m, z, pfn, order, mt, False)
    # as the machine's after_free; at once, since another CPU may ask before this one's next event
    below = m.w[z * Z_WORDS + Z_BELOW_HIGH] and v[c + at.C_DRAIN_TRIGGER] >= 0
    if below and watermark_ok(m, z, 0, m.w[z * Z_WORDS + Z_HIGH], ZONE_MOVABLE, 0):
        m.w[z * Z_WORDS + Z_BELOW_HIGH] = 0


@inner
def end_drain(m, v, cpu):
    """The kernel's drain is over: compare it with the prediction for the same free, and follow it."""
    c = cpu * at.C_WORDS
    n = v[c + at.C_DRAIN_N]
    v[c + at.C_DRAIN_N] = 0
    v[at.DRAIN_KERNEL] += 1
    z = v[c + at.C_DRAIN_ZONE]
    p = z * m.w[CFG_CPUS] + cpu
    trigger = v[c + at.C_DRAIN_TRIGGER]
    strange = v[c + at.C_DRAIN_STRANGE]
    if trigger < 0:
        v[at.DRAIN_AWAY] += 1
    found = -1
    differ = 0
    for i in range(v[c + at.C_OUT_N]):
        o = c + at.C_OUT + i * at.O_WORDS
        if v[o + at.O_SET] == p and v[o + at.O_TRIGGER] == (trigger if trigger >= 0 else at.TICK):
            found = i
    if found >= 0:
        o = c + at.C_OUT + found * at.O_WORDS
        differ = compare(v, cpu, o, n)
        kernel_pages = v[c + at.C_DRAIN_PAGES]
        twin_pages = v[o + at.O_PAGES]
        put_back(m, v, cpu, found)
        forget(v, cpu, found)
        if differ < 0:
            v[at.DRAIN_MATCHED] += 1
            if trigger < 0:
                v[at.TICK_MATCHED] += 1
            v[c + at.C_BACKOFF] = 0
        else:
            v[at.DRAIN_FRAMES] += 1
            disagree(
                v,
                at.DIS_DRAIN_FRAMES,
                cpu,
                trigger,
                kernel_pages,
                twin_pages,
                differ,
                v[at.C_DRAIN + c + min(differ, n - 1)],
            )
            if strange > 0:
                v[at.RS + at.RS_DRAIN_UNPREDICTED] += 1
    else:
        disagree(
            v,
            at.DIS_DRAIN_MISSED,
            cpu,
            trigger,
            v[c + at.C_DRAIN_PAGES],
            m.w[p * P_WORDS + P_COUNT],
            m.w[p * P_WORDS + P_HIGH],
            strange,
        )
        if strange > 0:
            v[at.RS + at.RS_DRAIN_UNPREDICTED] += 1
    if trigger < 0:
        follow_tick(m, v, cpu, p, found >= 0 and differ < 0)
    elif found < 0:
        follow_drain(m, v, cpu, p, trigger)


@inner
def compare(v, cpu, o, n):
    """First place at which the kernel's drain of ``n`` blocks and a prediction differ; -1: they do not."""
    c = cpu * at.C_WORDS
    frames = v[o + at.O_FRAMES]
    for k in range(min(n, frames)):
        if v[at.C_DRAIN + c + k] != v[at.C_STORE + c + ((v[o + at.O_FROM] + k) & STORE_MASK)]:
            return k
    return -1 if n == frames else min(n, frames)


@inner
def follow_tick(m, v, cpu, p, matched):
    """A drain that no free triggered is the vmstat worker's: afterwards ``count`` is ``high``, at most.

    ``matched``: the twin drained the same, and knows ``high`` better: a block may overshoot.
    """
    c = cpu * at.C_WORDS
    if m.w[CFG_PCP_RULE] < 2:
        return
    w = p * P_WORDS
    if v[c + at.C_NOW] - v[c + at.C_REFRESH] > at.TICK_PATIENCE_NS:
        v[c + at.C_LAST_TICK] = v[c + at.C_NOW]
    if v[c + at.C_TICK_DUE] <= v[c + at.C_NOW]:  # that of the next second may be due already
        v[c + at.C_TICK_DUE] = 0
    v[c + at.C_TICK_SILENT] = -1
    high = clamp(m.w[w + P_COUNT], m.w[w + P_HIGH_MIN], m.w[w + P_HIGH_MAX])
    if not matched and high != m.w[w + P_HIGH]:
        v[at.RS + at.RS_TICK] += 1
        m.w[w + P_HIGH] = high


@inner
def follow_factor(m, v, p, pages):
    """Take over what the length of a drain shows of ``free_factor``; one that left nothing shows that it was not 0."""
    w = p * P_WORDS
    factor = 0
    while m.w[w + P_BATCH] << factor < pages:
        factor += 1
    if m.w[w + P_BATCH] << factor == pages:
        factor += 1
    elif m.w[w + P_COUNT] <= m.w[w + P_UNLISTED]:  # free_high: everything
        move_count(m, v, p, -m.w[w + P_COUNT])
        m.w[w + P_UNLISTED] = 0
        factor = max(1, m.w[w + P_FREE_FACTOR])
    else:
        return
    if factor != m.w[w + P_FREE_FACTOR]:
        v[at.RS + at.RS_REFILL_SIZE] += 1
        m.w[w + P_FREE_FACTOR] = factor


@inner
def follow_drain(m, v, cpu, p, trigger):
    """A drain that the twin did not predict at this free: the count at the push was the kernel's ``high``.

    Drains that the twin predicted a little earlier are undone first, and their pages are part of that count.
    """
    c = cpu * at.C_WORDS
    w = p * P_WORDS
    early = 0
    i = 0
    while i < v[c + at.C_OUT_N]:
        o = c + at.C_OUT + i * at.O_WORDS
        if v[o + at.O_SET] == p and v[o + at.O_TRIGGER] != at.TICK:
            early += v[o + at.O_PAGES]
            take_back(m, v, cpu, i, False)
        else:
            i += 1
    count = 0
    known = False
    for k in range(1, min(at.PUSH_ROOM, v[c + at.C_PUSHES]) + 1):  # the latest: a frame may be pushed twice
        slot = c + at.C_PUSHED + 2 * ((v[c + at.C_PUSHES] - k) & (at.PUSH_ROOM - 1))
        if v[slot] == trigger:
            count = v[slot + 1] + early
            known = True
            break
    if not known:
        return
    low, top = m.w[w + P_HIGH_MIN], m.w[w + P_HIGH_MAX]
    if m.w[CFG_PCP_RULE] == 2 and count >= low:
        v[at.RS + at.RS_HIGH] += 1
        m.w[w + P_HIGH] = clamp(count, low, top)
        return
    if m.w[CFG_PCP_RULE] == 1:
        follow_factor(m, v, p, v[c + at.C_DRAIN_PAGES])
    missing = low - count  # a fixed high, or below the least: it is the count that is off
    if m.w[p // m.w[CFG_CPUS] * Z_WORDS + Z_RECLAIM_ACTIVE] or abs(missing) > at.COUNT_DOUBT:
        return  # drains while kswapd runs, and of whole lists (free_high), are not at high
    move_count(m, v, p, missing)
    if m.w[CFG_PCP_RULE] == 2:
        m.w[w + P_HIGH] = low
