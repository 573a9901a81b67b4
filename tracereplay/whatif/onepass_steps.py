"""Steps of a demand and the facts that conditions are checked with: made once by a pass over it, kept as a file.

The file lies with the trace's derived tables. It has one column of steps, a row group for each stretch of the demand,
in which the steps of a page set stand together; everything else is in its metadata.
"""

# mypy: disable-error-code="no-untyped-call"

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from tracereplay.kernel.constants import MIGRATE_PCPTYPES, NR_PAGE_ORDERS
from tracereplay.kernel.generations import GENERATIONS
from tracereplay.kernel.gfp import GFP_KERNEL
from tracereplay.machine import layout as at
from tracereplay.machine.build import build_machine, notes_of
from tracereplay.machine.layout import I32, I64
from tracereplay.trace.partwriter import storage
from tracereplay.whatif import onepass_words as ow
from tracereplay.whatif.onepass_record import mergeable, misplaced, record, set_up

if TYPE_CHECKING:
    from tracereplay.demand.stream import DemandReport
    from tracereplay.machine.initial import InitialState
    from tracereplay.replay.run import Prepared

CHUNK_WORDS = 1 << 22
"""Words of a row group."""
EPOCH_WORDS = 1 << 12
EPOCH_WORDS_A_SET = 1 << 8
"""An epoch has at least so many words: in it each page set's steps stand together, and at its end all page sets are at
one time again, which bounds how much they held together."""
_KEY = b"tracereplay.steps"


class Tables(NamedTuple):
    """Arrays of the recording pass."""

    x: I64
    """Scalars S_*."""
    fm: I32
    """By key: 0 nothing, above 0 the entry of a block's head, below 0 a page of the block of which key -v - 1 is the
    head."""
    left: I32
    sets: I32
    words: npt.NDArray[np.uint32]
    """Steps of this chunk and their page sets."""
    last: I64
    """The last word of each page set that may be repeated; -1: none."""
    zone: I64
    """ZF_WORDS for each zone."""
    net: I64
    """Blocks that the demand has taken beyond those that it gave back, NETS for each zone; the most, and when."""
    peak: I64
    peak_ns: I64
    buddy: I64
    """Blocks past the lists, by class."""


@dataclass(slots=True)
class Facts:
    """What is known of a demand besides its steps."""

    zones: list[dict[str, Any]]
    """``asked asked_ns orders thp thp_back cut_ns`` of each zone, in the machine's order."""
    start: list[list[int]]
    """Blocks on the lists of each page set at the start, by list."""
    supply: list[list[int]]
    """Free blocks of each zone at the start, by order * 3 + migratetype."""
    peak: list[list[int]]
    """The most blocks in use at a time beyond those at the start, likewise; and when, ns."""
    peak_ns: list[list[int]]
    buddy: list[int]
    """Blocks that no generation of the sort keeps on lists, by class."""
    set_aside: list[int]
    """Pages of each zone that are HIGHATOMIC or CMA."""
    misplaced: int
    mergeable: int
    together_ns: int
    bad_type_ns: int
    path_peak: int
    pool_pages: int
    quota: int
    counter_batch: int
    cpus: int
    """CPUs of the machine."""
    used: list[int]
    """Page sets with pages, at the start or later."""
    start_ns: int
    epochs_ns: list[int]
    """When each epoch ends."""
    steps: int
    """Pages and blocks that pass the lists, and ticks."""
    words: int
    report: dict[str, Any]
    """Of the demand, without its callers."""
    notes: list[str]
    copies: dict[str, Any] | None


@dataclass(slots=True)
class Steps:
    """A file of steps."""

    path: Path
    facts: Facts

    def chunks(self) -> Iterator[tuple[npt.NDArray[np.uint32], I64]]:
        """Steps of each row group, and its segments as ``sweep`` takes them."""
        with pq.ParquetFile(self.path) as file:
            segments = json.loads((file.metadata.metadata or {})[b"tracereplay.segments"])
            for k, rows in enumerate(segments):
                words = file.read_row_group(k).column(0).combine_chunks().to_numpy()
                yield words, np.array(rows, np.int64).reshape(-1, 3)


