"""Which waiting requests are called again, and when: by the mutex, by the reserve, by their deadlines."""

# mypy: disable-error-code="no-untyped-def, no-untyped-call"

from __future__ import annotations

from tracereplay.compiled import hot, inner
from tracereplay.machine.layout import (
    CFG_MUTEX_OWNER,
    CFG_TIMER,
    CFG_WOKEN,
    ERROR_NO_PROGRESS,
    NEVER,
    WOKEN_MUTEX,
    WOKEN_POOL,
)
from tracereplay.machine.misuse import report_error
from tracereplay.replay.agenda import (
    append_slot,
    drop_first,
    first_kind,
    first_of,
    insert_slot,
    remove_slot,
    schedule,
    slot_at,
)
from tracereplay.replay.layout import (
    AG_CPU_SHIFT,
    AG_DEADLINE,
    AG_ITEM,
    AG_RANK,
    AG_TIME,
    LIST_MUTEX,
    LIST_POOL,
    LIST_READY,
    LIST_TIME,
    MAX_CALLS,
    SL_ALARM,
    SL_LIST,
    SL_PREV,
    SL_REQ,
    SL_SEQUENCE,
    X_AG,
    X_AGENDA,
    X_CALLS,
    X_PARKED,
    X_SEQUENCE,
)
from tracereplay.strategies.contract import REQ_CPU, REQ_UNTIL, WAIT_MUTEX, WAIT_POOL, WAIT_TIME

assert (LIST_MUTEX, LIST_POOL, LIST_TIME) == (WAIT_MUTEX, WAIT_POOL, WAIT_TIME)


@hot
def next_sequence(e):
    """A number for the order of things."""
    e.x[X_SEQUENCE] += 1
    return e.x[X_SEQUENCE]


@hot
def heed_woken(m, e):
    """After an operation: have the loop look after those that it may have let go on."""
    if m.w[CFG_WOKEN] != 0:
        if e.x[X_PARKED] == 0:
            m.w[CFG_WOKEN] = 0
        else:
            m.w[CFG_TIMER] = 0


@inner
def wake(m, e):
    """Make those ready that ``w[CFG_WOKEN]`` lets go on: the first for the mutex, before all others; all for the pool.

    As in the kernel a wake finds those that wait already, not the one that comes to wait next.
    """
    woken = m.w[CFG_WOKEN]
    m.w[CFG_WOKEN] = 0
    if woken & WOKEN_POOL:
        s = first_of(e.t, e.x, LIST_POOL)
        while s != 0:
            remove_slot(e.t, e.x, s)
            append_slot(e.t, e.x, LIST_READY, s)
            s = first_of(e.t, e.x, LIST_POOL)
    if woken & WOKEN_MUTEX and m.w[CFG_MUTEX_OWNER] == 0:
        s = first_of(e.t, e.x, LIST_MUTEX)
        if s != 0:
            remove_slot(e.t, e.x, s)
            insert_slot(e.t, e.x, LIST_READY, s, LIST_READY)


@inner
def enqueue(e, which, s):
    """Put a slot on a list by its sequence."""
    after = e.t[slot_at(e.x, which) + SL_PREV]
    while after != which and e.t[slot_at(e.x, after) + SL_SEQUENCE] > e.t[slot_at(e.x, s) + SL_SEQUENCE]:
        after = e.t[slot_at(e.x, after) + SL_PREV]
    insert_slot(e.t, e.x, which, s, after)


@inner
def set_alarm(m, e, s):
    """Put the deadline of a slot's wait on the agenda."""
    a = slot_at(e.x, s)
    until = e.t[a + SL_REQ + REQ_UNTIL]
    e.t[a + SL_ALARM] = until
    schedule(m.w, e.t, e.x, until, AG_DEADLINE, e.t[a + SL_REQ + REQ_CPU], e.t[a + SL_SEQUENCE], s)


@inner
def pass_over(m, e):
    """Take deadlines off the front of the agenda whose wait has ended.

    A slot has one entry in general: a wait that ended early leaves its entry to the next, which may be due later.
    """
    while e.x[X_AGENDA] > 0 and first_kind(e.t, e.x) == AG_DEADLINE:
        when, s = e.t[e.x[X_AG] + AG_TIME], e.t[e.x[X_AG] + AG_ITEM]
        a = slot_at(e.x, s)
        waits = WAIT_MUTEX <= e.t[a + SL_LIST] <= WAIT_TIME
        same = e.t[a + SL_SEQUENCE] == e.t[e.x[X_AG] + AG_RANK] & (1 << AG_CPU_SHIFT) - 1
        if waits and same and when == e.t[a + SL_REQ + REQ_UNTIL]:
            return
        drop_first(e.t, e.x)
        if e.t[a + SL_ALARM] == when:
            e.t[a + SL_ALARM] = 0
            if waits and when < e.t[a + SL_REQ + REQ_UNTIL] < NEVER:
                set_alarm(m, e, s)


@inner
def ring_alarm(e):
    """The first entry of the agenda, the deadline of a request that waits, is due: it is ready."""
    when, s = e.t[e.x[X_AG] + AG_TIME], e.t[e.x[X_AG] + AG_ITEM]
    drop_first(e.t, e.x)
    if e.t[slot_at(e.x, s) + SL_ALARM] == when:
        e.t[slot_at(e.x, s) + SL_ALARM] = 0
    remove_slot(e.t, e.x, s)
    append_slot(e.t, e.x, LIST_READY, s)


@inner
def count_call(m, e):
    """Note a call of a waiting request or timer: there may be so many at one time only."""
    e.x[X_CALLS] += 1
    if e.x[X_CALLS] > MAX_CALLS:
        report_error(m, ERROR_NO_PROGRESS, 0)
