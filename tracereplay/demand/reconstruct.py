"""Events to requests: the driver around the compiled passes.

One streaming pass. Each batch of page events is first *learned* (gaps.py reads thresholds from it and all before
it), then scanned: frames are paired, bursts cut, operations held back until every request that arrived earlier is
complete. Memory: the frame table (16 bytes a frame, touched only where the trace goes) and fixed buffers.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np

from tracereplay.demand import gaps, state
from tracereplay.demand.bios import BioFeed
from tracereplay.demand.callers import Callers
from tracereplay.demand.columns import PAGE_COLUMNS, PageBatch, page_batch
from tracereplay.demand.events import caller_key
from tracereplay.demand.layers import Layers, find_layers
from tracereplay.demand.opening import (
    MOST_FRAMES,
    comm_numbers,
    frames_of,
    gfp_names,
    losses,
    stack_callers,
    task_cgroups,
    task_names,
    time_range,
)
from tracereplay.demand.path_layer import PathInUse, lay_path
from tracereplay.demand.paths import parse_path
from tracereplay.demand.renames import Renames, task_renames
from tracereplay.demand.report import Sizes, bios_section, fill_report, path_section, thresholds_section
from tracereplay.demand.ring import TRUST_MOST, flush
from tracereplay.demand.scan import learn, scan
from tracereplay.demand.state import Array, Work
from tracereplay.demand.stream import OP, DemandInfo, DemandReport
from tracereplay.demand.target import SUM_SIZES, Target, grown_sizes, select
from tracereplay.demand.target_check import check_target
from tracereplay.errors import EmptyTraceError, InvariantError, TraceError, UsageError
from tracereplay.trace.hosts import one_host

if TYPE_CHECKING:
    from tracereplay.trace.reader import Trace

BATCH_ROWS = 1 << 20
"""Rows a batch: fixed, since thresholds are learned batch by batch and results must not depend on the reader."""
OUT_ROWS = 1 << 17
LEARN_ALL = 4
LEARN_EVERY = 4
"""The first LEARN_ALL batches are learned, then each LEARN_EVERY-th."""
HOLD_NS = 50_000_000
"""A burst without an event for this long is complete: bounds what is held back."""
_TASKS = 1 << 12
_SIZES = 1 << 20


def open_demand(
    trace: Trace,
    *,
    path: str | None = None,
    target: str | Sequence[str] = "batches",
    single_ok: Iterable[str] = (),
    device: str | None = None,
    max_write: int | None = None,
) -> Reconstruction:
    """Demand of a trace, as a :class:`~tracereplay.demand.stream.DemandStream`.

    ``path``: None or a path with its options (paths.py); ``device`` (``MAJOR,MINOR``) belongs to it, ``max_write``
    (bytes) to dm-crypt. ``target``: one selector or several alternatives (target.py). ``single_ok``: globs of callers
    whose blocks may be single pages.
    Raises EmptyTraceError (no page events, and no WRITE bios for a path), UsageError, TraceError.
    """
    return Reconstruction(
        trace,
        path=path,
        target=target,
        single_ok=single_ok,
        device=device,
        max_write=max_write,
    )


class Reconstruction:
    """A demand stream over one trace. Iterate once, then read ``report``."""

    def __init__(
        self,
        trace: Trace,
        *,
        path: str | None,
        target: str | Sequence[str],
        single_ok: Iterable[str],
        device: str | None,
        max_write: int | None,
    ) -> None:
        if path is None and (device is not None or max_write is not None):
            option = "a device" if device is not None else "a largest write"
            raise UsageError(f"{option} belongs to a path", hint="add --path dm-crypt")
        one_host(trace, "demand")
        self.trace = trace
        release = trace.metadata.host.get("release")
        spec = None if path is None else parse_path(path, release=release, max_write=max_write)
        self.target = Target(target, path=path is not None, release=release)
        self.report = DemandReport()
        self._tasks = task_names(trace)
        needs_layers = trace.rows("bio_events") > 0
        self.layers = find_layers(trace, self._tasks) if needs_layers else Layers()
        rows = trace.rows("page_events")
        if not rows and not (path and self.layers.writes):
            raise EmptyTraceError(
                f"no page events in {trace.location}",
                hint="capture with --events page, or replay its bios with --path dm-crypt"
                if self.layers.writes
                else "capture with --events page",
            )
        self.callers = Callers(single_ok=single_ok, symbols=self.target.symbols, gfp_names=gfp_names(trace))
        self._stacks = rows > 0 and trace.rows("stacks") > 0
        frames = frames_of(trace)
        alias = frames if 2 * frames < MOST_FRAMES - (1 << 27) else 0
        first_key = frames + alias
        start, end = time_range(trace)
        cpus = 1 + max(
            (b[1] for t in ("page_events", "bio_events") if trace.rows(t) and (b := trace.bounds(t, "cpu"))),
            default=0,
        )
        self.path: PathInUse | None = None
        if spec is not None:
            t0, t1, _ = losses(trace, "bio_events")
            self.path = lay_path(
                spec,
                self.layers,
                device=device,
                pages_recorded=rows > 0,
                callers=self.callers,
                tasks=self._tasks,
                losses=list(zip(t0.tolist(), t1.tolist(), strict=True)),
                cpus=cpus,
                first_key=first_key,
                end_ns=end,
            )
        keys = first_key + (self.path.keys if self.path else 0)
        if keys > MOST_FRAMES:
            raise TraceError(f"{keys} keys for frames and bios", hint="at most 2^31 frames can be replayed")
        self.info = DemandInfo(frames=keys, recorded_frames=frames, cpus=cpus, start_ns=start, end_ns=end)
        self.feed = BioFeed(trace, self.layers, self.path.source if self.path else None)
        self._cgroups = cgroups = task_cgroups(trace)
        made_from = None if self.path is None else self.path.source.devices if self.path.source else ()
        check_target(self.target, trace, comms=self._tasks, cgroups=cgroups, devices=made_from)
        self._groups = self.target.group(self._tasks, cgroups)
        self._work = self._make_work(frames, alias, cpus, start)
        if self.path and self.path.recorded:  # callers known by their stacks; others follow when they are seen
            self.callers.flags[self.callers.flags & state.CRYPT != 0] |= state.PATH
        self._size_keys = np.zeros(_SIZES, np.int64)
        self._size_counts = np.zeros(_SIZES, np.int64)
        self._sums = np.zeros(SUM_SIZES + 1, np.int64)
        self._unit_ns = 0.0
        recorded = trace.metadata.events
        self._refills_recorded = not recorded or any(e.endswith("zone_locked") for e in recorded)
        self._resolution_ns = int(trace.metadata.clock.get("resolution_ns") or 1)
        self._batches = 0
        self._learn_tasks = np.zeros(_TASKS, state.TASK)
        self._learn_cpus = self._work.cpus.copy()
        self._learn_last = np.zeros((_TASKS, 3), np.int64)
        self._used = False

    # ------------------------------------------------------------ making
    def _make_work(self, frames: int, alias: int, cpus: int, start: int) -> Work:
        t0, t1, lossy = losses(self.trace)
        named, numbers = comm_numbers(self._tasks)
        renamed = task_renames(self.trace, self._tasks)
        self._renames = Renames(
            renamed,
            lambda name: named.setdefault(name, len(named)),
            lambda pid, name: self.target.group_of(name, self._cgroups.get(pid)),
        )
        self._comms = list(named)
        scalar = np.zeros(state.SCALARS, np.int64)
        scalar[state.S_START_NS] = start - 1
        scalar[state.S_FRAMES] = frames
        scalar[state.S_ALIAS] = alias
        scalar[state.S_AGE_NS] = HOLD_NS
        scalar[state.S_TRUST] = TRUST_MOST
        scalar[state.S_LOSS_END] = np.iinfo(np.int64).min
        scalar[state.S_PATH_GFP] = self.path.spec.kind.gfp if self.path else 0
        clocks = np.zeros(cpus, state.CPU)
        clocks["ts"] = start - 1
        clocks["task"] = -1
        ring = np.zeros(state.RING, OP)
        try:
            table = np.zeros(frames, state.FRAME)
        except MemoryError:
            raise TraceError(
                f"a frame table for {frames} frames needs {frames * state.FRAME.itemsize >> 30} GiB",
                hint="use a host with more memory",
            ) from None
        return Work(
            frames=table,
            tasks=np.zeros(_TASKS, state.TASK),
            bursts=state.new_burst_table(_TASKS),
            cpus=clocks,
            slots=np.zeros(state.PIDS, np.int32),
            comms=numbers,
            groups=self._groups,
            ring=ring,
            ring64=ring.view(np.int64).reshape(state.RING, 4),
            links=np.zeros(state.RING, state.LINK),
            caller_keys=self.callers.keys,
            caller_ids=self.callers.ids,
            caller_flags=self.callers.flags,
            stack_callers=stack_callers(self.trace, self.callers) if self._stacks else np.zeros(0, np.int32),
            gaps=np.zeros((state.HISTOGRAMS, state.BINS), np.int64),
            units=np.zeros(state.BINS, np.int64),
            thresholds=np.full(state.HISTOGRAMS, 1000, np.int64),
            loops=np.zeros(state.HISTOGRAMS, np.int64),
            parts=np.zeros((2, state.SIZES), np.int64),
            parts_done=np.zeros((2, state.SIZES), np.int64),
            loss0=t0,
            loss1=t1,
            loss_cpu=lossy,
            lost_until=np.full(cpus, np.iinfo(np.int64).min, np.int64),
            scalar=scalar,
            counts=np.zeros(len(state.COUNTERS), np.int64),
        )

    # ------------------------------------------------------------ running
    def __iter__(self) -> Iterator[np.ndarray[tuple[int], np.dtype[np.void]]]:
        """Batches of OP records in replay order. Can be iterated once."""
        if self._used:
            raise InvariantError("a demand stream is iterated once")
        self._used = True
        self._out = np.empty(OUT_ROWS, OP)
        columns = [*PAGE_COLUMNS, "stack_id"] if self._stacks else PAGE_COLUMNS
        source = self.trace.batches("page_events", columns, BATCH_ROWS) if self.trace.rows("page_events") else ()
        for raw in source:
            batch = page_batch(raw, stacks=self._stacks)
            if len(batch):
                until = int(batch.ts[-1])
                side = self.feed.up_to(until)
                self._learn(batch, side)
                yield from self._scan(batch, side, until)
        yield from self._scan(_NOTHING, self.feed.up_to(None), np.iinfo(np.int64).max)
        while not flush(self._work, *self._views(), True):
            yield self._deliver()
        if self._work.scalar[state.S_OUT_N]:
            yield self._deliver()
        self._finish()

    def _learn(self, batch: PageBatch, side: Array) -> None:
        self._batches += 1
        if self._batches > LEARN_ALL and self._batches % LEARN_EVERY:
            return
        self._work.scalar[state.S_LEARN_J] = 0
        self._learn_last[:, 1] = -1
        before = self._renames.before(batch.ts, self._work)
        for rows, names in self._renames.pieces(batch.ts):
            names.put(self._work, self._work.tasks, self._learn_tasks)
            self._learn_piece(batch[rows], side)
        before.put(self._work, self._work.tasks, self._learn_tasks)  # the batch is to be worked through from its start
        limits, loops, self._unit_ns = gaps.thresholds(
            self._work.gaps, self._work.units, self._resolution_ns, self._floors()
        )
        self._work.thresholds[:], self._work.loops[:] = limits, loops
        self._work.scalar[state.S_SLACK] = round(2 * self._unit_ns)

    def _learn_piece(self, batch: PageBatch, side: Array) -> None:
        self._work.scalar[state.S_LEARN_I] = 0
        while True:
            status = learn(
                self._work,
                *(batch.ts, batch.cpu, batch.kind, batch.order, batch.gfp, batch.pid, batch.stack),
                side,
                self._learn_tasks,
                self._learn_cpus,
                self._learn_last,
            )
            if status == state.MORE_INPUT:
                return
            self._serve(status)

    def _floors(self) -> Array:
        crypt = self.callers.flags[: state.HISTOGRAMS] & state.CRYPT != 0
        return gaps.floors(crypt, self._refills_recorded)

    def _scan(self, batch: PageBatch, side: Array, until: int) -> Iterator[np.ndarray[tuple[int], np.dtype[np.void]]]:
        self._work.scalar[state.S_SIDE_I] = 0
        for rows, names in self._renames.pieces(batch.ts):
            names.put(self._work, self._work.tasks, self._learn_tasks)
            whole = rows.stop == len(batch)
            yield from self._scan_piece(batch[rows], side, until if whole else int(batch.ts[rows.stop - 1]))
        self._renames.pass_by(batch.ts)
        self.feed.taken(int(self._work.scalar[state.S_SIDE_I]))

    def _scan_piece(
        self, batch: PageBatch, side: Array, until: int
    ) -> Iterator[np.ndarray[tuple[int], np.dtype[np.void]]]:
        self._work.scalar[state.S_PAGE_I] = 0
        while True:
            status = scan(
                self._work,
                *(batch.ts, batch.cpu, batch.kind, batch.pfn, batch.order, batch.gfp, batch.pid, batch.stack),
                side,
                until,
                *self._views(),
            )
            if status == state.MORE_INPUT:
                return
            if status == state.OUT_FULL:
                yield self._deliver()
            else:
                self._serve(status)

    def _views(self) -> tuple[Array, Array]:
        return self._out.view(np.int64).reshape(-1, 4), self._out

    def _deliver(self) -> np.ndarray[tuple[int], np.dtype[np.void]]:
        """The operations that are ready, with targets set and counted."""
        n = int(self._work.scalar[state.S_OUT_N])
        ready = self._out[:n]
        self._out = np.empty(OUT_ROWS, OP)
        self._work.scalar[state.S_OUT_N] = 0
        self.target.learn(self.callers)
        fits = select(ready, *self.target.tables, self._size_keys, self._size_counts, self._sums)
        if not fits:
            self._size_keys, self._size_counts = grown_sizes(self._size_keys, self._size_counts)
        if not self.feed.check.parts:
            return ready
        return self.feed.check.mark(ready, self._work.caller_flags[ready["caller"]] & state.CRYPT != 0)

    def _serve(self, status: int) -> None:
        """Give a compiled pass what it stopped for."""
        if status == state.NEW_CALLER:
            task = int(self._work.scalar[state.S_ARG_TASK])
            gfp = int(self._work.scalar[state.S_ARG_GFP])
            comm = int(self._work.tasks[task]["comm"])
            caller = self.callers.by_gfp(self._comms[comm], gfp)
            if self.path and self.path.recorded and self.callers.flags[caller] & state.CRYPT:
                self.callers.flags[caller] |= state.PATH
            self.callers.store(caller_key(comm, gfp), caller)
        elif status == state.TASKS_FULL:
            self._grow_tasks()
        else:
            raise InvariantError(f"unknown status {status} of a compiled pass")

    def _grow_tasks(self) -> None:
        n = len(self._work.tasks)
        tasks = np.zeros(2 * n, state.TASK)
        tasks[:n] = self._work.tasks
        bursts = state.new_burst_table(2 * n)
        bursts[: n * state.BURSTS_PER_TASK] = self._work.bursts
        self._work = self._work._replace(tasks=tasks, bursts=bursts)
        self._learn_tasks = np.concatenate([self._learn_tasks, np.zeros(n, state.TASK)])
        self._learn_last = np.concatenate([self._learn_last, np.zeros((n, 3), np.int64)])

    def _finish(self) -> None:
        keys, counts = self._size_keys, self._size_counts
        used = np.flatnonzero(keys)
        found = Sizes(keys[used] - 1, counts[used])
        fill_report(
            self.report,
            trace=self.trace,
            count=dict(zip(state.COUNTERS, self._work.counts.tolist(), strict=True)),
            sums=self._sums.tolist(),
            sizes=found,
            callers=self.callers,
        )
        r = self.report
        r.target = self.target.text
        r.thresholds = thresholds_section(self._work, self.callers, self._floors(), self._unit_ns, self._resolution_ns)
        r.bios = bios_section(self.feed.check, self.layers, self._work.counts)
        r.path = path_section(self.path)


_NOTHING = PageBatch(
    ts=np.zeros(0, np.int64),
    cpu=np.zeros(0, np.uint16),
    kind=np.zeros(0, np.int8),
    pfn=np.zeros(0, np.int64),
    order=np.zeros(0, np.uint8),
    gfp=np.zeros(0, np.uint32),
    pid=np.zeros(0, np.uint32),
    stack=np.zeros(0, np.uint32),
)
