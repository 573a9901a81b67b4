"""What a CPU's vmstat worker does to its page lists about once a second (page-allocator.md 3.8).

Mimics the page-set half of ``refresh_cpu_vm_stats`` and ``vmstat_update`` (mm/vmstat.c), ``decay_pcp_high`` and
``drain_zone_pages`` (mm/page_alloc.c), and ``round_jiffies_relative`` (kernel/time/timer.c) for its times.

The worker's timer is deferrable: it does not wake an idle CPU. Here a CPU is idle between its page events, so the
worker runs before the first event that comes at or after its time, once however long that took. Which nanosecond of
the recorded clock was a whole second of jiffies is not recorded: whole seconds of the trace's clock stand for it.
The kernel starts a remote list's countdown anew when any counter of the zone changed on this CPU; of those only the
page lists are known here, so every use of them counts.
"""

# mypy: disable-error-code="no-untyped-def, no-untyped-call"

from __future__ import annotations

from tracereplay.compiled import entry, hot, inner
from tracereplay.machine.counters import PCP_DRAINS
from tracereplay.machine.layout import (
    CFG_DECAY,
    CFG_VMSTAT_INTERVAL,
    CFG_ZONES,
    CN,
    P_BATCH,
    P_COUNT,
    P_EXPIRE,
    P_LOCKS,
    P_LOCKS_AT_TICK,
    P_WORDS,
    TK,
    Z_NODE,
    Z_WORDS,
    Machine,
)
from tracereplay.machine.pcp import drain_lists, pcp_index_of_cpu, pcp_lock
from tracereplay.machine.pcp_sizes import decay_high

SECOND_NS = 1_000_000_000
SKEW_NS = 12_000_000
"""Each CPU's worker runs 3 jiffies before that of the CPU before it (``round_jiffies_common``); CONFIG_HZ=250."""
EXPIRE_TICKS = 3
"""Ticks without use after which the list of a remote zone is drained (``refresh_cpu_vm_stats``)."""
NEVER_NS = (1 << 63) - 1


@inner
def decay(m, z, p):
    """Lower the high of a page set and drain what exceeds it (``decay_pcp_high``, 6.7 on). Returns pages drained.

    Before 6.7 nothing happens: high is fixed. Up to 6.17 the pages go in one hold of the locks, from 6.18 on ``batch``
    at a time.
    """
    if m.w[CFG_DECAY] == 0:
        return 0
    left = decay_high(m, p)
    if left == 0:
        return 0
    m.c[PCP_DRAINS] += 1
    chunk = m.w[p * P_WORDS + P_BATCH] if m.w[CFG_DECAY] == 2 else left
    moved = 0
    while left > 0:  # counts down whatever a THP overshoots
        pcp_lock(m, p)
        moved += drain_lists(m, z, p, min(left, chunk), 0)
        left -= chunk
    return moved


@inner
def expire_remote(m, z, p, local):
    """Count down the page set of a zone of another node and drain ``batch`` pages at the end. Returns pages drained.

    ``local``: the zone is on the CPU's node; its lists are never drained this way. The drain itself changes the zone's
    counters, so the next one comes three ticks later.
    """
    if m.w[p * P_WORDS + P_EXPIRE] == 0 or m.w[p * P_WORDS + P_COUNT] == 0:
        return 0
    if local:
        m.w[p * P_WORDS + P_EXPIRE] = 0
        return 0
    m.w[p * P_WORDS + P_EXPIRE] -= 1
    if m.w[p * P_WORDS + P_EXPIRE] > 0:
        return 0
    m.c[PCP_DRAINS] += 1
    pcp_lock(m, p)
    return drain_lists(m, z, p, min(m.w[p * P_WORDS + P_COUNT], m.w[p * P_WORDS + P_BATCH]), 0)


@inner
def vmstat_update(m, cpu):
    """One run of a CPU's vmstat worker: every zone in turn (``refresh_cpu_vm_stats``). Returns pages drained."""
    moved = 0
    for z in range(m.w[CFG_ZONES]):
        p = pcp_index_of_cpu(m, z, cpu)
        used = m.w[p * P_WORDS + P_LOCKS]
        if used != m.w[p * P_WORDS + P_LOCKS_AT_TICK]:
            m.w[p * P_WORDS + P_EXPIRE] = EXPIRE_TICKS
        m.w[p * P_WORDS + P_LOCKS_AT_TICK] = used
        moved += decay(m, z, p)
        moved += expire_remote(m, z, p, m.w[z * Z_WORDS + Z_NODE] == m.w[CN + cpu])
    return moved


@hot
def tick_due(m, cpu, now):
    """Whether the CPU's vmstat worker should have run by ``now`` (ns)."""
    return now >= m.w[TK + cpu]


@inner
def next_tick_after(now, interval, cpu):
    """When the worker runs next, ns (``round_jiffies_relative``): near a whole second, earlier by 3 jiffies a CPU.

    Down to the second where less than a quarter is past it, else up; unrounded where that is not in the future.
    """
    wanted = now + interval + cpu * SKEW_NS
    past = wanted % SECOND_NS
    rounded = wanted - past + (0 if past < SECOND_NS // 4 else SECOND_NS) - cpu * SKEW_NS
    return rounded if rounded > now else now + interval


@entry(Machine, int, int)
def vmstat_tick(m, cpu, now):
    """The worker's run that is due, and the time of the next; the first call only sets that. Returns pages drained."""
    if m.w[CFG_VMSTAT_INTERVAL] == 0:
        m.w[TK + cpu] = NEVER_NS
        return 0
    moved = vmstat_update(m, cpu) if m.w[TK + cpu] > 0 else 0
    m.w[TK + cpu] = next_tick_after(now, m.w[CFG_VMSTAT_INTERVAL], cpu)
    return moved
