"""A demand stream written down once and read any number of times, by several threads at once.

It lies in a file without a name in the directory for temporary files, 32 bytes an operation (40 once copies are made
of it), and is gone when nobody reads it any more, whatever ends the process. Memory does not grow with the trace.
"""

from __future__ import annotations

import os
import tempfile
import threading
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tracereplay.demand.stream import ALLOC, OP, PIECE, DemandInfo, DemandReport, DemandStream
from tracereplay.errors import StorageError

LIVE_BINS = 4096
"""Parts of the duration for which the most pages in use are kept."""

Ops = np.ndarray[tuple[int], np.dtype[np.void]]
I64 = npt.NDArray[np.int64]


class Spool:
    """A stream on disk, itself a demand stream: it gives the same batches, as often as it is asked."""

    def __init__(self, stream: DemandStream, step: Callable[[], None] = lambda: None) -> None:
        """Reads the whole stream; ``step`` is called with each batch, and may raise to end it.

        Raises what the stream raises, and StorageError where there is no room on the disk.
        """
        self.info: DemandInfo = stream.info
        self.path: Any = getattr(stream, "path", None)
        """The path in use of a reconstruction (demand/path_layer.py), or None."""
        self._ends: list[int] = []
        self._lock = threading.Lock()
        self._live: Live | None = None
        self._times: Rows | None = None
        with written(OP.itemsize):
            self._ops = Rows(OP)
            for batch in stream:
                step()
                if len(batch):
                    self._ops.write(batch)
                    self._ends.append(len(self._ops))
        self.report: DemandReport = stream.report

    def __len__(self) -> int:
        """Operations."""
        return len(self._ops)

    def __iter__(self) -> Iterator[Ops]:
        """Its batches of OP records."""
        first = 0
        for end in self._ends:
            yield self._ops.read(first, end - first)
            first = end

    def read(self, first: int, n: int) -> Ops:
        """Up to ``n`` operations from one on."""
        return self._ops.read(first, n)

    def times(self, first: int, n: int) -> I64:
        """Their times, never going back: where the stream does, the latest time yet counts."""
        return self._timed()[0].read(first, n)

    @property
    def live(self) -> Live:
        """Pages in use by time."""
        return self._timed()[1]

    def _timed(self) -> tuple[Rows, Live]:
        """What only copies need, made when it is first asked for."""
        with self._lock:
            if self._times is None or self._live is None:
                live, latest = Live(self.info), self.info.start_ns
                with written(8):
                    rows = Rows(np.dtype(np.int64))
                    for batch in self:
                        times = np.maximum(np.maximum.accumulate(batch["ts_ns"]), latest)
                        latest = int(times[-1])
                        live.add(batch, times)
                        rows.write(times)
                self._times, self._live = rows, live
            return self._times, self._live


class written:  # noqa: N801  (reads as a statement)
    """Where the disk refuses an operation's bytes, say so by name."""

    def __init__(self, width: int) -> None:
        self._width = width

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, OSError):
            raise StorageError(
                f"a demand that is read more than once needs {self._width} bytes an operation in "
                f"{tempfile.gettempdir()}: {error.strerror}",
                hint="set TMPDIR to a directory on a larger disk",
            ) from error


class Rows:
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
        rows = np.empty(min(n, self._n - first), self._kind)  # writable: compiled code is another for read-only arrays
        room, at = memoryview(rows.view(np.uint8).data), first * self._kind.itemsize
        while len(room) and (got := os.preadv(self._file, [room], at)):
            room, at = room[got:], at + got
        return rows


class Live:
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
