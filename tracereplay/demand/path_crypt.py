"""The dm-crypt path: WRITE bios of one device become page requests.

"What if full-disk encryption were switched on for the bios I recorded": each WRITE bio is split at the maximum
request size, each piece takes ceil(bytes / 4096) pages when it is queued and gives them back when the device has
completed its sectors (drivers/md/dm-crypt.c: crypt_map, kcryptd_crypt_write_convert, crypt_endio). Time for
encryption is not added. Completion is block_bio_complete of the device, or block_rq_complete over the same sectors
after merges and splits, whichever covers the piece first.
"""

from __future__ import annotations

from dataclasses import dataclass

from tracereplay.demand.bios import Side, pages_of
from tracereplay.demand.state import PATH_ALLOC, PATH_FREE
from tracereplay.errors import UsageError
from tracereplay.kernel.constants import SECTOR_SIZE

MAX_WRITE = 1 << 20
"""256 pages in one bio; kernels since about 6.11 use 131072 bytes by default (max_write_size)."""


class _Piece:
    __slots__ = ("by_bio", "by_request", "end", "key", "pages", "start")

    def __init__(self, start: int, end: int, key: int) -> None:
        self.start = start
        self.end = end
        self.key = key
        self.pages = pages_of(end - start)
        self.by_bio = self.by_request = end - start


class CryptPath:
    """Requests from WRITE bios of one device; none when the trace shows dm-crypt's own."""

    def __init__(self, devices: set[int], caller: int, first_key: int, max_write: int = MAX_WRITE) -> None:
        """``first_key``: keys from here on are this path's. Raises UsageError for an unusable size."""
        check_max_write(max_write)
        self.devices = devices
        self.caller = caller
        self.bios = 0
        self.requests = 0
        self.pages = 0
        self.completed = 0
        self._sectors = max_write // SECTOR_SIZE
        self._live: dict[int, list[_Piece]] = {}
        self._free: dict[int, list[int]] = {}
        self._next = first_key

    def queue(self, dev: int, sector: int, sectors: int, ts: int, pid: int, cpu: int) -> list[Side]:
        """A WRITE bio is queued: its requests."""
        made: list[Side] = []
        self.bios += 1
        live = self._live.setdefault(dev, [])
        for start in range(sector, sector + sectors, self._sectors):
            end = min(start + self._sectors, sector + sectors)
            piece = _Piece(start, end, 0)
            piece.key = self._take(piece.pages)
            live.append(piece)
            self.requests += 1
            self.pages += piece.pages
            made.append((ts, piece.pages, piece.key, self.caller, pid, cpu, PATH_ALLOC))
        return made

    def complete(self, dev: int, sector: int, sectors: int, ts: int, pid: int, cpu: int, whole_bio: bool) -> list[Side]:
        """Sectors are on the device: releases of the pieces that are now covered, oldest first."""
        made: list[Side] = []
        live = self._live.get(dev, [])
        left = [(sector, sector + sectors)]
        for piece in live:
            if not left:
                break
            rest = []
            for a, b in left:
                low, high = max(a, piece.start), min(b, piece.end)
                if low >= high:
                    rest.append((a, b))
                    continue
                if whole_bio:
                    piece.by_bio -= high - low
                else:
                    piece.by_request -= high - low
                rest += [r for r in ((a, low), (high, b)) if r[0] < r[1]]
            left = rest
        done = [p for p in live if p.by_bio <= 0 or p.by_request <= 0]
        if done:
            self._live[dev] = [p for p in live if p.by_bio > 0 and p.by_request > 0]
            for piece in done:
                made.append((ts, piece.pages, piece.key, 0, pid, cpu, PATH_FREE))
                self._free.setdefault(_room(piece.pages), []).append(piece.key)
                self.completed += 1
        return made

    def _take(self, pages: int) -> int:
        room = _room(pages)
        if free := self._free.get(room):
            return free.pop()
        key = self._next
        self._next += room
        return key


@dataclass(slots=True)
class PathInUse:
    """A path over a trace."""

    name: str | None
    device: int | None
    own: bool
    """The trace shows dm-crypt's own requests: they are on the path, and its bios are not encrypted again."""
    source: CryptPath | None


def check_max_write(size: int) -> None:
    """Raises UsageError unless a size can be the largest request of dm-crypt."""
    if size < SECTOR_SIZE or size > MAX_WRITE or size % SECTOR_SIZE:
        raise UsageError(
            f"maximum write of {size} bytes", hint=f"a multiple of {SECTOR_SIZE} up to {MAX_WRITE} (256 pages)"
        )


def _room(pages: int) -> int:
    """Keys are handed out in powers of two, so that they can be reused."""
    return 1 << (pages - 1).bit_length()


def keys_needed(sectors: int, bios: int, max_write: int) -> int:
    """Upper bound of the keys that a device's WRITE bios can need."""
    pieces = bios + sectors * SECTOR_SIZE // max_write
    return 2 * (pages_of(sectors) + pieces) + 512
