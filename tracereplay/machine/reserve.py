"""Idle pages that a strategy or a mempool keeps back: how many, how long, and how long a cache was without."""

# mypy: disable-error-code="no-untyped-def, no-untyped-call"

from __future__ import annotations

from tracereplay.compiled import hot, inner
from tracereplay.machine.layout import (
    CFG_DRY_LONGEST,
    CFG_DRY_NS,
    CFG_DRY_SPELLS,
    CFG_NOW,
    CFG_RESERVE,
    CFG_RESERVE_PEAK,
    CFG_RESERVE_SINCE,
    CFG_RESERVE_US,
)


@hot
def reserve_add(m, pages):
    """Note that a reserve holds ``pages`` more (fewer when negative) idle pages; the peak and the time are kept."""
    now = m.w[CFG_NOW] // 1000
    m.w[CFG_RESERVE_US] += m.w[CFG_RESERVE] * (now - m.w[CFG_RESERVE_SINCE])
    m.w[CFG_RESERVE_SINCE] = now
    m.w[CFG_RESERVE] += pages
    m.w[CFG_RESERVE_PEAK] = max(m.w[CFG_RESERVE_PEAK], m.w[CFG_RESERVE])


@inner
def dry_spell(m, ns):
    """Note that a strategy's cache has pages again, so long after it first could not serve."""
    m.w[CFG_DRY_SPELLS] += 1
    m.w[CFG_DRY_NS] += ns
    m.w[CFG_DRY_LONGEST] = max(m.w[CFG_DRY_LONGEST], ns)
