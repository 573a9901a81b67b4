"""Scenario (i) of strategies.md section 12: a burst of pointers to be freed after a grace period."""

from __future__ import annotations

from tracereplay.kernel.gfp import GFP_NOWAIT
from tracereplay.scenarios.scenario import MS, Case, Scenario, in_order, one_zone
from tracereplay.testing.demand import Demand

GIB = 1 << 18
POINTERS_IN_A_PAGE = 507
GRACE_MS = 20
GAP_NS = 50_000


def burst() -> list[Case]:
    """Pages for a burst of kvfree_rcu pointers on one CPU, one each 50 us, given back after a grace period."""
    cases = []
    for pages in (4, 8, 32, 128, 400):
        demand = Demand()
        for _ in range(2):  # the second burst finds what the first left behind
            made = []
            for _ in range(pages):
                made.append(demand.request(1, gfp=GFP_NOWAIT))
                demand.wait(GAP_NS)
            demand.wait(GRACE_MS * MS)
            for page in made:
                demand.free(page)
            demand.wait(200 * MS)
        cases.append(Case(pages * POINTERS_IN_A_PAGE, one_zone(GIB, in_order(10, 1 << 15), cpus=1), demand))
    return cases


SCENARIOS = (
    Scenario(
        "kvfree-burst",
        "i",
        "How many pages must a cache hold so that a burst of kvfree_rcu pointers finds one each time?",
        "pointers",
        (
            "kvfree-cache",
            "kept-64=kvfree-cache:cached=64",
            "background-pool",
            "rcu-lockless",
        ),
        ("requests", "cache_hits", "failed", "worker_wakeups", "worker_runs", "reserve_pages_peak"),
        burst,
        "kvfree-cache starts empty and is refilled after a miss only, five pages at a time and after the worker's"
        " delay: a burst outruns it and the pointers that find no page are linked through their objects. A pool that is"
        " refilled at a watermark starts earlier and grows after an emergency; the per-CPU lists alone"
        " (rcu-lockless) serve what other users left on them and fail beyond.",
    ),
)
