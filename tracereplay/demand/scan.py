"""The pass over events in time order: pairing, bursts, inferences, accounting (compiled)."""

# mypy: disable-error-code="no-untyped-def, no-untyped-call"

from __future__ import annotations

import numpy as np

from tracereplay.compiled import kernel
from tracereplay.demand import state as s
from tracereplay.demand.bursts import (
    K_ACTION,
    K_ALLOC,
    K_BULK,
    K_COMPLETION,
    K_DRAIN,
    K_EXTFRAG,
    K_FAILED,
    K_FREE,
    K_FREE_BATCHED,
    K_ZONE_LOCKED,
    bin_of,
    charge,
    histogram_of,
    per_page,
)
from tracereplay.demand.events import (
    caller_of,
    interrupts_buffer,
    on_alloc,
    on_failed,
    on_free,
    task_of,
    which_burst,
)
from tracereplay.demand.frames import AHEAD, fetch, refilled
from tracereplay.demand.pairing import pass_losses
from tracereplay.demand.ring import flush
from tracereplay.demand.side import on_side
from tracereplay.kernel.constants import MAX_PAGE_ORDER


@kernel
def scan(
    w: s.Work,
    ts: s.Array,
    cpus: s.Array,
    kinds: s.Array,
    pfns: s.Array,
    orders: s.Array,
    gfps: s.Array,
    pids: s.Array,
    stacks: s.Array,
    side: s.Array,
    side_until: int,
    out64: s.Array,
    out: s.Array,
) -> int:
    """Work through the batch from ``S_PAGE_I`` on; a status: MORE_INPUT, or what is needed to go on."""
    n = ts.shape[0]
    i = w.scalar[s.S_PAGE_I]
    j = w.scalar[s.S_SIDE_I]
    frames = w.scalar[s.S_FRAMES]
    status = s.MORE_INPUT
    while True:
        if i < n:
            t = ts[i]
        elif j < side.shape[0] and side[j].ts_ns <= side_until:
            t = side[j].ts_ns
        else:
            break
        if w.scalar[s.S_TAIL_SEQ] - w.scalar[s.S_HEAD_SEQ] > FLUSH_AT:
            w.scalar[s.S_NOW] = t
            if not flush(w, out64, out, False):
                status = s.OUT_FULL
                break
        if j < side.shape[0] and side[j].ts_ns <= t:
            e = side[j]
            ti = task_of(w, np.int64(e.pid))
            if ti < 0:
                status = s.TASKS_FULL
                break
            on_side(w, e, ti)
            j += 1
            continue
        kind = np.int64(kinds[i])
        ti = task_of(w, np.int64(pids[i]))
        if ti < 0:
            status = s.TASKS_FULL
            break
        cpu = np.int64(cpus[i])
        if w.scalar[s.S_LOSS_I] < w.loss0.shape[0]:
            pass_losses(w, t)
        order = np.int64(orders[i])
        pfn = pfns[i]
        if i + AHEAD < n:
            fetch(w.frames, pfns[i + AHEAD])
        if kind in (K_ALLOC, K_FAILED):
            gfp = np.int64(gfps[i])
            stack = np.int64(stacks[i]) if stacks.shape[0] > 0 else s.NO_STACK
            caller = caller_of(w, w.tasks[ti], gfp, stack)
            if caller < 0:
                w.scalar[s.S_ARG_TASK] = ti
                w.scalar[s.S_ARG_GFP] = gfp
                status = s.NEW_CALLER
                break
            charge(w.tasks, w.cpus, ti, cpu, t, kind, False, w.scalar[s.S_SLACK])
            if kind == K_FAILED:
                on_failed(w, t, cpu, ti, order, gfp, caller)
            elif order > MAX_PAGE_ORDER or pfn + (1 << order) > frames:
                w.counts[s.C_MALFORMED] += 1
            else:
                on_alloc(w, t, cpu, ti, pfn, order, gfp, caller)
        else:
            foreign = kind == K_FREE and pfn < frames and interrupts_buffer(w, ti, pfn)
            caused = charge(w.tasks, w.cpus, ti, cpu, t, kind, foreign, w.scalar[s.S_SLACK])
            if kind == K_FREE:
                if order > MAX_PAGE_ORDER or pfn + (1 << order) > frames:
                    w.counts[s.C_MALFORMED] += 1
                else:
                    on_free(w, t, cpu, ti, pfn, order, caused)
            elif kind == K_FREE_BATCHED:
                w.counts[s.C_IGNORED_FREE_BATCHED] += 1
            elif kind == K_ZONE_LOCKED:
                w.counts[s.C_IGNORED_ZONE_LOCKED] += 1
                if order <= MAX_PAGE_ORDER and pfn < frames:
                    refilled(w, pfn, order, t, cpu)
            elif kind == K_DRAIN:
                w.counts[s.C_IGNORED_DRAIN] += 1
                if order <= MAX_PAGE_ORDER and pfn < frames:
                    refilled(w, pfn, order, t, cpu)
            elif kind == K_EXTFRAG:
                w.counts[s.C_IGNORED_EXTFRAG] += 1
            elif kind == K_BULK:
                w.counts[s.C_IGNORED_BULK] += 1
            else:
                w.counts[s.C_MALFORMED] += 1
        w.counts[s.C_EVENTS] += 1
        i += 1
    w.scalar[s.S_PAGE_I] = i
    w.scalar[s.S_SIDE_I] = j
    return status


