"""Runs the twin check over a trace: the start, the events in batches, the end."""

# mypy: disable-error-code="no-untyped-call"

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from tracereplay.demand.columns import plain
from tracereplay.kernel.constants import migratetype_of_gfp
from tracereplay.machine import layout as machine_at
from tracereplay.machine.build import build_machine
from tracereplay.machine.config import MachineConfig
from tracereplay.machine.from_trace import machine_of
from tracereplay.machine.initial_trace import initial_state
from tracereplay.trace.hosts import one_host
from tracereplay.trace.schema import PAGE_KINDS
from tracereplay.verify import layout as at
from tracereplay.verify.controls import controls_of, learn_phase, ordered_zones, pcp_bounds, snapshot_for_start
from tracereplay.verify.displace import SINCE_BEFORE
from tracereplay.verify.freerun import run_free
from tracereplay.verify.loop import finish, run_events

if TYPE_CHECKING:
    from tracereplay.trace.reader import Trace

COLUMNS = ["ts_ns", "cpu", "kind", "pfn", "order", "migratetype", "pid"]
EXTFRAG_COLUMNS = ["alloc_order", "fallback_order", "fallback_migratetype", "change_ownership"]
BULK_COLUMNS = ["gfp", "returned"]
Column = npt.NDArray[Any]
Rows = tuple[Column, ...]
FREE_ROWS = 6
"""Columns that the machine left to itself takes; the others follow them."""
EXTFRAG = PAGE_KINDS.index("extfrag")
BULK = PAGE_KINDS.index("bulk")


