"""The dearest requests of a strategy, and why: their counters against those of the median request."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from tracereplay.cost.distribution import median_vector
from tracereplay.cost.price import Floats, price_vectors
from tracereplay.cost.profile import Profile
from tracereplay.machine.counters import COUNTERS, NR_COUNTERS
from tracereplay.replay import layout as at
from tracereplay.replay.engine import EXAMPLE, Outcome

WORST = 10
"""Kinds of requests that are given."""
MOST_REASONS = 4
LEAST_SHARE = 0.05
"""Of what a request costs beyond the median one: what explains less is not named."""
LARGER = 1.5
"""Times the median request's pages from which on the size is a reason; the rest is compared per page then."""

Row = Mapping[str, int]


def times(n: int, one: str, many: str | None = None) -> str:
    """``a split``, ``118 splits``."""
    if n == 1:
        return f"{'an' if one[0] in 'aeiou' else 'a'} {one}"
    return f"{n:,} {many or one + 's'}"


def _refills(row: Row) -> str:
    return f"{times(row['pcp_refills'], 'refill')} moving {times(row['pcp_refill_pages'], 'page')}"


def _drains(row: Row) -> str:
    return f"{times(row['pcp_drains'], 'drain')} of {times(row['pcp_drain_pages'], 'page')}"


def _fallbacks(row: Row) -> str:
    moves = row["fallback_block_moves"]
    return times(row["fallbacks"], "fallback") + (f" with {times(moves, 'pageblock move')}" if moves else "")


def _reclaim(row: Row) -> str:
    return f"{times(row['reclaim_attempts'], 'direct reclaim')} of {times(row['reclaimed_pages'], 'page')}"


REASONS: tuple[tuple[tuple[str, ...], Callable[[Row], str] | str], ...] = (
    (("pcp_refills", "pcp_refill_pages", "pcp_refill_blocks"), _refills),
    (("pcp_drains", "pcp_drain_pages", "pcp_drain_blocks"), _drains),
    (("fallbacks", "fallback_block_moves"), _fallbacks),
    (("reclaim_attempts", "reclaimed_pages"), _reclaim),
    (("compaction_attempts", "compaction_successes"), "attempt at compaction"),
    (("failed_attempts",), "failed attempt"),
    (("splits",), "split"),
    (("merges",), "merge"),
    (("direct_map_splits",), "split of the direct map"),
    (("tlb_flushes",), "TLB flush"),
    (("zeroed_pages",), "page zeroed"),
    (("zone_lock_acquisitions",), "zone lock"),
    (("frees_buddy",), "free to the buddy lists"),
    (("tail_pages_prepared",), "tail page prepared"),
    (("tail_pages_checked",), "tail page checked"),
    (("cache_refills",), "refill of the cache"),
    (("cache_misses",), "miss of the cache"),
    (("mempool_takes", "mempool_puts", "mempool_lock_acquisitions"), "page from the reserve"),
    (("mempool_calls",), "mempool call"),
    (("alloc_calls",), "allocation call"),
    (("bulk_calls",), "bulk call"),
    (("restarts",), "restart"),
)
"""Counters that are one reason together, and its words: those of its first counter when it is only a name."""
PLURALS = {
    "TLB flush": "TLB flushes",
    "page zeroed": "pages zeroed",
    "free to the buddy lists": "frees to the buddy lists",
    "tail page prepared": "tail pages prepared",
    "tail page checked": "tail pages checked",
    "split of the direct map": "splits of the direct map",
    "refill of the cache": "refills of the cache",
    "miss of the cache": "misses of the cache",
    "page from the reserve": "pages from the reserve",
    "attempt at compaction": "attempts at compaction",
}
ALWAYS = ("reclaim_attempts", "compaction_attempts")
"""Takes long and has no price: named whenever it happened."""


