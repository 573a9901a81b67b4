"""Scenarios of dm-crypt's write buffers: (a) to (f) of strategies.md section 12."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from tracereplay.replay.engine import PathConfig
from tracereplay.scenarios.scenario import MS, Case, Scenario, in_order, one_zone
from tracereplay.testing.demand import Demand

GIB = 1 << 18
"""Pages."""
BUFFER = 256
"""Pages of a 1 MiB write."""
LOW = 2560
MIN = 2048
CRYPT = ("per-page", "bulk", "mempool-bulk", "compound")
CAPPED = "order<=3=compound:max_order=3"


def crypt_path(quota: int = 1 << 20, devices: int = 1) -> PathConfig:
    """dm-crypt's resources: a reserve of 256 pages, and a quota counted exactly."""
    return PathConfig("dm-crypt", BUFFER, quota // devices, 0, devices)


def writes(sizes: Sequence[int], *, at_once: int = 1, cpus: int = 1, on_path: bool = True) -> Demand:
    """Writes of so many pages each: ``at_once`` are queued together, and completed a millisecond later."""
    demand = Demand()
    for first in range(0, len(sizes), at_once):
        group = [
            demand.request(pages, cpu=(first + i) % cpus, on_path=on_path)
            for i, pages in enumerate(sizes[first : first + at_once])
        ]
        demand.wait(MS)
        for i, made in enumerate(group):
            demand.free(made, cpu=(first + i) % cpus)
        demand.wait(MS)
    return demand


def band() -> list[Case]:
    """Two buffers at once, with free memory from below LOW to above LOW + 256 and the reserve on top."""
    return [
        Case(
            free,
            replace(one_zone(GIB, in_order(0, free + BUFFER), low=LOW, cpus=1), pcp_batch=16, pcp_high=64),
            writes([BUFFER] * 2, at_once=2),
            crypt_path(),
        )
        for free in (MIN + 128, LOW, LOW + 128, LOW + 384, LOW + 768)
    ]


def fragmentation() -> list[Case]:
    """Eight buffers, one after another; all free memory in blocks of one order."""
    return [
        Case(order, one_zone(GIB, in_order(order, 1 << 15), low=LOW, cpus=1), writes([BUFFER] * 8), crypt_path())
        for order in range(10, -1, -1)
    ]


def writers() -> list[Case]:
    """64 buffers by more and more CPUs at once; plenty of memory in 4 MiB blocks."""
    return [
        Case(n, one_zone(GIB, in_order(10, 1 << 17), cpus=n), writes([BUFFER] * 64, at_once=n, cpus=n), crypt_path())
        for n in (1, 2, 4, 8, 16, 32, 64)
    ]


def odd_sizes() -> list[Case]:
    """One buffer of a size that is no power of two."""
    return [
        Case(n, one_zone(GIB, in_order(10, 1 << 15), cpus=1), writes([n]), crypt_path())
        for n in (256, 255, 192, 129, 128, 33, 32, 5)
    ]


def small_writes() -> list[Case]:
    """A thousand 4 KiB writes."""
    return [
        Case(depth, one_zone(GIB, in_order(10, 1 << 15), cpus=1), writes([1] * 1024, at_once=depth), crypt_path())
        for depth in (1, 64)
    ]


def quota_edge() -> list[Case]:
    """Writers that reach the quota of 8192 pages, with the device alone and as one of eight."""
    return [
        Case(
            devices,
            one_zone(GIB, in_order(10, 1 << 17), cpus=4),
            writes([BUFFER] * 64, at_once=36, cpus=4),
            crypt_path(8192, devices),
        )
        for devices in (1, 8)
    ]


SCENARIOS = (
    Scenario(
        "watermark-band",
        "a",
        "Who drains dm-crypt's reserve first when free memory lies between MIN and LOW + 256?",
        "free pages",
        CRYPT,
        ("mempool_takes", "restarts", "waited", "bulk_calls", "alloc_calls", "failed"),
        band,
        "The bulk allocator serves a batch only from a zone that stays above LOW plus the whole request; below that a"
        " call yields one page, and the reserve must supply the other 255. The loop asks page by page and goes on"
        " down to MIN. So in this band bulk empties the reserve, and sends the second writer to the mutex, where the"
        f" loop needs neither. (MIN is {MIN}, LOW {LOW}.)",
    ),
    Scenario(
        "fragmentation",
        "b",
        "What do compound pages cost when the free memory is in smaller and smaller pieces?",
        "free order",
        ("per-page", "bulk", "compound", CAPPED),
        ("alloc_calls", "failed_attempts", "splits", "merges", "zone_lock_acquisitions", "pcp_refills"),
        fragmentation,
        "A 1 MiB buffer is one block of order 8 while there is one. With every order that is gone compound pays a"
        " failed attempt a buffer (the order sticks, so it is not repeated within the buffer) and twice the blocks;"
        " with single pages left it makes 8 failed attempts and 256 allocations from the mempool, more than the loop"
        " it replaced. per-page and bulk take single pages off the per-CPU lists and do not care.",
    ),
    Scenario(
        "many-writers",
        "c",
        "How often is the zone lock taken when many CPUs write at once?",
        "CPUs",
        ("per-page", "bulk", "compound", CAPPED),
        ("zone_lock_acquisitions", "longest_zone_hold", "pcp_lock_acquisitions", "pcp_hits", "splits", "merges"),
        writers,
        "Blocks of order 4 and above are on no per-CPU list: compound takes the zone lock for every buffer, once to"
        " allocate and once to free, whatever the CPU. Single pages come from the CPU's own list, which is refilled"
        " while it is cold: the more CPUs, the more cold lists. Capped at order 3 compound is served by the lists,"
        " in blocks of 8 pages.",
    ),
    Scenario(
        "odd-sizes",
        "d",
        "What becomes of buffers that are no power of two?",
        "pages",
        CRYPT,
        ("alloc_calls", "bulk_calls", "mempool_calls", "zone_lock_acquisitions", "splits", "merges"),
        odd_sizes,
        "compound cuts a size into its binary digits, high to low: 255 pages are eight blocks, 129 two, and only the"
        " block of order 0 comes from the mempool. Nothing is rounded up, so nothing is wasted. The others do not"
        " look at the size.",
    ),
    Scenario(
        "small-writes",
        "e",
        "Does any of this matter to a stream of 4 KiB writes?",
        "at once",
        CRYPT,
        ("alloc_calls", "bulk_calls", "mempool_calls", "pcp_lock_acquisitions", "pcp_hits", "zone_lock_acquisitions"),
        small_writes,
        "A single page is a single page: bulk goes the ordinary way for one slot, compound takes order 0 from the"
        " mempool, and all of them take as many pages from the same per-CPU list. Yang Shi's and Brouer's tables say"
        " the same: no measurable change.",
    ),
    Scenario(
        "quota-edge",
        "f",
        "Who keeps to the quota, and who waits at it?",
        "devices",
        (*CRYPT, "uncounted=compound:account_large=false", "no-mutex=per-page:mutex=false"),
        ("quota_refusals", "mempool_takes", "restarts", "mempool_waits", "waited", "deadlocked"),
        quota_edge,
        "The loop asks the quota for each page and stops at it; then the reserve gives 256 pages and the next writer"
        " waits under the mutex. mempool-bulk asks once a call and may overshoot by a buffer less one page. compound"
        " counts a block when the fix (9793c269da6c) is in, and never meets the quota without it. Eight devices"
        " share the percentage: each waits eight times as soon. Without the mutex writers share the reserve out among"
        " them, and when each holds a part and none can go on, that is a deadlock.",
    ),
)
