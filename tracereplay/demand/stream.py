"""The demand stream: the contract between reconstruction (demand/) and replay.

A stream is an iterator of NumPy arrays of :data:`OP` records in replay order. Memory does not grow with the trace:
producers and consumers hold one batch at a time.

*Requests.* A request is one or more consecutive ``ALLOC`` records, its *extents*: the blocks in which the recorded
kernel served it. The first extent carries ``FIRST`` and the total of pages; ``ts_ns cpu gfp caller flags`` are equal
in all extents. A request never straddles two batches and has at most MAX_REQUEST_PAGES pages.

*Keys.* ``pfn`` is the recorded frame, used as a key only: replay maps each page of the request (extents in order,
pages ascending) to the block that the strategy gave. Bios and synthetic requests use keys at and above the recorded
frames, see ``DemandInfo.frames``.

*Releases.* ``FREE`` gives back ``2^order`` pages by key; every one of them is live at that point of the stream.
Pages of a request may come back in any number of pieces. ``FREE_INITIAL`` gives back a page that was in use before
the trace began (left-censored): the machine's initial state holds it at that very frame.

*Bios.* A request with OF_BIO belongs to one WRITE bio. It is the whole of it, unless a ``PIECE`` record stands before
it: then it is a piece of bio number ``pfn``, of which ``pages`` pieces are still to come as far as is known by then.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, fields
from typing import Any, Protocol

import numpy as np

OP = np.dtype(
    [
        ("ts_ns", np.int64),
        ("pfn", np.int32),  # key; frames up to 2^31 (8 TiB of 4 KiB pages)
        ("gfp", np.uint32),
        ("pages", np.int32),  # total of the request on its FIRST extent, else 0
        ("caller", np.int32),  # index into DemandReport.callers; of a load -1 less its index into DemandReport.loads
        ("cpu", np.int16),
        ("flags", np.uint16),
        ("kind", np.uint8),
        ("order", np.uint8),
        ("migratetype", np.uint8),
        ("reserved", np.uint8),
    ],
    align=True,
)
assert OP.itemsize == 32

# OP.kind
ALLOC = 1
FREE = 2
FREE_INITIAL = 3
PIECE = 4

# OP.flags of a request
FIRST = 1
REQUIRED = 2
"""Contiguity: the caller needs the extent as one block (an order-k request of an unknown caller). Else: none."""
BATCH = 4
"""At least two pages recognised as one caller's batch: the default target."""
UNSEEN = 8
"""Inferred: no allocation event was seen (bulk allocator, capture's blind spots). Never targeted by default."""
FROM_BIO = 16
"""Made from a bio through a path."""
TARGETED = 32
"""Set by the target selector: the strategy serves it. Requests without it go through the machine as recorded."""
ON_PATH = 64
"""Reserves, quota, mutex and gfp passes of the chosen path apply."""
SYNTHETIC = 128
"""Of a load (``--load``): no event stands behind it."""

OF_BIO = 256
"""Known to be for one WRITE bio, or for a piece of it: made from it, or matched with it."""

MAX_REQUEST_PAGES = 16384
BIO_NUMBERS = (1 << 31) - 1
"""Numbers of bios are below this. One may come again once all pieces of its bio were freed."""


@dataclass(frozen=True, slots=True)
class DemandInfo:
    """What a consumer must know before the first batch."""

    frames: int
    """Keys in the stream are below this (exclusive): recorded frames, then keys made for bios."""
    recorded_frames: int
    """Frames of the recorded host seen in the trace (exclusive upper bound)."""
    cpus: int
    """CPU numbers in the stream are below this."""
    start_ns: int
    end_ns: int


