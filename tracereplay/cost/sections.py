"""Time of the longest sections, from the parts that the machine kept (replay/sections.py) and a profile's prices.

A page's unlinking and preparing have one price together (``pcp_pop``): nobody has measured them apart. UNLINK_SHARE, a
guess, splits it; ``ns`` is a figure for orders of magnitude. Locks are uncontended, caches hot.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tracereplay.cost.profile import Profile

UNLINK_SHARE = 0.5
"""Part of ``pcp_pop`` that unlinks a page; the rest prepares it. A guess; what is left out is a walk over the pages."""
PRICED_BY = {
    "refills": "zone_lock",
    "blocks_refilled": "refill_page",
    "splits": "split",
    "fallbacks": "fallback",
    "block_moves": "block_move",
    "zeroed": "zero_page",
}
"""Part of a section and the coefficient that prices one unit of it."""


def section_cost(section: Mapping[str, Any], profile: Profile) -> float | None:
    """Price of a section in the profile's unit; None where the profile lacks one of its primitives."""
    prices = {c.name: c.value for c in profile.coefficients}
    if any(name not in prices for name in (*PRICED_BY.values(), "pcp_pop")):
        return None
    pages = float(section["unlinked"]) * UNLINK_SHARE + section["prepared"] * (1 - UNLINK_SHARE)
    refilled = sum(float(section[part]) * prices[name] for part, name in PRICED_BY.items())
    return float(pages * prices["pcp_pop"] + refilled)


def priced(sections: Mapping[str, Any], profile: Profile) -> dict[str, Any]:
    """The ``sections`` of a result with a ``cost`` for each."""
    return {name: {**section, "cost": section_cost(section, profile)} for name, section in sections.items()}
