"""Predicted drains: made at a push or by the vmstat worker, and held back until the kernel's own drain comes.

The machine's own rules say when a free drains and which pages (``free_pcppages_bulk``); with ``CFG_WITHHOLD`` set it
leaves them on a list of the twin instead of in the buddy lists. What the kernel does not drain goes back to the tails
of its lists.
"""

# mypy: disable-error-code="no-untyped-def, no-untyped-call"

from __future__ import annotations

from tracereplay.compiled import hot, inner
from tracereplay.machine.buddy import get_info, set_info
from tracereplay.machine.layout import (
    CACHED,
    CFG_CPUS,
    CFG_NODES,
    CFG_PCP_RULE,
    CFG_ZONES,
    INFO_ORDER,
    INFO_STATE,
    P_COUNT,
    P_HIGH,
    P_HIGH_MAX,
    P_HIGH_MIN,
    P_UNLISTED,
    P_WORDS,
    PCP,
    Z_RECLAIM_ACTIVE,
    Z_WORDS,
)
from tracereplay.machine.lists import add_tail, first
from tracereplay.machine.pcp import pcp_head
from tracereplay.machine.pcp_sizes import clamp, decay_high
from tracereplay.machine.vmstat import decay
from tracereplay.verify import layout as at
from tracereplay.verify.displace import cpu_of, list_of
from tracereplay.verify.journal import disagree

STORE_MASK = at.DRAIN_ROOM - 1


@hot
def predicted(m, v):
    """Whether the machine has just left pages of a drain."""
    return first(m.pg, v[at.VC_WITHHELD]) != v[at.VC_WITHHELD]


@inner
def note_prediction(m, v, cpu, p, trigger):
    """Keep the drain that the machine has just made on paper: its pages wait for the kernel's."""
    c = cpu * at.C_WORDS
    while v[c + at.C_OUT_N] == at.OUTSTANDING:
        take_back(m, v, cpu, 0, False)
    o = c + at.C_OUT + v[c + at.C_OUT_N] * at.O_WORDS
    start = v[c + at.C_STORE_AT]
    head = v[at.VC_WITHHELD]
    frames = 0
    pages = 0
    node = first(m.pg, head)
    while node != head:
        pfn = node - m.w[CFG_NODES]
        v[at.C_STORE + c + ((start + frames) & STORE_MASK)] = pfn
        frames += 1
        pages += 1 << (get_info(m, pfn) & INFO_ORDER)
        node = first(m.pg, node)
    m.pg[3 * head] = head
    m.pg[3 * head + 1] = head
    v[o + at.O_TRIGGER] = trigger
    v[o + at.O_SET] = p
    v[o + at.O_PAGES] = pages
    v[o + at.O_FRAMES] = frames
    v[o + at.O_FROM] = start
    v[o + at.O_PUSH] = v[c + at.C_PUSHES]
    v[o + at.O_TIME] = v[c + at.C_NOW]
    v[c + at.C_STORE_AT] = (start + frames) & STORE_MASK
    v[c + at.C_OUT_N] += 1
    if trigger == at.TICK:
        v[at.TICK_TWIN] += 1
    v[at.DRAIN_TWIN] += 1


@inner
def forget(v, cpu, i):
    """Drop the i-th outstanding prediction."""
    c = cpu * at.C_WORDS
    v[c + at.C_OUT_N] -= 1
    for k in range(i, v[c + at.C_OUT_N]):
        for word in range(at.O_WORDS):
            v[c + at.C_OUT + k * at.O_WORDS + word] = v[c + at.C_OUT + (k + 1) * at.O_WORDS + word]


@inner
def put_back(m, v, cpu, i):
    """Put what is still held back of a prediction at the tails of its lists, the last drained first. Its pages."""
    c = cpu * at.C_WORDS
    o = c + at.C_OUT + i * at.O_WORDS
    p = v[o + at.O_SET]
    pages = 0
    for k in range(v[o + at.O_FRAMES] - 1, -1, -1):
        pfn = v[at.C_STORE + c + ((v[o + at.O_FROM] + k) & STORE_MASK)]
        info = get_info(m, pfn)
        if info & INFO_STATE == CACHED and cpu_of(info) == cpu:  # else another CPU's drain holds it by now
            set_info(m, pfn, info & ~INFO_STATE | PCP)
            add_tail(m.pg, pcp_head(m, p, list_of(m, info)), m.w[CFG_NODES] + pfn)
            pages += 1 << (info & INFO_ORDER)
    m.w[p * P_WORDS + P_COUNT] += pages
    return pages


