"""Names and places of the integer counters (architecture.md section 4: add, do not rename). Imports no Numba.

``COUNTERS[i]`` is the name of slot i of the machine's counter array; the module also exposes each slot as an upper-case
constant (``ALLOC_CALLS``), which is what compiled code uses. Some counters are also kept by order, in
``BY_ORDER`` blocks of NR_PAGE_ORDERS slots each behind the plain ones.
"""

from __future__ import annotations

from tracereplay.kernel.constants import NR_PAGE_ORDERS

COUNTERS: tuple[str, ...] = (
    "alloc_calls",
    "bulk_calls",
    "free_calls",
    "pages_allocated",
    "pages_freed",
    "pcp_lock_acquisitions",
    "pcp_hits",
    "pcp_refills",
    "pcp_refill_pages",
    "pcp_drains",
    "pcp_drain_pages",
    "frees_pcp",
    "frees_buddy",
    "zone_lock_acquisitions",
    "splits",
    "merges",
    "fallbacks",
    "fallback_block_moves",
    "watermark_checks",
    "failed_attempts",
    "compaction_attempts",
    "reclaim_attempts",
    "compound_preps",
    "tail_pages_prepared",
    "tail_pages_checked",
    "zeroed_pages",
    "memcg_charges",
    "callbacks",
    "mempool_takes",
    "mempool_puts",
    "mempool_waits",
    "mutex_acquisitions",
    "restarts",
    "quota_refusals",
    "percpu_counter_ops",
    "direct_map_splits",
    "tlb_flushes",
    "cache_refills",
    "cache_hits",
    "worker_wakeups",
    "worker_runs",
    "remote_frees",
    "failures",
)
PEAKS: tuple[str, ...] = ("reserve_pages_peak", "waste_pages_peak")
"""Maxima, not sums: kept for the whole run only."""
BY_ORDER: tuple[str, ...] = ("pages_allocated", "splits", "merges", "failed_attempts")

NR_COUNTERS = len(COUNTERS)
NR_SLOTS = NR_COUNTERS + len(BY_ORDER) * NR_PAGE_ORDERS


def slot(name: str) -> int:
    """Slot of a plain counter."""
    return COUNTERS.index(name)


def order_slot(name: str, order: int) -> int:
    """Slot of a by-order counter."""
    return NR_COUNTERS + BY_ORDER.index(name) * NR_PAGE_ORDERS + order


def _define() -> None:
    for i, name in enumerate(COUNTERS):
        globals()[name.upper()] = i
    for i, name in enumerate(BY_ORDER):
        globals()[f"{name.upper()}_BY_ORDER"] = NR_COUNTERS + i * NR_PAGE_ORDERS


_define()
