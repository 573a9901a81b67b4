"""Names and places of the integer counters (architecture.md section 4: add, do not rename). Imports no Numba.

Each counter is a constant, its slot in the machine's counter array, and ``COUNTERS[slot]`` is its name. Some are also
kept by order, in ``BY_ORDER`` blocks of NR_PAGE_ORDERS slots each behind the plain ones. What a free touches comes
first, in one cache line: the rows of long-lived requests are cold by then.
"""

from __future__ import annotations

from tracereplay.kernel.constants import NR_PAGE_ORDERS

(
    FREE_CALLS,
    PAGES_FREED,
    PCP_LOCK_ACQUISITIONS,
    FREES_PCP,
    REMOTE_FREES,
    TAIL_PAGES_CHECKED,
    FREES_BUDDY,
    MEMPOOL_PUTS,
    ALLOC_CALLS,
    BULK_CALLS,
    PAGES_ALLOCATED,
    PCP_HITS,
    PCP_REFILLS,
    PCP_REFILL_PAGES,
    PCP_DRAINS,
    PCP_DRAIN_PAGES,
    ZONE_LOCK_ACQUISITIONS,
    SPLITS,
    MERGES,
    FALLBACKS,
    FALLBACK_BLOCK_MOVES,
    WATERMARK_CHECKS,
    FAILED_ATTEMPTS,
    COMPACTION_ATTEMPTS,
    RECLAIM_ATTEMPTS,
    COMPOUND_PREPS,
    TAIL_PAGES_PREPARED,
    ZEROED_PAGES,
    MEMCG_CHARGES,
    CALLBACKS,
    MEMPOOL_CALLS,
    MEMPOOL_TAKES,
    MEMPOOL_WAITS,
    MUTEX_ACQUISITIONS,
    RESTARTS,
    QUOTA_REFUSALS,
    PERCPU_COUNTER_OPS,
    DIRECT_MAP_SPLITS,
    TLB_FLUSHES,
    CACHE_REFILLS,
    CACHE_HITS,
    WORKER_WAKEUPS,
    WORKER_RUNS,
    FAILURES,
    KSWAPD_WAKES,
    RECLAIMED_PAGES,
    COMPACTION_SUCCESSES,
    WATERMARK_BOOSTS,
    HIGHATOMIC_RESERVED,
    HIGHATOMIC_RELEASED,
    CACHE_MISSES,  # a page was wanted that a strategy's own cache did not have: with CACHE_HITS, its hit rate
    CACHE_PUTS,  # a page that came back into such a cache, which no free shows
    DIRECT_MAP_UNMAPS,
    DIRECT_MAP_REMAPS,
    DIRECT_MAP_TABLES,
    DIRECT_MAP_COLLAPSES,
    TLB_FULL_FLUSHES,
    CACHE_LOCKS,
    CACHE_MAPPED_PAGES,
    SHRUNK_PAGES,
    MEMPOOL_LOCK_ACQUISITIONS,  # what popping one element a lock costs against taking all under one
    PAGES_PREPARED_UNLOCKED,  # what a second pass takes out of the pcp lock
    PAGES_LISTED,  # what the list form of a bulk call does beyond the array form
    UNLOCKED_HITS,  # like CACHE_HITS and CACHE_PUTS, of a cache that needs no lock: another price
    UNLOCKED_PUTS,
    PCP_ATOMICS,  # what per-CPU lists without a lock would count instead of PCP_LOCK_ACQUISITIONS (replay/atomics.py)
    ALLOCS_BUDDY,  # blocks handed out straight from the buddy lists, as FREES_BUDDY: what the zone lock alone costs
    PCP_REFILL_BLOCKS,  # a refill moves blocks of its order, and costs by block, not by page
    PCP_DRAIN_BLOCKS,
    NEW_PAGES_CHECKED,  # check_new_page: at a refill, or as a block is handed out (CFG_PAGE_CHECKS)
    FREED_PAGES_CHECKED,  # the same of pages that come back, where a kernel can leave it out
    BIOS,  # what a path's request takes beside its pages: a bio,
    BVEC_ARRAYS,  # an array where more vecs are needed than a bio has within itself,
    BIO_VECS,  # and bio_add_page, once a block: 256 of them for single pages, one for a compound page
) = range(74)

COUNTERS: tuple[str, ...] = (
    "free_calls",
    "pages_freed",
    "pcp_lock_acquisitions",
    "frees_pcp",
    "remote_frees",
    "tail_pages_checked",
    "frees_buddy",
    "mempool_puts",
    "alloc_calls",
    "bulk_calls",
    "pages_allocated",
    "pcp_hits",
    "pcp_refills",
    "pcp_refill_pages",
    "pcp_drains",
    "pcp_drain_pages",
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
    "zeroed_pages",
    "memcg_charges",
    "callbacks",
    "mempool_calls",
    "mempool_takes",
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
    "failures",
    "kswapd_wakes",
    "reclaimed_pages",
    "compaction_successes",
    "watermark_boosts",
    "highatomic_reserved",
    "highatomic_released",
    "cache_misses",
    "cache_puts",
    "direct_map_unmaps",
    "direct_map_remaps",
    "direct_map_tables",
    "direct_map_collapses",
    "tlb_full_flushes",
    "cache_locks",
    "cache_mapped_pages",
    "shrunk_pages",
    "mempool_lock_acquisitions",
    "pages_prepared_unlocked",
    "pages_listed",
    "unlocked_hits",
    "unlocked_puts",
    "pcp_atomics",
    "allocs_buddy",
    "pcp_refill_blocks",
    "pcp_drain_blocks",
    "new_pages_checked",
    "freed_pages_checked",
    "bios",
    "bvec_arrays",
    "bio_vecs",
)
PEAKS: tuple[str, ...] = ("reserve_pages_peak", "waste_pages_peak")
"""Maxima, not sums: kept for the whole run only."""
BY_ORDER: tuple[str, ...] = ("pages_allocated", "splits", "merges", "failed_attempts")

NR_COUNTERS = len(COUNTERS)
NR_SLOTS = NR_COUNTERS + len(BY_ORDER) * NR_PAGE_ORDERS


(
    PAGES_ALLOCATED_BY_ORDER,
    SPLITS_BY_ORDER,
    MERGES_BY_ORDER,
    FAILED_ATTEMPTS_BY_ORDER,
) = range(NR_COUNTERS, NR_SLOTS, NR_PAGE_ORDERS)
"""First slot of each by-order counter: blocks split or merged count under their order before it, pages under that of
the block they came in."""


def slot(name: str) -> int:
    """Slot of a plain counter."""
    return COUNTERS.index(name)
