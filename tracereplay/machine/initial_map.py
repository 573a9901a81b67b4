"""The page map of a trace as runs of frames, and what it settles."""

# mypy: disable-error-code="no-untyped-call"

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import polars as pl

from tracereplay.kernel.constants import MAX_PAGE_ORDER, PAGEBLOCK_ORDER
from tracereplay.machine import initial_scan as scan
from tracereplay.machine.initial_free import MAP_AGREES, MAP_FREE_USED, MAP_USED_FREE, apply_map
from tracereplay.machine.initial_types import HELD_FREE, HELD_OTHER, KIND_CLASSES, NR_CLASSES, count_kinds

if TYPE_CHECKING:
    from tracereplay.trace.reader import Trace

NOT_READ = np.iinfo(np.int64).min
I64 = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class PageMap:
    """Runs of frames of one class, ascending by frame."""

    pfn: I64
    pages: I64
    held: I64
    """Class of the run's pages: a column of ``initial_types.count_kinds``."""
    ts: I64
    """When the run had been read; NOT_READ: not known."""

    def __len__(self) -> int:
        return len(self.pfn)

    def read_ns(self, pageblocks: int) -> I64:
        """When each pageblock had been read, the latest of its runs."""
        made = np.full(pageblocks, NOT_READ, np.int64)
        first, last = self.pfn >> PAGEBLOCK_ORDER, (self.pfn + self.pages - 1) >> PAGEBLOCK_ORDER
        for ts in np.unique(self.ts).tolist():  # a chunk of memory has one time
            inside = self.ts == ts
            covered = np.zeros(pageblocks + 1, np.int64)
            np.add.at(covered, np.minimum(first[inside], pageblocks), 1)
            np.add.at(covered, np.minimum(last[inside] + 1, pageblocks), -1)
            reached = np.cumsum(covered)[:-1] > 0
            made[reached] = np.maximum(made[reached], ts)
        return made

    def classes(self, pageblocks: int) -> npt.NDArray[np.int16]:
        """Pages by class per pageblock."""
        held = np.zeros((pageblocks, NR_CLASSES), np.int16)
        count_kinds(self.pfn, self.pages, self.held, held)
        return held

    def covered(self, start: int, end: int) -> int:
        """Frames of [start, end) that the map holds."""
        return int((np.minimum(self.pfn + self.pages, end) - np.maximum(self.pfn, start)).clip(min=0).sum())

    def settle(self, tables: scan.Tables) -> dict[str, int]:
        """Give every frame of the map its state at the start (``initial_free.apply_map``); what came of it."""
        early = tables.first & scan.EARLY != 0
        counts = np.zeros(3, np.int64)
        apply_map(tables.first, self.pfn, self.pages, self.held == HELD_FREE, counts)
        return {
            "frames": int(self.pages.sum()),
            "changed_before_it_was_read": int(np.count_nonzero(early)),
            "free_by_events": int(np.count_nonzero(tables.first[early] & scan.STATE == scan.BUDDY)),
            "first_events_that_agree": int(counts[MAP_AGREES]),
            "free_by_map_used_by_event": int(counts[MAP_FREE_USED]),
            "used_by_map_free_by_event": int(counts[MAP_USED_FREE]),
        }


def page_map_of(trace: Trace) -> PageMap:
    """Table ``page_map``; empty where it was not recorded."""
    frame = trace.page_map.select(
        pl.col("pfn").cast(pl.Int64),
        pl.col("pages").cast(pl.Int64),
        pl.col("kind").cast(pl.String).replace_strict(KIND_CLASSES, default=HELD_OTHER).cast(pl.Int64),
        pl.col("ts_ns").fill_null(NOT_READ),
    ).collect()
    columns: list[Any] = [c.to_numpy() for c in frame.get_columns()]
    return PageMap(*columns)


def marks_heads_only(page_map: PageMap, free_pages: int, free_blocks: int) -> bool:
    """Whether the map has only the first page of each free block, by a snapshot's counts (page-allocator.md 8.1)."""
    marked = int(page_map.pages[page_map.held == HELD_FREE].sum())
    return abs(marked - free_blocks) < abs(marked - free_pages)


def whole_blocks(page_map: PageMap) -> PageMap:
    """A map of heads with the blocks that they can head: as large as alignment and the pages that follow allow.

    The other pages of a free block have no flags, as some pages in use, so a block may come out too large.
    """
    pfn, pages = page_map.pfn.copy(), page_map.pages.copy()
    for i in np.flatnonzero(page_map.held[:-1] == HELD_FREE).tolist():
        head = int(pfn[i] + pages[i]) - 1
        if page_map.held[i + 1] != HELD_OTHER or pfn[i + 1] != head + 1:
            continue
        aligned = (head & -head).bit_length() - 1 if head else MAX_PAGE_ORDER
        grown = (1 << min(int(1 + pages[i + 1]).bit_length() - 1, aligned, MAX_PAGE_ORDER)) - 1
        pages[i] += grown
        pfn[i + 1] += grown
        pages[i + 1] -= grown
    kept = pages > 0
    return PageMap(pfn[kept], pages[kept], page_map.held[kept], page_map.ts[kept])
