"""A path's requests: WRITE bios of one layer become page requests (page-allocator.md 7.5, strategies.md 1.2 and 8).

"What if full-disk encryption were switched on for the bios I recorded": each WRITE is cut into pieces no larger than
the path's largest request. A piece takes ceil(bytes / 4096) pages when work on it begins, and gives them back when the
device has completed its sectors (flight.py). When work begins, and how much later than on the recorded host the device
gets the piece, is the path's mode (``PathSpec.hold``); with no time for encryption both are the bio's arrival.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Mapping

from tracereplay.demand.flight import Bio, Flight, Piece
from tracereplay.demand.paths import PathSpec
from tracereplay.demand.sectors import SectorMap, Span
from tracereplay.demand.state import PATH_ALLOC, PATH_FREE, PATH_PIECE
from tracereplay.kernel.constants import PAGE_SIZE, SECTOR_SIZE

_PER_PAGE = PAGE_SIZE // SECTOR_SIZE

Side = tuple[int, int, int, int, int, int, int]
"""A row of state.SIDE: ts_ns, a, b, c, pid, cpu, what."""


def pages_of(sectors: int) -> int:
    """Pages that hold a number of 512-byte sectors."""
    return -(-sectors // _PER_PAGE)


class Encrypted:
    """Bios that dm-crypt has encrypted already, followed by remaps to the devices below."""

    def __init__(self, crypt: Iterable[int], writers: Iterable[int] = ()) -> None:
        """``crypt``: dm-crypt's devices. ``writers``: tasks whose bios are its own, where remaps were not recorded."""
        self._crypt = set(crypt)
        self._writers = set(writers)
        self._marks: SectorMap[None] = SectorMap()
        self._number = 0

    def remap(self, dev: int, start: int, sectors: int, old_dev: int, old_start: int) -> None:
        """Sectors go on to another device."""
        marks = self._marks.over(old_dev, old_start, old_start + sectors)
        if old_dev in self._crypt or marks:
            self._drop(marks)
            self._number += 1
            self._marks.add(Span(dev, start, start + sectors, None, self._number))

    def queue(self, dev: int, start: int, sectors: int, pid: int) -> bool:
        """Whether a bio that is queued to a device comes from dm-crypt."""
        marks = self._marks.over(dev, start, start + sectors)
        self._drop(marks)
        return bool(marks) or pid in self._writers

    def _drop(self, marks: list[Span[None]]) -> None:
        for span in marks:
            self._marks.remove(span)