@inner
def take_back(m, v, cpu, i, raise_high):
    """The kernel did not do the i-th predicted drain: undo it; ``raise_high``: and expect the next one later."""
    c = cpu * at.C_WORDS
    p = v[c + at.C_OUT + i * at.O_WORDS + at.O_SET]
    trigger = v[c + at.C_OUT + i * at.O_WORDS + at.O_TRIGGER]
    pages = put_back(m, v, cpu, i)
    forget(v, cpu, i)
    v[at.RS + at.RS_DRAIN_UNSEEN] += 1
    disagree(v, at.DIS_DRAIN_FALSE, cpu, trigger, pages, m.w[p * P_WORDS + P_COUNT], m.w[p * P_WORDS + P_HIGH], 0)
    if not raise_high or pages == 0:
        return
    if m.w[CFG_PCP_RULE] < 2:  # high is fixed: there are fewer pages than the twin believes
        if m.w[p // m.w[CFG_CPUS] * Z_WORDS + Z_RECLAIM_ACTIVE] == 0:
            fewer = m.w[p * P_WORDS + P_COUNT] - m.w[p * P_WORDS + P_HIGH] + (4 << min(v[c + at.C_BACKOFF], 8))
            v[c + at.C_BACKOFF] += 1
            move_count(m, v, p, -max(fewer, 0))
        return
    if v[c + at.C_TICK_SILENT] >= 0 and v[c + at.C_NOW] - v[c + at.C_TICK_SILENT] < at.TICK_PATIENCE_NS:
        undo_tick(m, v, cpu)
    else:
        step = 16 << min(v[c + at.C_BACKOFF], 6)
        v[c + at.C_BACKOFF] += 1
        w = p * P_WORDS
        high = max(m.w[w + P_HIGH], m.w[w + P_COUNT] + step)
        m.w[w + P_HIGH] = clamp(high, m.w[w + P_HIGH_MIN], m.w[w + P_HIGH_MAX])


@inner
def run_tick(m, v, cpu):
    """The vmstat worker of a CPU runs: every zone's high decays, and what exceeds it is drained."""
    c = cpu * at.C_WORDS
    if v[c + at.C_TICK_DUE] != v[c + at.C_REFRESH]:
        v[c + at.C_LAST_TICK] = v[c + at.C_NOW]
    v[c + at.C_TICK_DUE] = 0
    v[c + at.C_TICK_SILENT] = v[c + at.C_NOW]
    for z in range(m.w[CFG_ZONES]):
        p = z * m.w[CFG_CPUS] + cpu
        v[v[at.VC_BEFORE_TICK] + p] = m.w[p * P_WORDS + P_HIGH]
        decay(m, z, p)
        v[v[at.VC_BEFORE_TICK] + p] -= m.w[p * P_WORDS + P_HIGH]
        if predicted(m, v):
            v[c + at.C_TICK_SILENT] = -1
            note_prediction(m, v, cpu, p, at.TICK)


@inner
def tick_drains(m, cpu):
    """Whether the vmstat worker would drain now."""
    for z in range(m.w[CFG_ZONES]):
        p = z * m.w[CFG_CPUS] + cpu
        high = m.w[p * P_WORDS + P_HIGH]
        excess = decay_high(m, p)
        m.w[p * P_WORDS + P_HIGH] = high
        if excess > 0:
            return True
    return False


@inner
def undo_tick(m, v, cpu):
    """The kernel drains later than a high that has decayed says: the worker has yet to run."""
    c = cpu * at.C_WORDS
    for z in range(m.w[CFG_ZONES]):
        p = z * m.w[CFG_CPUS] + cpu
        m.w[p * P_WORDS + P_HIGH] += v[v[at.VC_BEFORE_TICK] + p]
    v[c + at.C_TICK_DUE] = v[c + at.C_TICK_SILENT]
    v[c + at.C_TICK_SILENT] = -1
    v[at.RS + at.RS_TICK] += 1


@inner
def take_back_all(m, v, cpu, p):
    """Undo all predicted drains of a page set that the kernel has not done."""
    c = cpu * at.C_WORDS
    i = 0
    while i < v[c + at.C_OUT_N]:
        if v[c + at.C_OUT + i * at.O_WORDS + at.O_SET] == p:
            take_back(m, v, cpu, i, True)
        else:
            i += 1


@inner
def expire(m, v, cpu, now):
    """Take back predictions that the kernel has had time enough to confirm."""
    c = cpu * at.C_WORDS
    i = 0
    while i < v[c + at.C_OUT_N]:
        o = c + at.C_OUT + i * at.O_WORDS
        tick = v[o + at.O_TRIGGER] == at.TICK
        if (tick and now - v[o + at.O_TIME] > at.TICK_PATIENCE_NS) or (
            not tick and v[c + at.C_PUSHES] - v[o + at.O_PUSH] > at.PATIENCE
        ):
            take_back(m, v, cpu, i, not tick)
        else:
            i += 1


@inner
def move_count(m, v, p, missing):
    """Let a page set count more or fewer pages than the twin has on its lists."""
    if missing != 0:
        v[at.RS + at.RS_COUNT] += 1
        m.w[p * P_WORDS + P_UNLISTED] += missing
        m.w[p * P_WORDS + P_COUNT] += missing
