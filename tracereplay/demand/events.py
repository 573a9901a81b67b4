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
    carve,
    close_live,
    colour_for,
    forget,
    free_block,
    known_since,
    life,
    place,
)
from tracereplay.demand.ring import end_burst, put, put_extent, put_request
from tracereplay.demand.stream import FREE, FREE_INITIAL, REQUIRED, UNSEEN
from tracereplay.kernel.constants import MAX_PAGE_ORDER

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
def pass_losses(w, t):
    """Note the losses that began before ``t``."""
    k = w.scalar[s.S_LOSS_I]
    while k < w.loss0.shape[0] and w.loss0[k] < t:
        if w.loss1[k] > w.scalar[s.S_LOSS_END]:
            w.scalar[s.S_LOSS_END] = w.loss1[k]
        cpu = w.loss_cpu[k]
        if cpu >= 0 and cpu < w.lost_until.shape[0] and w.loss1[k] > w.lost_until[cpu]:
            w.lost_until[cpu] = w.loss1[k]
        k += 1
    w.scalar[s.S_LOSS_I] = k


@hot
def lost_since(w, t):
    """Whether events were lost between ``t`` and now."""
    return w.scalar[s.S_LOSS_I] > 0 and w.scalar[s.S_LOSS_END] > t


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
        oldest = close_live(w, pfn, order, t, cpu)
        if oldest >= 0:
            if lost_since(w, oldest):
                w.counts[s.C_REUSED_LOST] += 1
            else:
                w.counts[s.C_REUSED] += 1
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
    if w.who.shape[0] > 1:
        w.who[pfn].pid = w.tasks[ti].pid
        w.who[pfn].gfp = gfp
        w.who[pfn].caller = caller


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


@kernel
def on_free_slow(w, t, cpu, ti, pfn, order):
    """A free that is not exactly one live block."""
    end = pfn + (1 << order)
    matched = 0
    never = 0
    unseen = 0
    lost = 0
    partial = False
    blocks = 0
    p = pfn
    while p < end:
        f = w.frames[p]
        st = f.state & s.STATE_MASK
        if st == s.HEAD or st == s.TAIL:
            fit = order if p == pfn else 0
            if st == s.TAIL or p + (1 << f.order) > end:
                partial = True
                if not carve(w, p, fit) and (fit == 0 or not carve(w, p, 0)):
                    w.counts[s.C_INCONSISTENT] += 1  # a page whose block is not found: a bug
                    p += 1
                    continue
            pages = 1 << w.frames[p].order
            free_block(w, p, t, cpu, s.COMPLETE)
            matched += pages
            blocks += 1
            p += pages
            continue
        # a run of frames in the same condition, cut into aligned blocks
        q = p + 1
        since = known_since(f)
        while q < end:
            g = w.frames[q]
            if g.state & s.STATE_MASK != st or (st == s.KNOWN and (g.cpu != f.cpu or known_since(g) != since)):
                break
            q += 1
        while p < q:
            k = 0
            while k < MAX_PAGE_ORDER and not p & ((2 << k) - 1) and p + (2 << k) <= q:
                k += 1
            pages = 1 << k
            if st == s.NEVER:
                put(w, t, p, k, FREE_INITIAL, 0, cpu)
                life(w, p, k, -1, t, -1, cpu, s.LEFT_CENSORED)
                w.counts[s.C_LIVE_BLOCKS] += 1
                w.counts[s.C_LIVE_PAGES] += pages
                w.frames[p].ts = w.scalar[s.S_START_NS]
                forget(w, p, k, t, cpu)
                never += pages
            else:
                if lost_since(w, since):
                    life(w, p, k, -1, t, f.cpu, cpu, s.BROKEN)
                    lost += pages
                else:
                    life(w, p, k, -1, t, f.cpu, cpu, s.UNSEEN_LIFE)
                    unseen += pages
                infer(w, t, cpu, ti, p, k, w.frames[p].cpu)
            p += pages
    w.counts[s.C_MATCHED_PAGES] += matched
    w.counts[s.C_LEFT_CENSORED_PAGES] += never
    w.counts[s.C_UNSEEN_PAGES] += unseen
    w.counts[s.C_LOST_PAGES] += lost
    if partial:
        w.counts[s.C_PARTIAL_FREES] += 1
    if blocks > 1:
        w.counts[s.C_COVERING_FREES] += 1
    if lost:
        w.counts[s.C_LOST_FREES] += 1
    elif unseen:
        w.counts[s.C_UNSEEN_FREES] += 1
    elif never:
        w.counts[s.C_LEFT_CENSORED] += 1
    else:
        w.counts[s.C_MATCHED] += 1
        index = ti * s.BURSTS_PER_TASK + s.INFERRED
        if w.bursts[index].first >= 0:
            end_burst(w, index, s.C_CUT_ACTION)


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
        on_free_slow(w, t, cpu, ti, pfn, order)
