"""When kswapd of a node wakes and sleeps (page-allocator.md 4.7, 4.8); reclaim.py says what it frees.

Mimics ``wakeup_kswapd``, ``pgdat_balanced`` and the frame of ``balance_pgdat`` of mm/vmscan.c: a wake is nothing where
some zone of the node is above HIGH and none is boosted. The kernel marks a boosted zone (ZONE_BOOSTED_WATERMARK) and
wakes once the zone lock is dropped; nobody can see the difference here, so the boost itself wakes.
"""

# mypy: disable-error-code="no-untyped-def, no-untyped-call"

from __future__ import annotations

from tracereplay.compiled import inner
from tracereplay.machine.counters import KSWAPD_WAKES
from tracereplay.machine.layout import (
    CFG_NOW,
    CFG_REACH,
    CFG_SKIP_BUSY,
    CFG_TIMER,
    CFG_ZONES,
    KS_DONE,
    KS_GOAL,
    KS_HOPELESS,
    KS_RUNNING,
    KS_SINCE,
    KS_TOP,
    KS_WORDS,
    Z_BOOST,
    Z_BOOST_SEEN,
    Z_HIGH,
    Z_NODE,
    Z_RECLAIM_ACTIVE,
    Z_SKIP,
    Z_TYPE,
    Z_WORDS,
    ZL_WORDS,
)
from tracereplay.machine.watermarks import watermark_ok
from tracereplay.machine.zonelist import highest_zone, zone_at, zonelist

KSWAPD_PERIOD_NS = 1_000_000
"""Simulated time between two looks at a node whose kswapd runs."""


@inner
def concerns(m, z, node, top):
    """Whether a zone belongs to a node and is of type ``top`` or lower."""
    return m.w[z * Z_WORDS + Z_NODE] == node and m.w[z * Z_WORDS + Z_TYPE] <= top


@inner
def node_balanced(m, node, order, top):
    """Whether some zone of the node up to type ``top`` is above HIGH (``pgdat_balanced``)."""
    for z in range(m.w[CFG_ZONES]):
        if concerns(m, z, node, top) and watermark_ok(m, z, order, m.w[z * Z_WORDS + Z_HIGH], top, 0):
            return True
    return False


@inner
def wake_kswapd(m, node, order, top):
    """``wakeup_kswapd`` of a node for a request of ``order`` up to zone type ``top``."""
    k = node * KS_WORDS
    if m.w[k + KS_RUNNING] or m.w[k + KS_HOPELESS]:
        return
    boost = 0
    for z in range(m.w[CFG_ZONES]):
        if concerns(m, z, node, top):
            boost += m.w[z * Z_WORDS + Z_BOOST]
    if boost == 0 and node_balanced(m, node, order, top):
        return
    m.c[KSWAPD_WAKES] += 1
    m.w[k + KS_RUNNING] = 1
    m.w[k + KS_TOP] = top
    m.w[k + KS_SINCE] = m.w[CFG_NOW]
    m.w[k + KS_DONE] = 0
    m.w[k + KS_GOAL] = max(boost, 2 << order if order > 0 else 0)  # compact_gap
    for z in range(m.w[CFG_ZONES]):
        if concerns(m, z, node, top):
            m.w[z * Z_WORDS + Z_RECLAIM_ACTIVE] = 1
            m.w[z * Z_WORDS + Z_BOOST_SEEN] = m.w[z * Z_WORDS + Z_BOOST]
        if m.w[CFG_SKIP_BUSY] and m.w[z * Z_WORDS + Z_NODE] == node:
            m.w[z * Z_WORDS + Z_SKIP] = 1
    m.w[CFG_TIMER] = min(m.w[CFG_TIMER], m.w[CFG_NOW] + KSWAPD_PERIOD_NS)


@inner
def stop_kswapd(m, node):
    """kswapd goes to sleep: the boost that it saw is worked off, the zones are not under reclaim."""
    k = node * KS_WORDS
    m.w[k + KS_RUNNING] = 0
    for z in range(m.w[CFG_ZONES]):
        if concerns(m, z, node, m.w[k + KS_TOP]):
            m.w[z * Z_WORDS + Z_RECLAIM_ACTIVE] = 0
            m.w[z * Z_WORDS + Z_BOOST] -= min(m.w[z * Z_WORDS + Z_BOOST], m.w[z * Z_WORDS + Z_BOOST_SEEN])
        if m.w[z * Z_WORDS + Z_NODE] == node:
            m.w[z * Z_WORDS + Z_SKIP] = 0


@inner
def wake_all_kswapds(m, cpu, order, gfp):
    """Wake kswapd of every node of a request's zonelist (``wake_all_kswapds``)."""
    row = zonelist(m, cpu, gfp)
    last = -1
    for k in range(ZL_WORDS):
        z = zone_at(m, row, k, gfp)
        if z < 0:
            break
        if m.w[z * Z_WORDS + Z_NODE] != last:
            last = m.w[z * Z_WORDS + Z_NODE]
            wake_kswapd(m, last, order, m.w[CFG_REACH + highest_zone(gfp)])
