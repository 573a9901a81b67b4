"""The agenda of simulated time and the lists of waiting requests: a binary heap and rings of slots, all in ``e.t``.

The order of what happens at one time is that of architecture.md section 3, rule 4: (time, class, cpu, sequence).
"""

# mypy: disable-error-code="no-untyped-def, no-untyped-call"

from __future__ import annotations

from tracereplay.compiled import hot, inner
from tracereplay.machine.layout import CFG_TIMER, NEVER
from tracereplay.replay.layout import (
    AG_CLASS_SHIFT,
    AG_CPU_SHIFT,
    AG_ITEM,
    AG_RANK,
    AG_TIME,
    AG_WORDS,
    SL_LIST,
    SL_NEXT,
    SL_PREV,
    SL_WORDS,
    X_AG,
    X_AGENDA,
    X_SL,
)


@hot
def entry_before(t, at, when, rank):
    """Whether the entry at word ``at`` comes before that of ``when`` and ``rank``."""
    return t[at + AG_TIME] < when or (t[at + AG_TIME] == when and t[at + AG_RANK] < rank)


@hot
def put_entry(t, at, when, rank, item):
    """Write an entry."""
    t[at + AG_TIME] = when
    t[at + AG_RANK] = rank
    t[at + AG_ITEM] = item


@inner
def schedule(w, t, x, when, kind, cpu, sequence, item):
    """Put ``item`` on the agenda; the machine's timer tells the loop. There is room (SPARE_ENTRIES)."""
    rank = kind << AG_CLASS_SHIFT | cpu << AG_CPU_SHIFT | sequence
    i = x[X_AGENDA]
    x[X_AGENDA] += 1
    while i > 0:
        parent = x[X_AG] + (i - 1 >> 1) * AG_WORDS
        if entry_before(t, parent, when, rank):
            break
        put_entry(t, x[X_AG] + i * AG_WORDS, t[parent + AG_TIME], t[parent + AG_RANK], t[parent + AG_ITEM])
        i = i - 1 >> 1
    put_entry(t, x[X_AG] + i * AG_WORDS, when, rank, item)
    w[CFG_TIMER] = min(w[CFG_TIMER], when)


@inner
def drop_first(t, x):
    """Take the first entry off the agenda."""
    x[X_AGENDA] -= 1
    n, first = x[X_AGENDA], x[X_AG]
    last = first + n * AG_WORDS
    when, rank, item = t[last + AG_TIME], t[last + AG_RANK], t[last + AG_ITEM]
    i = 0
    while 2 * i + 1 < n:
        child = 2 * i + 1
        at = first + child * AG_WORDS
        if child + 1 < n and entry_before(t, at + AG_WORDS, t[at + AG_TIME], t[at + AG_RANK]):
            child += 1
            at += AG_WORDS
        if not entry_before(t, at, when, rank):
            break
        put_entry(t, first + i * AG_WORDS, t[at + AG_TIME], t[at + AG_RANK], t[at + AG_ITEM])
        i = child
    put_entry(t, first + i * AG_WORDS, when, rank, item)


@hot
def first_time(t, x):
    """When the first entry is due, ns; NEVER for an empty agenda."""
    return t[x[X_AG] + AG_TIME] if x[X_AGENDA] > 0 else NEVER


@hot
def first_kind(t, x):
    """Class of the first entry; there is one."""
    return t[x[X_AG] + AG_RANK] >> AG_CLASS_SHIFT


@hot
def slot_at(x, s):
    """Where slot ``s`` begins in ``t``."""
    return x[X_SL] + s * SL_WORDS


@hot
def first_of(t, x, which):
    """First slot of a list; 0 when it is empty."""
    s = t[slot_at(x, which) + SL_NEXT]
    return s if s != which else 0


@inner
def insert_slot(t, x, which, s, after):
    """Put a slot, which is on no list, on one behind ``after``: ``which`` itself for its front."""
    a, b = slot_at(x, s), t[slot_at(x, after) + SL_NEXT]
    t[a + SL_LIST] = which
    t[a + SL_PREV] = after
    t[a + SL_NEXT] = b
    t[slot_at(x, after) + SL_NEXT] = s
    t[slot_at(x, b) + SL_PREV] = s


@hot
def append_slot(t, x, which, s):
    """Put a slot, which is on no list, at the end of one."""
    insert_slot(t, x, which, s, t[slot_at(x, which) + SL_PREV])


@hot
def remove_slot(t, x, s):
    """Take a slot off its list."""
    a = slot_at(x, s)
    t[slot_at(x, t[a + SL_PREV]) + SL_NEXT] = t[a + SL_NEXT]
    t[slot_at(x, t[a + SL_NEXT]) + SL_PREV] = t[a + SL_PREV]