FLUSH_AT = 1 << 12
"""Operations in the ring at which ready ones move on: they are still in the cache then."""


@kernel
def learn(
    w: s.Work,
    ts: s.Array,
    cpus: s.Array,
    kinds: s.Array,
    orders: s.Array,
    gfps: s.Array,
    pids: s.Array,
    stacks: s.Array,
    side: s.Array,
    tasks: s.Array,
    clocks: s.Array,
    last: s.Array,
) -> int:
    """Histogram the gaps within and between bursts of a batch, before it is cut into bursts.

    ``tasks`` and ``clocks`` are copies that this pass advances; ``last`` holds for each task: own time and caller
    of its last allocation (-1 after another visible action), and whether the copy was made. A status.
    """
    j = w.scalar[s.S_LEARN_J]
    status = s.MORE_INPUT
    i = w.scalar[s.S_LEARN_I]
    while i < ts.shape[0]:
        t = ts[i]
        while j < side.shape[0] and side[j].ts_ns <= t:
            e = side[j]
            j += 1
            if e.what != s.ACTION and e.what != s.COMPLETION:
                continue
            ti = np.int64(w.slots[np.int64(e.pid) & (s.PIDS - 1)]) - 1
            if ti < 0:
                continue
            if e.what == s.ACTION:
                charge(tasks, clocks, ti, np.int64(e.cpu), e.ts_ns, K_ACTION, False, w.scalar[s.S_SLACK])
                last[ti, 1] = -1
            else:
                charge(tasks, clocks, ti, np.int64(e.cpu), e.ts_ns, K_COMPLETION, False, w.scalar[s.S_SLACK])
        kind = np.int64(kinds[i])
        ti = task_of(w, np.int64(pids[i]))
        if ti < 0:
            status = s.TASKS_FULL
            break
        task = tasks[ti]
        if last[ti, 2] == 0:
            last[ti, 1] = -1
            last[ti, 2] = 1
            task.pid = w.tasks[ti].pid
            task.comm = w.tasks[ti].comm
            task.last_ns = w.scalar[s.S_START_NS]
            task.caller = -1
            task.cpu = -1
        gfp = np.int64(gfps[i])
        caller = np.int64(-1)
        if kind == K_ALLOC:
            stack = np.int64(stacks[i]) if stacks.shape[0] > 0 else s.NO_STACK
            caller = np.int64(caller_of(w, task, gfp, stack))
            if caller < 0:
                w.scalar[s.S_ARG_TASK] = ti
                w.scalar[s.S_ARG_GFP] = gfp
                status = s.NEW_CALLER
                break
        cpu = np.int64(cpus[i])
        clock = clocks[cpu]
        tight = kind == K_FREE and clock.kind in (K_FREE, K_COMPLETION)
        if clock.task == ti and (tight or (kind == K_ZONE_LOCKED and clock.kind == K_ZONE_LOCKED)):
            w.units[bin_of(t - clock.ts)] += 1
        holder = last[ti, 1]
        foreign = kind == K_FREE and holder >= 0 and w.caller_flags[holder] & s.CRYPT != 0
        caused = charge(tasks, clocks, ti, cpu, t, kind, foreign, w.scalar[s.S_SLACK])
        if kind == K_ALLOC:
            if which_burst(gfp) == s.NORMAL:
                order = np.int64(orders[i])
                own = task.own_ns
                flags = w.caller_flags[caller]
                # gaps before dm-crypt's blocks are left out: its order rules tell those requests apart
                usual = (order == 0 and not flags & s.SINGLE) or (flags & s.SINGLE_OK and not flags & s.CRYPT)
                if last[ti, 1] == caller and usual:
                    w.gaps[histogram_of(caller), bin_of(per_page(own - last[ti, 0], order))] += 1
                last[ti, 0] = own
                last[ti, 1] = caller
        elif kind == K_FREE and not caused:
            last[ti, 1] = -1
        i += 1
    w.scalar[s.S_LEARN_I] = i
    w.scalar[s.S_LEARN_J] = j
    return status
