"""Timers and chance for a strategy's background work, both in simulated time and from the machine's seed."""

# mypy: disable-error-code="no-untyped-def, no-untyped-call"

from __future__ import annotations

from tracereplay.compiled import inner
from tracereplay.machine.layout import (
    CFG_RANDOM,
    CFG_TIMER,
    CFG_TIMER_DUE,
    CFG_TIMER_IDS,
    ERROR_OUTSIDE,
    MAX_TIMERS,
    NEVER,
    TM,
)
from tracereplay.machine.misuse import report_error


@inner
def set_timer(m, number, when):
    """Have the strategy's ``timer`` called for ``number`` (0 to MAX_TIMERS - 1) at ``when``, ns. Replaces another.

    Timers due at one time run by number. A time that has passed already counts as now.
    """
    if number < 0 or number >= MAX_TIMERS:
        report_error(m, ERROR_OUTSIDE, number)
        return
    when = max(when, 1)
    before = m.w[TM + number]
    m.w[TM + number] = when
    m.w[CFG_TIMER_IDS] = max(m.w[CFG_TIMER_IDS], number + 1)
    m.w[CFG_TIMER] = min(m.w[CFG_TIMER], when)
    if when <= m.w[CFG_TIMER_DUE]:
        m.w[CFG_TIMER_DUE] = when
    elif before == m.w[CFG_TIMER_DUE]:  # the first is put off: some other may be first now
        m.w[CFG_TIMER_DUE] = NEVER
        for other in range(m.w[CFG_TIMER_IDS]):
            if m.w[TM + other] != 0:
                m.w[CFG_TIMER_DUE] = min(m.w[CFG_TIMER_DUE], m.w[TM + other])


@inner
def timer_set(m, number):
    """When a timer is due, ns; 0 when it is not set."""
    return m.w[TM + number]


@inner
def next_timer(m, now):
    """Number of a timer due at ``now`` or before, earliest first, and unset it; -1 when none is."""
    if m.w[CFG_TIMER_DUE] > now:
        return -1
    found, due, later = -1, NEVER, NEVER
    for number in range(m.w[CFG_TIMER_IDS]):
        when = m.w[TM + number]
        if when == 0:
            continue
        if when < due:
            found, due, later = number, when, due
        elif when < later:
            later = when
    m.w[CFG_TIMER_DUE] = later
    if found >= 0:
        m.w[TM + found] = 0
    return found


@inner
def chance(m, below):
    """A number from 0 to ``below`` - 1, the same in every run of one seed (splitmix64, Steele et al. 2014)."""
    m.w[CFG_RANDOM] += -7046029254386353131
    z = m.w[CFG_RANDOM]
    z = (z ^ ((z >> 30) & 0x3FFFFFFFF)) * -4658895280553007687
    z = (z ^ ((z >> 27) & 0x1FFFFFFFFF)) * -7723592293110705685
    z ^= (z >> 31) & 0x1FFFFFFFF
    return (z & 0x7FFFFFFFFFFFFFFF) % below
