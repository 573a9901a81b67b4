"""The events of bios at one stage of their way (queued, issued to the driver, complete), as frames and batches."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import chain

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc

from tracereplay.analysis.bio_recorded import Recorded
from tracereplay.analysis.view import View
from tracereplay.errors import EmptyTraceError, UsageError
from tracereplay.trace.schema import BIO_EVENTS, BIO_KINDS

SECTOR = 512
_KINDS = {"queue": ("queue",), "issue": ("issue",), "complete": ("complete", "bio_complete")}
_TRACEPOINTS = {"queue": "block_bio_queue", "issue": "block_rq_issue", "complete": "block_rq_complete"}
READS = ("R",)
WRITES = ("W", "ZA")
OPS: dict[str, tuple[str, ...] | None] = {"data": READS + WRITES, "read": READS, "write": WRITES, "all": None}
"""Values of option ``op`` and the operations that they mean; data: without flushes, discards and zone management."""
MAX_SECTOR = 1 << 56
"""Sectors from here on (32 EiB) are no addresses: a flush's -1, a damaged line."""
MAX_SECTORS = 1 << 23
"""No bio is longer: bi_iter.bi_size (include/linux/bvec.h) holds its bytes in 32 bits."""

_ADDRESSED = (
    pl.col("dev").is_not_null()
    & pl.col("nr_sectors").is_between(1, MAX_SECTORS - 1)
    & pl.col("sector").is_between(0, MAX_SECTOR - 1)
)


@dataclass(frozen=True)
class Stage:
    """Events of a view at one stage: one row an I/O at each layer it passes."""

    view: View
    name: str
    """``queue``, ``issue`` or ``complete``."""
    chosen: bool
    """The user asked for it; else it is the first that was recorded."""
    recorded: Recorded
    """Of the whole trace."""

    @property
    def said(self) -> str:
        """For an answer's method."""
        return f"I/Os at {self.name} ({self.tracepoint})" + ("" if self.chosen else ", the first stage recorded")

    @property
    def tracepoint(self) -> str:
        """The kernel's name of the event."""
        if self.name == "complete" and not self._by_request:
            return "block_bio_complete"
        return _TRACEPOINTS[self.name]

    @cached_property
    def _by_request(self) -> list[int]:
        """Devices whose completions are told by request; those of their bios do not count too."""
        return self.recorded.devices(["complete"])

    @cached_property
    def devices(self) -> list[int]:
        """Devices that have events at this stage anywhere in the trace."""
        return self.recorded.devices(_KINDS[self.name])

    @cached_property
    def where(self) -> pl.Expr:
        """Rows of ``bio_events`` of this stage."""
        kind = pl.col("kind").cast(pl.String)
        if self.name != "complete":
            return kind == self.name
        return (kind == "complete") | ((kind == "bio_complete") & ~pl.col("dev").is_in(self._by_request))

    @property
    def notes(self) -> tuple[str, ...]:
        """Cautions that hold for sums over devices."""
        stacked = sorted((o, d) for o, d in self.recorded.remaps if o != d and o in self.devices and d in self.devices)
        if not stacked:
            return ()
        names = ", ".join(f"{self.view.device_name(o)} over {self.view.device_name(d)}" for o, d in stacked[:5])
        return (f"an I/O on a stack of devices counts once on each of them ({names}): do not add devices up",)

    @cached_property
    def account(self) -> dict[str, int]:
        """I/Os of the whole trace at this stage whose address or length cannot be, if there are any."""
        trace = self.view.trace
        highest = trace.bounds("bio_events", "sector")
        if self.recorded.longest < MAX_SECTORS and (highest is None or highest[1] < MAX_SECTOR):
            return {}
        absurd = (pl.col("nr_sectors") >= MAX_SECTORS) | ((pl.col("sector") >= MAX_SECTOR) & (pl.col("nr_sectors") > 0))
        found = trace.bio_events.filter(self.where & absurd).select(pl.len()).collect(engine="streaming").item()
        return {"absurd_addresses": int(found)} if found else {}

    # ------------------------------------------------------------ rows
    def rows(self, op: str = "all") -> pl.LazyFrame:
        """``ts_ns cpu dev sector nr_sectors bytes op flags pid`` of the view's I/Os; ``op`` as in OPS."""
        frame = self.view.events("bio_events").filter(self.where)
        sectors = pl.col("nr_sectors").fill_null(0).cast(pl.Int64)
        frame = frame.select(
            "ts_ns",
            "cpu",
            "dev",
            pl.col("sector").cast(pl.Int64, strict=False),  # -1 as the kernel prints it does not fit: null
            sectors.alias("nr_sectors"),
            (sectors * SECTOR).alias("bytes"),
            pl.col("op").cast(pl.String),
            pl.col("flags").cast(pl.String),
            "pid",
        )
        wanted = OPS[op]
        return frame if wanted is None else frame.filter(pl.col("op").is_in(wanted))

    def addressed(self, op: str = "data") -> pl.LazyFrame:
        """:meth:`rows` with a device, a length and an address that can be."""
        return self.rows(op).filter(_ADDRESSED)

    def batches(self, columns: list[str], op: str = "data", *, addressed: bool = True) -> Iterator[pl.DataFrame]:
        """``dev sector nr_sectors op`` and ``columns`` of :meth:`addressed` I/Os, or of all that name a device.

        Streamed in time order in bounded memory, as at least one frame, which may be empty.
        """
        needed = list(dict.fromkeys([*columns, "kind", "dev", "sector", "nr_sectors", "op"]))
        given = [name for name in needed if name != "kind"]
        empty = pa.RecordBatch.from_pylist([], pa.schema([BIO_EVENTS.field(name) for name in needed]))
        for batch in chain([empty], self.view.batches("bio_events", needed)):
            keep = self._at_stage(batch)
            if batch.num_rows and (mask := self.view.mask(batch)) is not None:
                keep &= mask
            if (wanted := OPS[op]) is not None:
                keep &= _among(batch.column("op"), wanted)
            # what is left out never becomes a Polars column: building one costs more than all the rest
            frame = _frame(batch.select(given).filter(pa.array(keep)))
            yield frame.filter(_ADDRESSED if addressed else pl.col("dev").is_not_null())

    def _at_stage(self, batch: pa.RecordBatch) -> npt.NDArray[np.bool_]:
        """:attr:`where` of a batch."""
        kind = batch.column("kind").indices.to_numpy()
        keep: npt.NDArray[np.bool_] = kind == BIO_KINDS.index(_KINDS[self.name][0])
        if self.name == "complete":
            told = np.isin(pc.fill_null(batch.column("dev").cast(pa.int64()), -1).to_numpy(), self._by_request)
            keep |= (kind == BIO_KINDS.index("bio_complete")) & ~told
        return keep

    def first_ns(self) -> int:
        """The trace's first moment: zero of the times in answers, and of --time."""
        after = self.view.selection.time[0]
        return self.view.start_ns - (after or 0)


