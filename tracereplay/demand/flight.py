"""WRITE bios in flight: when has the device completed all sectors of a piece?

A bio is complete at its ``block_bio_complete`` where the device's driver emits it (bio-based ones: dm, md, brd), else
when ``block_rq_complete`` events have covered its sectors: requests hold several bios after merges and parts of one
after splits, and a requeued part is covered when it completes in the end (page-allocator.md 7.5). Where neither event
names the bio's own device, ``block_bio_remap`` moves its sectors down to the device that completes them; a range that
is remapped twice (a mirror) is complete when both copies are.

Sectors that several pieces in flight share go to the oldest. A piece whose completion was lost would hold its pages for
ever: after a loss of bio events it is given up when another WRITE to its sectors is queued, or when it is overdue.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

from tracereplay.demand.sectors import Range, SectorMap, Span, common, without

OVERDUE_NS = 100_000_000
OVERDUE_TIMES = 2
"""After a loss, a piece is given up when it takes longer than OVERDUE_TIMES the longest seen and OVERDUE_NS."""


class Piece:
    """Part of a bio that is one request."""

    __slots__ = ("bio", "done", "end", "key", "left", "moved", "number", "pages", "shift_ns", "spans", "start")

    def __init__(self, bio: Bio, start: int, end: int, pages: int, number: int) -> None:
        self.bio = bio
        self.start = start
        self.end = end
        self.pages = pages
        self.number = number
        """Pieces are numbered as they come."""
        self.left = end - start
        """Sectors that the device has yet to complete."""
        self.done = False
        self.shift_ns = 0
        """How much later than on the recorded host the device gets it."""
        self.key = -1
        """First key of its pages; -1 before they are allocated."""
        self.spans: list[Span[Piece]] = []
        self.moved: list[Span[Piece]] = []
        """Where it was before remaps."""


class Bio:
    """A WRITE bio and its pieces."""

    __slots__ = ("cpu", "dev", "end", "number", "pid", "pieces", "queued_ns", "start", "to_come")

    def __init__(self, dev: int, start: int, end: int, queued_ns: int, pid: int, cpu: int) -> None:
        self.dev = dev
        self.start = start
        self.end = end
        self.queued_ns = queued_ns
        self.pid = pid
        self.cpu = cpu
        self.pieces: list[Piece] = []
        self.number = 0
        """Of a bio in several pieces."""
        self.to_come = 0
        """Its pieces on which work has not begun."""


class Flight:
    """Bios in flight. Devices are whole ones here: callers translate partitions."""

    def __init__(self, by_bio: set[int], losses: Sequence[tuple[int, int]] = ()) -> None:
        """``by_bio``: devices whose completions are bios'. ``losses``: intervals in which bio events were lost."""
        self.unmatched = 0
        """Completions that covered nothing in flight: of bios queued before the trace began, or lost."""
        self.lost = 0
        """Pieces given up after a loss."""
        self.longest_ns = 0
        self._by_bio = by_bio
        self._live: SectorMap[Piece] = SectorMap()
        self._moved: SectorMap[Piece] = SectorMap()
        self._ends: dict[tuple[int, int], list[Bio]] = {}
        self._bios: dict[int, Bio] = {}
        self._losses = deque(sorted(losses, key=lambda loss: loss[1]))
        self._doubtful: dict[int, Bio] = {}
        self._since_ns = 0

    def pieces(self) -> int:
        """Pieces in flight."""
        return sum(not p.done for bio in self._bios.values() for p in bio.pieces)

    def advance(self, ts: int) -> list[Piece]:
        """Time goes on: pieces given up because they are overdue after a loss."""
        while self._losses and self._losses[0][1] <= ts:
            self._since_ns = self._losses.popleft()[1]
            self._doubtful = dict(self._bios)
        if self._doubtful and ts - self._since_ns > max(OVERDUE_NS, OVERDUE_TIMES * self.longest_ns):
            return self._give_up(list(self._doubtful.values()))
        return []

    def queue(self, bio: Bio) -> list[Piece]:
        """A bio with its pieces is under way. Pieces that were given up for it."""
        given_up: list[Piece] = []
        if self._doubtful:
            over = (span.owner.bio for span in self._live.over(bio.dev, bio.start, bio.end))
            given_up = self._give_up([b for b in {id(b): b for b in over}.values() if id(b) in self._doubtful])
        self._bios[id(bio)] = bio
        self._ends.setdefault((bio.dev, bio.end), []).append(bio)
        for piece in bio.pieces:
            self._put(piece, bio.dev, piece.start, piece.end)
        return given_up

    def remap(self, dev: int, start: int, sectors: int, old_dev: int, old_start: int) -> None:
        """Sectors of one device go on as those of another."""
        offset = start - old_start
        left: list[Range] = [(old_start, old_start + sectors)]
        for span in self._live.over(old_dev, old_start, old_start + sectors):
            taken = common(left, span.start, span.end)
            left = without(left, span.start, span.end)
            self._cut(span, taken)
            for a, b in taken:
                before = Span(old_dev, a, b, span.owner, span.number)
                self._moved.add(before)
                span.owner.moved.append(before)
                self._put(span.owner, dev, a + offset, b + offset)
        if not left:
            return
        for span in reversed(self._moved.over(old_dev, old_start, old_start + sectors)):
            for a, b in common(left, span.start, span.end):
                span.owner.left += b - a
                self._put(span.owner, dev, a + offset, b + offset)
            left = without(left, span.start, span.end)

    def complete(self, dev: int, start: int, sectors: int, ts: int) -> list[Piece]:
        """A request (or a part of one) is complete: pieces that are complete with it."""
        if not sectors or dev in self._by_bio:
            return []
        return self._cover(dev, start, start + sectors, ts)

    def bio_complete(self, dev: int, start: int, sectors: int, ts: int) -> list[Piece]:
        """A bio is complete: pieces that are complete with it.

        The event of a bio that was split names its last part, the others may have events of their own.
        """
        for bio in self._ends.get((dev, start + sectors), ()):
            if bio.start == start or (bio.start < start and dev in self._by_bio):
                done = [p for p in bio.pieces if not p.done]
                self._finish(done, ts)
                return done
        if dev in self._by_bio and sectors:
            return self._cover(dev, start, start + sectors, ts)
        return []

    def _cover(self, dev: int, start: int, end: int, ts: int) -> list[Piece]:
        left: list[Range] = [(start, end)]
        done: list[Piece] = []
        for span in self._live.over(dev, start, end):
            taken = common(left, span.start, span.end)
            left = without(left, span.start, span.end)
            self._cut(span, taken)
            span.owner.left -= sum(b - a for a, b in taken)
            if not span.owner.left and not span.owner.done:
                self._finish([span.owner], ts)
                done.append(span.owner)
        self.unmatched += left == [(start, end)]
        return done

    def _put(self, piece: Piece, dev: int, start: int, end: int) -> None:
        span = Span(dev, start, end, piece, piece.number)
        self._live.add(span)
        piece.spans.append(span)

    def _cut(self, span: Span[Piece], taken: list[Range]) -> None:
        """A live span gives up parts of it."""
        if not taken:
            return
        self._live.remove(span)
        span.owner.spans.remove(span)
        rest: list[Range] = [(span.start, span.end)]
        for a, b in taken:
            rest = without(rest, a, b)
        for a, b in rest:
            self._put(span.owner, span.dev, a, b)

    def _give_up(self, bios: list[Bio]) -> list[Piece]:
        given_up = [p for bio in bios for p in bio.pieces if not p.done]
        self._finish(given_up, None)
        self.lost += len(given_up)
        return given_up

    def _finish(self, pieces: list[Piece], ts: int | None) -> None:
        """Pieces leave the flight; ``ts`` None: nobody saw when."""
        for piece in pieces:
            piece.done = True
            for span in piece.spans:
                self._live.remove(span)
            for span in piece.moved:
                self._moved.remove(span)
            bio = piece.bio
            if ts is not None:
                self.longest_ns = max(self.longest_ns, ts - bio.queued_ns)
            if all(p.done for p in bio.pieces):
                self._bios.pop(id(bio))
                self._doubtful.pop(id(bio), None)
                there = self._ends[bio.dev, bio.end]
                there.remove(bio)
                if not there:
                    del self._ends[bio.dev, bio.end]
