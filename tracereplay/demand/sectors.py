"""Which pieces of work lie on which sectors of which device, for ranges that are cut, moved and completed."""

from __future__ import annotations

from typing import Generic, TypeVar

T = TypeVar("T")
_SHIFT = 11
"""Spans are kept by the mebibytes that they touch."""

Range = tuple[int, int]
"""Sectors [start, end)."""


class Span(Generic[T]):
    """Sectors [start, end) of a device that belong to an owner. ``number`` orders spans: the lower, the older."""

    __slots__ = ("dev", "end", "number", "owner", "start")

    def __init__(self, dev: int, start: int, end: int, owner: T, number: int) -> None:
        self.dev = dev
        self.start = start
        self.end = end
        self.owner = owner
        self.number = number


class SectorMap(Generic[T]):
    """Spans by device and sector. Several may lie on the same sectors."""

    def __init__(self) -> None:
        self._cells: dict[tuple[int, int], list[Span[T]]] = {}

    def add(self, span: Span[T]) -> None:
        """Put a span on its sectors."""
        for cell in range(span.start >> _SHIFT, (span.end - 1 >> _SHIFT) + 1):
            self._cells.setdefault((span.dev, cell), []).append(span)

    def remove(self, span: Span[T]) -> None:
        """Take a span away."""
        for cell in range(span.start >> _SHIFT, (span.end - 1 >> _SHIFT) + 1):
            held = self._cells[span.dev, cell]
            held.remove(span)
            if not held:
                del self._cells[span.dev, cell]

    def over(self, dev: int, start: int, end: int) -> list[Span[T]]:
        """Spans that overlap [start, end), the oldest first."""
        first, last = start >> _SHIFT, end - 1 >> _SHIFT
        if last - first > len(self._cells):  # a huge range: look at what there is
            cells = [held for (d, cell), held in self._cells.items() if d == dev and first <= cell <= last]
        else:
            cells = [held for cell in range(first, last + 1) if (held := self._cells.get((dev, cell)))]
        found = {id(span): span for held in cells for span in held if span.start < end and start < span.end}
        return sorted(found.values(), key=lambda span: (span.number, span.start))


def common(ranges: list[Range], start: int, end: int) -> list[Range]:
    """Parts of ranges within [start, end)."""
    return [(max(a, start), min(b, end)) for a, b in ranges if a < end and start < b]


def without(ranges: list[Range], start: int, end: int) -> list[Range]:
    """Ranges less [start, end)."""
    left: list[Range] = []
    for a, b in ranges:
        if a < start:
            left.append((a, min(b, start)))
        if b > end:
            left.append((max(a, end), b))
    return left