@dataclass(slots=True)
class Accounting:
    """Where every event went. Identities are checked by tests: nothing is counted twice or dropped."""

    events: int = 0
    """Rows of page_events in the trace."""
    matched: int = 0
    """Free events whose pages were all live."""
    unmatched_frees: int = 0
    """Free events without (all of) their allocation: left-censored and unseen ones."""
    left_censored: int = 0
    """First frees of frames never seen before: pages alive when the trace began."""
    right_censored: int = 0
    """Allocations still live at the end of the trace."""
    lost: int | None = 0
    """Events the trace says it lost; None: it lost some and does not say how many."""
    loss_intervals: int = 0
    unseen_pages: int = 0
    """Pages inferred to have been allocated without an event."""
    reused: int = 0
    """Allocations of a frame still believed live: its free was not seen."""
    failed: int = 0
    """Failed allocations recorded."""
    ignored: dict[str, int] = field(default_factory=dict)
    """Events that change no demand, by kind (free_batched, zone_locked, drain, extfrag)."""

    allocations: int = 0
    """Successful allocations recorded."""
    frees: int = 0
    """Free events. frees = matched + unmatched_frees; unmatched_frees = left_censored + unseen_frees + lost_frees."""
    unseen_frees: int = 0
    """Frees that prove an allocation nobody saw, with no loss in between."""
    lost_frees: int = 0
    """The same with events lost in between: attributed to the loss."""
    malformed: int = 0
    """Events with an order or frame that no allocator has. events = allocations + failed + frees + ignored +
    malformed."""
    allocated_pages: int = 0
    """allocated_pages + left_censored_pages = matched_pages + left_censored_pages + reused_pages +
    right_censored_pages; unseen and lost pages are allocated and freed at once."""
    matched_pages: int = 0
    left_censored_pages: int = 0
    lost_pages: int = 0
    """Like ``unseen_pages``, with events lost in between."""
    reused_pages: int = 0
    """Pages believed live that were allocated again."""
    reused_lost: int = 0
    """Like ``reused``, with events lost in between."""
    right_censored_pages: int = 0
    partial_frees: int = 0
    """Frees of part of a block."""
    covering_frees: int = 0
    """Frees of several blocks at once."""
    failed_requests: int = 0
    """Bursts in which every attempt failed: no request."""
    second_keys: int = 0
    """Blocks whose frame was still held when their request arrived: keyed above the recorded frames."""
    boundaries: dict[str, int] = field(default_factory=dict)
    """How bursts ended: gap, action, class, order, limit, loss, age, forced (memory bound), key, bio."""
    snapshots: dict[str, int] | None = None
    """Reconciliation with vmstat where snapshots exist."""
    unseen: dict[str, Any] | None = None
    """Pages allocated without an event by vmstat's count (``tracereplay.trace.unseen``): ``unseen_pages`` (None with
    a ``reason``: not known), ``noise_pages`` and what they are reckoned from; None: no snapshots. Unlike
    ``unseen_pages`` above, which is inferred from frees, it holds pages that are never freed in the trace too."""


@dataclass(slots=True)
class DemandReport:
    """What reconstruction found; complete once the stream is exhausted."""

    requests: int = 0
    pages: int = 0
    targeted_requests: int = 0
    targeted_pages: int = 0
    callers: list[str] = field(default_factory=list)
    """Caller labels; ``OP.caller`` indexes them."""
    accounting: Accounting = field(default_factory=Accounting)
    by_caller: list[dict[str, Any]] = field(default_factory=list)
    """``caller requests pages sizes`` (pages -> requests), by pages."""
    bios: dict[str, Any] = field(default_factory=dict)
    """``writes`` on dm-crypt's devices, ``matched`` by requests of the same sizes, and more."""
    thresholds: dict[str, Any] = field(default_factory=dict)
    """Gap thresholds between bursts and how they were found."""
    path: dict[str, Any] | None = None
    target: str = ""
    loads: list[dict[str, Any]] = field(default_factory=list)
    """Loads put into the stream: ``caller requests pages parameters``. They are in the totals and in ``by_caller``."""
    rate: float = 1.0
    """So many times as fast as recorded do the stream's operations follow each other (rate.py)."""
    request_pages: int | None = None
    """Most pages of a targeted request that needs no one block, where larger ones were cut (request_pages.py)."""

    def take(self, report: DemandReport) -> None:
        """Become a copy of another report, to be changed apart from it."""
        for field_ in fields(self):
            value = getattr(report, field_.name)
            if isinstance(value, list):
                value = [dict(row) if isinstance(row, dict) else row for row in value]
            setattr(self, field_.name, value)


class DemandStream(Protocol):
    """Iterate once; read ``report`` after that."""

    info: DemandInfo
    report: DemandReport

    def __iter__(self) -> Iterator[np.ndarray[tuple[int], np.dtype[np.void]]]: ...
