"""When one burst ends and the next begins (compiled).

A burst is the run of allocations of one caller in one entry into it. It ends at another visible action of the task
(a free, a bio, another caller), at dm-crypt's size limit and order rules, or at a gap in the task's *own* time
that is longer than the caller's threshold (gaps.py). Bios only confirm, except inside the zone around the threshold,
where a boundary that they decided is counted.
"""

# mypy: disable-error-code="no-untyped-def, no-untyped-call"

from __future__ import annotations

from tracereplay.compiled import hot
from tracereplay.demand.ring import has_part
from tracereplay.demand.state import (
    ACTION,
    BINS,
    C_CUT_BIO,
    C_CUT_GAP,
    C_CUT_LIMIT,
    C_CUT_LOSS,
    C_CUT_ORDER,
    C_JOINED_BIO,
    COMPLETION,
    CRYPT,
    CRYPT_PAGES,
    HISTOGRAMS,
    S_LOSS_I,
    S_PART_SIZES,
    S_TRUST,
    SIZES,
)
from tracereplay.demand.stream import MAX_REQUEST_PAGES
from tracereplay.trace.schema import PAGE_KINDS

K_ALLOC = PAGE_KINDS.index("alloc")
K_FAILED = PAGE_KINDS.index("alloc_failed")
K_FREE = PAGE_KINDS.index("free")
K_FREE_BATCHED = PAGE_KINDS.index("free_batched")
K_ZONE_LOCKED = PAGE_KINDS.index("zone_locked")
K_DRAIN = PAGE_KINDS.index("drain")
K_EXTFRAG = PAGE_KINDS.index("extfrag")
K_BULK = PAGE_KINDS.index("bulk")
K_ACTION = 100
K_COMPLETION = 101

JOIN_LIMIT = 2
"""Bios may join a burst over a gap of at most this many thresholds, or over a longer one (a preempted worker)
while they are trusted: each request of dm-crypt that has the size of a bio adds 1 to their score, each other one
takes 4, within 0 and 16; a buffer that runs past dm-crypt's largest without a gap takes all."""
TRUSTED = 6
CUT_LOOPS = 3
"""A burst that has the size of a bio ends at a gap of this many steps of its loop."""


@hot
def charge(tasks, cpus, ti, cpu, t, kind, foreign, slack):
    """Advance the clocks of a CPU and a task by one event; True when an interrupt caused the event.

    ``foreign``: a free that the task cannot have made itself. ``slack``: ns that entering and leaving an interrupt
    or the allocator's locked part takes, not counted in the interval after it.

    A task's own time is the sum of the intervals between events on its CPU of which one end is its own. Not
    counted: intervals between two events of the allocator (a refill or drain, and the tracer's work for it),
    between events of other tasks, and after the first event of an interrupt (a completion or a foreign free) up to
    its last.
    """
    c = cpus[cpu]
    task = tasks[ti]
    previous = c.task
    same = previous == ti and task.cpu == cpu
    inside = c.interrupt != 0 and previous == ti
    caused = foreign or (inside and kind in (K_FREE, K_COMPLETION))
    if kind == K_COMPLETION or foreign:
        c.interrupt = 1
    elif kind in (K_ALLOC, K_FAILED, K_ACTION) or previous != ti:
        c.interrupt = 0
    allocator = kind >= K_FREE_BATCHED and kind < K_BULK
    quiet = (caused and inside) or (allocator and same and c.kind >= K_FREE_BATCHED and c.kind < K_BULK)
    if not quiet:
        dt = t - c.ts
        if (inside and not caused) or (c.kind >= K_FREE_BATCHED and c.kind < K_BULK):
            dt -= slack
        if same:
            if dt > 0:
                task.own_ns += dt
        else:
            since = t - task.last_ns
            if task.cpu == cpu and dt < since:
                since = dt
            if since > 0:
                task.own_ns += since
            if previous >= 0 and previous != ti and dt > 0 and tasks[previous].cpu == cpu:
                tasks[previous].own_ns += dt
    c.ts = t
    c.task = ti
    c.kind = kind
    task.last_ns = t
    task.cpu = cpu
    return caused


@hot
def per_page(gap, order):
    """A gap as if the block were one page: preparing (zeroing) a block of 2^order takes longer."""
    return gap * 4 // (4 + (1 << order))


@hot
def bin_of(ns):
    """Histogram bin of a gap: four to an octave."""
    if ns < 4:
        return ns if ns > 0 else 0
    top = 2
    while ns >> (top + 1):
        top += 1
    b = (top << 2) | ((ns >> (top - 2)) & 3)
    return b if b < BINS else BINS - 1


@hot
def histogram_of(caller):
    """Callers share the last histogram once there are many."""
    return caller if caller < HISTOGRAMS else HISTOGRAMS - 1


@hot
def cut_before(w, b, ti, t, order, pages):
    """Reason to end an open burst before an attempt of 2^order pages of the same caller; -1: it goes on.

    ``pages``: pages that the attempt would add, 0 for a failed one.
    """
    flags = w.caller_flags[b.caller]
    crypt = flags & CRYPT != 0
    if b.pages + pages > (CRYPT_PAGES if crypt else MAX_REQUEST_PAGES):
        if crypt and w.tasks[ti].own_ns - b.own_ns <= w.thresholds[histogram_of(b.caller)]:
            w.scalar[S_TRUST] = 0  # it goes on without a gap: boundaries before this one were wrong
        return C_CUT_LIMIT
    if b.order > 0 or order > 0:
        # crypt_alloc_buffer clamps its order to what remains and never raises it again, so after a success
        # the next attempt is smaller unless something failed before
        if order > b.order:
            return C_CUT_ORDER
        if crypt and order == b.order and order > 0 and b.failed == 0:
            return C_CUT_ORDER
        if b.just_failed and order == b.order - 1:
            return -1
    if w.scalar[S_LOSS_I] > 0 and w.lost_until[w.tasks[ti].cpu] > b.seen_ns:
        return C_CUT_LOSS
    gap = per_page(w.tasks[ti].own_ns - b.own_ns, order)
    number = histogram_of(b.caller)
    limit = w.thresholds[number]
    if not crypt:
        return C_CUT_GAP if gap > limit else -1
    # between two buffers the first one is encrypted, which is slower than to allocate it
    loop = w.loops[number]
    encryption = b.pages * loop * 3 // 4
    if w.scalar[S_PART_SIZES] == 0 or b.pages == 0:
        return C_CUT_GAP if gap > max(limit, encryption) else -1
    exact = b.pages < SIZES and has_part(w, b.pages, b.arrival_ns)
    if exact:
        if gap > max(loop * CUT_LOOPS if loop > 0 else limit // 4, encryption):
            return C_CUT_GAP if gap > limit else C_CUT_BIO
        if gap > limit and not _larger_part(w, b.pages):
            return C_CUT_GAP
        return -1
    if gap <= limit:
        return -1
    if (w.scalar[S_TRUST] >= TRUSTED or gap < limit * JOIN_LIMIT) and _larger_part(w, b.pages):
        w.counts[C_JOINED_BIO] += 1
        return -1
    return C_CUT_GAP


@hot
def _larger_part(w, pages):
    """Whether a WRITE part of more pages is queued that dm-crypt has not taken a buffer for."""
    n = CRYPT_PAGES
    while n > pages and w.parts[0, n] <= max(w.parts[1, n], w.parts_done[0, n]):
        n -= 1
    return n > pages


__all__ = ["ACTION", "COMPLETION"]
