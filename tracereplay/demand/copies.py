"""A demand stream laid over itself: N copies of it, later by some time each, on CPUs and with keys of their own.

Copy 0 is the stream itself. Copy k comes later by an offset drawn evenly, with a seed, from the first
``SPREAD`` of the stream's duration: copies overlap nearly throughout and are not in step. Its CPUs are numbered behind
those of the copies before it, and so are its keys. Pages that were in use before the trace began are freed N times: the
machine takes others that are in use for those that are gone.

Reconstruction runs once, into a spool; each copy reads it at its own place. So memory does not grow with the trace.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np

from tracereplay.demand.spool import I64, Ops, Spool
from tracereplay.demand.stream import BIO_NUMBERS, FREE_INITIAL, PIECE, DemandInfo, DemandReport, DemandStream
from tracereplay.errors import ParameterError

MOST_COPIES = 128
SPREAD = 0.1
"""Share of the stream's duration over which the starts of copies are spread."""
MOST_KEYS = (1 << 31) - 1
WINDOW_OPS = 1 << 17
"""Operations that are put together at once, about."""
LEAST_OPS = 256
"""Operations of a copy that are read at once, at least."""


class CopiedDemand:
    """N copies of a demand stream, as one. ``report`` is that of all copies, but its accounting is the trace's."""

    def __init__(self, stream: DemandStream, copies: int, *, cpus: int, seed: int) -> None:
        """``cpus``: of the machine of one copy. Reads the whole stream, unless it is a Spool.

        Raises ParameterError (more copies than there is room for in keys or copies), StorageError (no room on disk).
        """
        info = stream.info
        self.copies, self.cpus = copies, cpus
        if not 1 <= copies <= MOST_COPIES:
            raise ParameterError(f"{copies} copies of a demand", hint=f"1 to {MOST_COPIES}")
        if info.frames * copies > MOST_KEYS:
            raise ParameterError(
                f"{copies} copies of {info.frames} frames are more than can be replayed",
                hint=f"at most {MOST_KEYS // info.frames} copies of this trace",
            )
        duration = info.end_ns - info.start_ns
        later = np.random.default_rng([seed, copies]).integers(0, max(int(duration * SPREAD), 1), copies)
        later[0] = 0
        self.offsets_ns: list[int] = later.tolist()
        end_ns = info.end_ns + max(self.offsets_ns)
        self.info = DemandInfo(info.frames * copies, info.recorded_frames, cpus * copies, info.start_ns, end_ns)
        self._one = stream if isinstance(stream, Spool) else Spool(stream)
        self.report = _times(self._one.report, copies)

    def most_live(self) -> int:
        """Pages by which those in use exceed the number at the start, at most; rather too many than too few."""
        return self._one.live.together(self.offsets_ns)

    def __iter__(self) -> Iterator[Ops]:
        """Batches of OP records in replay order: by time, at one time by copy."""
        done = [0] * self.copies
        while any(n < len(self._one) for n in done):
            times, counts = self._window(done)
            merged = np.concatenate([self._copy(k, self._one.read(done[k], n)) for k, n in enumerate(counts)])
            done = [before + n for before, n in zip(done, counts, strict=True)]
            yield merged[np.argsort(np.concatenate(times), kind="stable")]

    def _window(self, done: list[int]) -> tuple[list[I64], list[int]]:
        """What comes next of each copy: times, and how many operations. Those of one time stay together."""
        share = max(WINDOW_OPS // self.copies, LEAST_OPS)
        while True:
            times = [self._one.times(n, share) + later for n, later in zip(done, self.offsets_ns, strict=True)]
            unread = [int(t[-1]) for t, n in zip(times, done, strict=True) if n + len(t) < len(self._one)]
            if not unread:
                return times, [len(t) for t in times]
            counts = [int(np.searchsorted(t, min(unread), side="left")) for t in times]
            if any(counts):
                return [t[:n] for t, n in zip(times, counts, strict=True)], counts
            share *= 2

    def _copy(self, k: int, ops: Ops) -> Ops:
        """Operations as those of copy ``k``."""
        made = ops.copy()
        made["ts_ns"] += self.offsets_ns[k]
        made["cpu"] = made["cpu"] % self.cpus + k * self.cpus
        piece = made["kind"] == PIECE  # its key is the number of a bio
        moved = (piece | (made["kind"] == FREE_INITIAL)) == 0
        made["pfn"][moved] += np.int32(k * self._one.info.frames)
        made["pfn"][piece] = (made["pfn"][piece].astype(np.int64) * self.copies + k) % BIO_NUMBERS
        return made

    def to_json(self) -> dict[str, Any]:
        """What a result says of the copies."""
        return {"copies": self.copies, "cpus_each": self.cpus, "offsets_ns": self.offsets_ns}


def _times(report: DemandReport, copies: int) -> DemandReport:
    """A report of so many copies; its accounting stays the trace's, since events were recorded once."""
    by_caller = [
        row
        | {"requests": row["requests"] * copies, "pages": row["pages"] * copies}
        | {"sizes": {size: n * copies for size, n in row["sizes"].items()}}
        for row in report.by_caller
    ]
    return replace(
        report,
        requests=report.requests * copies,
        pages=report.pages * copies,
        targeted_requests=report.targeted_requests * copies,
        targeted_pages=report.targeted_pages * copies,
        by_caller=by_caller,
    )
