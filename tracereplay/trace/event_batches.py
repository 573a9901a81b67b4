"""From decoded records to Arrow batches of the trace's tables, and from task records to task intervals."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from tracereplay.errors import CollectorError
from tracereplay.kernel.constants import NO_PFN
from tracereplay.kernel.rwbs import operation
from tracereplay.trace.decode import Array, Loss, Records, RingLayout
from tracereplay.trace.schema import BIO_KINDS, LOSS, MM_KINDS, PAGE_KINDS, TASKS

StackIds = Callable[[npt.NDArray[np.uint64]], tuple[npt.NDArray[np.uint32], npt.NDArray[np.bool_]]]
"""From hashes to stack ids, and which of them have one."""
Codes = npt.NDArray[np.int8]
Mask = npt.NDArray[np.bool_]

FLAG_REFILL = 0x01
MOST_TASKS = 1 << 17
"""Tasks in use that a flight recorder keeps names of, whether seen in its window or not: four times what the
kernel side remembers."""
_PAGE_WORDS = (("gfp", "pid"), ("kind", "order", "migratetype", "flags"))
"""Neighbouring fields that are gathered in one pass."""


def kind_codes(probes: Sequence[Mapping[str, Any]], kinds: Sequence[str]) -> Codes:
    """Table from a record's ``kind`` byte (index of its probe in hello) to the code of a table's
    dictionary."""
    codes = np.full(256, -1, np.int8)
    for index, probe in enumerate(probes[:256]):
        if probe.get("kind") in kinds:
            codes[index] = kinds.index(probe["kind"])
    return codes


def _valid(values: Array, kind: pa.DataType, mask: Mask | None) -> pa.Array:
    """Arrow array over the values; rows where ``mask`` is False are null."""
    if mask is None or mask.all():
        return pa.Array.from_buffers(kind, len(values), [None, pa.py_buffer(values)])
    bits = np.packbits(mask, bitorder="little")
    return pa.Array.from_buffers(kind, len(values), [pa.py_buffer(bits), pa.py_buffer(values)])


def kind_column(codes: Codes, kinds: Sequence[str]) -> pa.Array:
    """Column ``kind`` from codes into ``kinds``. Raises CollectorError for a code that is none."""
    if len(codes) and codes.min() < 0:
        raise CollectorError("a record is of a probe that the collector's hello does not name")
    indices = pa.Array.from_buffers(pa.int8(), len(codes), [None, pa.py_buffer(codes)])
    return pa.DictionaryArray.from_arrays(indices, pa.array(list(kinds), pa.string()))


def _stack_column(records: Records, stack_ids: StackIds | None) -> dict[str, pa.Array]:
    """Column ``stack_id`` where the records name stacks."""
    if stack_ids is None or not records.has("stack"):
        return {}
    ids, known = stack_ids(records.column("stack"))
    return {"stack_id": _valid(ids, pa.uint32(), known)}


class PageBatches:
    """Page records -> ``page_events``."""

    def __init__(
        self, layout: RingLayout, probes: Sequence[Mapping[str, Any]], stack_ids: StackIds | None = None
    ) -> None:
        self._stack_ids = stack_ids
        for names in _PAGE_WORDS:
            at = [layout.offsets.get(n, -1) for n in names]
            size = 8 // len(names) if len(names) == 2 else 1
            if at != list(range(at[0], at[0] + size * len(names), size)) or at[0] < 0:
                raise CollectorError(f"page records of this collector do not hold {', '.join(names)} side by side")
        self._at_pfn = layout.offsets["pfn"]
        self._at_gfp = layout.offsets["gfp"]
        self._at_kind = layout.offsets["kind"]
        self._codes = kind_codes(probes, PAGE_KINDS)

        def of(*names: str) -> Mask:
            return np.array([k in names for k in PAGE_KINDS])

        self._allocs = of("alloc", "alloc_failed")
        self._typed = of("alloc", "alloc_failed", "zone_locked", "drain", "extfrag")
        self._extfrag = PAGE_KINDS.index("extfrag")
        self._zone_locked = PAGE_KINDS.index("zone_locked")
        self._batched = PAGE_KINDS.index("free_batched")

    def batch(self, records: Records) -> pa.RecordBatch:
        """A batch in time order."""
        pfn = records.gather(np.dtype("<u8"), self._at_pfn)
        gfp_pid = records.gather(np.dtype("<u8"), self._at_gfp).view(np.uint32).reshape(-1, 2)
        small = records.gather(np.dtype("<u4"), self._at_kind).view(np.uint8).reshape(-1, 4)
        codes = self._codes[small[:, 0]]
        gfp = np.ascontiguousarray(gfp_pid[:, 0])
        order = np.ascontiguousarray(small[:, 1])
        has_pfn: Mask | None = None
        if len(pfn) and pfn.max() == NO_PFN:
            has_pfn = pfn != NO_PFN
            codes[(codes == 0) & ~has_pfn] = PAGE_KINDS.index("alloc_failed")
        columns = {
            "ts_ns": _valid(records.ts, pa.int64(), None),
            "cpu": _valid(records.cpus(), pa.uint16(), None),
            "kind": kind_column(codes, PAGE_KINDS),
            "pfn": _valid(pfn, pa.uint64(), has_pfn),
            "order": _valid(order, pa.uint8(), None),
            "gfp": _valid(gfp, pa.uint32(), self._allocs[codes]),
            "migratetype": _valid(np.ascontiguousarray(small[:, 2]), pa.uint8(), self._typed[codes]),
            "pid": _valid(np.ascontiguousarray(gfp_pid[:, 1]), pa.uint32(), None),
            **_stack_column(records, self._stack_ids),
        }
        if len(codes) and codes.max() >= self._batched:
            columns.update(self._buddy(codes, small[:, 3], order, gfp))
        return pa.RecordBatch.from_pydict(columns)

    def _buddy(self, codes: Codes, flags: Array, order: Array, gfp: Array) -> dict[str, pa.Array]:
        """Columns that only zone_locked and extfrag fill. The latter keeps three values in the word of the
        mask."""
        locked = codes == self._zone_locked
        frag = codes == self._extfrag
        return {
            "percpu_refill": pa.array((flags & FLAG_REFILL) != 0, pa.bool_(), mask=~locked),
            "order": pa.array(order, pa.uint8(), mask=frag | (codes == self._batched)),
            "alloc_order": pa.array(order, pa.uint8(), mask=~frag),
            "fallback_order": pa.array((gfp & 0xFF).astype(np.uint8), pa.uint8(), mask=~frag),
            "fallback_migratetype": pa.array((gfp >> 8 & 0xFF).astype(np.uint8), pa.uint8(), mask=~frag),
            "change_ownership": pa.array((gfp >> 16 & 1) != 0, pa.bool_(), mask=~frag),
        }


class BioBatches:
    """Bio and request records -> ``bio_events``."""

    def __init__(
        self, layout: RingLayout, probes: Sequence[Mapping[str, Any]], stack_ids: StackIds | None = None
    ) -> None:
        self._stack_ids = stack_ids
        self._codes = kind_codes(probes, BIO_KINDS)

    def batch(self, records: Records) -> pa.RecordBatch:
        """A batch in time order. Fields that an event does not carry are null."""
        codes = self._codes[records.column("kind")]
        raw, which = np.unique(records.column("rwbs"), return_inverse=True)
        # The kernel ends the text with a NUL and leaves behind it what an earlier event had there.
        cut = [t.split(b"\0")[0].decode("ascii", "replace") for t in raw.tolist()]
        texts = sorted(set(cut))
        codes_of = {text: code for code, text in enumerate(texts)}
        inverse = np.array([codes_of[t] for t in cut], np.int32)[which]
        flags = pa.DictionaryArray.from_arrays(pa.array(inverse), pa.array(texts, pa.string()))
        operations = pa.array([operation(t) for t in texts], pa.string())
        other = records.column("other_sector")

        def only(name_or_values: str | Array, kind: pa.DataType, *kinds: str) -> pa.Array:
            values = records.column(name_or_values) if isinstance(name_or_values, str) else name_or_values
            wanted = np.isin(codes, [BIO_KINDS.index(k) for k in kinds])
            return pa.array(values, kind, mask=~wanted)

        return pa.RecordBatch.from_pydict(
            {
                "ts_ns": pa.array(records.ts),
                "cpu": pa.array(records.cpus()),
                "kind": kind_column(codes, BIO_KINDS),
                "dev": pa.array(records.column("dev")),
                "sector": pa.array(records.column("sector")),
                "nr_sectors": pa.array(records.column("nr_sectors"), mask=codes == BIO_KINDS.index("split")),
                "nr_bytes": only("nr_bytes", pa.uint32(), "insert", "issue"),
                "op": operations.take(pa.array(inverse)).dictionary_encode(),
                "flags": flags,
                "pid": pa.array(records.column("pid")),
                "error": only("error", pa.int32(), "complete", "bio_complete", "error"),
                "old_dev": only("old_dev", pa.uint32(), "remap"),
                "old_sector": only(other, pa.uint64(), "remap"),
                "new_sector": only(other, pa.uint64(), "split"),
                **_stack_column(records, self._stack_ids),
            }
        )


class MmBatches:
    """Compaction and reclaim records -> ``mm_events``."""

    _ORDER = ("compaction_try", "reclaim_begin", "kswapd_wakeup", "kswapd_wake")
    _GFP = ("compaction_try", "reclaim_begin", "kswapd_wakeup")
    _NO_RESULT = ("reclaim_begin",)

    def __init__(self, layout: RingLayout, probes: Sequence[Mapping[str, Any]]) -> None:
        self._codes = kind_codes(probes, MM_KINDS)

    def batch(self, records: Records) -> pa.RecordBatch:
        """A batch in time order. Fields that an event does not carry are null."""
        codes = self._codes[records.column("kind")]

        def among(kinds: Sequence[str]) -> Mask:
            return np.isin(codes, [MM_KINDS.index(k) for k in kinds])

        return pa.RecordBatch.from_pydict(
            {
                "ts_ns": pa.array(records.ts),
                "cpu": pa.array(records.cpus()),
                "kind": kind_column(codes, MM_KINDS),
                "pid": pa.array(records.column("pid")),
                "order": pa.array(records.column("order"), mask=~among(self._ORDER)),
                "gfp": pa.array(records.column("gfp"), mask=~among(self._GFP)),
                "result": pa.array(records.column("result").view(np.int64), mask=among(self._NO_RESULT)),
            }
        )


@dataclass(slots=True)
class TaskTable:
    """Intervals in which a pid went by a name in a cgroup: opened at first sight, closed when either changes."""

    rows: list[list[Any]] = field(default_factory=list)
    """[pid, tgid, comm, cgroup id (0: not known), first_ns, last_ns]."""
    _current: dict[int, int] = field(default_factory=dict)
    _cgroups: dict[int, str] = field(default_factory=dict)

    def add(self, records: Records) -> None:
        """Take task records in time order. A repeated name extends nothing and adds no row."""
        names = ("pid", "tgid", "comm", "cgroup")
        columns = (records.column(n).tolist() if records.has(n) else [0] * len(records) for n in names)
        for ts, pid, tgid, raw, cgroup in zip(records.ts.tolist(), *columns, strict=True):
            comm = raw.split(b"\0")[0].decode("utf-8", "replace")
            at = self._current.get(pid)
            if at is not None:
                row = self.rows[at]
                # 0: another task made the record, which tells the name only.
                tgid, cgroup = tgid or row[1] or 0, cgroup or row[3]
                if row[2] == comm and row[1] in (None, tgid) and row[3] in (0, cgroup):
                    row[1], row[3] = tgid or None, cgroup
                    continue
                row[5] = ts
            self._current[pid] = len(self.rows)
            self.rows.append([pid, tgid or None, comm, cgroup, ts, None])

    def forget(self, before_ns: int, wanted: Callable[[list[int]], Sequence[bool] | Mask]) -> None:
        """Drop names that went out of use before a time; and where more than MOST_TASKS are in use, those of tasks
        that ``wanted`` (thread ids -> mask) does not want. The kernel side sends the name of a task again when it
        has forgotten it (collectors/programs.py, SEEN_PIDS).
        """
        rows = [row for row in self.rows if row[5] is None or row[5] >= before_ns]
        if sum(row[5] is None for row in rows) > MOST_TASKS:
            keep = wanted([row[0] for row in rows])
            rows = [row for row, kept in zip(rows, keep, strict=True) if kept]
        self.rows = rows
        self._current = {row[0]: at for at, row in enumerate(rows) if row[5] is None}
        used = {row[3] for row in rows}
        self._cgroups = {number: path for number, path in self._cgroups.items() if number in used}

    def name_cgroups(self, paths: Mapping[str, Any]) -> None:
        """Take a CGROUPS frame: id in decimal -> path."""
        self._cgroups.update({int(number): str(path) for number, path in paths.items() if number.isdigit()})

    def batch(self) -> pa.RecordBatch:
        """The ``tasks`` table, the idle task (pid 0, one per CPU) included. ``last_ns`` null: until the end.

        A cgroup that was gone before its path could be asked for is ``id:NUMBER``.
        """
        rows = [[0, 0, "swapper", None, None, None]]
        for pid, tgid, comm, cgroup, first, last in self.rows:
            path = self._cgroups.get(cgroup, f"id:{cgroup}") if cgroup else None
            rows.append([pid, tgid, comm, path, first, last])
        names = ("pid", "tgid", "comm", "cgroup", "first_ns", "last_ns")
        columns = zip(names, zip(*rows, strict=True), strict=True)
        return pa.RecordBatch.from_pydict({n: pa.array(values, TASKS.field(n).type) for n, values in columns})


def loss_batch(losses: Sequence[Loss]) -> pa.RecordBatch:
    """Rows of the ``loss`` table."""
    columns: dict[str, list[Any]] = {
        "t0_ns": [x.t0_ns for x in losses],
        "t1_ns": [x.t1_ns for x in losses],
        "table": [x.table for x in losses],
        "cpu": [x.cpu for x in losses],
        "n": [x.n for x in losses],
        "class": [x.cls for x in losses],
    }
    types = {n: LOSS.field(n).type for n in columns}
    plain = {n: t.value_type if pa.types.is_dictionary(t) else t for n, t in types.items()}
    return pa.RecordBatch.from_pydict({n: pa.array(values, plain[n]) for n, values in columns.items()})
