"""The twin check's loop over recorded events: each brings the machine to where the kernel was, and is compared."""

# mypy: disable-error-code="no-untyped-def, no-untyped-call"

from __future__ import annotations

from tracereplay.compiled import hot, inner, kernel
from tracereplay.kernel.constants import NR_PAGE_ORDERS
from tracereplay.machine.buddy import zone_of
from tracereplay.machine.layout import (
    CFG_CPUS,
    CFG_PCP_RULE,
    CFG_ZONES,
    P_COUNT,
    P_HIGH,
    P_HIGH_MAX,
    P_HIGH_MIN,
    P_UNLISTED,
    P_WORDS,
    Z_BELOW_HIGH,
    Z_MANAGED,
    Z_NODE,
    Z_RECLAIM_ACTIVE,
    Z_WORDS,
)
from tracereplay.machine.pcp_sizes import clamp
from tracereplay.trace.schema import PAGE_KINDS
from tracereplay.verify import layout as at
from tracereplay.verify.bulk import on_bulk
from tracereplay.verify.drains import end_drain, on_drain
from tracereplay.verify.frees import on_batched, on_free, push_all, push_up_to
from tracereplay.verify.predictions import expire, run_tick, tick_drains
from tracereplay.verify.refills import on_alloc
from tracereplay.verify.runs import end_run, on_extfrag, on_zone_locked

ALLOC, FAILED, FREE, BATCHED, ZONE_LOCKED, DRAIN, EXTFRAG, BULK = (
    PAGE_KINDS.index(kind)
    for kind in ("alloc", "alloc_failed", "free", "free_batched", "zone_locked", "drain", "extfrag", "bulk")
)
SKIPPED_NS = 750_000_000
"""A worker that ran less than this before its next second skips that (``round_jiffies_relative`` rounds up)."""
PAUSE_NS = 100_000_000
"""Drains of a CPU further apart are two, whatever came between: an idle CPU has only those of its vmstat worker."""


@inner
def run_controls(m, v, controls, now):
    """Do what happened beside the events up to ``now``. Returns when the next one is due."""
    i = v[at.VC_CONTROL]
    while i < controls.shape[0] and controls[i, 0] <= now:
        what, a = controls[i, 1], controls[i, 2]
        if what == at.CTL_TICK:
            w = a * at.C_WORDS
            if v[w + at.C_TICK_DUE] > 0 and v[w + at.C_TICK_DUE] == v[w + at.C_REFRESH]:
                push_all(m, v, a)  # a snapshot's run, on a CPU without page events since
                run_tick(m, v, a)
            v[w + at.C_TICK_DUE] = controls[i, 0]
        elif what == at.CTL_REFRESH:
            for cpu in range(m.w[CFG_CPUS]):
                if v[cpu * at.C_WORDS + at.C_TICK_DUE] > 0:  # as the CPU wakes for this one at the latest
                    push_all(m, v, cpu)
                    run_tick(m, v, cpu)
                v[cpu * at.C_WORDS + at.C_TICK_DUE] = controls[i, 0]
                v[cpu * at.C_WORDS + at.C_REFRESH] = controls[i, 0]
        elif what == at.CTL_RECLAIM:
            for z in range(m.w[CFG_ZONES]):
                if m.w[z * Z_WORDS + Z_NODE] == a:
                    m.w[z * Z_WORDS + Z_RECLAIM_ACTIVE] = controls[i, 3]
        elif what == at.CTL_LIMITS:
            w = a * P_WORDS
            high, low, top = controls[i, 3], controls[i, 4], controls[i, 5]
            if low > 0:
                m.w[w + P_HIGH_MIN], m.w[w + P_HIGH_MAX] = low, top
            high = clamp(high, m.w[w + P_HIGH_MIN], m.w[w + P_HIGH_MAX])
            if m.w[CFG_PCP_RULE] == 2 and high != m.w[w + P_HIGH]:
                m.w[w + P_HIGH] = high
                v[at.RS + at.RS_SNAPSHOT] += 1
        elif what == at.CTL_COUNT:
            follow_count(m, v, a, controls[i, 3], controls[i, 4], controls[i, 5])
        else:
            m.w[a * Z_WORDS + Z_MANAGED] += controls[i, 3]
            v[at.RS + at.RS_GROWN] += 1
        i += 1
    v[at.VC_CONTROL] = i
    return controls[i, 0] if i < controls.shape[0] else 1 << 62


@inner
def follow_count(m, v, p, counted, first, last):
    """Take over the pages on a page set as a snapshot counts them: what events do not show came and went.

    The CPU goes on while the snapshot is read, so any count of the twin's in that time will do.
    """
    c = p % m.w[CFG_CPUS] * at.C_WORDS
    pages = m.w[p * P_WORDS + P_COUNT]
    for i in range(v[c + at.C_PENDING_N]):
        slot = c + at.C_PENDING + 2 * ((v[c + at.C_PENDING_AT] + i) & (at.PENDING_ROOM - 1))
        if zone_of(m, v[slot]) == p // m.w[CFG_CPUS]:
            pages += 1 << (v[slot + 1] & 0xF)
    least = v[at.VC_LEAST] + 2 * p
    v[least] = pages if first else min(v[least], pages)
    v[least + 1] = pages if first else max(v[least + 1], pages)
    missing = max(counted - v[least + 1], 0) + min(counted - v[least], 0)
    if last and missing != 0:
        m.w[p * P_WORDS + P_COUNT] += missing
        m.w[p * P_WORDS + P_UNLISTED] += missing
        v[at.RS + at.RS_COUNT] += 1


