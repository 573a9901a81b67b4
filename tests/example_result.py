"""A small replay result in the agreed form, for tests of reports: 10 requests of 256 pages, hand-counted."""

from __future__ import annotations

from typing import Any

import numpy as np

from tracereplay.cost.price import cost_block
from tracereplay.cost.profile import load_profile
from tracereplay.machine.counters import COUNTERS, NR_SLOTS, slot

REQUESTS, PAGES = 10, 2560

ONE_REQUEST: dict[str, dict[str, int]] = {
    "per-page": {
        "alloc_calls": 256, "watermark_checks": 256, "pcp_lock_acquisitions": 512, "pcp_hits": 252, "pcp_refills": 4,
        "pcp_refill_pages": 252, "zone_lock_acquisitions": 8, "splits": 250, "pcp_drains": 4, "pcp_drain_pages": 252,
        "merges": 250, "free_calls": 256, "frees_pcp": 256, "pages_allocated": 256, "pages_freed": 256,
    },
    "bulk": {
        "bulk_calls": 1, "watermark_checks": 1, "pcp_lock_acquisitions": 257, "pcp_hits": 252, "pcp_refills": 4,
        "pcp_refill_pages": 252, "zone_lock_acquisitions": 8, "splits": 250, "pcp_drains": 4, "pcp_drain_pages": 252,
        "merges": 250, "free_calls": 256, "frees_pcp": 256, "pages_allocated": 256, "pages_freed": 256,
    },
    "compound": {
        "alloc_calls": 1, "watermark_checks": 1, "zone_lock_acquisitions": 2, "splits": 2, "merges": 2, "free_calls": 1,
        "frees_buddy": 1, "compound_preps": 1, "tail_pages_prepared": 255, "tail_pages_checked": 255,
        "pages_allocated": 256, "pages_freed": 256,
    },
    "unmapped-cache": {
        "cache_hits": 256, "free_calls": 256, "zeroed_pages": 256, "direct_map_splits": 1, "tlb_flushes": 1,
        "reclaim_attempts": 2, "pages_allocated": 256, "pages_freed": 256,
    },
}  # fmt: skip


def result_of(strategy: str) -> dict[str, Any]:
    """One row of ``results``."""
    vector = np.zeros((1, NR_SLOTS), dtype=np.int64)
    for name, n in ONE_REQUEST[strategy].items():
        vector[0, slot(name)] = n
    totals = {name: REQUESTS * ONE_REQUEST[strategy].get(name, 0) for name in COUNTERS}
    peaks = {"reserve_pages_peak": 256 if strategy == "unmapped-cache" else 0, "waste_pages_peak": 0}
    cost = cost_block(totals, vector, np.array([REQUESTS]), load_profile(), pages=PAGES, requests=REQUESTS, seed=0)
    locks = [ONE_REQUEST[strategy].get("zone_lock_acquisitions", 0)] * REQUESTS
    series = {"start_ns": 0, "bin_ns": 1_000_000_000, "targeted": {"zone_lock_acquisitions": locks}}
    return {
        "strategy": strategy,
        "label": strategy,
        "params": {},
        "counters": totals | peaks,
        "cost": cost,
        "series": series,
    }


def example_result() -> dict[str, Any]:
    """``replay --format json`` of four strategies (architecture.md section 5)."""
    return {
        "schema": 1,
        "trace": {
            "id": "0123456789abcdef0123456789abcdef", "path": "traces/example", "source": {"kind": "capture"},
            "kernel": "6.1.0-56-amd64", "host": "lab1", "events": {"page_events": 10_000, "bio_events": 40},
            "duration_ns": 10_000_000_000, "complete": True,
        },
        "machine": {
            "source": "options", "memory_bytes": 17_179_869_184, "cpus": 8, "nodes": 1, "generation": "6.1",
            "pcp": {"batch": 63, "high": None}, "occupancy": None,
            "zones": [{"name": "Normal", "managed": 4_194_304, "free_blocks": [1, 2]}],
        },
        "demand": {
            "requests": 15, "pages": 4_000, "targeted_pages": PAGES, "unseen_pages": 12,
            "targeted": {"selector": "batches", "requests": 10, "pages": PAGES, "share": 0.64},
            "bios": {"writes": 12, "requests": 10, "matched": 9},
            "by_caller": [
                {"caller": "kcryptd <alloc & co>", "requests": 10, "pages": 2_560, "sizes": {"256": 10}},
                {"caller": "GFP_HIGHUSER_MOVABLE", "requests": 5, "pages": 1_440, "sizes": {"512": 2, "1": 1}},
            ],
        },
        "accounting": {
            "events": 10_000, "allocations": 5_040, "frees": 4_960, "matched": 4_800, "unmatched_frees": 160,
            "left_censored": 150, "unseen_frees": 10, "lost_frees": 0, "reused": 0, "right_censored": 100, "lost": 7,
            "loss_intervals": 1, "snapshots": {"pgalloc_delta": 9_000, "traced_pages": 8_900, "difference": 88},
        },
        "profile": load_profile().to_dict(),
        "results": [result_of(strategy) for strategy in ONE_REQUEST],
        "command": "tracereplay replay traces/example -s per-page -s bulk -s compound -s unmapped-cache",
        "seed": 0,
    }  # fmt: skip
