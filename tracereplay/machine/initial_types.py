"""Migratetypes of pageblocks at the start: from events, from what the pages held, from pagetypeinfo's counts.

The type of a single pageblock is readable nowhere. In this order: what an event names (``initial_scan``); blocks that
hold kernel pages, as many as pagetypeinfo counts, the clearest first; without a page map, blocks of which nothing is
known and that hold nothing free, at random; else movable, as at boot (page-allocator.md 1.5).
"""

# mypy: disable-error-code="no-untyped-def, no-untyped-call"

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from tracereplay.compiled import kernel
from tracereplay.kernel.constants import (
    MIGRATE_MOVABLE,
    MIGRATE_PCPTYPES,
    MIGRATE_RECLAIMABLE,
    MIGRATE_UNMOVABLE,
    MIGRATETYPE_NAMES,
    PAGEBLOCK_ORDER,
)
from tracereplay.machine.initial import (
    EVIDENCE_CONTRADICTED,
    EVIDENCE_KINDS,
    EVIDENCE_LISTED,
    EVIDENCE_NAMED,
    EVIDENCE_NAMES,
    EVIDENCE_NONE,
    I8,
)
from tracereplay.machine.layout import NR_KERNEL_TYPES

HELD_MOVABLE, HELD_SLAB, HELD_TABLES, HELD_OTHER, HELD_FREE, HELD_NOTHING = range(6)
KIND_CLASSES = {
    "anon": HELD_MOVABLE,
    "lru": HELD_MOVABLE,
    "huge": HELD_MOVABLE,
    "slab": HELD_SLAB,
    "pgtable": HELD_TABLES,
    "other": HELD_OTHER,
    "buddy": HELD_FREE,
    "reserved": HELD_NOTHING,
}
"""Kind of a page in table ``page_map`` -> column of the counts per pageblock."""
NR_CLASSES = 6


@kernel
def count_kinds(starts, lengths, classes, held):
    """Pages by class per pageblock (``held[block, class]``) from runs of frames."""
    limit = held.shape[0] << PAGEBLOCK_ORDER
    for i in range(starts.shape[0]):
        p = starts[i]
        end = min(p + lengths[i], limit)
        while p < end:
            until = min(((p >> PAGEBLOCK_ORDER) + 1) << PAGEBLOCK_ORDER, end)
            held[p >> PAGEBLOCK_ORDER, classes[i]] += until - p
            p = until


def settle_types(
    strong: I8,
    weak: I8,
    against: npt.NDArray[np.int32],
    zone: I8,
    held: npt.NDArray[np.int16] | None,
    counted: Sequence[Sequence[int] | None],
) -> tuple[I8, I8]:
    """Types of all pageblocks, and their evidence.

    ``strong weak against zone``: as the scan leaves them. ``held``: pages by class per pageblock; None: no page map.
    ``counted``: for each zone pageblocks by migratetype; None: not known.
    """
    types = np.full(len(zone), MIGRATE_MOVABLE, np.int8)
    evidence = np.full(len(zone), EVIDENCE_NONE, np.int8)
    named = strong >= 0
    listed = ~named & (weak >= 0)
    types[named], types[listed] = strong[named], weak[listed]
    evidence[named], evidence[listed] = EVIDENCE_NAMED, EVIDENCE_LISTED
    evidence[(named | listed) & (against > 0)] = EVIDENCE_CONTRADICTED
    for z, count in enumerate(counted):
        inside = zone == z
        if count is None:
            if held is not None:
                _by_majority(types, evidence, inside, held)
            continue
        if held is not None:
            _by_kinds(types, evidence, inside, held, count)
    return types, evidence


def _by_majority(types: I8, evidence: I8, inside: npt.NDArray[np.bool_], held: npt.NDArray[np.int16]) -> None:
    """Without counts: unmovable where slabs and page tables prove kernel memory and it is the larger part in use."""
    proven = held[:, HELD_SLAB] + held[:, HELD_TABLES]
    unmovable = inside & (evidence == EVIDENCE_NONE) & (proven > 0)
    unmovable &= proven + held[:, HELD_OTHER] > held[:, HELD_MOVABLE]
    types[unmovable] = MIGRATE_UNMOVABLE
    _mark_kinds(evidence, inside, held)


