"""State of a running capture, about once a second: for whoever watches it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from tracereplay.trace.columns import KINDS
from tracereplay.trace.schema import PAGE_KINDS

if TYPE_CHECKING:
    from tracereplay.trace.stacks import StackTable

TOP_STACKS = 64
"""Stacks told, those with the most pages first."""
_ALLOC = PAGE_KINDS.index("alloc")
_NOT_RECORDED = ("full", "lock", "no_ring")
"""Counters of events that got a number and no record."""


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a capture has come. Numbers are since its start."""

    elapsed_s: float
    events: int
    lost: int
    kinds: Mapping[str, int] = field(default_factory=dict)
    """Events by kind."""
    lost_by_class: Mapping[str, int] = field(default_factory=dict)
    bytes_written: int = 0
    cost: Mapping[str, Any] = field(default_factory=dict)
    """As the collector tells it (``cpu_seconds bpf_share ring_fill ring_high_water_bytes``)."""
    writer_cpu_s: float = 0.0
    ring_bytes: Mapping[str, int] = field(default_factory=dict)
    """Ring name -> bytes of each CPU's ring."""
    shed: Mapping[str, Any] | None = None
    """The collector's last word on shed load (``stage stacks sample reason``); None: everything is recorded."""
    stacks: tuple[tuple[tuple[int, ...], int], ...] = ()
    """(return addresses, innermost first; pages allocated there), most pages first; TOP_STACKS at most."""


class LiveTally:
    """Counts by kind and by stack while batches go by. Costs a pass over one byte of each event."""

    def __init__(self, on_progress: Callable[[Progress], None]) -> None:
        self.ring_bytes: dict[str, int] = {}
        """Ring name -> bytes of each CPU's ring."""
        self._on_progress = on_progress
        self._shed: Mapping[str, Any] | None = None
        self._kinds: dict[str, npt.NDArray[np.int64]] = {}
        self._pages: npt.NDArray[np.float64] = np.zeros(1024)
        """By stack id: pages allocated."""

    def add(self, table: str, batch: pa.RecordBatch) -> None:
        """Take a batch that goes to ``table``."""
        codes = batch.column("kind").indices.to_numpy()
        counts = np.bincount(codes.view(np.uint8), minlength=len(KINDS[table])).astype(np.int64)
        self._kinds[table] = self._kinds[table] + counts if table in self._kinds else counts
        if table == "page_events" and "stack_id" in batch.schema.names:
            self._add_stacks(batch, codes == _ALLOC)

    def _add_stacks(self, batch: pa.RecordBatch, allocated: npt.NDArray[np.bool_]) -> None:
        column = batch.column("stack_id")
        known = allocated & ~np.asarray(column.is_null()) if column.null_count else allocated
        rows = np.flatnonzero(known)
        if not len(rows):
            return
        ids = column.fill_null(0).to_numpy(zero_copy_only=False)[rows]
        orders = batch.column("order").fill_null(0).to_numpy(zero_copy_only=False)[rows]
        pages = np.bincount(ids, weights=np.ldexp(1.0, orders.astype(np.int32)))
        if len(pages) > len(self._pages):
            self._pages = np.concatenate([self._pages, np.zeros(2 * len(pages) - len(self._pages))])
        self._pages[: len(pages)] += pages

    def shed_change(self, value: Mapping[str, Any]) -> None:
        """The collector records less, or everything again."""
        self._shed = value if value.get("stage") else None

    def tell(
        self,
        elapsed_s: float,
        totals: Iterable[Mapping[str, int]],
        *,
        stacks: StackTable | None,
        cost: Mapping[str, Any],
        lost_by_class: Mapping[str, int],
        bytes_written: int,
        writer_cpu_s: float,
    ) -> None:
        """Tell whoever watches. ``totals``: ``seen`` and ``lost`` of each decoder."""
        sums = list(totals)
        self._on_progress(
            Progress(
                elapsed_s,
                sum(t["seen"] for t in sums),
                sum(t["lost"] for t in sums),
                kinds=self._by_kind(),
                lost_by_class=lost_by_class,
                bytes_written=bytes_written,
                cost=cost,
                writer_cpu_s=writer_cpu_s,
                ring_bytes=self.ring_bytes,
                shed=self._shed,
                stacks=self._top_stacks(stacks),
            )
        )

    def _by_kind(self) -> dict[str, int]:
        found: dict[str, int] = {}
        for table, counts in self._kinds.items():
            for name, n in zip(KINDS[table], counts.tolist(), strict=False):
                if n:
                    found[name] = found.get(name, 0) + n
        return found

    def _top_stacks(self, table: StackTable | None) -> tuple[tuple[tuple[int, ...], int], ...]:
        if table is None or not self._pages.any():
            return ()
        top = np.argsort(self._pages)[::-1][:TOP_STACKS].tolist()
        told = ((table.frames(number), int(self._pages[number])) for number in top if self._pages[number])
        return tuple((frames, pages) for frames, pages in told if frames)


def counted_kinds(counters: Mapping[str, Any], probes: Sequence[Mapping[str, Any]]) -> dict[str, int]:
    """Events by kind from the counters of a STATUS frame and the ``probes`` of its hello, where nobody decodes."""
    found: dict[str, int] = {}
    for number, counted in _lanes(counters):
        kind = str(probes[number]["kind"]) if number < len(probes) else "other"
        recorded = int(counted.get("seq", 0)) - sum(int(counted.get(name, 0)) for name in _NOT_RECORDED)
        if recorded:
            found[kind] = found.get(kind, 0) + recorded
    return found


def _lanes(counters: Mapping[str, Any]) -> Iterable[tuple[int, Mapping[str, Any]]]:
    for ring, cpus in counters.items():
        if ring not in ("task", "stack"):
            for lanes in cpus.values():
                for number, counted in lanes.items():
                    yield int(number), counted