def _frame(batch: pa.RecordBatch) -> pl.DataFrame:
    found = pl.from_arrow(batch)
    assert isinstance(found, pl.DataFrame)
    return found


def _among(column: pa.DictionaryArray, texts: tuple[str, ...]) -> npt.NDArray[np.bool_]:
    """Which rows of a dictionary column have one of the texts."""
    known = np.array([t in texts for t in column.dictionary.to_pylist()] + [False])
    found: npt.NDArray[np.bool_] = known[pc.fill_null(column.indices.cast(pa.int64()), len(known) - 1).to_numpy()]
    return found


def stage_of(view: View, at: str) -> Stage:
    """The stage to look at: ``queue``, ``issue``, ``complete``, or with ``auto`` the first that was recorded.

    Raises UsageError for a stage that was not recorded, EmptyTraceError when none was.
    """
    recorded = Recorded.of(view.trace)
    have = [name for name, kinds in _KINDS.items() if recorded.anywhere.intersection(kinds)]
    if not have:
        raise EmptyTraceError(
            "this trace has no queue, issue or complete events of bios",
            hint="record them with: tracereplay capture --events bio",
        )
    if at == "auto":
        return Stage(view, have[0], False, recorded)
    if at not in have:
        raise UsageError(f"at={at}: no such events in this trace", hint=f"it has: {', '.join(have)}")
    return Stage(view, at, True, recorded)


def with_device(frame: pl.DataFrame, view: View) -> pl.DataFrame:
    """Column ``dev`` replaced by ``device``, as ``major:minor``, in first place."""
    names = {d: view.device_name(d) for d in frame["dev"].unique().to_list()}
    device = pl.Series("device", [names[d] for d in frame["dev"].to_list()], pl.String)
    return frame.select(device, pl.exclude("dev"))


def contiguous(series: pl.Series) -> npt.NDArray[np.int64]:
    """A column without nulls as a C array of int64."""
    return np.ascontiguousarray(series.cast(pl.Int64).to_numpy())


def power_of_two(values: pl.Series) -> pl.Series:
    """The greatest power of two that is not above each value, 0 for 0: the low edge of its bin."""
    given = values.to_numpy()
    exponent = np.frexp(np.maximum(given, 1).astype(np.float64))[1] - 1  # exact: no rounding up below 2^53
    return pl.Series(values.name, np.where(given > 0, np.int64(1) << exponent.astype(np.int64), 0), pl.Int64)
