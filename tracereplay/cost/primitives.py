"""The primitives of a fitted profile: what a kernel does, the counters that say how often, and a rough price.

A rough figure is what such a step takes on x86-64 without debugging options, within a factor of three, read off the
instruction counts in tests/data/cost. It decides only where measured cases do not.
"""

from __future__ import annotations

from dataclasses import dataclass

FACTOR = 3.0
"""Low and high of a rough figure: this much less, this much more."""


@dataclass(frozen=True, slots=True)
class Primitive:
    """A coefficient to be fitted."""

    name: str
    counters: tuple[str, ...]
    group: str
    rough: float
    """Instructions that such a step takes, within a factor of three: what decides where the rows do not."""
    meaning: str


PRIMITIVES = (
    Primitive("single_call", ("alloc_calls",), "calls", 150, "alloc_pages: policy, gfp flags, zonelist"),
    Primitive("bulk_call", ("bulk_calls",), "calls", 100, "alloc_pages_bulk: the call and its search for empty slots"),
    Primitive("watermark_check", ("watermark_checks",), "calls", 60, "a zone's turn in get_page_from_freelist"),
    Primitive(
        "free_call", ("free_calls",), "calls", 150, "__free_pages, free_unref_page: checks and push of one block"
    ),
    Primitive("pcp_lock", ("pcp_lock_acquisitions",), "per-CPU lists", 40, "the per-CPU lists' lock and its release"),
    Primitive("pcp_pop", ("pcp_hits", "pcp_refills"), "per-CPU lists", 60, "unlink and prepare one block of a list"),
    Primitive("zone_lock", ("zone_lock_acquisitions",), "zone lock and buddy", 40, "the zone lock and its release"),
    Primitive(
        "refill_block", ("pcp_refill_blocks",), "zone lock and buddy", 40, "rmqueue_bulk, per block, splits apart"
    ),
    Primitive(
        "drain_block", ("pcp_drain_blocks",), "zone lock and buddy", 60, "free_pcppages_bulk, per block, merges apart"
    ),
    Primitive("buddy_alloc", ("allocs_buddy",), "zone lock and buddy", 80, "rmqueue_buddy and the block's preparation"),
    Primitive("buddy_free", ("frees_buddy",), "zone lock and buddy", 80, "free_one_page, merges apart"),
    Primitive("split", ("splits",), "zone lock and buddy", 80, "one level of expand"),
    Primitive("merge", ("merges",), "zone lock and buddy", 80, "one level of __free_one_page"),
    Primitive("compound_prep", ("compound_preps",), "compound pages", 60, "head of prep_compound_page"),
    Primitive("tail_prepare", ("tail_pages_prepared",), "compound pages", 8, "prep_compound_tail, per tail page"),
    Primitive("tail_check", ("tail_pages_checked",), "compound pages", 20, "free_pages_prepare, per tail page"),
    Primitive("new_page_check", ("new_pages_checked",), "page contents", 12, "check_new_page"),
    Primitive(
        "freed_page_check", ("freed_pages_checked",), "page contents", 20, "free_page_is_bad where it can be left out"
    ),
    Primitive("zero_page", ("zeroed_pages",), "page contents", 520, "clear_page of 4096 bytes and its loop"),
    Primitive(
        "failed_attempt",
        ("failed_attempts",),
        "failed attempts",
        500,
        "slow path of a request that fails, its zones' turns apart",
    ),
    Primitive("kswapd_wake", ("kswapd_wakes",), "failed attempts", 2000, "a wake of kswapd that was asleep"),
    Primitive("fallback", ("fallbacks",), "zone lock and buddy", 400, "__rmqueue_fallback: the search of other lists"),
    Primitive(
        "block_move", ("fallback_block_moves",), "zone lock and buddy", 8000, "move_freepages_block, 512 struct pages"
    ),
    Primitive("callback", ("callbacks",), "calls", 5, "an indirect call per page"),
    Primitive("mempool_call", ("mempool_calls",), "mempool and quota", 40, "mempool_alloc or mempool_free"),
    Primitive(
        "mempool_element", ("mempool_takes", "mempool_puts"), "mempool and quota", 60, "an element of the reserve"
    ),
    Primitive(
        "mempool_lock", ("mempool_lock_acquisitions",), "mempool and quota", 30, "the reserve's lock and its release"
    ),
    Primitive("mutex", ("mutex_acquisitions",), "mempool and quota", 30, "mutex_lock and mutex_unlock, uncontended"),
    Primitive("percpu_counter", ("percpu_counter_ops",), "mempool and quota", 20, "percpu_counter_add_batch or a read"),
    Primitive("cache_lock", ("cache_hits", "cache_puts"), "direct map and cache", 30, "the lock of a strategy's cache"),
    Primitive(
        "unlocked_cache", ("unlocked_hits", "unlocked_puts"), "direct map and cache", 15, "a page of an unlocked cache"
    ),
    Primitive("pcp_atomic", ("pcp_atomics",), "per-CPU lists", 10, "an atomic operation instead of the lists' lock"),
)
