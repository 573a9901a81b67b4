"""How many I/Os devices have in flight: the driver of the compiled pass."""

# mypy: disable-error-code="no-untyped-call"

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc

from tracereplay.analysis import in_flight_pass as fp
from tracereplay.analysis.amounts import time_bin
from tracereplay.analysis.bio_stage import MAX_SECTOR, READS, stage_of
from tracereplay.analysis.view import View
from tracereplay.demand.layers import disks_of
from tracereplay.demand.opening import losses
from tracereplay.errors import EmptyTraceError, UsageError
from tracereplay.trace.schema import BIO_KINDS

I64 = npt.NDArray[np.int64]
_COLUMNS = ["ts_ns", "kind", "dev", "sector", "nr_sectors", "op"]
_CODE = {kind: code for code, kind in enumerate(BIO_KINDS)}
_MOST_ENTRIES = 1 << 20
_MOST_ROOM = 1 << 13
_ROWS = 1 << 16
_COUNTERS = ("unmatched_completions", "evicted", "reissued", "ended", "open_at_loss")


@dataclass(frozen=True)
class Devices:
    """Whose I/Os can be followed from one stage to their completion."""

    start: str
    """``issue`` or ``queue``."""
    numbers: list[int]
    """Whole devices, ascending."""
    by_bio: frozenset[int]
    """Those whose completions are told by bio."""
    disk_of: dict[int, int]
    """Partitions."""
    left_out: list[int]
    """Devices with I/Os, but without their starts or ends."""

    def meaning(self, device: int) -> dict[str, int]:
        """What an event of each kind does on a device."""
        if self.start == "issue":
            return {"issue": fp.RESTART, "requeue": fp.CANCEL, "complete": fp.END_PART}
        if device in self.by_bio:
            return {"queue": fp.START, "bio_complete": fp.END_WHOLE}
        return {"queue": fp.START, "complete": fp.END_PART}


def devices_in_flight(view: View, at: str) -> Devices:
    """Devices that can be followed from ``issue`` or ``queue``; ``auto``: from issue where any can.

    Raises EmptyTraceError when none can, UsageError when none can from the stage asked for.
    """
    recorded = stage_of(view, "auto").recorded
    kinds = {device: set(found) for device, found in recorded.kinds.items()}
    above = {upper for upper, lower in recorded.remaps if upper != lower}
    served = {"issue", "complete", "bio_complete"}
    alone = {d for d, k in kinds.items() if "queue" in k and not k & served and d not in above}
    disk_of = disks_of(view.trace.bio_events, alone) if alone else {}
    for part, disk in disk_of.items():
        kinds.setdefault(disk, set()).update(kinds.pop(part))
    ends = {
        "issue": {d for d, k in kinds.items() if {"issue", "complete"} <= k},
        "queue": {d for d, k in kinds.items() if "queue" in k and k & {"complete", "bio_complete"}},
    }
    chosen = set(view.selection.device)
    best = [s for s in ("issue", "queue") if ends[s] & chosen] + [s for s in ("issue", "queue") if ends[s]]
    start = (best[0] if best else "") if at == "auto" else at
    if not start:
        raise EmptyTraceError(
            "no device has both starts and completions of I/Os in this trace",
            hint="record them with: tracereplay capture --events bio",
        )
    if not ends[start]:
        other = next((s for s in ends if ends[s]), None)
        raise UsageError(
            f"no device has both {start} and completion events in this trace",
            hint=f"it can be asked with: --set at={other}" if other else "tracereplay info shows its events",
        )
    numbers = sorted(d for d in ends[start] if not chosen or d in chosen)
    by_bio = frozenset(d for d in numbers if "bio_complete" in kinds[d])
    begun = [d for d, k in kinds.items() if k & {"queue", "issue"} and (not chosen or d in chosen)]
    left = sorted(d for d in begun if d not in ends[start])
    return Devices(start, numbers, by_bio, disk_of, left)


