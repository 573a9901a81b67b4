"""Drives the replay loop: a strategy on a machine, arrays that grow between operations, named errors."""

# mypy: disable-error-code="no-untyped-call"

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from tracereplay.errors import StrategyError
from tracereplay.kernel.gfp import GFP_HIGHMEM, GFP_KERNEL, GFP_NOWAIT
from tracereplay.machine.build import build_machine, charged_to
from tracereplay.machine.config import MachineConfig
from tracereplay.machine.counters import NR_COUNTERS, NR_SLOTS
from tracereplay.machine.initial import InitialState
from tracereplay.machine.layout import (
    CFG_ERROR,
    CFG_ERROR_FRAME,
    CFG_NOW,
    ERROR_BAD_FREE,
    ERROR_BAD_WAIT,
    ERROR_MAY_NOT_WAIT,
    ERROR_MUTEX_KEPT,
    ERROR_NO_BULK,
    ERROR_NO_PROGRESS,
    ERROR_NO_SUCH,
    ERROR_NOT_HELD,
    ERROR_OUTSIDE,
    ERROR_TOO_MANY,
    I64,
    MAX_POOL,
    NO_QUOTA,
    POOL_CURRENT,
    POOL_GFP,
    POOL_MIN,
    Machine,
)
from tracereplay.machine.mempool import fill_reserve
from tracereplay.replay import layout as at
from tracereplay.replay.atomics import lockless
from tracereplay.replay.blocks import end_live
from tracereplay.replay.calls import put_addresses
from tracereplay.replay.holds import forget_holds
from tracereplay.replay.loop import run, wind_up
from tracereplay.replay.serve import finish, start
from tracereplay.replay.vectors import move_tables
from tracereplay.replay.waiting import end_waiting
from tracereplay.strategies.contract import Params


@dataclass(frozen=True, slots=True)
class PathConfig:
    """The path's own resources (strategies.md sections 1.1 and 1.4)."""

    name: str
    pool_pages: int
    """Elements of its mempool."""
    quota: int
    """Pages that it may have out; NO_QUOTA of machine/layout.py: any number."""
    counter_batch: int = 0
    """Batch of the percpu counter behind the quota; 0: exact."""
    gfp: int = GFP_NOWAIT | GFP_HIGHMEM
    """What its requests ask with at first. dm-crypt's may not sleep: it has a second pass, under a mutex, that may."""


EXAMPLE = np.dtype(
    [
        ("arrival_ns", np.int64),
        ("within_ns", np.int64),
        ("pages", np.int64),
        ("cpu", np.int64),
        ("caller", np.int64),
        ("delay_ns", np.int64),
    ]
)
"""A request: it came at ``arrival_ns`` or up to ``within_ns`` later; its CPU (-1: not kept), its caller as OP has it
(NO_CALLER: not kept), how long it waited."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """Counters of one finished replay."""

    totals: I64
    """Targeted requests, [NR_SLOTS]."""
    worker: I64
    """The strategy's own work beside them: its timers, its shrinker, its end, [NR_SLOTS]."""
    background: I64
    """Everything else, [NR_SLOTS]."""
    vectors: I64
    """Distinct counter vectors of targeted requests, [vector, NR_COUNTERS]."""
    counts: I64
    """Requests per vector, [vector]."""
    examples: np.ndarray[Any, np.dtype[np.void]]
    """The first request that ended with each vector, EXAMPLE."""
    bio_vectors: I64
    """Counters of WRITE bios, each the sum of its targeted requests, [vector, NR_COUNTERS]."""
    bio_counts: I64
    """Bios per vector."""
    bio_pieces: tuple[int, int, int]
    """Requests that are pieces of a bio; bios in pieces; and those of the bios that the end of the trace cuts off."""
    series: I64
    """Targeted counters by time bin of the request's arrival, [bin, NR_COUNTERS]."""
    cells: I64
    """Vector (row of ``vectors``), time bin of the arrival, requests: by vector, then bin, [cell, 3]."""
    background_series: I64
    """Background counters by time bin, [bin, NR_SLOTS]."""
    worker_series: I64
    """Of ``worker``, what came before the strategy's end, by time bin, [bin, NR_SLOTS]."""
    arrivals: I64
    """Targeted requests that came, and their pages, by time bin, [bin, 2]."""
    scalars: I64
    """X_* of replay/layout.py."""
    machine: Machine


