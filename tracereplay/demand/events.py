"""What one event does: pairing, bursts, inferences, accounting (compiled)."""

# mypy: disable-error-code="no-untyped-def, no-untyped-call"

from __future__ import annotations

import numpy as np

from tracereplay.compiled import hot, kernel
from tracereplay.demand import state as s
from tracereplay.demand.bursts import (
    cut_before,
)
from tracereplay.demand.frames import (
    colour_for,
    forget,
    key_of,
    place,
)
from tracereplay.demand.pairing import pairing
from tracereplay.demand.ring import end_burst, put, put_extent, put_request
from tracereplay.demand.stream import FREE, FREE_INITIAL, REQUIRED, UNSEEN

GFP_HIGH = 0x20
GFP_DIRECT_RECLAIM = 0x400
GFP_KERNEL = 0xCC0


@hot
def gfp_class(gfp):
    """Class of a gfp mask: the key of a burst where there is no stack."""
    return gfp & s.CLASS_MASK


@hot
def task_of(w, pid):
    """Slot of a task, made if need be; -1 when the table is full."""
    slot = pid & (s.PIDS - 1)
    ti = np.int64(w.slots[slot]) - 1
    if ti < 0:
        ti = w.scalar[s.S_TASKS_N]
        if ti >= w.tasks.shape[0]:
            return -1
        w.scalar[s.S_TASKS_N] = ti + 1
        w.slots[slot] = ti + 1
        task = w.tasks[ti]
        task.pid = pid
        task.comm = w.comms[pid] if pid < w.comms.shape[0] else 0
        task.group = w.groups[pid] if pid < w.groups.shape[0] else 0
        task.last_ns = w.scalar[s.S_START_NS]
        task.caller = -1
        task.cpu = -1
    return ti


@hot
def caller_of(w, task, gfp, stack):
    """Caller of an allocation; -1 when it has no number yet."""
    if stack < w.stack_callers.shape[0]:
        found = w.stack_callers[stack]
        if found >= 0:
            return found
    if task.caller >= 0 and task.gfp == gfp:
        return task.caller
    key = (np.int64(task.comm) << 24 | gfp_class(gfp)) + 1
    mask = w.caller_keys.shape[0] - 1
    h = ((key * s.HASH) >> 12) & mask
    while w.caller_keys[h] != 0:
        if w.caller_keys[h] == key:
            task.gfp = gfp
            task.caller = w.caller_ids[h]
            return task.caller
        h = (h + 1) & mask
    return -1


def caller_key(comm: int, gfp: int) -> int:
    """Key of (comm number, gfp class) in the table that :func:`caller_of` probes."""
    return (comm << 24 | (gfp & s.CLASS_MASK)) + 1


@hot
def end_all(w, ti, reason):
    """Close every burst of a task."""
    base = ti * s.BURSTS_PER_TASK
    for k in range(s.BURSTS_PER_TASK):
        if w.bursts[base + k].first >= 0:
            end_burst(w, base + k, reason)


@hot
def open_burst(w, index, t, cpu, caller, own, seq, order):
    """Start a burst whose FIRST operation is ``seq``."""
    b = w.bursts[index]
    b.first = seq
    b.last = seq
    b.arrival_ns = t
    b.seen_ns = t
    b.own_ns = own
    b.caller = caller
    b.pages = 0
    b.extents = 0
    b.order = order
    b.failed = 0
    b.just_failed = 0
    b.cpu = cpu


@hot
def which_burst(gfp):
    """GFP_ATOMIC allocations are often an interrupt's and do not end the burst that it interrupts."""
    return s.ATOMIC if gfp & GFP_HIGH and not gfp & GFP_DIRECT_RECLAIM else s.NORMAL


@hot
def enter(w, ti, which, caller):
    """An allocation of a caller begins: close what it ends. The index of its burst."""
    base = ti * s.BURSTS_PER_TASK
    if which == s.NORMAL:
        if w.bursts[base + s.ATOMIC].first >= 0:
            end_burst(w, base + s.ATOMIC, s.C_CUT_CLASS)
        if w.bursts[base + s.INFERRED].first >= 0:
            end_burst(w, base + s.INFERRED, s.C_CUT_CLASS)
    b = w.bursts[base + which]
    if b.first >= 0 and b.caller != caller:
        end_burst(w, base + which, s.C_CUT_CLASS)
    return base + which


