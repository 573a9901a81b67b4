"""When counts alone decide what per-CPU lists do: the conditions of exact sweeps, and which of them a setting breaks.

A sweep (onepass_lanes.py) knows how many blocks lie on each list, not which. That is enough while every allocation is
served from the first zone of its zonelist and from free blocks of its own migratetype, and every freed page returns to
the list of that type. Then the same steps reach the same lists whatever the sizes are. The conditions, for a setting:

``watermarks``: at each allocation the zone has more free pages than the mark of the fast path (HIGH since 6.7, where
falling below sets BELOW_HIGH; else LOW), its lowmem reserve and what is asked. The free pages of the start less all
that is away (see below) are a lower bound. A zone above that mark wakes no kswapd, reclaims and compacts nothing.

``supply``: no request and no refill is left with pieces of pageblocks of another type. Let n_k be the free blocks of
order k of a zone and type, and C_o = sum over k >= o of n_k 2^(k-o), the blocks of order o that can be cut from them.
Say that a pool A *dominates* B when C_o(A) >= C_o(B) for every o.

1. Taking a block of order j from the smallest order k >= j that has one, as ``__rmqueue_smallest`` does, lowers C_o by
   2^(j-o) for o <= j and by 1 for j < o <= k, and leaves C_o for o > k.
2. If A dominates B, A takes from its smallest k and B from any k' >= j, then A still dominates B. If k <= k', A loses
   no more than B anywhere. If k > k': A has no blocks of orders j to k-1, so for each o with k' < o <= k, C_k'(A) =
   2^(o-k') C_o(A), while B has a block of order k', so C_k'(B) >= 1 + 2^(o-k') C_o(B). From C_k'(A) >= C_k'(B) follows
   C_o(A) > C_o(B): the 1 that A alone loses at o is to spare.
3. A block that comes back raises C_o of both alike, and merging raises it further.

So the real lists of a type dominate those of a machine that sets aside, at the start, as many blocks of each order j as
are ever away at once, D_j, and takes and returns only these. That machine never runs out if the D_j can be cut from its
blocks side by side: if sum over j >= o of D_j 2^(j-o) <= C_o for every o. Let E be the fewest blocks of the largest
order with which this holds, beside the smaller free blocks of the type.

4. A type that runs out takes the largest free block of another (fallback.py). One of the largest order is taken over
   whole, its pageblocks change to the type and nothing in use is in them: a pool gives a block, another gets one, and
   pages still come from and return to pageblocks of their own type. By 1. to 3., with a block given as one more that is
   away, a type runs out only while the largest blocks that it started with and got, less those it gave, are fewer than
   its E. If the E of all types together are at most the largest blocks of the zone at the start, another type then has
   more than its E, so one that it does not need, which is free: the largest there is.

That is the condition. Away are blocks that refills took less those that drains gave back, of all page sets; between the
ends of two epochs, at which all page sets stand at one time, they are at most the sum of the most of each. The
watermark test of an order above 0 wants a free block that large, whatever its type: then one of the largest must be to
spare.

``pageblock types``: all of this needs that a pageblock keeps its type otherwise. Only a merge of two free pageblocks of
different types would change it; of each such pair a page must be in use for good. Free blocks must lie on the list of
their pageblock's type at the start, and no zone may set pages aside (HIGHATOMIC, CMA).

``pages freed together``: single pages of different blocks that one free gives back make one block if they lie together
in the simulated memory, which depends on the setting.

``one list a type``: some generations keep pageblock-sized blocks of several types on one list, so that a request may
get another type's. Whole they return to the same list, so none of them may be cut up. Of each type at most as many are
away as of the list, and as came back of others that were in use, or on lists, at the start.

``reserve``: the path's quota is never reached, so that no request waits. ``remote lists``: the lists of another node's
zones, which the vmstat worker drains after a time without use, are not used.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tracereplay.kernel.constants import MIGRATE_PCPTYPES, MIGRATETYPE_NAMES, NR_PAGE_ORDERS, PAGEBLOCK_ORDER
from tracereplay.kernel.generations import GENERATIONS
from tracereplay.machine import layout as at
from tracereplay.machine.build import nodes_of_cpus, zone_words
from tracereplay.machine.config import MachineConfig, ZoneConfig
from tracereplay.machine.layout import I64
from tracereplay.whatif import onepass_words as ow
from tracereplay.whatif.onepass_steps import Facts
from tracereplay.whatif.onepass_sweep import Swept, lists_of


@dataclass(frozen=True, slots=True)
class Broken:
    """A condition that does not hold."""

    condition: str
    what: str
    """Which, where and when, in words."""

    def __str__(self) -> str:
        return f"condition {self.condition!r} does not hold: {self.what}"


def broken_for_all(facts: Facts, config: MachineConfig) -> Broken | None:
    """The first condition that no setting of a generation can keep; None: there is none."""
    zones, _ = zone_words(config)
    when = _Clock(facts.start_ns)
    if config.pcp_protection == "llist":
        return Broken("per-CPU locks", "pcp_lock=llist has none to count")
    for zone, aside in zip(zones, facts.set_aside, strict=True):
        if aside:
            return Broken("pageblock types", f"{_name(zone)} sets {aside} pages aside (HIGHATOMIC or CMA)")
    if facts.misplaced:
        what = f"{facts.misplaced} blocks start on lists of another type than that of their pageblocks"
        return Broken("pageblock types", what)
    if facts.mergeable >= 0:
        what = f"the pageblocks at frame {facts.mergeable:#x} and behind it differ in type and may merge"
        return Broken("pageblock types", what)
    if facts.bad_type_ns >= 0:
        return Broken("pageblock types", f"a page without a list of its type is freed {when(facts.bad_type_ns)}")
    if facts.together_ns >= 0:
        return Broken("pages freed together", f"first {when(facts.together_ns)}")
    index = lists_of(GENERATIONS[config.generation])
    for zone, told in zip(zones, facts.zones, strict=True):
        if told["cut_ns"] >= 0 and _shared(index, told["thp"]):
            what = f"in {_name(zone)} a pageblock-sized block is cut up {when(told['cut_ns'])}"
            return Broken("one list a type", f"{what}, and such blocks of several types share a list")
    out = facts.path_peak + facts.pool_pages + (facts.counter_batch + 1) * facts.cpus
    if facts.quota < at.NO_QUOTA and out > facts.quota:
        return Broken("reserve", f"{facts.path_peak} pages are out at a time, and the path's quota is {facts.quota}")
    return _remote(facts, config, zones)


def _remote(facts: Facts, config: MachineConfig, zones: Sequence[ZoneConfig]) -> Broken | None:
    if config.vmstat_interval == 0:
        return None
    nodes = nodes_of_cpus(config)
    for p in facts.used:
        zone, cpu = zones[p // facts.cpus], p % facts.cpus
        if zone.node != nodes[cpu]:
            return Broken("remote lists", f"CPU {cpu} uses its list of {_name(zone)}")
    return None


def broken_by_lane(facts: Facts, configs: Sequence[MachineConfig], swept: Swept) -> list[Broken | None]:
    """For each setting the first condition that it breaks."""
    zones, w = zone_words(configs[0])
    when = _Clock(facts.start_ns)
    rule = GENERATIONS[configs[0].generation].pcp_rule
    found: list[Broken | None] = [None] * len(configs)
    index = np.array(lists_of(GENERATIONS[configs[0].generation]))
    for z, zone in enumerate(zones):
        told = facts.zones[z]
        if not told["orders"]:
            continue
        taken = _taken(facts, z, swept.away[:, z], index)
        supply = np.array(facts.supply[z], np.int64).reshape(NR_PAGE_ORDERS, MIGRATE_PCPTYPES)
        mark = int(w[z * at.Z_WORDS + (at.Z_HIGH if rule == 2 else at.Z_LOW)])
        pages = ((supply - taken).sum(axis=2) << np.arange(NR_PAGE_ORDERS)).sum(axis=1)
        left = pages - told["asked"]
        for lane in np.flatnonzero(left <= mark):
            name = "HIGH" if rule == 2 else "LOW"
            what = f"{_name(zone)} may have {left[lane]} pages left above its reserve, and {name} is {mark}"
            found[lane] = found[lane] or Broken(
                "watermarks", f"{what}, for the largest request {when(told['asked_ns'])}"
            )
        needed, whole = largest_needed(supply, taken), int(supply[-1].sum())
        spare = 1 if told["orders"] > 1 else 0
        for lane in np.flatnonzero(needed.sum(axis=1) + spare > whole):
            mt = int(needed[lane].argmax())
            ns = _peak_ns(facts, z, swept.epoch[lane, z], taken[lane, :, mt], mt)
            what = (
                f"{_name(zone)} has {whole} free blocks of the largest order at the start and may need "
                f"{needed[lane].sum() + spare}, most for {MIGRATETYPE_NAMES[mt]} pages"
            )
            found[lane] = found[lane] or Broken("supply", f"{what}, {when(ns)}")
    return found


def largest_needed(supply: I64, taken: I64) -> I64:
    """Blocks of the largest order that each type needs beside its smaller free ones, E of the module, [lane, type].

    ``supply``: free blocks at the start, [order, type]; ``taken``: the most away at a time, [lane, order, type].
    """
    needed = np.maximum(taken[:, -1], 0)
    spare = -taken[:, -1].copy()
    for order in range(NR_PAGE_ORDERS - 2, -1, -1):
        spare = 2 * spare + supply[order] - taken[:, order]
        needed = np.maximum(needed, -(spare >> NR_PAGE_ORDERS - 1 - order))  # rounded up
    return needed


def _taken(facts: Facts, z: int, away: I64, index: I64) -> I64:
    """The most blocks away at a time, [lane, order, type]."""
    shape = (NR_PAGE_ORDERS, MIGRATE_PCPTYPES)
    taken = np.tile(np.array(facts.peak[z], np.int64).reshape(shape), (len(away), 1, 1))
    told = facts.zones[z]
    shared = _shared(index, told["thp"])
    on_lists = np.array(facts.start, np.int64).reshape(-1, facts.cpus, ow.LISTS)[z].sum(axis=0)
    for k, order in enumerate(np.repeat(ow.LIST_ORDERS, MIGRATE_PCPTYPES)):
        if index[k] >= 0:
            mt = k % MIGRATE_PCPTYPES
            taken[:, order, mt] = away[:, k]
            if order == PAGEBLOCK_ORDER and not told["thp"] >> mt & 1:
                taken[:, order, mt] = 0  # the list is that of another type
            elif order == PAGEBLOCK_ORDER and shared:
                taken[:, order, mt] += told["thp_back"] + on_lists[-MIGRATE_PCPTYPES:].sum()
    return taken


def _shared(index: Sequence[int] | I64, types: int) -> bool:
    """Whether pageblock-sized blocks of several of the types (bits) have one list."""
    lists = [index[k - MIGRATE_PCPTYPES] for k in range(MIGRATE_PCPTYPES) if types >> k & 1]
    return len({int(i) for i in lists if i >= 0}) < sum(int(i >= 0) for i in lists)


def _peak_ns(facts: Facts, z: int, epochs: I64, taken: I64, mt: int) -> int:
    """About when most pages of a type were away."""
    order = int((taken << np.arange(NR_PAGE_ORDERS)).argmax())
    if order in ow.LIST_ORDERS:
        return facts.epochs_ns[int(epochs[ow.LIST_ORDERS.index(order) * MIGRATE_PCPTYPES + mt])]
    return int(facts.peak_ns[z][order * MIGRATE_PCPTYPES + mt])


class _Clock:
    """Times of a trace in words."""

    def __init__(self, start_ns: int) -> None:
        self._start = start_ns

    def __call__(self, ns: int) -> str:
        return f"at {max(ns - self._start, 0) / 1e9:.6f} s"


def _name(zone: ZoneConfig) -> str:
    return f"zone {zone.name} of node {zone.node}"