class PathSource:
    """Requests and releases of a path, from bio events in time order."""

    def __init__(
        self,
        spec: PathSpec,
        *,
        disk_of: Mapping[int, int],
        callers: Mapping[int, int],
        flight: Flight,
        encrypted: Encrypted,
        below: Iterable[int] = (),
        workers: int = 1,
        first_key: int = 0,
        end_ns: int = 1 << 62,
    ) -> None:
        """``disk_of``: partitions and their whole devices. ``callers``: whole devices of the layer, each with the
        caller of its requests. ``below``: devices that events have to be followed to. ``workers``: of kcryptd.
        ``first_key``: keys from here on are this path's. ``end_ns``: the trace's end.
        """
        self.spec = spec
        self.tracked = {*callers, *below, *(p for p, disk in disk_of.items() if disk in callers or disk in below)}
        """Devices whose events are wanted."""
        self.bios = 0
        self.bios_in_pieces = 0
        self.below_dm_crypt = 0
        """WRITE bios left alone, since dm-crypt had encrypted them."""
        self.requests = 0
        self.pages = 0
        self.completed = 0
        self.after_end = 0
        """Requests that would have begun after the trace."""
        self._disk_of = dict(disk_of)
        self._callers = dict(callers)
        self.flight = flight
        self._encrypted = encrypted
        self._sectors = spec.request_bytes // SECTOR_SIZE
        self._encrypt_ns = spec.number("encrypt_ns") if "encrypt_ns" in spec.options else 0
        self._inline = spec.options.get("mode") == "inline"
        self._free_at = [0] * workers
        self._busy: dict[int, int] = {}
        self._agenda: list[tuple[int, int, int, Piece, int, int]] = []
        self._end_ns = end_ns
        self._number = 0
        self._keys: dict[int, list[int]] = {}
        self._next = first_key

    @property
    def devices(self) -> list[int]:
        """Whole devices whose bios become requests."""
        return sorted(self._callers)

    @property
    def next_key(self) -> int:
        """Keys below this were used."""
        return self._next

    def due(self, ts: int) -> list[Side]:
        """What happens up to ``ts``, in order of time."""
        made: list[Side] = []
        while self._agenda and self._agenda[0][0] <= ts:
            when, _, what, piece, pid, cpu = heapq.heappop(self._agenda)
            if what == PATH_ALLOC:
                piece.key = self._take(piece.pages)
                self.requests += 1
                self.pages += piece.pages
                if len(piece.bio.pieces) > 1:
                    piece.bio.to_come -= 1
                    made.append((when, piece.bio.number, piece.bio.to_come, 0, pid, cpu, PATH_PIECE))
                made.append((when, piece.pages, piece.key, self._callers[piece.bio.dev], pid, cpu, what))
            else:
                self._keys.setdefault(_room(piece.pages), []).append(piece.key)
                made.append((when, piece.pages, piece.key, 0, pid, cpu, what))
        return made

    def finish(self) -> list[Side]:
        """The trace ends: what is left up to its end."""
        made = self.due(self._end_ns)
        self.after_end = sum(what == PATH_ALLOC for _, _, what, _, _, _ in self._agenda)
        return made

    def advance(self, ts: int, pid: int, cpu: int) -> None:
        """An event at ``ts``: pieces that were given up since are released."""
        self._release(self.flight.advance(ts), ts, pid, cpu)

    def queue(self, dev: int, sector: int, sectors: int, ts: int, pid: int, cpu: int) -> None:
        """A WRITE bio is queued."""
        whole = self._disk_of.get(dev, dev)
        if whole not in self._callers or not sectors:
            return
        if self._encrypted.queue(dev, sector, sectors, pid):
            self.below_dm_crypt += 1
            return
        self.bios += 1
        bio = Bio(whole, sector, sector + sectors, ts, pid, cpu)
        for start in range(sector, sector + sectors, self._sectors):
            end = min(start + self._sectors, sector + sectors)
            self._number += 1
            piece = Piece(bio, start, end, pages_of(end - start), self._number)
            bio.pieces.append(piece)
        bio.to_come = len(bio.pieces)
        if bio.to_come > 1:
            bio.number = self.bios_in_pieces
            self.bios_in_pieces += 1
        self._release(self.flight.queue(bio), ts, pid, cpu)
        for piece in bio.pieces:
            begins = self._begin(piece, ts, pid)
            self._plan(begins, PATH_ALLOC, piece, pid, cpu)

    def remap(self, dev: int, sector: int, sectors: int, old_dev: int, old_sector: int) -> None:
        """Sectors of a WRITE go on to another device; those of a partition to its own disk stay where they are."""
        if not sectors:
            return
        self._encrypted.remap(dev, sector, sectors, old_dev, old_sector)
        whole, old_whole = self._disk_of.get(dev, dev), self._disk_of.get(old_dev, old_dev)
        if whole != old_whole:
            self.flight.remap(whole, sector, sectors, old_whole, old_sector)

    def complete(self, dev: int, sector: int, sectors: int, ts: int, pid: int, cpu: int, whole_bio: bool) -> None:
        """A bio (``whole_bio``) or part of a request is complete."""
        done = self.flight.bio_complete if whole_bio else self.flight.complete
        pieces = done(self._disk_of.get(dev, dev), sector, sectors, ts)
        self.completed += len(pieces)
        self._release(pieces, ts, pid, cpu)

    def _begin(self, piece: Piece, ts: int, pid: int) -> int:
        """When work on a piece begins; sets what that and the encryption delay it by."""
        work = self._encrypt_ns * piece.pages
        if not work:
            return ts
        if self._inline:
            begins = max(ts, self._busy.get(pid, 0))
            self._busy[pid] = begins + work
        else:
            begins = max(ts, self._free_at[0])
            heapq.heapreplace(self._free_at, begins + work)
        piece.shift_ns = begins + work - ts
        return begins

    def _release(self, pieces: list[Piece], ts: int, pid: int, cpu: int) -> None:
        for piece in pieces:
            self._plan(ts + piece.shift_ns, PATH_FREE, piece, pid, cpu)

    def _plan(self, when: int, what: int, piece: Piece, pid: int, cpu: int) -> None:
        self._number += 1
        heapq.heappush(self._agenda, (when, self._number, what, piece, pid, cpu))

    def _take(self, pages: int) -> int:
        room = _room(pages)
        if free := self._keys.get(room):
            return free.pop()
        key = self._next
        self._next += room
        return key


def _room(pages: int) -> int:
    """Keys are handed out in powers of two, so that they can be reused."""
    return 1 << (pages - 1).bit_length()


def keys_needed(sectors: int, bios: int, request_bytes: int) -> int:
    """Upper bound of the keys that WRITE bios can need."""
    pieces = bios + sectors * SECTOR_SIZE // request_bytes
    return 2 * (pages_of(sectors) + pieces) + 512