@hot
def on_alloc(w, t, cpu, ti, pfn, order, gfp, caller):
    """A successful allocation."""
    w.counts[s.C_ALLOCATIONS] += 1
    w.counts[s.C_ALLOCATED_PAGES] += 1 << order
    taken = w.frames[pfn].state & s.STATE_MASK
    if order > 0 or taken == s.HEAD or taken == s.TAIL:
        reuse(w, pfn, order, t, cpu)
    index = enter(w, ti, which_burst(gfp), caller)
    b = w.bursts[index]
    flags = w.caller_flags[caller]
    group = w.tasks[ti].group
    colour = 0
    if order > 0 and not flags & s.SINGLE_OK:
        if b.first >= 0:
            end_burst(w, index, s.C_CUT_ORDER)
        put_request(w, t, pfn, order, REQUIRED, cpu, gfp, caller, group, 1 << order, -1, 1)
    elif flags & s.SINGLE:
        if b.first >= 0:
            end_burst(w, index, s.C_CUT_CLASS)
        put_request(w, t, pfn, order, 0, cpu, gfp, caller, group, 1 << order, -1, 1)
    else:
        own = w.tasks[ti].own_ns
        if b.first >= 0:
            reason = cut_before(w, b, ti, t, order, 1 << order)
            if reason >= 0:
                end_burst(w, index, reason)
        if b.first >= 0:
            f = w.frames[pfn]
            if order > 0 or f.ts >= b.arrival_ns or f.state & (s.COLOUR | s.FLIPPED):
                colour = colour_for(w, pfn, order, b.arrival_ns)
                if colour < 0:
                    colour = 0
                    end_burst(w, index, s.C_CUT_KEY)
        key = pfn + w.scalar[s.S_ALIAS] if colour else pfn
        if b.first < 0:
            seq = put_request(w, t, key, order, 0, cpu, gfp, caller, group, 0, index, 0)
            open_burst(w, index, t, cpu, caller, own, seq, order)
        elif b.extents == 0:  # the attempts so far failed
            place_of = b.first & (s.RING - 1)
            w.ring[place_of].pfn = key
            w.ring[place_of].order = order
        else:
            put_extent(w, b, key, order)
        b.pages += 1 << order
        b.extents += 1
        b.order = order
        b.just_failed = 0
        b.seen_ns = t
        b.own_ns = own
    if order == 0 and colour == 0:
        f = w.frames[pfn]
        f.state = s.HEAD | (f.state & s.FLIPPED)
        f.ts = t
        f.cpu = cpu
        f.order = 0
        w.counts[s.C_LIVE_BLOCKS] += 1
        w.counts[s.C_LIVE_PAGES] += 1
    else:
        place(w, pfn, order, t, cpu, colour)


@kernel
def on_failed(w, t, cpu, ti, order, gfp, caller):
    """A failed attempt: it belongs to the request that it was made for."""
    w.counts[s.C_FAILED] += 1
    index = enter(w, ti, which_burst(gfp), caller)
    if not w.caller_flags[caller] & s.SINGLE_OK:
        return
    b = w.bursts[index]
    own = w.tasks[ti].own_ns
    if b.first >= 0:
        reason = cut_before(w, b, ti, t, order, 0)
        if reason >= 0:
            end_burst(w, index, reason)
    if b.first < 0:
        seq = put_request(w, t, 0, 0, 0, cpu, gfp, caller, w.tasks[ti].group, 0, index, 0)
        open_burst(w, index, t, cpu, caller, own, seq, order)
    b.failed = 1
    b.just_failed = 1
    b.order = order
    b.seen_ns = t
    b.own_ns = own


