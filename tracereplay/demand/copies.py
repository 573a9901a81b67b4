"""A demand stream laid over itself: N copies of it, later by some time each, on CPUs and with keys of their own.

Copy 0 is the stream itself. Copy k comes later by an offset drawn evenly, with a seed, from the first
``SPREAD`` of the stream's duration: copies overlap nearly throughout and are not in step. Its CPUs are numbered behind
those of the copies before it, and so are its keys. Pages that were in use before the trace began are freed N times: the
machine takes others that are in use for those that are gone.

Reconstruction runs once, into a file without a name, 40 bytes an operation; each copy reads it at its own place. So
memory does not grow with the trace.
"""

from __future__ import annotations

import os
import tempfile
import weakref
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tracereplay.demand.stream import ALLOC, FREE_INITIAL, OP, PIECE, DemandInfo, DemandReport, DemandStream
from tracereplay.errors import ParameterError, StorageError

MOST_COPIES = 128
SPREAD = 0.1
"""Share of the stream's duration over which the starts of copies are spread."""
MOST_KEYS = (1 << 31) - 1
WINDOW_OPS = 1 << 17
"""Operations that are put together at once, about."""
LEAST_OPS = 256
"""Operations of a copy that are read at once, at least."""
LIVE_BINS = 4096
"""Parts of the duration for which the most pages in use are kept."""

Ops = np.ndarray[tuple[int], np.dtype[np.void]]
I64 = npt.NDArray[np.int64]


class CopiedDemand:
    """N copies of a demand stream, as one. ``report`` is that of all copies, but its accounting is the trace's."""

    def __init__(self, stream: DemandStream, copies: int, *, cpus: int, seed: int) -> None:
        """``cpus``: of the machine of one copy. Reads the whole stream.

        Raises ParameterError (more copies than there is room for in keys or copies), StorageError (no room on disk).
        """
        info = stream.info
        self.copies, self.cpus = copies, cpus
        self._one = info
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
        self._live = _Live(info)
        try:
            self._ops, self._times = _Rows(OP), _Rows(np.dtype(np.int64))
            self._spool(stream)
        except OSError as error:
            room = f"{OP.itemsize + 8} bytes an operation in {tempfile.gettempdir()}"
            raise StorageError(
                f"copies of a demand need {room}: {error.strerror}",
                hint="set TMPDIR to a directory on a larger disk",
            ) from error
        self.report = _times(stream.report, copies)

    def _spool(self, stream: DemandStream) -> None:
        """Write the stream down."""
        latest = self._one.start_ns
        for batch in stream:
            if not len(batch):
                continue
            # where a batch goes back in time, its latest yet counts: the order of the stream stays
            times = np.maximum(np.maximum.accumulate(batch["ts_ns"]), latest)
            latest = int(times[-1])
            self._live.add(batch, times)
            self._ops.write(batch)
            self._times.write(times)

    def most_live(self) -> int:
        """Pages by which those in use exceed the number at the start, at most; rather too many than too few."""
        return self._live.together(self.offsets_ns)

    def __iter__(self) -> Iterator[Ops]:
        """Batches of OP records in replay order: by time, at one time by copy."""
        done = [0] * self.copies
        while any(n < len(self._ops) for n in done):
            times, counts = self._window(done)
            merged = np.concatenate([self._copy(k, self._ops.read(done[k], n)) for k, n in enumerate(counts)])
            done = [before + n for before, n in zip(done, counts, strict=True)]
            yield merged[np.argsort(np.concatenate(times), kind="stable")]

    def _window(self, done: list[int]) -> tuple[list[I64], list[int]]:
        """What comes next of each copy: times, and how many operations. Those of one time stay together."""
        share = max(WINDOW_OPS // self.copies, LEAST_OPS)
        while True:
            times = [self._times.read(n, share) + later for n, later in zip(done, self.offsets_ns, strict=True)]
            unread = [int(t[-1]) for t, n in zip(times, done, strict=True) if n + len(t) < len(self._ops)]
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
        made["pfn"] += np.where(made["kind"] == FREE_INITIAL, 0, k * self._one.frames).astype(np.int32)
        return made

    def to_json(self) -> dict[str, Any]:
        """What a result says of the copies."""
        return {"copies": self.copies, "cpus_each": self.cpus, "offsets_ns": self.offsets_ns}


class _Rows:
    """Records in a file without a name."""

    def __init__(self, kind: np.dtype[Any]) -> None:
        self._kind = kind
        self._n = 0
        self._file, name = tempfile.mkstemp(prefix="tracereplay-")
        Path(name).unlink()
        weakref.finalize(self, os.close, self._file)

    def __len__(self) -> int:
        return self._n

    def write(self, rows: np.ndarray[Any, Any]) -> None:
        """Append records."""
        data = memoryview(np.ascontiguousarray(rows).view(np.uint8).data)
        while len(data):
            data = data[os.write(self._file, data) :]
        self._n += len(rows)

    def read(self, first: int, n: int) -> np.ndarray[Any, Any]:
        """Up to ``n`` records from one on."""
        size = self._kind.itemsize
        return np.frombuffer(os.pread(self._file, min(n, self._n - first) * size, first * size), self._kind)


class _Live:
    """Pages in use by time, against the number at the start: the most in each of LIVE_BINS parts of the duration."""

    def __init__(self, info: DemandInfo) -> None:
        self._start = info.start_ns
        self._bin_ns = max(1, -(-(info.end_ns - info.start_ns + 1) // LIVE_BINS))
        self._most = np.full(LIVE_BINS, np.iinfo(np.int64).min)
        self._now = 0

    def add(self, ops: Ops, times: I64) -> None:
        """Operations in their order, and their times."""
        pages = np.where(ops["kind"] == PIECE, 0, np.int64(1) << ops["order"].astype(np.int64))
        live = self._now + np.cumsum(np.where(ops["kind"] == ALLOC, pages, -pages))
        bins = np.clip((times - self._start) // self._bin_ns, 0, LIVE_BINS - 1)
        np.maximum.at(self._most, bins, live)
        self._now = int(live[-1])

    def together(self, offsets_ns: list[int]) -> int:
        """The most of copies that begin so much later."""
        most = self._most.copy()
        carried = 0
        for i in range(LIVE_BINS):  # a part without operations goes on as the one before it ended, at most
            carried = most[i] = carried if most[i] == np.iinfo(np.int64).min else most[i]
        shifts = [offset // self._bin_ns for offset in offsets_ns]
        whole = np.zeros(LIVE_BINS + max(shifts) + 2, np.int64)
        for shift in shifts:  # a part reaches into two of those of copy 0
            padded = np.concatenate([np.zeros(1, np.int64), most, [most[-1]]])
            either = np.maximum(padded[:-1], padded[1:])
            whole[shift : shift + LIVE_BINS + 1] += either
            whole[shift + LIVE_BINS + 1 :] += either[-1]
        return int(whole.max(initial=0))


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
