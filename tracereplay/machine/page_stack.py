"""Lists of single idle pages that a strategy keeps, one or two a CPU: stacks, or queues where pages go to the tail.

The pages stay in use for the page allocator. While one lies here it is CACHED, counts as idle reserve, and no longer as
one that was asked for as movable; whoever takes it off holds it as its CPU's unmovable page.
"""

# mypy: disable-error-code="no-untyped-def, no-untyped-call"

from __future__ import annotations

from tracereplay.compiled import inner
from tracereplay.kernel.constants import MIGRATE_MOVABLE
from tracereplay.machine.buddy import get_info, note_movable, set_info, zone_of
from tracereplay.machine.layout import (
    CACHED,
    CFG_CPUS,
    CFG_NODES,
    CFG_NOW,
    CFG_STRATEGY_LIST,
    CN,
    ERROR_BAD_FREE,
    ERROR_OUTSIDE,
    INFO_CPU_SHIFT,
    INFO_ORDER,
    INFO_STATE,
    INFO_TYPE,
    INFO_TYPE_SHIFT,
    STRATEGY_LISTS,
    USED,
    Z_NODE,
    Z_WORDS,
)
from tracereplay.machine.lists import add_head, add_tail, first, remove
from tracereplay.machine.misuse import report_error
from tracereplay.machine.reserve import reserve_add


@inner
def stack_push(m, lst, pfn, tail):
    """Put a page in use at the head of list ``lst`` (0 to STRATEGY_LISTS - 1), or at its tail.

    A page that is not in use is reported as a bad free and not taken.
    """
    if lst < 0 or lst >= STRATEGY_LISTS or zone_of(m, pfn) < 0:
        report_error(m, ERROR_OUTSIDE, pfn)
        return
    info = get_info(m, pfn)
    if info & (INFO_STATE | INFO_ORDER) != USED:
        report_error(m, ERROR_BAD_FREE, pfn)
        return
    if info >> INFO_TYPE_SHIFT & INFO_TYPE == MIGRATE_MOVABLE:
        note_movable(m, pfn, 0, -1)
    set_info(m, pfn, CACHED)
    head = m.w[CFG_STRATEGY_LIST] + lst
    if tail:
        add_tail(m.pg, head, m.w[CFG_NODES] + pfn)
    else:
        add_head(m.pg, head, m.w[CFG_NODES] + pfn)
    reserve_add(m, 1)


@inner
def stack_pop(m, lst, cpu):
    """Take the page at the head of a list, for use on ``cpu``. Frame, or -1 when the list is empty."""
    head = m.w[CFG_STRATEGY_LIST] + lst
    node = first(m.pg, head)
    if node == head:
        return -1
    remove(m.pg, node)
    pfn = node - m.w[CFG_NODES]
    set_info(m, pfn, USED | cpu << INFO_CPU_SHIFT)
    reserve_add(m, -1)
    return pfn


@inner
def taken_on(m, pfn):
    """CPU on which a page in use was allocated, or taken off a list."""
    return get_info(m, pfn) >> INFO_CPU_SHIFT


@inner
def is_local(m, cpu, pfn):
    """Whether a frame is on a CPU's node."""
    return m.w[zone_of(m, pfn) * Z_WORDS + Z_NODE] == m.w[CN + cpu]


@inner
def cpus(m):
    """CPUs of the machine."""
    return m.w[CFG_CPUS]


@inner
def time_now(m):
    """Simulated time, ns."""
    return m.w[CFG_NOW]
