"""The direct map, slow and obvious: a dictionary of entries and a set of pages that are not in it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

SMALL, MEDIUM, LARGE = 1, 512, 512 * 512
"""Pages of an entry."""


@dataclass
class SlowDirectMap:
    """Memory in entries of 1 GiB, 2 MiB and 4 KiB."""

    take_page: Callable[[int], int | None]
    """Allocates a page for a page table on a CPU."""
    give_page: Callable[[int, int], None]
    """Frees one on a CPU."""
    count: Callable[..., None]
    entries: dict[int, int] = field(default_factory=dict)
    """Pages of an entry, by its first page; entries of a single page are left out."""
    absent: set[int] = field(default_factory=set)
    tables: dict[tuple[int, int], int] = field(default_factory=dict)
    """Page tables by the entry (first page, pages) whose split took them."""

    def split(self, cpu: int, first: int) -> bool:
        """Replace an entry by 512 smaller ones."""
        table = self.take_page(cpu)
        if table is None:
            return False
        self.count("direct_map_tables")
        self.count("direct_map_splits")
        size = self.entries.pop(first)
        self.tables[first, size] = table
        if size == LARGE:
            self.entries |= dict.fromkeys(range(first, first + LARGE, MEDIUM), MEDIUM)
        return True

    def unmap_page(self, cpu: int, page: int) -> bool:
        """Take one page out. False: a split failed."""
        if page in self.absent:
            return True
        for size in (LARGE, MEDIUM):
            first = page // size * size
            if self.entries.get(first) == size and not self.split(cpu, first):
                return False
        self.absent.add(page)
        self.count("direct_map_unmaps")
        return True

    def unmap(self, cpu: int, page: int, pages: int) -> int:
        """Take pages out up to the first that fails. How many are out."""
        for i in range(pages):
            if not self.unmap_page(cpu, page + i):
                return i
        return pages

    def map(self, page: int, pages: int) -> int:
        """Put pages back. How many were out."""
        back = self.absent & set(range(page, page + pages))
        self.absent -= back
        if back:
            self.count("direct_map_remaps", len(back))
        return len(back)

    def flush(self, pages: int) -> None:
        """Flush a range."""
        self.count("tlb_flushes")
        if pages > 33:
            self.count("tlb_full_flushes")

    def collapse(self, cpu: int, page: int) -> bool:
        """Join 512 small entries."""
        first = page // MEDIUM * MEDIUM
        if first in self.entries or first // LARGE * LARGE in self.large:
            return False
        if self.absent & set(range(first, first + MEDIUM)):
            return False
        self.entries[first] = MEDIUM
        self.count("direct_map_collapses")
        self.flush(MEDIUM)
        table = self.tables.pop((first, MEDIUM), None)
        if table is not None:
            self.give_page(cpu, table)
        return True

    @property
    def large(self) -> set[int]:
        """First pages of 1 GiB entries."""
        return {first for first, size in self.entries.items() if size == LARGE}
