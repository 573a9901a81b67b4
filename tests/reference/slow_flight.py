"""The slow, obvious bookkeeping of WRITE bios in flight, one sector at a time: the oracle of demand/flight.py."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field


@dataclass
class SlowPiece:
    name: int
    bio: SlowBio
    at: Counter[tuple[int, int]]
    """(device, sector) that have to be completed yet; a mirrored sector is there twice."""
    was: set[tuple[int, int]] = field(default_factory=set)
    """Where its sectors were before they were remapped."""


@dataclass
class SlowBio:
    dev: int
    start: int
    end: int
    queued_ns: int
    pieces: list[SlowPiece] = field(default_factory=list)


class SlowFlight:
    """Methods return the names of pieces that are over, in order."""

    def __init__(self, by_bio: set[int], losses: list[tuple[int, int]], *, overdue_ns: int, overdue_times: int) -> None:
        self.by_bio = by_bio
        self.losses = sorted(losses)
        self.overdue = overdue_ns, overdue_times
        self.bios: list[SlowBio] = []
        self.doubtful: list[SlowBio] = []
        self.since = 0
        self.longest = 0
        self.lost = 0
        self.unmatched = 0

    def live(self) -> list[SlowPiece]:
        return [p for b in self.bios for p in b.pieces]

    def over(self, pieces: list[SlowPiece], ts: int | None) -> list[int]:
        names = [p.name for p in pieces]
        for p in pieces:
            p.bio.pieces.remove(p)
            if ts is not None:
                self.longest = max(self.longest, ts - p.bio.queued_ns)
        self.bios = [b for b in self.bios if b.pieces]
        self.doubtful = [b for b in self.doubtful if b.pieces]
        return names

    def give_up(self, bios: list[SlowBio]) -> list[int]:
        pieces = [p for b in bios for p in b.pieces]
        self.lost += len(pieces)
        return self.over(pieces, None)

    def advance(self, ts: int) -> list[int]:
        for loss in [x for x in self.losses if x[1] <= ts]:
            self.losses.remove(loss)
            self.since = loss[1]
            self.doubtful = list(self.bios)
        late = ts - self.since > max(self.overdue[0], self.overdue[1] * self.longest)
        return self.give_up(self.doubtful) if self.doubtful and late else []

    def queue(self, ts: int, dev: int, start: int, end: int, cuts: list[int], names: list[int]) -> list[int]:
        there = {(dev, s) for s in range(start, end)}
        gone = self.give_up([b for b in self.doubtful if any(there & set(+p.at) for p in b.pieces)])
        bio = SlowBio(dev, start, end, ts)
        edges = [start, *cuts, end]
        for name, a, b in zip(names, edges[:-1], edges[1:], strict=True):
            bio.pieces.append(SlowPiece(name, bio, Counter((dev, s) for s in range(a, b))))
        self.bios.append(bio)
        return gone

    def remap(self, dev: int, start: int, sectors: int, old_dev: int, old_start: int) -> None:
        pieces = sorted(self.live(), key=lambda p: p.name)
        moves = []
        for i in range(sectors):
            old, new = (old_dev, old_start + i), (dev, start + i)
            here = next((p for p in pieces if p.at[old]), None)
            gone = next((p for p in reversed(pieces) if old in p.was), None)
            moves.append((here, gone, old, new))
        for here, gone, old, new in moves:
            if here is not None:
                here.at[old] -= 1
                here.was.add(old)
            target = here or gone
            if target is not None:
                target.at[new] += 1

    def complete(self, ts: int, dev: int, start: int, sectors: int) -> list[int]:
        return self.cover(ts, dev, start, sectors) if dev not in self.by_bio and sectors else []

    def bio_complete(self, ts: int, dev: int, start: int, sectors: int) -> list[int]:
        for bio in self.bios:
            same_end = bio.dev == dev and bio.end == start + sectors
            if same_end and (bio.start == start or (bio.start < start and dev in self.by_bio)):
                return self.over(list(bio.pieces), ts)
        return self.cover(ts, dev, start, sectors) if dev in self.by_bio and sectors else []

    def cover(self, ts: int, dev: int, start: int, sectors: int) -> list[int]:
        pieces = sorted(self.live(), key=lambda p: p.name)
        hit = []
        for s in range(start, start + sectors):
            piece = next((p for p in pieces if p.at[dev, s]), None)
            if piece is not None:
                piece.at[dev, s] -= 1
                hit.append(piece)
        self.unmatched += not hit
        return self.over([p for p in pieces if p in hit and not +p.at], ts)