def worst(
    outcome: Outcome, profile: Profile, callers: Sequence[str], loads: Sequence[str], n: int
) -> list[dict[str, Any]]:
    """The ``worst`` of a strategy's result: the ``n`` dearest kinds of requests, the dearest first.

    Requests with equal counters are one kind; who it was is told of the first that ended.
    """
    costs = price_vectors(outcome.vectors, profile)
    weights = price_vectors(np.eye(NR_COUNTERS), profile)
    middle = median_vector(costs, outcome.counts)
    if middle is None:
        return []
    median = outcome.vectors[middle]
    median_pages = int(outcome.examples[middle]["pages"])
    found = []
    for v in np.argsort(-costs, kind="stable")[:n].tolist():
        example = {name: int(outcome.examples[v][name]) for name in EXAMPLE.names or ()}
        row = outcome.vectors[v]
        found.append(
            {
                "cost": float(costs[v]),
                "times_median": float(costs[v] / costs[middle]) if costs[middle] > 0 else None,
                "requests": int(outcome.counts[v]),
                "arrival_ns": example["arrival_ns"],
                "within_ns": example["within_ns"],
                "from_s": (example["arrival_ns"] - int(outcome.scalars[at.X_START_NS])) / 1e9,
                "pages": example["pages"],
                "cpu": None if example["cpu"] < 0 else example["cpu"],
                "caller": _caller(example["caller"], callers, loads),
                "waited_ns": example["delay_ns"],
                "reason": reason(row, median, weights, example["pages"], median_pages, example["delay_ns"]),
                "counters": {name: int(k) for name, k in zip(COUNTERS, row, strict=True) if k},
            }
        )
    return found


def _caller(number: int, callers: Sequence[str], loads: Sequence[str]) -> str | None:
    if number == at.NO_CALLER:
        return None
    return loads[-1 - number] if number < 0 else callers[number]


def reason(row: Any, median: Any, weights: Floats, pages: int, median_pages: int, waited_ns: int = 0) -> str:
    """Why a request costs more than the median one, in words; what explains most comes first.

    ``row`` and ``median``: counters; ``weights``: price of one unit of each.
    """
    scale = pages / median_pages if median_pages and pages >= LARGER * median_pages else 1.0
    beyond = float((row - median) @ weights)
    excess = dict(zip(COUNTERS, (row - scale * median) * weights, strict=True))
    own = dict(zip(COUNTERS, (int(k) for k in row), strict=True))
    usual = dict(zip(COUNTERS, (float(k) * scale for k in median), strict=True))
    named = {name for names, _ in REASONS for name in names}
    kinds = [*REASONS, *(((name,), name.replace("_", " ")) for name in COUNTERS if name not in named)]
    told: list[tuple[float, str]] = []
    for names, words in kinds:
        price = sum(excess[name] for name in names)
        unpriced = names[0] in ALWAYS and own[names[0]] > usual[names[0]]
        if own[names[0]] and (unpriced or (price > 0 and price >= LEAST_SHARE * beyond > 0)):
            told.append((price, _in_words(words, own, own[names[0]])))
    told.sort(key=lambda item: -item[0])
    said = [text for _, text in told[:MOST_REASONS]]
    if scale > 1 and beyond > 0:
        said.insert(0, f"{times(pages, 'page')}, the median request has {median_pages:,}")
    if waited_ns:
        what = " for the reserve" if own["mempool_waits"] else " for the mutex" if own["mutex_acquisitions"] else ""
        said.append(f"waited {_duration(waited_ns)}{what}")
    if own["failures"]:
        said.append("failed")
    return "; ".join(said) or "as the median request"


def _in_words(words: Callable[[Row], str] | str, own: Row, n: int) -> str:
    if callable(words):
        return words(own)
    return f"{n:,} {words}" if words in COUNTERS_IN_WORDS else times(n, words, PLURALS.get(words))


COUNTERS_IN_WORDS = frozenset(name.replace("_", " ") for name in COUNTERS)


def _duration(ns: int) -> str:
    for unit, size in (("s", 1e9), ("ms", 1e6), ("us", 1e3)):
        if ns >= size:
            return f"{ns / size:.3g} {unit}"
    return f"{ns} ns"