@kernel
def infer(w, t, cpu, ti, pfn, order, on_cpu):
    """Frames known to be free are freed: somebody allocated them unseen. The request goes in now."""
    base = ti * s.BURSTS_PER_TASK
    index = base + s.INFERRED
    b = w.bursts[index]
    own = w.tasks[ti].own_ns
    colour = 0
    if b.first >= 0 and (
        b.cpu != on_cpu or b.pages + (1 << order) > s.CRYPT_PAGES * 64 or own - b.own_ns > w.thresholds[s.UNSEEN_CALLER]
    ):
        end_burst(w, index, s.C_CUT_GAP)
    if b.first >= 0:
        colour = colour_for(w, pfn, order, b.arrival_ns)
        if colour < 0:
            colour = 0
            end_burst(w, index, s.C_CUT_KEY)
    key = pfn + w.scalar[s.S_ALIAS] if colour else pfn
    if b.first < 0:
        seq = put_request(w, t, key, order, UNSEEN, on_cpu, GFP_KERNEL, s.UNSEEN_CALLER, 0, 0, index, 0)
        open_burst(w, index, t, on_cpu, s.UNSEEN_CALLER, own, seq, order)
    else:
        put_extent(w, b, key, order)
    b.pages += 1 << order
    b.extents += 1
    b.seen_ns = t
    b.own_ns = own
    place(w, pfn, order, t, on_cpu, colour)
    put(w, t, key, order, FREE, 0, cpu)
    forget(w, pfn, order, t, cpu)


@hot
def free_block(w, pfn, t, cpu, ended):
    """Release the live block that starts at ``pfn``: operation and state."""
    f = w.frames[pfn]
    order = f.order
    put(w, t, key_of(w, pfn, f.state), order, FREE, 0, cpu)
    forget(w, pfn, order, t, cpu)


@hot
def unpaired(w, t, cpu, ti, pfn, order, how):
    """Free frames that were allocated before the trace began, or without an event."""
    if how == s.LEFT_CENSORED:
        put(w, t, pfn, order, FREE_INITIAL, 0, cpu)
        w.counts[s.C_LIVE_BLOCKS] += 1
        w.counts[s.C_LIVE_PAGES] += 1 << order
        w.frames[pfn].ts = w.scalar[s.S_START_NS]
        forget(w, pfn, order, t, cpu)
    else:
        infer(w, t, cpu, ti, pfn, order, w.frames[pfn].cpu)


reuse, free_range = pairing(free_block, unpaired)


@hot
def interrupts_buffer(w, ti, pfn):
    """Whether a free amid a dm-crypt buffer is an interrupt's: a worker frees only pages of that very buffer itself
    (crypt_free_buffer_pages when it has to start over), and completions free older ones.
    """
    b = w.bursts[ti * s.BURSTS_PER_TASK + s.NORMAL]
    return b.first >= 0 and w.caller_flags[b.caller] & s.CRYPT != 0 and w.frames[pfn].ts < b.arrival_ns


@hot
def on_free(w, t, cpu, ti, pfn, order, caused):
    """A free of 2^order pages; ``caused``: an interrupt's, so no action of the task."""
    w.counts[s.C_FREES] += 1
    base = ti * s.BURSTS_PER_TASK
    if not caused:
        if w.bursts[base + s.NORMAL].first >= 0:
            end_burst(w, base + s.NORMAL, s.C_CUT_ACTION)
        if w.bursts[base + s.ATOMIC].first >= 0:
            end_burst(w, base + s.ATOMIC, s.C_CUT_ACTION)
    f = w.frames[pfn]
    if f.state & s.STATE_MASK == s.HEAD and f.order == order:
        if w.bursts[base + s.INFERRED].first >= 0:
            end_burst(w, base + s.INFERRED, s.C_CUT_ACTION)
        free_block(w, pfn, t, cpu, s.COMPLETE)
        w.counts[s.C_MATCHED] += 1
        w.counts[s.C_MATCHED_PAGES] += 1 << order
    else:
        whole = free_range(w, t, cpu, ti, pfn, order)
        if whole and w.bursts[base + s.INFERRED].first >= 0:
            end_burst(w, base + s.INFERRED, s.C_CUT_ACTION)
