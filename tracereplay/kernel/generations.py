"""Allocator generations and the constants that set them apart (page-allocator.md sections 0.2, 2 to 4).

A generation is chosen by features seen in the trace, never by the version string alone: distributions backport.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Generation:
    """Rules of one generation, named after the first kernel in which they were read."""

    name: str
    pcp_orders: int
    """Orders 0..n-1 are held on pcp lists."""
    pcp_thp_lists: int
    """Extra pcp lists for the THP order: 0, 1 (one list), 2 (movable and other), 3 (one a migratetype)."""
    pcp_rule: int
    """How high, refill and drain sizes move: 0 fixed 6 x batch (G1), 1 free_factor (G2, G3), 2 auto-tuned (G4 on)."""
    drain_from_freed_list: bool
    """A drain starts at the list just freed to (since 5.18); before, round robin from list 1."""
    drain_chunked: bool
    """A drain releases the zone lock every ``batch`` pages (6.19)."""
    fallback_keeps_type: bool
    """Leftovers of a foreign block stay on the lists of the block's own type (since 6.10)."""
    fallback_claim_then_steal: bool
    """Fallback first claims whole blocks, then steals the smallest piece (since 6.15)."""
    has_bulk: bool
    """``alloc_pages_bulk`` exists (since 5.13)."""
    bulk_accounts: bool = False
    """It charges accounted requests, page by page (since 5.15)."""
    pcp_decay: int = 0
    """The vmstat worker lowers an auto-tuned high and drains what exceeds it: 0 no, 1 at once (since 6.7), 2 in chunks
    of ``batch`` (6.18; stable kernels may have it earlier)."""
    drain_all_chunked: bool = False
    """``drain_all_pages`` lets go of the locks every ``batch << scale_max`` pages (read in 6.12)."""
    pcp_lock: str = "trylock"
    """What protects the pcp lists (section 3.9), of PCP_LOCKS: interrupts off until 5.13, local_lock until 5.18, a
    spinlock tried with interrupts off until 6.1, with interrupts on since 6.2."""


GENERATIONS: dict[str, Generation] = {
    g.name: g
    for g in (
        Generation("5.10", 1, 0, 0, False, False, False, False, False, pcp_lock="irqoff"),
        Generation("5.14", 4, 3, 1, False, False, False, False, True, pcp_lock="local_lock"),
        Generation("6.1", 4, 1, 1, True, False, False, False, True, True, pcp_lock="trylock_irqsave"),
        Generation("6.7", 4, 1, 2, True, False, False, False, True, True, pcp_decay=1),
        Generation("6.12", 4, 2, 2, True, False, True, False, True, True, pcp_decay=1, drain_all_chunked=True),
        Generation("6.18", 4, 2, 2, True, False, True, True, True, True, pcp_decay=2, drain_all_chunked=True),
        Generation("6.19", 4, 2, 2, True, True, True, True, True, True, pcp_decay=2, drain_all_chunked=True),
    )
}
DEFAULT_GENERATION = "6.12"
PCP_LOCKS = {
    "irqoff": True,
    "local_lock": True,
    "trylock_irqsave": True,
    "trylock": False,
    "llist": False,
}
"""Protections of the pcp lists: whether interrupts are off under them. local_lock is irqoff unless the kernel is
PREEMPT_RT; llist, a lock-free list, is an idea of M. Gorman's (2021-03-12) that nobody has built."""


def generation_of_release(release: str | None) -> str:
    """Last resort where no feature tells: the newest generation not newer than a release string ("6.1.0-56-amd64")."""
    if not release:
        return DEFAULT_GENERATION
    try:
        major, minor = (int("".join(c for c in part if c.isdigit())) for part in release.split(".")[:2])
    except ValueError:
        return DEFAULT_GENERATION
    best = "5.10"
    for name in GENERATIONS:
        g_major, g_minor = (int(p) for p in name.split("."))
        if (g_major, g_minor) <= (major, minor):
            best = name
    # 6.15 brought the 6.18 fallback rules, 6.10 the 6.12 ones (page-allocator.md 0.2)
    if (6, 15) <= (major, minor) < (6, 18):
        best = "6.18"
    if (6, 10) <= (major, minor) < (6, 12):
        best = "6.12"
    return best