class Engine:
    """One strategy on one machine. Feed it batches of the demand stream, then ``finish``."""

    def __init__(
        self,
        params: Params,
        config: MachineConfig,
        *,
        frames: int,
        start_ns: int,
        end_ns: int,
        bins: int = 120,
        path: PathConfig | None = None,
        initial: InitialState | None = None,
    ) -> None:
        """``initial``: what is free at the start, and where; else the configuration's counts, at random places."""
        self.params = params
        pool_pages = min(path.pool_pages, MAX_POOL) if path else 0
        machine = build_machine(
            config,
            initial,
            pool_pages=pool_pages,
            quota=path.quota if path else NO_QUOTA,
            counter_batch=path.counter_batch if path else 0,
        )
        machine.w[POOL_GFP] = path.gfp if path else 0
        self.generation = config.generation
        self.pcp_protection = config.pcp_protection
        self.background = np.zeros(NR_SLOTS, np.int64)
        self.machine = charged_to(machine, self.background)
        self.state = np.zeros(params.state_words(), np.int64)
        packed = params.pack()
        self.state[: len(packed)] = packed
        self.arrays = at.new_loop(frames, start_ns, end_ns, bins)
        put_addresses(type(params), self.arrays.x)
        machine.w[CFG_NOW] = start_ns
        if pool_pages:
            fill_reserve(self.machine, 0, GFP_KERNEL)
        start(self.machine, self.state, self.arrays)
        if self.machine.w[POOL_CURRENT] < self.machine.w[POOL_MIN]:
            raise StrategyError(
                f"the machine has no memory for the reserve of {self.machine.w[POOL_MIN]} pages",
                hint="simulate more memory: --machine memory=..., or less of it in use: --machine occupancy=...",
            )
        self.background[:] = 0  # filling reserves is set-up, not the workload's cost
        forget_holds(self.machine)

    def feed(self, ops: np.ndarray[Any, Any]) -> None:
        """Replay one batch. Raises StrategyError when the strategy misuses the machine."""
        i = 0
        while True:
            i = run(self.machine, self.state, self.arrays, ops, i)
            match int(self.arrays.x[at.X_REASON]):
                case at.RUNNING:
                    return
                case at.MACHINE_ERROR:
                    raise self._misuse()
                case reason:
                    self._grow(reason)

    def finish(self) -> Outcome:
        """Account what is still live and gather the counters."""
        end_ns = int(self.machine.w[CFG_NOW])
        while not wind_up(self.machine, self.state, self.arrays, end_ns):
            if self.arrays.x[at.X_REASON] == at.MACHINE_ERROR:
                raise self._misuse()
            self._grow(int(self.arrays.x[at.X_REASON]))
        while not end_waiting(self.machine, self.arrays):
            self._grow(at.MORE_TABLES)
        worker = self.arrays.x[at.X_WORKER : at.X_WORKER + NR_SLOTS].copy()
        finish(self.machine, self.state, self.arrays)
        i = 0
        while (i := int(end_live(self.arrays, self.machine, i))) >= 0:
            self._grow(at.MORE_TABLES)
        if self.machine.w[CFG_ERROR]:
            raise self._misuse()
        x, t = self.arrays.x, self.arrays.t
        vectors = t[: x[at.X_VECTORS] * NR_COUNTERS].reshape(-1, NR_COUNTERS).copy()
        keys = t[x[at.X_CK] : x[at.X_CK] + x[at.X_KEY_ROOM]]
        used = np.flatnonzero(keys)
        requests = t[x[at.X_CV] : x[at.X_CV] + x[at.X_KEY_ROOM]][used]
        keys = keys[used] - 1
        kind = keys >> at.KIND_SHIFT & at.KIND_BIO
        bios, bio_pieces = self._bios(keys >> at.BIN_BITS, kind, requests, len(vectors))
        # the same vector and bin may be there with and without a bio
        of_request = kind != at.KIND_BIO
        cells, which = np.unique(keys[of_request] & ~(at.KIND_BIO << at.KIND_SHIFT), return_inverse=True)
        numbers, time_bins = cells >> at.BIN_BITS, cells & ((1 << at.KIND_SHIFT) - 1)
        requests = np.bincount(which, requests[of_request], len(cells)).astype(np.int64)
        counts = np.bincount(numbers, requests, len(vectors)).astype(np.int64)
        bins = _by_bin(x, self.background, worker)
        order = np.argsort(time_bins, kind="stable")
        by_bin = np.split(order, np.searchsorted(time_bins[order], np.arange(1, len(bins))))
        series = np.stack([requests[part] @ vectors[numbers[part]] for part in by_bin])
        kept = counts > 0  # an allocation's vector alone is not a request's
        totals = x[at.X_TARGETED : at.X_TARGETED + NR_SLOTS].copy()
        totals[:NR_COUNTERS] = series.sum(axis=0)
        outcome = Outcome(
            totals=totals,
            worker=x[at.X_WORKER : at.X_WORKER + NR_SLOTS].copy(),
            background=self.background.copy(),
            vectors=vectors[kept],
            counts=counts[kept],
            examples=self._examples(kept),
            bio_vectors=vectors[bios > 0],
            bio_counts=bios[bios > 0],
            bio_pieces=bio_pieces,
            series=series,
            cells=np.stack([np.cumsum(kept)[numbers] - 1, time_bins, requests], axis=1),
            background_series=bins[:, at.BIN_BACKGROUND : at.BIN_WORKER],
            worker_series=bins[:, at.BIN_WORKER : at.BIN_REQUESTS],
            arrivals=bins[:, at.BIN_REQUESTS :],
            scalars=x[: at.X_REQ].copy(),
            machine=self.machine,
        )
        return lockless(outcome) if self.pcp_protection == "llist" else outcome

    def _grow(self, reason: int) -> None:
        e, x = self.arrays, self.arrays.x
        if reason == at.MORE_BLOCKS:
            self.arrays = e._replace(bl=np.concatenate([e.bl, np.zeros_like(e.bl)]))
            x[at.X_BLOCK_ROOM] *= 2
        elif reason == at.MORE_ROWS:
            self.arrays = e._replace(rows=_twice(e.rows))
            x[at.X_ROW_ROOM] *= 2
        else:
            old = x.copy()
            rooms = (
                x[at.X_VECTOR_ROOM] << (x[at.X_VECTORS] + 4 > x[at.X_VECTOR_ROOM]),
                x[at.X_KEY_ROOM] << (2 * x[at.X_KEYS] > x[at.X_KEY_ROOM]),
                x[at.X_PAIR_ROOM] << (2 * x[at.X_PAIRS] > x[at.X_PAIR_ROOM]),
                x[at.X_GROUP_ROOM] << self._many_groups(),
                x[at.X_AGENDA_ROOM] << (x[at.X_AGENDA] + at.SPARE_ENTRIES > x[at.X_AGENDA_ROOM]),
                x[at.X_SLOT_ROOM] << (2 * x[at.X_PARKED] > x[at.X_SLOT_ROOM]),
            )
            tables = at.new_tables(x, *map(int, rooms))
            move_tables(e.t, old, tables, x)
            self.arrays = e._replace(t=tables)

    def _bios(self, numbers: I64, kind: I64, requests: I64, vectors: int) -> tuple[I64, tuple[int, int, int]]:
        """Bios per vector, and Outcome.bio_pieces, from keys (X_CK) in parts; bios that the end cuts off included."""
        x, t = self.arrays.x, self.arrays.t
        groups = t[x[at.X_GV] : x[at.X_GV] + x[at.X_GROUP_ROOM]]
        cut = groups[groups > 0] - 1
        whole = (kind == at.KIND_WHOLE) | (kind == at.KIND_BIO)
        bios = np.bincount(cut, minlength=vectors)
        np.add.at(bios, numbers[whole], requests[whole])
        pieces, ended = (int(requests[kind == k].sum()) for k in (at.KIND_PIECE, at.KIND_BIO))
        return bios, (pieces, ended + len(cut), len(cut))

    def _examples(self, kept: np.ndarray[Any, np.dtype[np.bool_]]) -> np.ndarray[Any, np.dtype[np.void]]:
        """EXAMPLE of each vector that is ``kept``."""
        x, t = self.arrays.x, self.arrays.t
        words = t[x[at.X_VX] : x[at.X_VX] + len(kept) * at.EX_WORDS].reshape(-1, at.EX_WORDS)[kept]
        arrival, who, caller, delay = words.T
        unknown = caller == at.NO_CALLER
        made = np.zeros(len(words), EXAMPLE)
        made["arrival_ns"], made["caller"], made["delay_ns"] = arrival, caller, delay
        made["within_ns"] = np.where(unknown, (1 << x[at.X_TIME_SHIFT]) - 1, 0)
        made["pages"] = who >> at.WHO_CPU_BITS
        made["cpu"] = np.where(unknown, -1, who & ((1 << at.WHO_CPU_BITS) - 1))
        return made

    def _many_groups(self) -> bool:
        """Whether many bios in pieces are not counted yet; others are forgotten when tables grow."""
        x, t = self.arrays.x, self.arrays.t
        keys, vectors = (t[x[p] : x[p] + x[at.X_GROUP_ROOM]] for p in (at.X_GK, at.X_GV))
        return bool(4 * np.count_nonzero((keys != 0) & (vectors >= 0)) > x[at.X_GROUP_ROOM])

    def _misuse(self) -> StrategyError:
        code = int(self.machine.w[CFG_ERROR])
        frame = int(self.machine.w[CFG_ERROR_FRAME])
        if code == ERROR_NO_BULK:
            return StrategyError(
                f"strategy {self.params.name!r} calls alloc_pages_bulk, which kernel {self.generation} does not have",
                hint="choose another strategy, or simulate a later kernel: --machine generation=5.14",
            )
        what = {
            ERROR_BAD_FREE: f"freed frame {frame:#x}, which it does not hold with that order",
            ERROR_NO_SUCH: f"named order, CPU or list {frame}, which the machine does not have",
            ERROR_OUTSIDE: f"used frame {frame:#x}, which no zone has",
            ERROR_NOT_HELD: f"gave frame {frame:#x}, which it does not hold with that order",
            ERROR_TOO_MANY: "gave more blocks than the request has pages",
            ERROR_BAD_WAIT: "waits for what cannot come: no WAIT_*, a time that has passed, a mutex it could have",
            ERROR_MAY_NOT_WAIT: "waits with a request that needs contiguity",
            ERROR_MUTEX_KEPT: "ended a request that still holds the mutex",
            ERROR_NO_PROGRESS: "calls for requests or timers over and over at one simulated time",
        }.get(code, "reported success with fewer pages than asked")
        return StrategyError(f"strategy {self.params.name!r} {what}", hint="this is a bug in the strategy's code")


def _by_bin(x: I64, background: I64, worker: I64) -> I64:
    """What the loop kept at the end of each time bin, as what came in each, [bin, BIN_WORDS]; the last ends now."""
    bins = x[at.X_BINS :].reshape(-1, at.BIN_WORDS).copy()
    requests = x[[at.X_TARGETED_REQUESTS, at.X_TARGETED_PAGES]]
    bins[x[at.X_BIN] :] = np.concatenate([background, worker, requests])
    return np.diff(bins, axis=0, prepend=np.zeros((1, at.BIN_WORDS), np.int64))


def _twice(rows: I64) -> I64:
    grown = at.new_rows(2 * len(rows) // at.ROW_WORDS)
    grown[: len(rows)] = rows
    return grown