class Recorder:
    """Takes a demand as an engine (replay/engine.py) does, and writes its steps to a file."""

    def __init__(self, ready: Prepared, file: Path) -> None:
        """``ready``: demand and machine before anything ran. Raises ParameterError."""
        config, path, initial = ready.machine, ready.path, ready.initial
        pool = min(path.pool_pages, at.MAX_POOL) if path else 0
        frames, self._start_ns = ready.stream.info.frames, ready.stream.info.start_ns
        self._ready = ready
        self.machine = build_machine(config, initial)
        self.machine.w[at.POOL_GFP] = path.gfp if path else 0
        w, small = self.machine.w, GENERATIONS[config.generation].pcp_orders == 1
        zones, self.cpus = int(w[at.CFG_ZONES]), int(w[at.CFG_CPUS])
        self.path = path
        self.pool_pages = pool
        self.start = _start(self.machine, initial, small)
        self.supply = _supply(self.machine, zones)
        self.misplaced = int(misplaced(self.machine))
        zone = np.zeros((zones, ow.ZF_WORDS), np.int64)
        large = self.start.reshape(zones, self.cpus, -1)[:, :, -MIGRATE_PCPTYPES:].any(axis=1)
        zone[:, ow.ZF_CUT_NS] = -1
        zone[:, ow.ZF_THP] = large @ (1 << np.arange(MIGRATE_PCPTYPES))
        room = max(EPOCH_WORDS, EPOCH_WORDS_A_SET * zones * self.cpus) + ow.SPARE_WORDS
        x = np.zeros(ow.S_WORDS_END, np.int64)
        x[ow.S_TOGETHER_NS] = x[ow.S_BAD_TYPE_NS] = -1
        x[ow.S_SMALL], x[ow.S_ROOM] = small, room
        self.tables = Tables(
            x=x,
            fm=np.zeros(frames, np.int32),
            left=np.zeros(frames, np.int32),
            sets=np.zeros(room, np.int32),
            words=np.zeros(room, np.uint32),
            last=np.full(zones * self.cpus, -1, np.int64),
            zone=zone.reshape(-1),
            net=np.zeros(zones * ow.NETS, np.int64),
            peak=np.zeros(zones * ow.NETS, np.int64),
            peak_ns=np.zeros(zones * ow.NETS, np.int64),
            buddy=np.zeros(ow.CLASSES, np.int64),
        )
        self._file = file
        self._segments: list[list[list[int]]] = []
        self._epochs: list[int] = []
        self._now = self._start_ns
        self._pending: list[npt.NDArray[np.uint32]] = []
        self._rows: list[list[int]] = []
        self._words = 0
        self._used: npt.NDArray[np.bool_] = np.asarray(self.start.any(axis=1))
        self._writer = pq.ParquetWriter(file, _SCHEMA, compression="lz4", use_dictionary=False)
        set_up(self.machine, self.tables, pool, GFP_KERNEL)

    def feed(self, ops: np.ndarray[Any, Any]) -> None:
        """Take a batch of the demand."""
        i = 0
        while True:
            i = record(self.machine, self.tables, ops, i)
            self._now = int(ops["ts_ns"][min(i, len(ops) - 1)]) if len(ops) else self._now
            if self.tables.x[ow.S_REASON] == ow.RECORDED:
                return
            self._flush()

    def finish(self) -> None:
        """Complete the file. Raises StorageError."""
        self._flush()
        self._write()
        t, w, ready = self.tables, self.machine.w, self._ready
        zones = int(w[at.CFG_ZONES])
        report: DemandReport = ready.stream.report
        facts = Facts(
            zones=[
                {
                    "asked": int(row[ow.ZF_ASKED]),
                    "asked_ns": int(row[ow.ZF_ASKED_NS]),
                    "orders": int(row[ow.ZF_ORDERS]),
                    "thp": int(row[ow.ZF_THP]),
                    "thp_back": int(row[ow.ZF_THP_BACK]),
                    "cut_ns": int(row[ow.ZF_CUT_NS]),
                }
                for row in t.zone.reshape(zones, -1)
            ],
            start=self.start.tolist(),
            supply=self.supply.tolist(),
            peak=t.peak.reshape(zones, -1).tolist(),
            peak_ns=t.peak_ns.reshape(zones, -1).tolist(),
            buddy=t.buddy.tolist(),
            set_aside=[int(w[z * at.Z_WORDS + at.Z_SET_ASIDE]) for z in range(zones)],
            misplaced=self.misplaced,
            mergeable=int(mergeable(self.machine)),
            together_ns=int(t.x[ow.S_TOGETHER_NS]),
            bad_type_ns=int(t.x[ow.S_BAD_TYPE_NS]),
            path_peak=int(t.x[ow.S_PATH_PEAK]),
            pool_pages=self.pool_pages,
            quota=self.path.quota if self.path else at.NO_QUOTA,
            counter_batch=self.path.counter_batch if self.path else 0,
            cpus=self.cpus,
            used=np.flatnonzero(self._used).tolist(),
            start_ns=self._start_ns,
            epochs_ns=self._epochs,
            steps=int(t.x[ow.S_STEPS]),
            words=self._words,
            report=asdict(replace(report, callers=[], by_caller=[], bios={}, thresholds={})),
            notes=[*ready.machine.notes, *notes_of(self.machine)],
            copies=ready.copied.to_json() if ready.copied else None,
        )
        self._writer.add_key_value_metadata(
            {"tracereplay.segments": json.dumps(self._segments), _KEY.decode(): json.dumps(asdict(facts))}
        )
        with storage(self._file):
            self._writer.close()

    def _flush(self) -> None:
        """End an epoch: its steps page set by page set."""
        t = self.tables
        n = int(t.x[ow.S_WORDS])
        if n == 0:
            return
        order = np.argsort(t.sets[:n], kind="stable")
        sets, words = t.sets[:n][order], t.words[:n][order]
        self._used[sets[words & ((1 << ow.KIND_BITS) - 1) != ow.TICK]] = True
        edges = np.flatnonzero(np.diff(sets, prepend=-1, append=-1)).tolist()
        at = sum(map(len, self._pending))
        self._rows += [[int(sets[a]), at + a, at + b] for a, b in pairwise(edges)]
        self._rows.append([-1, len(self._epochs), 0])
        self._epochs.append(self._now)
        self._pending.append(words)
        t.x[ow.S_WORDS] = 0
        t.last[:] = -1
        if at + n >= CHUNK_WORDS:
            self._write()

    def _write(self) -> None:
        """Write a row group."""
        if not self._pending:
            return
        words = np.concatenate(self._pending)
        with storage(self._file):
            self._writer.write_table(pa.table({"word": words}, _SCHEMA), row_group_size=len(words))
        self._segments.append(self._rows)
        self._words += len(words)
        self._pending, self._rows = [], []


