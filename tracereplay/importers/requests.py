"""Requests of a foreign block trace into rows of ``bio_events``: checked, rounded to sectors, in the order of time.

A request becomes a ``queue`` row; where the source tells how long it took, a ``bio_complete`` row follows at that
distance. Rows come out through a bounded window (:class:`~tracereplay.importers.ordering.Reorder`).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from tracereplay.importers.ordering import Columns, Reorder
from tracereplay.trace.columns import kind_dictionary
from tracereplay.trace.schema import BIO_KINDS

I64 = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]

SECTOR = 512
OPERATIONS = ("R", "W", "D", "F")
UNKNOWN_OPERATION = -1
LONGEST_LATENCY_NS = 3600 * 10**9
"""A latency above it is taken as damage: the request gets no completion."""
_QUEUE, _COMPLETE = BIO_KINDS.index("queue"), BIO_KINDS.index("bio_complete")
_LARGEST = np.iinfo(np.int64).max
_NUMBERED = 1 << 20
_MOST_DEVICES = 20_000


@dataclass(slots=True)
class Requests:
    """Equally long columns, in the order of the source."""

    ts_ns: I64
    dev: I64
    offset: I64
    """Where it begins, in ``unit``."""
    size: I64
    """How long it is, in ``size_unit``."""
    op: npt.NDArray[np.int8]
    """Index into OPERATIONS, or UNKNOWN_OPERATION."""
    latency_ns: I64 | None = None
    unit: int = 1
    """Bytes that one of ``offset`` stands for: 1 or 512."""
    size_unit: int = 1

    def kept(self, keep: Mask) -> Requests:
        """Some of them."""
        if keep.all():
            return self
        return replace(
            self,
            ts_ns=self.ts_ns[keep],
            dev=self.dev[keep],
            offset=self.offset[keep],
            size=self.size[keep],
            op=self.op[keep],
            latency_ns=None if self.latency_ns is None else self.latency_ns[keep],
        )


@dataclass(slots=True)
class Tally:
    """What became of the requests; those that came too late do not count."""

    requests: int = 0
    completions: int = 0
    unaligned: int = 0
    """Not a whole number of sectors: grown to the sectors that they touch."""
    empty: int = 0
    """Reads and writes of no length."""
    absurd_latencies: int = 0
    first_ns: int | None = None
    last_ns: int | None = None
    devices: set[int] = field(default_factory=set)


def scaled(values: I64, unit: int, start: int = 0) -> tuple[I64, Mask]:
    """``(values - start) * unit``, and where that does not fit int64 or is negative (0 there)."""
    bad = (values < start) | (values - start > _LARGEST // unit)
    return np.where(bad, 0, (values - start) * unit), bad


def misfits(requests: Requests) -> Mask:
    """Requests whose device, place or size no event can hold."""
    end = _LARGEST // max(requests.unit, requests.size_unit) // 4
    return (
        (requests.dev < 0)
        | (requests.dev >= 1 << 32)
        | (requests.offset < 0)
        | (requests.offset > end)
        | (requests.size < 0)
        | (requests.size > (((1 << 32) - 2) * SECTOR) // requests.size_unit)
    )


class RequestRows:
    """Rows of ``bio_events`` from requests, held back ``window`` rows."""

    def __init__(self, window: int) -> None:
        self.tally = Tally()
        self._reorder = Reorder(window)
        self._seen = np.zeros(_NUMBERED, np.bool_)

    def push(self, requests: Requests) -> tuple[list[pa.RecordBatch], Columns | None]:
        """Batches now ready, and rows that came too late to be sorted in (None: none). Requests fit an event."""
        ready, late = self._reorder.push(self._rows(requests))
        if late is not None:
            queued = int((late["kind"] == _QUEUE).sum())
            self.tally.requests -= queued
            self.tally.completions -= late["kind"].size - queued
        return [_batch(rows) for rows in ready], late

    def flush(self) -> Iterator[pa.RecordBatch]:
        """What is still held."""
        for rows in self._reorder.flush():
            yield _batch(rows)

    def devices(self) -> list[int]:
        """Devices seen, in order; the first MOST of a source that has absurdly many."""
        return sorted(self.tally.devices | set(np.flatnonzero(self._seen).tolist()))

    def _rows(self, requests: Requests) -> Columns:
        first = requests.offset * requests.unit
        end = first + requests.size * requests.size_unit
        sector = first // SECTOR
        last = -(-end // SECTOR)
        tally = self.tally
        tally.requests += first.size
        if requests.unit != SECTOR or requests.size_unit != SECTOR:
            tally.unaligned += int((((first | end) & (SECTOR - 1)) != 0).sum())
        tally.empty += int(((requests.size == 0) & (requests.op <= OPERATIONS.index("D"))).sum())
        self._note_devices(requests.dev)
        rows: Columns = {
            "ts_ns": requests.ts_ns,
            "kind": np.full(first.size, _QUEUE, np.int8),
            "dev": requests.dev.astype(np.uint32),
            "sector": sector.astype(np.uint64),
            "nr_sectors": np.where(requests.size == 0, 0, last - sector).astype(np.uint32),
            "op": requests.op,
        }
        if requests.latency_ns is not None:
            rows = self._with_completions(rows, requests.latency_ns)
        if rows["ts_ns"].size:
            least, most = int(rows["ts_ns"].min()), int(rows["ts_ns"].max())
            tally.first_ns = least if tally.first_ns is None else min(tally.first_ns, least)
            tally.last_ns = most if tally.last_ns is None else max(tally.last_ns, most)
        return rows

    def _with_completions(self, rows: Columns, latency: I64) -> Columns:
        sound = (latency >= 0) & (latency <= LONGEST_LATENCY_NS) & (rows["ts_ns"] <= _LARGEST - LONGEST_LATENCY_NS)
        self.tally.absurd_latencies += int((~sound).sum())
        self.tally.completions += int(sound.sum())
        done = {name: column[sound] for name, column in rows.items()}
        done["ts_ns"] = done["ts_ns"] + latency[sound]
        done["kind"] = np.full(done["ts_ns"].size, _COMPLETE, np.int8)
        return {name: np.concatenate([column, done[name]]) for name, column in rows.items()}

    def _note_devices(self, dev: I64) -> None:
        small = dev < _NUMBERED
        self._seen[dev[small]] = True
        if not small.all() and len(self.tally.devices) < _MOST_DEVICES:
            self.tally.devices.update(np.unique(dev[~small])[:_MOST_DEVICES].tolist())


_OPERATION_TEXTS = pa.array(OPERATIONS, pa.string())


def _batch(rows: Columns) -> pa.RecordBatch:
    op = rows["op"].astype(np.int32)
    unknown = op == UNKNOWN_OPERATION
    codes = pa.array(np.where(unknown, 0, op), mask=unknown if unknown.any() else None)
    texts: Any = pa.DictionaryArray.from_arrays(codes, _OPERATION_TEXTS)
    columns = {
        "ts_ns": pa.array(rows["ts_ns"]),
        "cpu": pa.array(np.zeros(op.size, np.uint16)),
        "kind": pa.DictionaryArray.from_arrays(pa.array(rows["kind"]), kind_dictionary("bio_events")),
        "dev": pa.array(rows["dev"]),
        "sector": pa.array(rows["sector"]),
        "nr_sectors": pa.array(rows["nr_sectors"]),
        "op": texts,
        "flags": texts,
    }
    return pa.RecordBatch.from_arrays(list(columns.values()), names=list(columns))
