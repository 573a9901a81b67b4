"""The state in which a machine starts: its free blocks in list order, pageblock types, and pages on per-CPU lists.

Everything that it does not name is in use. ``initial_trace.initial_state`` makes one from a trace; ``place_initial``
puts it into a machine. Imports no Numba.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from tracereplay.kernel.constants import PAGEBLOCK_ORDER

BLOCK = np.dtype([("pfn", np.int64), ("order", np.int8), ("mt", np.int8)])
"""A free block on the buddy list of its order and migratetype."""
PCP_ENTRY = np.dtype([("pfn", np.int64), ("order", np.int8), ("mt", np.int8), ("cpu", np.int16)])
"""A block on a CPU's list; ``mt`` is the list's type."""
PCP_PAGES = np.dtype(
    [("node", np.int16), ("zone", np.int8), ("cpu", np.int16), ("counted", np.int64), ("known", np.int64)]
)
"""Pages on a CPU's lists of a zone: counted by /proc/zoneinfo (-1: not known), and named by the events. ``zone`` is
the zone's number in a machine."""

Records = npt.NDArray[np.void]
I8 = npt.NDArray[np.int8]
I16 = npt.NDArray[np.int16]

EVIDENCE_NONE, EVIDENCE_KINDS, EVIDENCE_CONTRADICTED, EVIDENCE_NAMED, EVIDENCE_LISTED = range(5)
"""How a pageblock's type is known: not (movable, or dealt out by pagetypeinfo's counts); by what its pages held; by an
event that a later one contradicts; by an event; by an event that names a list on which blocks of other types may lie
too (before 6.10, page-allocator.md 4.4)."""
EVIDENCE_NAMES = ("none", "kinds", "contradicted", "named", "listed")


@dataclass(frozen=True, slots=True)
class InitialState:
    """The allocator at one instant. Frames are page frame numbers."""

    blocks: Records
    """:data:`BLOCK` records; those of one (zone, order, migratetype) are in list order, the head first."""
    block_types: I8
    """Migratetype by pageblock (frame >> 9)."""
    evidence: I8
    """By pageblock: one of the ``EVIDENCE_`` codes."""
    movable: I16
    """By pageblock: pages in use that can be moved (on LRU lists, or anonymous); -1: not known."""
    pcp: Records
    """:data:`PCP_ENTRY` records; those of one (zone, CPU, order, list) are in list order, the head first. Only pages
    that the events name: pages that stayed in the middle of a list are not among them."""
    pcp_pages: Records
    """:data:`PCP_PAGES` records of every zone and CPU."""
    facts: dict[str, Any] = field(default_factory=dict)
    """Where it comes from and how sure it is, in plain values (``initial_trace.initial_state`` names the keys)."""

    def __post_init__(self) -> None:
        """Raises ValueError where the arrays do not have the layouts above."""
        for name, wanted in (("blocks", BLOCK), ("pcp", PCP_ENTRY), ("pcp_pages", PCP_PAGES)):
            if getattr(self, name).dtype != wanted:
                raise ValueError(f"{name} are {getattr(self, name).dtype}, not {wanted}")
        if not len(self.block_types) == len(self.evidence) == len(self.movable):
            raise ValueError("block_types, evidence and movable are of different lengths")

    @property
    def frames(self) -> int:
        """Frames that the pageblocks span."""
        return len(self.block_types) << PAGEBLOCK_ORDER