class InFlight:
    """One pass over a trace's block events, from its start, so that what is in flight when the view begins is known.

    Memory: the I/Os in flight, and the bins of ``bin`` (None: one) of each device. Iterate over :meth:`ended` to its
    end, then read the rest. Raises as :func:`devices_in_flight`, UsageError for a bin that is none or too short.
    """

    def __init__(self, view: View, at: str, bin: str | None = None) -> None:
        self.devices = devices_in_flight(view, at)
        span = max(1, view.end_ns - view.start_ns)
        self.width_ns = span if bin is None else time_bin(bin, span, bins=100, series=len(self.devices.numbers))
        self.bins = -(-span // self.width_ns)
        self._view = view
        self._ops: dict[str | None, int] = {}
        self._longest = np.zeros(len(self.devices.numbers), np.int64)
        self._unended: I64 = np.zeros((0, 3), np.int64)
        self._losses = np.unique(losses(view.trace, "bio_events")[1])
        self._state = self._empty()
        self.open_at_end = 0
        """I/Os in flight at the view's end, or the trace's."""

    def _empty(self) -> fp.Flight:
        view, n = self._view, max(1, len(self.devices.numbers))
        room = max(64, min(_MOST_ROOM, _MOST_ENTRIES // n))
        bounds = [view.start_ns, view.end_ns, self.width_ns, self.bins, room]
        return fp.Flight(
            entries=np.zeros(n * room * fp.ENTRY, np.int64),
            device=np.zeros(n * fp.DEVICE_COLUMNS, np.int64),
            held=np.zeros(n * fp.MOST_DEPTH, np.int64),
            area=np.zeros(n * self.bins, np.int64),
            peak=np.zeros(n * self.bins, np.int64),
            bounds=np.array(bounds, np.int64),
            losses=self._losses,
            counts=np.zeros(fp.COUNTS, np.int64),
            out=np.zeros((_ROWS + room) * fp.OUT, np.int64),
        )

    def ended(self) -> Iterator[pl.DataFrame]:
        """I/Os that ended in the view: ``dev start_ns latency_ns depth op``; ``depth``: others in flight at its start.

        Those whose completion was not recorded, although the I/Os around them ended, count as depth unless
        :meth:`drain` went before.
        """
        view = self._view
        state = self._state = self._empty()
        ops: list[str | None] = []
        for batch in view.trace.batches("bio_events", _COLUMNS):
            ts = batch.column(0).to_numpy()
            batch = batch.slice(0, int(np.searchsorted(ts, view.end_ns)))
            events = self._events(batch)
            ops = list(self._ops)
            row = 0
            while row < batch.num_rows:
                row, ended = fp.follow(state, *events, row)
                out = state.out[: ended * fp.OUT].reshape(-1, fp.OUT)
                np.maximum.at(self._longest, out[:, fp.OUT_DEVICE], out[:, fp.OUT_END] - out[:, fp.OUT_START])
                yield self._frame(out, ops)
            if batch.num_rows < len(ts):
                break
        self.open_at_end = int(fp.finish(state))

    def _events(self, batch: pa.RecordBatch) -> tuple[I64, I64, I64, I64, I64, I64]:
        ts, kind, dev, sector, sectors, op = batch.columns
        numbers = np.array(self.devices.numbers, np.int64)
        raw = pc.fill_null(dev.cast(pa.int64()), -1).to_numpy()
        for part, disk in self.devices.disk_of.items():
            raw = np.where(raw == part, disk, raw)
        place = np.minimum(np.searchsorted(numbers, raw), max(0, len(numbers) - 1))
        known = numbers[place] == raw if len(numbers) else np.zeros(len(raw), np.bool_)
        meaning = np.full((len(numbers) + 1, len(BIO_KINDS)), fp.NOTHING, np.int64)
        for row, number in enumerate(self.devices.numbers):
            for name, does in self.devices.meaning(number).items():
                meaning[row, _CODE[name]] = does
        what = meaning[np.where(known, place, len(numbers)), kind.indices.to_numpy()]
        texts = [*op.dictionary.to_pylist(), None]
        codes = np.array([2 * self._ops.setdefault(t, len(self._ops)) + (t in READS) for t in texts], np.int64)
        at = pc.fill_null(sector, 2**64 - 1).to_numpy()
        nowhere = at >= MAX_SECTOR  # a flush's -1, which some kernels print as 0
        start = np.where(nowhere, 0, at).astype(np.int64)
        for number, began, first in self._unended.tolist():
            what[(ts.to_numpy() == began) & (place == number) & (start == first)] = fp.NOTHING
        return (
            what,
            place.astype(np.int64),
            ts.to_numpy(),
            start,
            np.where(nowhere, 0, pc.fill_null(sectors.cast(pa.int64()), 0).to_numpy()),
            codes[pc.fill_null(op.indices.cast(pa.int32()), len(texts) - 1).to_numpy()],
        )

    def _frame(self, out: I64, ops: list[str | None]) -> pl.DataFrame:
        inside = out[out[:, fp.OUT_END] >= self._view.start_ns]
        numbers = np.array([*self.devices.numbers, 0], np.uint32)
        return pl.DataFrame(
            {
                "dev": numbers[inside[:, fp.OUT_DEVICE]],
                "start_ns": inside[:, fp.OUT_START],
                "latency_ns": inside[:, fp.OUT_END] - inside[:, fp.OUT_START],
                "depth": inside[:, fp.OUT_DEPTH],
                "op": pl.Series(ops, dtype=pl.String).gather(inside[:, fp.OUT_OP] >> 1),
            }
        )

    def drain(self) -> None:
        """Make the pass, for what is not told I/O by I/O; a second time without the I/Os that have no end.

        Capture may miss a completion without noticing (an interrupt inside the tracer), and the I/O would count as
        depth for ever. Left out is what is in flight at the end for over twice the longest time that any I/O of its
        device took.
        """
        for _ in self.ended():
            pass
        open_ = self._open()
        stale = open_[self._view.end_ns - open_[:, 1] > 2 * self._longest[open_[:, 0]]]
        if len(stale):
            self._unended = stale
            for _ in self.ended():
                pass

    def _open(self) -> I64:
        """Device, start and first sector of what is in flight."""
        entries = self._state.entries.reshape(max(1, len(self.devices.numbers)), -1, fp.ENTRY)
        depths = self._state.device.reshape(-1, fp.DEVICE_COLUMNS)[:, fp.DEPTH]
        found = [(d, e[fp.T], e[fp.FIRST]) for d, n in enumerate(depths.tolist()) for e in entries[d, :n].tolist()]
        return np.array(found, np.int64).reshape(-1, 3)

    # ------------------------------------------------------------ what was found
    def held_ns(self) -> npt.NDArray[np.int64]:
        """Time at each depth, by device (as ``devices.numbers``) and depth."""
        return self._state.held.reshape(-1, fp.MOST_DEPTH)[: len(self.devices.numbers)]

    def area(self) -> npt.NDArray[np.int64]:
        """I/Os in flight times ns, by device and bin."""
        return self._state.area.reshape(-1, self.bins)[: len(self.devices.numbers)]

    def peak(self) -> npt.NDArray[np.int64]:
        """Most in flight, by device and bin."""
        return self._state.peak.reshape(-1, self.bins)[: len(self.devices.numbers)]

    @property
    def account(self) -> dict[str, int]:
        """What began or ended out of sight."""
        found = dict(zip(_COUNTERS, self._state.counts.tolist(), strict=False))
        found.pop("ended")
        return {**found, "never_completed": len(self._unended), "open_at_end": self.open_at_end}

    @property
    def said(self) -> str:
        """For an answer's method."""
        end = "completion" if self.devices.start == "issue" else "completion, requests' or bios'"
        return f"in flight from {self.devices.start} to {end}"

    @property
    def notes(self) -> tuple[str, ...]:
        """Devices that could not be followed."""
        names = ", ".join(self._view.device_name(d) for d in self.devices.left_out[:8])
        other = "queue" if self.devices.start == "issue" else "issue"
        return (f"without starts or ends, left out: {names}; try --set at={other}",) if names else ()
