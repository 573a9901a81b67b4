"""Rows about depths and counts: per-CPU lists, kvfree_rcu's pages, splits of the direct map. No price is involved."""

from __future__ import annotations

from tracereplay.demand.load import SECOND
from tracereplay.demand.load_kvfree import KvfreeLoad
from tracereplay.machine import layout as at
from tracereplay.machine.build import build_machine
from tracereplay.machine.config import MachineConfig, default_zones
from tracereplay.replay.result import counters_of
from tracereplay.scenarios.scenario import in_order, one_zone
from tracereplay.testing.demand import Demand
from tracereplay.validation.measure import GIB, US, replayed
from tracereplay.validation.verdict import Claim, Figure

POINTERS = 202_800
POINTER, HEADER = 8, 40
"""Bytes: a pointer; the header of a block in v6.12 (list head 16, grace-period snapshot 16, count 8)."""


def pcp_high(nodes: int, generation: str) -> tuple[int, int]:
    """Least and most pages that a CPU's lists of a Normal zone keep, on 80 CPUs and 128 GiB."""
    config = MachineConfig(zones=default_zones(128 << 30, nodes), cpus=80, nodes=nodes, generation=generation)
    machine = build_machine(config)
    p = 80 * [zone.name for zone in config.zones].index("Normal") * at.P_WORDS
    return int(machine.w[p + at.P_HIGH_MIN]), int(machine.w[p + at.P_HIGH_MAX])


def pcp_depth() -> Claim:
    """Row 15."""
    one, two, four = (pcp_high(nodes, "6.1")[0] for nodes in (1, 2, 4))
    return Claim(
        "15",
        "a per-CPU list can hold more than 1000 pages",
        "B",
        "80 CPUs, 128 GB",
        "Y. Shi, 2023-02-16, on the v2 series",
        (Figure("pages, two nodes", 1000, "", two, bound="at least"),),
        f"LOW watermark by CPUs of the node, from sizes alone (6.1): {one}, {two} or {four} pages with one, two or four"
        " nodes. His watermarks are not published; a raised vm.min_free_kbytes or a fraction set by hand gives 1000."
        f" From 6.7 on the lists may grow to {pcp_high(2, '6.7')[1]:,}.",
    )


def kvfree_blocks() -> tuple[Claim, Claim]:
    """Rows 16 and 17."""
    load = KvfreeLoad(cpus=1, pointers_per_s=POINTERS, burst=POINTERS, spacing_ns=0)
    pages = sum(len(asked.ts_ns) for asked in load.asked(0, 0, SECOND))
    capacity = (4096 - HEADER) // POINTER
    demand = Claim(
        "16",
        "kvfree_rcu's worst case needs about 400 pages",
        "B",
        "a test system; CPUs and duration are not published",
        "U. Rezki, 2020-09-25, '[RFC-PATCH 2/4] mm: Add __rcu_alloc_page_lockless()'",
        (Figure(f"pages for {POINTERS:,} pointers", 400, "", pages, given=True),),
        "It is the demand of a test, which the simulator takes and does not make: 400 pages are 202,800 pointers, and"
        " that many pointers ask for 400 pages again.",
    )
    blocks = Claim(
        "17",
        "a page holds the pointers of about 500 objects; 507 in v6.12",
        "A",
        "x86-64",
        "P. McKenney, 2020-09-24; 507 from the structure's size",
        (
            Figure("objects a page, about", 500, "", POINTERS / pages),
            Figure("objects a page, v6.12", capacity, "", POINTERS / pages, absolute=0.0),
        ),
        "Exact arithmetic: (4096 - 40) / 8 = 507, and p pointers before a drain ask for ceil(p / 507) pages.",
    )
    return demand, blocks


def unmapped_users() -> Demand:
    """Sixty users of four pages each outside the direct map; 4 MiB of other allocations between each two."""
    demand = Demand()
    for _ in range(60):
        for _ in range(4):
            demand.request(1)
            demand.wait(US)
        demand.request(1024, targeted=False)
        demand.wait(US)
    return demand


def direct_map() -> Claim:
    """Row 18."""
    machine = one_zone(2 * GIB, in_order(10, GIB), cpus=1)
    splits = {
        strategy: counters_of(replayed(strategy, machine, unmapped_users()))["direct_map_splits"]
        for strategy in ("unmapped-per-use:mode=page", "unmapped-migratetype", "unmapped-cache")
    }
    before, grouped, cached = splits.values()
    return Claim(
        "18",
        "splits of the direct map, boot and bpftrace: several tens -> a single digit",
        "B",
        "x86, VM and PC",
        "M. Rapoport, '[RFC PATCH 0/3] Prototype for direct map awareness in page allocator', 2022-01-27",
        (
            Figure("splits, page by page", 60, "", before, given=True),
            Figure("splits, unmapped-migratetype", 9, "", grouped, bound="at most"),
            Figure("splits, unmapped-cache", 9, "", cached, bound="at most"),
        ),
        "The demand is made by hand: 60 users, scattered, so that page by page splits several tens, which is put in."
        " That grouping by pageblock leaves a single digit comes out.",
    )


def claims() -> list[Claim]:
    """All rows of this module."""
    return [pcp_depth(), *kvfree_blocks(), direct_map()]