def _by_kinds(
    types: I8, evidence: I8, inside: npt.NDArray[np.bool_], held: npt.NDArray[np.int16], count: Sequence[int]
) -> None:
    """As many unmovable and reclaimable blocks as are counted: those that hold the most kernel pages. Reclaimable
    ones hold slabs (dentries, inodes) and nothing else of the kernel."""
    slab, tables, other = (held[:, c].astype(np.int32) for c in (HELD_SLAB, HELD_TABLES, HELD_OTHER))
    movable = held[:, HELD_MOVABLE].astype(np.int32)
    scores = {
        MIGRATE_RECLAIMABLE: slab - 2 * (tables + other) - movable,
        MIGRATE_UNMOVABLE: slab + tables + other - movable,
    }
    # nothing but "other" may be memory that the allocator does not have yet: last, and from low addresses up
    unclear = other == 1 << PAGEBLOCK_ORDER
    for mt, score in scores.items():
        missing = count[mt] - int(np.count_nonzero(inside & (types == mt)))
        score[unclear] = -(1 << 20)
        usable = np.flatnonzero(inside & (evidence == EVIDENCE_NONE) & (types == MIGRATE_MOVABLE))
        usable = usable[slab[usable] + tables[usable] + other[usable] > 0]
        if mt == MIGRATE_RECLAIMABLE:
            usable = usable[slab[usable] > 0]
        if missing > 0 and len(usable):
            types[usable[np.argsort(-score[usable], kind="stable")[:missing]]] = mt
    _mark_kinds(evidence, inside, held)


def _mark_kinds(evidence: I8, inside: npt.NDArray[np.bool_], held: npt.NDArray[np.int16]) -> None:
    used = held[:, [HELD_MOVABLE, HELD_SLAB, HELD_TABLES]].sum(axis=1) > 0
    evidence[inside & used & (evidence == EVIDENCE_NONE)] = EVIDENCE_KINDS


def deal_types(
    types: I8,
    evidence: I8,
    inside: npt.NDArray[np.bool_],
    has_free: npt.NDArray[np.bool_],
    count: Sequence[int],
    rng: np.random.Generator,
) -> None:
    """Deal out the types of a zone that are counted and not known yet to blocks of which nothing is known.

    ``inside``: the zone's pageblocks. Those with free blocks (``has_free``) keep their type. Only as many blocks from
    the start of the zone as are counted: more may be added at its end later.
    """
    there = inside & ~has_free
    there[np.flatnonzero(inside)[sum(count) :]] = False
    for mt in (MIGRATE_UNMOVABLE, MIGRATE_RECLAIMABLE):
        missing = count[mt] - int(np.count_nonzero(inside & (types == mt)))
        usable = np.flatnonzero(there & (evidence == EVIDENCE_NONE) & (types == MIGRATE_MOVABLE))
        if missing > 0:
            types[rng.permutation(usable)[:missing]] = mt


def type_facts(
    types: I8, evidence: I8, zone: I8, against: npt.NDArray[np.int32], counted: Sequence[Sequence[int] | None]
) -> dict[str, Any]:
    """Pageblocks by evidence, later events that name another type, and types beside pagetypeinfo's counts."""
    inside = zone >= 0
    shares = np.bincount(evidence[inside], minlength=len(EVIDENCE_NAMES))
    known = [z for z, count in enumerate(counted) if count is not None]
    wanted = np.zeros(NR_KERNEL_TYPES, np.int64)
    for count in counted:
        if count is not None:
            wanted[: len(count)] += np.array(count[:NR_KERNEL_TYPES], np.int64)
    found = np.bincount(types[np.isin(zone, known)], minlength=NR_KERNEL_TYPES)[:NR_KERNEL_TYPES]
    facts: dict[str, Any] = {
        "pageblocks": int(np.count_nonzero(inside)),
        "by_evidence": {name: int(n) for name, n in zip(EVIDENCE_NAMES, shares, strict=True)},
        "contradicting_events": int(against[inside].sum()),
        "inferred": {name: int(n) for name, n in zip(MIGRATETYPE_NAMES, found, strict=True)},
    }
    if known:
        facts["counted"] = {name: int(n) for name, n in zip(MIGRATETYPE_NAMES, wanted, strict=True)}
        reserved = int((wanted - found)[MIGRATE_PCPTYPES:].clip(min=0).sum())
        if reserved:
            facts["unplaced"] = reserved
    return facts
