"""Where the twin check keeps its numbers: word offsets in one flat array ``v``. Imports no Numba.

``v[ALLOCS]``                          totals, as :data:`TOTALS` names them
``v[RS + reason]``                     resynchronisations, as :data:`REASONS` names them
``v[BY + order * BY_WORDS + BY_EXACT]``  what is told by order
``v[_C + cpu * C_WORDS + C_PENDING]``  what is under way on a CPU: frees, a run of refill events, predicted drains
``v[LG + row * LOG_WORDS]``            the first disagreements, for ``--explain``
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from tracereplay.kernel.constants import NR_PAGE_ORDERS
from tracereplay.machine.layout import PCP_LISTS

TOTALS = (
    "events",
    "allocations",
    "frees",
    "unmatched_frees",
    "outside_zones",
    "pcp_allocations",
    "eligible",
    "exact",
    "initial_pops",
    "refill_kernel",
    "refill_twin",
    "refill_matched",
    "refill_other_length",
    "refill_without_allocation",
    "drain_kernel",
    "drain_twin",
    "drain_matched",
    "drain_other_frames",
    "drain_away_from_free",
    "tick_drain_twin",
    "tick_drain_matched",
    "extfrag_kernel",
    "extfrag_twin",
    "extfrag_matched",
    "bulk_pages",
    "pages_allocated",
    "pages_freed",
)
"""Totals. ``pcp_allocations``: successful allocations of an order that per-CPU lists hold. ``initial_pops``: of pages
that lay on a list since before the trace. ``drain_away_from_free``: drains that no free triggered (the vmstat worker,
``drain_all_pages``)."""
(
    EVENTS,
    ALLOCS,
    FREES,
    UNMATCHED_FREES,
    OUTSIDE,
    PCP_ALLOCS,
    ELIGIBLE,
    EXACT,
    INITIAL_POPS,
    REFILL_KERNEL,
    REFILL_TWIN,
    REFILL_MATCHED,
    REFILL_LENGTH,
    REFILL_ALONE,
    DRAIN_KERNEL,
    DRAIN_TWIN,
    DRAIN_MATCHED,
    DRAIN_FRAMES,
    DRAIN_AWAY,
    TICK_TWIN,
    TICK_MATCHED,
    EXTFRAG_KERNEL,
    EXTFRAG_TWIN,
    EXTFRAG_MATCHED,
    BULK_PAGES,
    PAGES_ALLOCATED,
    PAGES_FREED,
) = range(len(TOTALS))

REASONS = {
    "passed_over": "pages above the one that a pop took: handed out without an event (bulk), or on another list",
    "other_cpu": "an allocation took a page that the twin had on another CPU's list",
    "other_type": "an allocation took a page that the twin had on the list of another type or order",
    "free_in_twin": "an allocation took a page from a list that the twin had in its buddy lists",
    "in_use_in_twin": "an allocation took a page that the twin had in use: its free was not traced",
    "withheld": "an allocation took a page of a drain that the twin predicted and the kernel did not do",
    "buddy_path": "a page that lists hold came straight from the buddy lists while its list had pages",
    "surplus": "a refill found pages on the twin's list: they had been handed out without an event",
    "refill_on_list": "a refill named a page that the twin had on a list",
    "refill_in_use": "a refill named a page that the twin had in use: freed, given back or added without an event",
    "refill_alone": "a refill without an allocation: pages handed out without an event (bulk)",
    "freed_while_free": "a free of a page that the twin had free: it had been handed out without an event",
    "drain_unpredicted": "pages of a drain that the twin had on its lists",
    "drain_in_use": "pages of a drain that the twin had in use, or nowhere",
    "drain_not_seen": "a predicted drain that the kernel did not do: its pages are put back",
    "high_moved": "pcp->high as the kernel's drain shows it",
    "count_moved": "pages on a CPU's lists as the kernel's drain or a snapshot shows them",
    "refill_size": "pcp->alloc_factor, free_factor and high as the length of the kernel's refill or drain shows them",
    "block_type": "type of a pageblock as an event names it",
    "tick_seen": "the vmstat worker ran when its drain shows it",
    "zone_grown": "pages that a zone gained without events",
    "snapshot": "pcp->high and its bounds as a snapshot shows them",
}
"""Why the twin was corrected by what it saw, and what that means."""
(
    RS_PASSED,
    RS_OTHER_CPU,
    RS_OTHER_TYPE,
    RS_FREE,
    RS_IN_USE,
    RS_WITHHELD,
    RS_BUDDY_PATH,
    RS_SURPLUS,
    RS_REFILL_ON_LIST,
    RS_REFILL_IN_USE,
    RS_REFILL_ALONE,
    RS_FREED_FREE,
    RS_DRAIN_UNPREDICTED,
    RS_DRAIN_IN_USE,
    RS_DRAIN_UNSEEN,
    RS_HIGH,
    RS_COUNT,
    RS_REFILL_SIZE,
    RS_BLOCK_TYPE,
    RS_TICK,
    RS_GROWN,
    RS_SNAPSHOT,
) = range(len(REASONS))

RS = 64
_BY = 128
BY_WORDS = 8
(BY_ALLOCS, BY_ELIGIBLE, BY_EXACT, BY_REFILL_KERNEL, BY_REFILL_TWIN, BY_REFILL_MATCHED) = range(_BY, _BY + 6)
BY_NAMES = ("allocations", "eligible", "exact", "refill_kernel", "refill_twin", "refill_matched")
BY_END = _BY + NR_PAGE_ORDERS * BY_WORDS

(
    VC_ROOM,  # disagreements that the log has room for
    VC_LOGGED,  # disagreements so far
    VC_INDEX,  # number of the event at hand
    VC_CONTROL,  # next row of the controls
    VC_ELIGIBLE,  # first word of the flags of lists that a refill or free was seen on
    VC_BEFORE_TICK,  # first word of what the last run of the vmstat worker took off each high
    VC_LEAST,  # first word of the least, and then the greatest count of each page set while a snapshot was read
    VC_WITHHELD,  # list head on which the machine leaves the pages of a predicted drain
) = range(BY_END, BY_END + 8)

# ---- a CPU
PENDING_ROOM = 1 << 11
"""Frees held back until it is known whether they are a batch: at most 31 folios since 6.12, before that as many pages
as a list held (``free_unref_page_list``)."""
RUN_ROOM = 1 << 13
"""Blocks of a refill; batch << 6 at most."""
PUSH_ROOM = 64
"""Pushes whose page count is remembered."""
OUTSTANDING = 16
"""Predicted drains that wait for the kernel's."""
DRAIN_ROOM = 1 << 15
"""Frames of predicted drains that wait, and of the kernel's drain at hand."""
PATIENCE = 64
"""Pushes after which a predicted drain is taken back: more than a batch of frees."""
TICK_PATIENCE_NS = 120_000_000
"""Time that a busy CPU lets its vmstat worker wait."""
O_WORDS = 8
_C = BY_END + 16
(
    C_TRIGGER,  # frame of the last free, -1 when another event came after it
    C_TRIGGER_PID,
    C_PENDING_N,
    C_PENDING_AT,  # the free that has waited longest
    C_RUN_N,
    C_RUN_TWIN_EXTFRAG,
    C_RUN_KERNEL_EXTFRAG,
    C_PUSHES,
    C_BACKOFF,
    C_TICK_DUE,  # when the vmstat worker was due and has not run; 0: not due
    C_LAST_TICK,  # when it last ran
    C_REFRESH,  # when a snapshot made it run
    C_TICK_SILENT,  # when it was taken to have run without a drain, -1: its drain was seen
    C_NOW,
    C_OUT_N,  # outstanding predictions
    C_DRAIN_N,  # frames of the kernel's drain at hand; 0: none
    C_DRAIN_TRIGGER,
    C_DRAIN_ZONE,
    C_DRAIN_PAGES,
    C_DRAIN_PID,
    C_DRAIN_STRANGE,  # of its frames, those that the twin did not withhold
    C_STORE_AT,  # where the next predicted frame goes
) = range(_C, _C + 22)
C_PENDING = _C + 24
C_RUN = C_PENDING + 2 * PENDING_ROOM
C_PUSHED = C_RUN + RUN_ROOM
C_OUT = C_PUSHED + 2 * PUSH_ROOM
C_DRAIN = C_OUT + OUTSTANDING * O_WORDS
C_STORE = C_DRAIN + DRAIN_ROOM
C_WORDS = C_STORE + DRAIN_ROOM - _C + 8
O_TRIGGER, O_SET, O_PAGES, O_FRAMES, O_FROM, O_PUSH, O_TIME = range(7)
"""A predicted drain: its trigger (:data:`TICK` for the vmstat worker), page set, pages, frames and where they are in
``C_STORE``, number of the push, time."""
TICK = -2
COUNT_DOUBT = 512
"""Pages by which the twin's count of a page set may be off when a drain corrects it."""