_SCHEMA = pa.schema([pa.field("word", pa.uint32(), nullable=False)])


def read_steps(path: Path) -> Steps:
    """A file of steps that is whole."""
    metadata = pq.read_metadata(path).metadata or {}
    return Steps(path, Facts(**json.loads(metadata[_KEY])))


def _start(machine: at.Machine, initial: InitialState | None, small: bool) -> I64:
    """Blocks on per-CPU lists at the start, [page set, list], as ``place_state`` puts them there."""
    zones, cpus = int(machine.w[at.CFG_ZONES]), int(machine.w[at.CFG_CPUS])
    found = np.zeros((zones * cpus, ow.LISTS), np.int64)
    if initial is None:
        return found
    zone = machine.pb.reshape(-1, at.B_WORDS)[:, at.B_ZONE]
    code = {order: k for k, order in enumerate(ow.LIST_ORDERS[:1] if small else ow.LIST_ORDERS)}
    for entry in initial.pcp:
        pfn, order, mt, cpu = (int(entry[name]) for name in ("pfn", "order", "mt", "cpu"))
        z = int(zone[pfn >> 9]) if pfn >> 9 < len(zone) else -1
        inside = z >= 0 and machine.w[z * at.Z_WORDS + at.Z_START] <= pfn < machine.w[z * at.Z_WORDS + at.Z_END]
        if inside and cpu < cpus and order in code and mt < MIGRATE_PCPTYPES:
            found[z * cpus + cpu, code[order] * MIGRATE_PCPTYPES + mt] += 1
    return found


def _supply(machine: at.Machine, zones: int) -> I64:
    """Free blocks on buddy lists at the start, [zone, order * 3 + migratetype]."""
    counts = machine.w[at.NF : at.NF + zones * NR_PAGE_ORDERS * at.NR_TYPES]
    kept = counts.reshape(zones, NR_PAGE_ORDERS, at.NR_TYPES)[:, :, :MIGRATE_PCPTYPES]
    return np.ascontiguousarray(kept).reshape(zones, -1)
