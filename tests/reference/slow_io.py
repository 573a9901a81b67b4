"""I/Os by layer, with plain lists that are searched from end to end: the oracle of tracereplay.analysis.io."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

SIZE = 512


@dataclass(eq=False)
class Io:
    """A row of the table, while it is open."""

    dev: int
    disk: int
    op: str
    sector: int | None
    sectors: int
    bytes: int
    number: int = -1
    seen: int = 0
    parent: Io | None = None
    carries: bool = False
    root: int = -1
    layer: int = 0
    q: int | None = None
    i: int | None = None
    d: int | None = None
    c: int | None = None
    below: int | None = None
    pid: int = 0
    root_pid: int = 0
    merged_into: int | None = None
    merges: int = 0
    splits: int = 0
    requeues: int = 0
    error: int = 0
    left: int = 0
    ended: bool = False


@dataclass(eq=False)
class Piece:
    """Sectors [start, end) of an I/O; ``start`` None: it has none."""

    io: Io
    disk: int
    start: int | None
    end: int
    state: str
    d: int | None = None

    @property
    def key(self) -> tuple[int, str, int | None]:
        """Where it begins."""
        return self.disk, self.io.op, self.start


@dataclass
class Follower:
    """What is open, and the rows that ended."""

    queued: set[int]
    issued: set[int]
    stacked: set[int]
    losses: list[int]
    pieces: list[Piece] = field(default_factory=list)
    rows: list[dict[str, Any]] = field(default_factory=list)
    next: int = 0
    lost_until: int | None = None

    # -------------------------------------------------- finding
    def find(
        self, disk: int, op: str, start: int | None, sectors: int, states: tuple[str, ...], scan: bool = True
    ) -> Piece | None:
        """The piece that is meant: ``states`` best first; at its start if any is, else the first that overlaps."""
        fits = [p for p in self.pieces if p.disk == disk and p.io.op == op and p.state in states]
        here = [p for p in fits if p.start == start]
        if here:
            return min(here, key=lambda p: (states.index(p.state), p.end - (p.start or 0) != sectors, p.io.number))
        if not scan or start is None:
            return None
        over = [p for p in fits if p.start is not None and p.start < start + sectors and p.end > start]
        return min(over, key=lambda p: (max(p.start or 0, start), states.index(p.state), p.io.number), default=None)

    def name(self, io: Io, ts: int) -> None:
        """Number an I/O by the event that shows it first."""
        io.number, io.seen = self.next, ts
        self.next += 1
        if io.parent is None:
            io.root, io.root_pid = io.number, io.pid

    def cut(self, piece: Piece, at: int) -> Piece:
        """Cut a piece; the right one."""
        right = Piece(piece.io, piece.disk, at, piece.end, piece.state, piece.d)
        piece.end = at
        self.pieces.append(right)
        return right

    def close(self, io: Io, ending: str) -> None:
        """An I/O leaves."""
        for p in [p for p in self.pieces if p.io is io]:
            self.pieces.remove(p)
            if p.d is not None:
                io.d = p.d if io.d is None else min(io.d, p.d)
        io.ended = True
        if io.number < 0:
            return
        if io.left > 0:
            io.c = None
        if io.c is not None:
            begun = io.q is not None or (io.d is not None and (io.sectors == 0 or io.disk not in self.queued))
            ending = "complete" if begun else "left_censored" if self.lost_until is None else "broken"
        self.rows.append(
            {
                "id": io.number,
                "parent_id": io.parent.number if io.parent else None,
                "root_id": io.root,
                "layer": io.layer,
                "dev": io.dev,
                "disk": io.disk,
                "op": io.op,
                "sector": io.sector,
                "nr_sectors": io.sectors,
                "bytes": io.bytes,
                "q_ns": io.q,
                "i_ns": io.i,
                "d_ns": io.d,
                "c_ns": io.c,
                "below_c_ns": io.below,
                "pid": io.pid,
                "root_pid": io.root_pid,
                "merged_into": io.merged_into,
                "merges": io.merges,
                "splits": io.splits,
                "requeues": io.requeues,
                "error": io.error,
                "class": ending,
            }
        )

    # -------------------------------------------------- bios
    def queue(self, e: dict[str, Any]) -> None:
        """A bio is queued, or the one that was remapped here is."""
        piece = self.find(e["disk"], e["op"], e["sector"], e["n"], ("pending",), scan=False)
        if piece is not None and (piece.start is None or piece.end - piece.start == e["n"]):
            piece.state = "open"
            io = piece.io
            io.dev, io.pid = e["dev"], e["pid"]
        else:
            while stale := [
                p
                for p in self.pieces
                if p.key == (e["disk"], e["op"], e["sector"])
                and p.state != "pending"
                and self.lost_until is not None
                and p.io.seen < self.lost_until
            ]:
                self.close(stale[0].io, "broken")
            io = Io(e["dev"], e["disk"], e["op"], e["sector"], e["n"], e["n"] * SIZE, pid=e["pid"], left=e["n"])
            self.pieces.append(Piece(io, e["disk"], e["sector"], (e["sector"] or 0) + e["n"], "open"))
        io.q = e["ts"]
        self.name(io, e["ts"])

    def split(self, e: dict[str, Any]) -> None:
        """A bio is cut."""
        at = e["new_sector"]
        start = min(e["sector"], at - 1) if e["sector"] is not None else at - 1
        piece = self.find(e["disk"], e["op"], start, at + 1 - start, ("open", "pending", "issued"))
        if piece is not None and piece.start is not None and piece.start < at < piece.end:
            piece.io.splits += 1
            self.cut(piece, at)

    def remap(self, e: dict[str, Any]) -> None:
        """Sectors go on to another device, or from a partition to its disk."""
        old, old_sector, n = e["old_disk"], e["old_sector"], e["n"]
        piece = self.find(old, e["op"], old_sector, n, ("pending",), scan=False)
        if piece is not None and (piece.start is None or piece.end - piece.start == n):
            piece.disk, piece.start, piece.end = e["disk"], e["sector"], (e["sector"] or 0) + n
            piece.io.disk, piece.io.sector = e["disk"], e["sector"]
            return
        if e["disk"] == old:
            return
        with_data = False
        if n == 0:
            data = self.find(old, e["op"], e["old_raw"], 0, ("open",), scan=False)
            flush = self.find(old, e["op"], None, 0, ("open",))
            piece = (data or flush) if e["old_raw"] else (flush or data)
            piece = piece or self.find(old, e["op"], None, 0, ("issued",))
            with_data = piece is not None and piece.start is not None
        else:
            piece = self.find(old, e["op"], old_sector, n, ("open", "issued"))
            if piece is not None and piece.start is not None and piece.start > old_sector:
                piece = None
        if piece is not None and n and piece.start is not None:
            if piece.start < old_sector:
                piece.io.splits += 1
                piece = self.cut(piece, old_sector)
            if piece.end > old_sector + n:
                piece.io.splits += 1
                self.cut(piece, old_sector + n)
        elif piece is None:
            if old not in self.queued:
                return
            io = Io(e["old_dev"], old, e["op"], old_sector, n, n * SIZE, pid=e["pid"], left=n)
            self.name(io, e["ts"])
            piece = Piece(io, old, old_sector, (old_sector or 0) + n, "open")
            self.pieces.append(piece)
        if not with_data:
            piece.state = "issued"
            if piece.d is None:
                piece.d = e["ts"]
        above = piece.io
        if there := self.find(e["disk"], e["op"], e["sector"], n, ("pending",), scan=False):
            self.close(there.io, "broken")
        io = Io(e["dev"], e["disk"], e["op"], e["sector"], n, n * SIZE, pid=e["pid"], left=n, q=e["ts"])
        io.parent, io.root, io.layer, io.root_pid = above, above.root, above.layer + 1, above.root_pid
        self.pieces.append(Piece(io, e["disk"], e["sector"], (e["sector"] or 0) + n, "pending"))

    def bio_complete(self, e: dict[str, Any]) -> None:
        """A bio is complete when its end is."""
        if e["sector"] is not None:
            piece = self.find(e["disk"], e["op"], e["sector"], e["n"], ("issued", "open", "pending"))
            if piece is not None:
                self.promote(piece, e)
                io = piece.io
                if (piece.start or 0) <= e["sector"] and (io.sector or 0) + io.sectors == e["sector"] + e["n"]:
                    self.completed(io, io.left, e)
                    return
        self.request(e, "complete")

    # -------------------------------------------------- requests
    def promote(self, piece: Piece, e: dict[str, Any]) -> None:
        """A remapped bio that was not queued again."""
        if piece.state == "pending":
            piece.state = "open"
            piece.io.carries = True
            piece.io.dev = e["dev"]
            self.name(piece.io, e["ts"])

    def unseen(self, e: dict[str, Any], start: int | None, end: int, what: str) -> Io:
        """An I/O whose queue event was not seen."""
        n = end - start if start is not None else 0
        size = n * SIZE if start is not None else e["bytes"]
        io = Io(e["dev"], e["disk"], e["op"], start, n, size, pid=e["pid"], left=n)
        self.name(io, e["ts"])
        if what == "issue":
            self.pieces.append(Piece(io, e["disk"], start, end, "issued", e["ts"]))
        else:
            io.left, io.c, io.error = 0, e["ts"], e["error"]
            self.close(io, "")
        return io

    def request(self, e: dict[str, Any], what: str) -> None:
        """An event of a request, for each piece in it."""
        states = {"issue": ("open", "pending", "issued"), "insert": ("open", "pending")}.get(
            what, ("issued", "open", "pending")
        )
        at = e["sector"]
        if at is None:
            piece = self.find(e["disk"], e["op"], None, 0, states)
            if piece is not None:
                self.promote(piece, e)
                self.touch(piece, e, what, 0)
            elif what in ("issue", "complete"):
                self.unseen(e, None, 0, what)
            return
        end = at + e["n"]
        head: Io | None = None
        while at < end:
            piece = self.find(e["disk"], e["op"], at, end - at, states)
            start = end if piece is None or piece.start is None else piece.start
            if start > at:
                if what == "issue":
                    io = self.unseen(e, at, start, what)
                    if head is None:
                        head = io
                    else:
                        io.merged_into = head.number
                elif what == "complete":
                    if piece is None and self.append(e):
                        return
                    self.unseen(e, at, start, what)
                at = start
                continue
            assert piece is not None
            self.promote(piece, e)
            if what in ("issue", "complete") and start < at:
                piece.io.splits += what == "issue"
                piece = self.cut(piece, at)
            if what == "issue" and piece.end > end:
                piece.io.splits += 1
                self.cut(piece, end)
            at = piece.end
            if what in ("issue", "join"):
                if head is None:
                    head = piece.io
                elif piece.io is not head and piece.io.merged_into is None:
                    piece.io.merged_into = head.number
                    head.merges += 1
            self.touch(piece, e, what, end)

    def append(self, e: dict[str, Any]) -> bool:
        """A zone append ends at a sector of its own."""
        fits = [
            p
            for p in self.pieces
            if e["op"] == p.io.op == "ZA"
            and p.disk == e["disk"]
            and p.state == "issued"
            and p.start is not None
            and p.end - p.start == e["n"]
            and p.start <= e["sector"]
        ]
        if fits:
            piece = min(fits, key=lambda p: p.io.number)
            self.touch(piece, e, "complete", piece.end)
        return bool(fits)

    def touch(self, piece: Piece, e: dict[str, Any], what: str, end: int) -> None:
        """An event reaches a piece."""
        io = piece.io
        if what == "issue":
            io.requeues += piece.state == "issued"
            piece.state, piece.d = "issued", e["ts"]
        elif what == "insert":
            io.i = e["ts"] if io.i is None else io.i
        elif what == "requeue":
            io.requeues += 1
            piece.state, piece.d = "open", None
        elif what == "error":
            io.error = io.error or e["error"]
        elif what == "complete":
            if piece.d is not None:
                io.d = piece.d if io.d is None else min(io.d, piece.d)
            done = piece.end - piece.start if piece.start is not None else 0
            if piece.start is not None and piece.end > end:
                done = end - piece.start
                piece.start = end
            else:
                self.pieces.remove(piece)
            self.completed(io, done, e)

    def completed(self, io: Io | None, sectors: int, e: dict[str, Any]) -> None:
        """Sectors are complete, also of the I/O above that is the same bio."""
        while io is not None:
            io.left -= sectors
            io.c = e["ts"]
            io.error = io.error or e["error"]
            above = io.parent if io.parent is not None and not io.parent.ended else None
            if above is not None and io.left <= 0:
                above.below = e["ts"]
            above = above if io.carries else None
            if io.left <= 0:
                self.close(io, "complete")
            io = above

    def event(self, e: dict[str, Any]) -> None:
        """One event."""
        for t in self.losses:
            if t <= e["ts"]:
                self.lost_until = t
        kind = e["kind"]
        if kind in ("queue", "split", "remap"):
            getattr(self, kind)(e)
        elif kind == "bio_complete" or (kind == "complete" and e["disk"] in self.stacked):
            self.bio_complete(e)
        elif kind == "complete":
            if e["disk"] not in self.issued:
                self.request(e, "join")
            self.request(e, "complete")
        elif kind in ("insert", "issue", "requeue", "error"):
            self.request(e, kind)

    def finish(self) -> None:
        """The trace ends."""
        for io in dict.fromkeys(p.io for p in self.pieces):
            broken = self.lost_until is not None and io.seen < self.lost_until
            self.close(io, "broken" if broken else "right_censored")


def slow_io(
    events: list[dict[str, Any]], disk_of: dict[int, int] | None = None, losses: list[int] | None = None
) -> list[dict[str, Any]]:
    """I/Os of bio events (dicts by column), by id. ``losses``: ends of gaps."""
    disks = disk_of or {}
    plain = [_plain(e, disks) for e in events if e.get("dev") is not None]
    follower = Follower(
        queued={e["disk"] for e in plain if e["kind"] == "queue"},
        issued={e["disk"] for e in plain if e["kind"] == "issue"},
        stacked={e["old_disk"] for e in plain if e["kind"] == "remap" and e["old_disk"] != e["disk"]}
        & {e["disk"] for e in plain if e["kind"] == "queue"},
        losses=sorted(losses or []),
    )
    for e in plain:
        follower.event(e)
    follower.finish()
    return sorted(follower.rows, key=lambda r: r["id"])


def _plain(e: dict[str, Any], disks: dict[int, int]) -> dict[str, Any]:
    sector, n, size = e.get("sector"), e.get("nr_sectors"), e.get("nr_bytes") or 0
    n = size >> 9 if n is None else n
    sector = None if sector is not None and sector > 1 << 56 else sector
    if e["kind"] != "split" and (sector is None or n == 0):
        sector, n = None, 0
    old = e.get("old_dev")
    return {
        "ts": e["ts_ns"],
        "kind": e["kind"],
        "dev": e["dev"],
        "disk": disks.get(e["dev"], e["dev"]),
        "sector": sector,
        "n": n,
        "bytes": size or (e.get("nr_sectors") or 0) * SIZE,
        "op": e.get("op"),
        "pid": e.get("pid") or 0,
        "error": e.get("error") or 0,
        "new_sector": e.get("new_sector") or 0,
        "old_dev": old,
        "old_disk": disks.get(old, old) if old is not None else None,
        "old_sector": None if n == 0 else e.get("old_sector"),
        "old_raw": e.get("old_sector") or 0,
    }
