"""Time of the longest sections, from the parts that the machine kept (replay/sections.py) and a profile's prices.

A page's unlinking and preparing have one price together (``pcp_pop``): nobody has measured them apart. UNLINK_SHARE, a
guess, splits it; ``ns`` is a figure for orders of magnitude. Locks are uncontended, caches hot.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tracereplay.cost.price import price_by_counter
from tracereplay.cost.profile import Profile

UNLINK_SHARE = 0.5
"""Part of ``pcp_pop`` that unlinks a page; the rest prepares it. A guess; what is left out is a walk over the pages."""
COUNTED_AS = {
    "refills": ("zone_lock_acquisitions",),
    "blocks_refilled": ("pcp_refill_blocks", "pcp_refill_pages"),
    "splits": ("splits",),
    "fallbacks": ("fallbacks",),
    "block_moves": ("fallback_block_moves",),
    "zeroed": ("zeroed_pages",),
}
"""Part of a section and the counters that go up with it, whose prices it has. Blocks count as single pages."""
DRAINED = ("pcp_drain_blocks", "pcp_drain_pages")


def section_cost(section: Mapping[str, Any], profile: Profile) -> float | None:
    """Price of a section in the profile's unit; None where the profile has none for unlinking a page."""
    prices = price_by_counter(profile)
    if "pcp_hits" not in prices:
        return None
    pages = float(section["unlinked"]) * UNLINK_SHARE + section["prepared"] * (1 - UNLINK_SHARE)
    refilled = sum(section[part] * prices.get(name, 0.0) for part, names in COUNTED_AS.items() for name in names)
    return float(pages * prices["pcp_hits"] + refilled)


def drain_cost(pages: int, profile: Profile) -> float | None:
    """Least price of a drain of single pages under one hold of the zone lock: merges, which are not known, apart."""
    prices = price_by_counter(profile)
    if not any(name in prices for name in DRAINED):
        return None
    return float(prices.get("zone_lock_acquisitions", 0.0) + pages * sum(prices.get(n, 0.0) for n in DRAINED))


def priced(sections: Mapping[str, Any], profile: Profile) -> dict[str, Any]:
    """The ``sections`` of a result with a ``cost`` for each, and the least one of the longest drain."""
    found = {name: {**section, "cost": section_cost(section, profile)} for name, section in sections.items()}
    for section in found.values():
        if "longest_drain_pages" in section:
            pages = section["longest_drain_pages"]
            section["longest_drain_cost"] = drain_cost(pages, profile) if pages else 0.0
    return found
