"""Scenarios of where pages come from: (g) and (h) of strategies.md section 12."""

from __future__ import annotations

from tracereplay.machine.config import MachineConfig
from tracereplay.scenarios.scenario import MS, Case, Scenario, in_order, one_zone, zone
from tracereplay.testing.demand import Demand

GIB = 1 << 18
LOW = 2560


def full_node() -> list[Case]:
    """Eight requests of 64 pages on node 0, which has less and less; node 1 is empty."""
    cases = []
    for free in (8192, LOW + 96, LOW + 32, LOW - 256):
        machine = MachineConfig(
            zones=(
                zone(0, GIB, in_order(0, free), low=LOW),
                zone(GIB, GIB, in_order(10, 1 << 17), low=LOW, node=1),
            ),
            cpus=2,
            nodes=2,
            vmstat_interval=0,
        )
        demand = Demand()
        for _ in range(8):
            made = demand.request(64, cpu=0)
            demand.wait(MS)
            demand.free(made, cpu=0)
        cases.append(Case(free, machine, demand))
    return cases


def no_huge_block() -> list[Case]:
    """1024 single pages that leave the direct map; free memory in blocks of at most one order."""
    cases = []
    for order in (10, 9, 8, 6, 3, 0):
        demand = Demand()
        for _ in range(1024):
            demand.request(1)
            demand.wait(1000)
        cases.append(Case(order, one_zone(GIB, in_order(order, 1 << 15), cpus=1), demand))
    return cases


SCENARIOS = (
    Scenario(
        "full-node",
        "g",
        "What does a bulk request get when its own node is full and the other is not?",
        "free on node 0",
        ("per-page", "bulk"),
        ("bulk_calls", "alloc_calls", "pages_allocated", "pcp_hits", "pcp_refills", "failed"),
        full_node,
        "The batch part of alloc_pages_bulk is strictly node-local: once the preferred node cannot stay above LOW plus"
        " the request, each call goes the ordinary way and yields one page, from any node. 64 pages then take 64 bulk"
        " calls, each with a single-page allocation behind it.",
    ),
    Scenario(
        "no-huge-block",
        "h",
        "What does the unmapped cache pay when there is no free 2 MiB block?",
        "free order",
        ("unmapped-cache",),
        ("cache_refills", "cache_hits", "failed_attempts", "direct_map_splits", "tlb_flushes", "reserve_pages_peak"),
        no_huge_block,
        "With 2 MiB blocks 512 pages cost one refill, one split entry and one flush. A refill walks down from order 9"
        " until something is there: each order that is missing is a failed attempt, each block found is a refill with a"
        " flush of its own, and blocks scattered over the memory split the entries they lie in. At order 0 every page"
        " pays a flush.",
    ),
)