LOG_WORDS = 8
# ---- controls: what happens beside the events, rows of (time, what, a, b, c, d)
CTL_TICK, CTL_REFRESH, CTL_RECLAIM, CTL_LIMITS, CTL_GROWN, CTL_COUNT = range(6)
"""The vmstat worker of CPU a is due; every CPU's runs now (a write to stat_refresh); kswapd of node a starts (b = 1)
or stops; page set a has high b within c and d; zone a gained b pages; page set a counts b pages, at one of
several times (c: the first, d: the last) while a snapshot was read."""
CONTROL_WORDS = 6

DISAGREEMENTS = (
    "pop",
    "pop_elsewhere",
    "refill_not_predicted",
    "refill_not_seen",
    "refill_length",
    "drain_not_predicted",
    "drain_not_seen",
    "drain_frames",
    "extfrag",
)
(
    DIS_POP,
    DIS_ELSEWHERE,
    DIS_REFILL_MISSED,
    DIS_REFILL_FALSE,
    DIS_REFILL_LENGTH,
    DIS_DRAIN_MISSED,
    DIS_DRAIN_FALSE,
    DIS_DRAIN_FRAMES,
    DIS_EXTFRAG,
) = range(len(DISAGREEMENTS))


def new_state(zones: int, cpus: int, room: int) -> npt.NDArray[np.int64]:
    """The array ``v`` for a machine of ``zones`` and ``cpus``, with room for ``room`` disagreements."""
    eligible = _C + cpus * C_WORDS
    before = eligible + zones * cpus * PCP_LISTS
    least = before + zones * cpus
    v = np.zeros(least + 2 * zones * cpus + room * LOG_WORDS, np.int64)
    v[VC_ROOM] = room
    v[VC_ELIGIBLE] = eligible
    v[VC_BEFORE_TICK] = before
    v[VC_LEAST] = least
    for cpu in range(cpus):
        v[cpu * C_WORDS + C_TRIGGER] = -1
        v[cpu * C_WORDS + C_LAST_TICK] = -(1 << 62)
        v[cpu * C_WORDS + C_TICK_SILENT] = -1
    return v