@hot
def before_event(m, v, cpu, kind, now):
    """What the CPU owes before its next event: the end of a drain, its vmstat worker."""
    c = cpu * at.C_WORDS
    if v[c + at.C_DRAIN_N] > 0 and (kind != DRAIN or now - v[c + at.C_NOW] > PAUSE_NS):
        end_drain(m, v, cpu)
    v[c + at.C_NOW] = now
    if v[c + at.C_TICK_DUE] > 0:
        owe_tick(m, v, cpu, now)


@inner
def owe_tick(m, v, cpu, now):
    """The vmstat worker is due. Where it finds nothing to drain it runs at once, unseen; else its drain shows when."""
    c = cpu * at.C_WORDS
    due = v[c + at.C_TICK_DUE]
    if due != v[c + at.C_REFRESH] and due - v[c + at.C_LAST_TICK] <= SKIPPED_NS:
        v[c + at.C_TICK_DUE] = 0
    elif now - due > at.TICK_PATIENCE_NS or not tick_drains(m, cpu):
        push_all(m, v, cpu)
        run_tick(m, v, cpu)


@kernel
def run_events(m, v, controls, ts, cpus, kinds, pfns, orders, types, pids, fallback_orders, fallback_types, changed):
    """Feed a batch of events to the twin.

    Columns of one length; ``orders`` and ``types`` of an extfrag are those of the request. ``fallback_*`` and
    ``changed`` are read for extfrag only. A bulk event has its pages in ``pfns`` and its type in ``types``.
    """
    due = run_controls(m, v, controls, -(1 << 62))
    last_cpu = m.w[CFG_CPUS] - 1
    before = v[at.VC_INDEX]
    for i in range(ts.shape[0]):
        cpu, kind, pfn = int(cpus[i]), int(kinds[i]), int(pfns[i])
        v[at.VC_INDEX] = before + i + 1
        if cpu > last_cpu:
            continue
        now = ts[i]
        if now >= due:
            due = run_controls(m, v, controls, now)
        before_event(m, v, cpu, kind, now)
        order = int(orders[i])
        c = cpu * at.C_WORDS
        if kind == ALLOC:
            if v[c + at.C_PENDING_N] > 0:
                push_all(m, v, cpu)
            v[at.ALLOCS] += 1
            v[at.PAGES_ALLOCATED] += 1 << order
            on_alloc(m, v, cpu, pfn, order, int(types[i]))
            v[c + at.C_TRIGGER] = -1
        elif kind == FREE:
            if v[c + at.C_RUN_N] > 0:
                end_run(m, v, cpu)
            v[at.FREES] += 1
            v[at.PAGES_FREED] += 1 << order
            on_free(m, v, cpu, pfn, order, int(pids[i]))
        elif kind == BATCHED:
            on_batched(m, v, cpu, pfn, int(pids[i]))
        else:
            on_rare(
                m,
                v,
                cpu,
                kind,
                pfn,
                order,
                int(types[i]),
                int(pids[i]),
                int(fallback_orders[i]),
                int(fallback_types[i]),
                int(changed[i]),
            )


@inner
def on_rare(m, v, cpu, kind, pfn, order, mt, pid, fallback_order, fallback_mt, changed):
    """Events of the zone lock, and those without a page."""
    c = cpu * at.C_WORDS
    if kind == DRAIN:
        if v[c + at.C_DRAIN_N] == 0 and v[c + at.C_TRIGGER] >= 0 and v[c + at.C_PENDING_N] > 0:
            push_up_to(m, v, cpu, v[c + at.C_TRIGGER])
        z = zone_of(m, pfn)
        if z >= 0 and m.w[z * Z_WORDS + Z_BELOW_HIGH]:  # this drain may end it: others' frees that wait came before
            for other in range(m.w[CFG_CPUS]):
                if other != cpu:
                    push_all(m, v, other)
        on_drain(m, v, cpu, pfn, order, mt, pid)
        return
    if v[c + at.C_PENDING_N] > 0:
        push_all(m, v, cpu)
    v[c + at.C_TRIGGER] = -1
    if kind == ZONE_LOCKED:
        on_zone_locked(m, v, cpu, pfn, order, mt)
    elif kind == EXTFRAG:
        on_extfrag(m, v, cpu, pfn, order, mt, fallback_order, fallback_mt, changed)
    elif kind == BULK:
        on_bulk(m, v, cpu, mt, pfn)


@kernel
def finish(m, v):
    """Bring everything under way to its end, and add up what is counted by order."""
    for total, by in ((at.PCP_ALLOCS, at.BY_ALLOCS), (at.ELIGIBLE, at.BY_ELIGIBLE), (at.EXACT, at.BY_EXACT)):
        v[total] = 0
        for order in range(NR_PAGE_ORDERS):
            v[total] += v[order * at.BY_WORDS + by]
    for cpu in range(m.w[CFG_CPUS]):
        c = cpu * at.C_WORDS
        if v[c + at.C_DRAIN_N] > 0:
            end_drain(m, v, cpu)
        if v[c + at.C_RUN_N] > 0:
            end_run(m, v, cpu)
        push_all(m, v, cpu)
        while v[c + at.C_OUT_N] > 0:
            expire(m, v, cpu, 1 << 62)
            if v[c + at.C_OUT_N] > 0:
                v[c + at.C_PUSHES] += at.PATIENCE