class Twin:
    """A machine in the state in which a trace began, and the numbers of its check."""

    def __init__(self, trace: Trace, room: int = 0) -> None:
        """``room``: disagreements to keep for ``--explain``."""
        one_host(trace, "the twin check")
        self.trace = trace
        cpus = int((trace.bounds("page_events", "cpu") or (0, 0))[1]) + 1
        self.config = twin_config(trace, cpus)
        self.initial = initial_state(trace, self.config)
        self.phase = learn_phase(trace)
        self.machine = build_machine(self.config, self.initial)
        self.v = at.new_state(len(self.config.zones), self.config.cpus, room)
        w = self.machine.w
        w[machine_at.CFG_WITHHOLD] = w[machine_at.CFG_STRATEGY_LIST]
        self.v[at.VC_WITHHELD] = w[machine_at.CFG_STRATEGY_LIST]
        base = self._start_lists(self.machine)
        self.free_machine = build_machine(self.config, self.initial)
        self.free_v = at.new_state(len(self.config.zones), self.config.cpus, 0)
        self._start_lists(self.free_machine)
        self.controls = controls_of(trace, self.config, base, self.phase)

    def _start_lists(self, machine: machine_at.Machine) -> int | None:
        """Counts, highs and bounds of the per-CPU lists as the first snapshot has them; its time."""
        w, cpus = machine.w, self.config.cpus
        for entry in self.initial.pcp:
            word = 3 * (int(w[machine_at.CFG_NODES]) + int(entry["pfn"])) + machine_at.INFO
            if machine.pg[word] & machine_at.INFO_STATE == machine_at.PCP:
                machine.pg[word] |= SINCE_BEFORE | int(entry["cpu"]) << machine_at.INFO_CPU_SHIFT
        base, facts = snapshot_for_start(self.trace)
        bounds = pcp_bounds(self.trace, base)
        numbers = {(z.node, z.name): i for i, z in enumerate(ordered_zones(self.config))}
        for zone in facts:
            z = numbers.get((zone.node, zone.zone))
            if z is None:
                continue
            for cpu, high in zone.pcp_high.items():
                if cpu >= cpus:
                    continue
                p = (z * cpus + cpu) * machine_at.P_WORDS
                if zone.pcp_batch.get(cpu):
                    w[p + machine_at.P_BATCH] = zone.pcp_batch[cpu]
                if (zone.node, zone.zone, cpu) in bounds:
                    low, top = bounds[zone.node, zone.zone, cpu]
                    w[p + machine_at.P_HIGH_MIN], w[p + machine_at.P_HIGH_MAX] = low, top
                low, top = int(w[p + machine_at.P_HIGH_MIN]), int(w[p + machine_at.P_HIGH_MAX])
                if high and low == top:
                    low = top = high
                    w[p + machine_at.P_HIGH_MIN], w[p + machine_at.P_HIGH_MAX] = low, top
                w[p + machine_at.P_HIGH] = min(max(high, low), top)
                floating = max(zone.pcp_count.get(cpu, 0) - int(w[p + machine_at.P_COUNT]), 0)
                w[p + machine_at.P_COUNT] += floating
                w[p + machine_at.P_UNLISTED] = floating
        return base

    def run(self) -> None:
        """Feed all events, to the twin and on another thread to the machine left to itself."""
        with ThreadPoolExecutor(1) as other:
            for rows in self._events():
                free = other.submit(run_free, self.free_machine, self.free_v, self.controls, *rows[:FREE_ROWS])
                run_events(self.machine, self.v, self.controls, *rows)
                free.result()
        finish(self.machine, self.v)

    def watch(self, times: npt.NDArray[np.int64], see: Callable[[int], None]) -> None:
        """Feed all events to the twin alone; ``see`` is told each of the ascending ``times`` (trace clock) once all
        events before it are in the machine, those after the last event too."""
        seen = 0
        for rows in self._events():
            begin, ts = 0, rows[0]
            while seen < len(times) and times[seen] <= ts[-1]:
                end = int(np.searchsorted(ts, times[seen]))
                if end > begin:
                    self._feed(rows, begin, end)
                see(int(times[seen]))
                begin, seen = end, seen + 1
            self._feed(rows, begin, len(ts))
        finish(self.machine, self.v)
        for late in times[seen:]:
            see(int(late))

    def _feed(self, rows: Rows, begin: int, end: int) -> None:
        run_events(self.machine, self.v, self.controls, *(column[begin:end] for column in rows))

    def _events(self) -> Iterator[Rows]:
        """Batches of events, as the columns that ``run_events`` takes."""
        nothing = np.zeros(0, np.uint8)
        bulk = any("bulk" in name for name in self.trace.metadata.events)
        fallbacks = self.trace.bounds("page_events", "alloc_order") is not None
        columns = [*COLUMNS, *(EXTFRAG_COLUMNS if fallbacks else []), *(BULK_COLUMNS if bulk else [])]
        for batch in self.trace.batches("page_events", columns):
            ts, cpu, kind, pfn, order, mt, pid = (batch.column(i) for i in range(7))
            codes = plain(kind.indices)
            orders = order
            if len(nothing) < len(codes):
                nothing = np.zeros(len(codes), np.uint8)
                nothing.flags.writeable = False  # as Arrow's columns are: one type, one compiled loop
            more = [nothing[: len(codes)]] * 3
            frames, types = plain(pfn).view(np.int64), plain(mt)
            if bulk and (codes == BULK).any():
                frames, types = with_bulk(
                    codes, frames, types, batch.column(len(columns) - 2), batch.column(len(columns) - 1)
                )
            if fallbacks and (codes == EXTFRAG).any():
                orders = pc.coalesce(order, batch.column(7))
                more = [small(batch.column(8 + i)) for i in range(3)]
            yield (plain(ts), plain(cpu), codes, frames, plain(orders), types, plain(pid), *more)


def with_bulk(
    codes: npt.NDArray[np.uint8],
    frames: npt.NDArray[np.int64],
    types: npt.NDArray[np.uint8],
    gfp: pa.Array,
    returned: pa.Array,
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.uint8]]:
    """Frames and types with a bulk call's pages and migratetype in their place."""
    rows = np.flatnonzero(codes == BULK)
    frames, types = frames.copy(), types.copy()
    frames[rows] = plain(returned)[rows]
    types[rows] = [migratetype_of_gfp(int(flags)) for flags in plain(gfp)[rows]]
    frames.flags.writeable = types.flags.writeable = False
    return frames, types


def small(column: pa.Array) -> npt.NDArray[np.uint8]:
    """A column of small numbers or truth values; nulls are 0."""
    if pa.types.is_boolean(column.type):
        column = column.cast(pa.uint8())
    values: npt.NDArray[np.uint8] = plain(column)
    return values


def twin_config(trace: Trace, cpus: int) -> MachineConfig:
    """The machine of a trace's host, and where it has no snapshot one that reaches as far as its frames."""
    config = machine_of(trace, cpus)
    return replace(config, vmstat_interval=0) if hasattr(config, "vmstat_interval") else config


def totals(v: npt.NDArray[np.int64]) -> dict[str, Any]:
    """The totals by name."""
    return {name: int(v[i]) for i, name in enumerate(at.TOTALS)}
