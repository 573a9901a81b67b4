"""Columns of the compiled parser into Arrow batches of the trace's tables."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from tracereplay.importers.ftrace_vocabulary import NULL_ERROR, NULL_SMALL
from tracereplay.importers.ordering import Columns
from tracereplay.kernel.gfp import parse_gfp
from tracereplay.kernel.rwbs import operation
from tracereplay.trace.columns import kind_dictionary

_SMALL = ("order", "migratetype", "alloc_order", "fallback_order", "fallback_migratetype")
_FLAGS = ("percpu_refill", "change_ownership")
NO_STACK = -1


def _masked(values: npt.NDArray[Any], null: npt.NDArray[np.bool_]) -> pa.Array | None:
    """An Arrow array with nulls, or None when nothing else is in it."""
    if not null.any():
        return pa.array(values)
    return None if null.all() else pa.array(values, mask=null)


def _batch(columns: Mapping[str, pa.Array | None]) -> pa.RecordBatch:
    present = {name: column for name, column in columns.items() if column is not None}
    return pa.RecordBatch.from_arrays(list(present.values()), names=list(present))


def _kind(table: str, codes: npt.NDArray[np.int8]) -> pa.DictionaryArray:
    return pa.DictionaryArray.from_arrays(pa.array(codes), kind_dictionary(table))


def _stack_id(rows: Columns) -> pa.Array | None:
    stack = rows["stack_id"]
    known = stack != NO_STACK
    return pa.array(stack.astype(np.uint32), mask=~known) if known.any() else None


class GfpMasks:
    """Masks of gfp texts by their number. A text with a name the table does not have gets no mask."""

    def __init__(self, table: Mapping[str, int]) -> None:
        self._table = table
        self._values: list[int] = []
        self._known: list[bool] = []
        self.unknown: list[str] = []

    def extend(self, texts: Sequence[bytes]) -> None:
        """Texts that were numbered since the last call."""
        for text in texts:
            name = text.decode("ascii", "backslashreplace")
            try:
                value = parse_gfp(name, self._table)
            except (KeyError, ValueError):
                value = -1
            known = 0 <= value < 2**32
            self._known.append(known)
            self._values.append(value if known else 0)
            if not known:
                self.unknown.append(name)

    def __len__(self) -> int:
        return len(self._values)

    def column(self, numbers: npt.NDArray[np.int32]) -> pa.Array | None:
        """``gfp`` of rows by the number of their text, -1 for none."""
        values = np.array([*self._values, 0], np.uint32)  # the last one is what -1 takes
        known = np.array([*self._known, False])
        return _masked(values[numbers], ~known[numbers])


def page_batch(rows: Columns, gfp: GfpMasks) -> pa.RecordBatch:
    """Rows of ``page_events``."""
    columns: dict[str, pa.Array | None] = {
        "ts_ns": pa.array(rows["ts_ns"]),
        "cpu": pa.array(rows["cpu"]),
        "kind": _kind("page_events", rows["kind"]),
        "pfn": _masked(rows["pfn"], rows["pfn_known"] == 0),
        "gfp": gfp.column(rows["gfp"]),
        "pid": pa.array(rows["pid"]),
        "stack_id": _stack_id(rows),
    }
    for name in _SMALL:
        columns[name] = _masked(rows[name], rows[name] == NULL_SMALL)
    for name in _FLAGS:
        columns[name] = _masked(rows[name] != 0, rows[name] == NULL_SMALL)
    return _batch(columns)


class Rwbs:
    """``op`` and ``flags`` of rwbs texts by their number."""

    def __init__(self) -> None:
        self._flags: list[str] = []

    def extend(self, texts: Sequence[bytes]) -> None:
        """Texts that were numbered since the last call."""
        self._flags += [text.decode("ascii", "backslashreplace") for text in texts]

    def __len__(self) -> int:
        return len(self._flags)

    def columns(self, numbers: npt.NDArray[np.int32]) -> dict[str, pa.Array]:
        """Both columns of rows."""
        operations = [operation(f) for f in self._flags]
        distinct = sorted(set(operations))
        codes = np.array([distinct.index(o) for o in operations], np.int32)
        return {
            "op": pa.DictionaryArray.from_arrays(codes[numbers], pa.array(distinct, pa.string())),
            "flags": pa.DictionaryArray.from_arrays(pa.array(numbers), pa.array(self._flags, pa.string())),
        }


def bio_batch(rows: Columns, rwbs: Rwbs) -> pa.RecordBatch:
    """Rows of ``bio_events``."""
    kinds = kind_dictionary("bio_events").to_pylist()
    kind = rows["kind"]
    return _batch(
        {
            "ts_ns": pa.array(rows["ts_ns"]),
            "cpu": pa.array(rows["cpu"]),
            "kind": _kind("bio_events", kind),
            "dev": pa.array(rows["dev"]),
            "sector": pa.array(rows["sector"]),
            "nr_sectors": _wide(rows["nr_sectors"], np.uint32),
            "nr_bytes": _wide(rows["nr_bytes"], np.uint32),
            **rwbs.columns(rows["rwbs"]),
            "pid": pa.array(rows["pid"]),
            "error": _masked(rows["error"].astype(np.int32), rows["error"] == NULL_ERROR),
            "old_dev": _wide(rows["old_dev"], np.uint32),
            "old_sector": _masked(rows["old_sector"], kind != kinds.index("remap")),
            "new_sector": _masked(rows["new_sector"], kind != kinds.index("split")),
            "stack_id": _stack_id(rows),
        }
    )


def _wide(values: npt.NDArray[np.int64], kind: type[np.generic]) -> pa.Array | None:
    """A column in which -1 stands for null."""
    null = values < 0
    return _masked(np.where(null, 0, values).astype(kind), null)


_FIELD = re.compile(rb"(\w+)=(\S+)")
COMPACTION_RESULTS = (
    "not_suitable_zone",
    "skipped",
    "deferred",
    "no_suitable_page",
    "continue",
    "complete",
    "partial_skipped",
    "contended",
    "success",
)
"""Texts of ``status=`` in code order (``enum compact_result``, include/linux/compaction.h)."""


def mm_fields(text: bytes, gfp: Mapping[str, int]) -> dict[str, int | None]:
    """``order gfp result`` of the arguments of a reclaim or compaction event; None for what they do not carry."""
    fields = {name.decode(): value.rstrip(b",").decode("ascii", "replace") for name, value in _FIELD.findall(text)}
    found: dict[str, int | None] = {"order": None, "gfp": None, "result": None}
    order, reclaimed = fields.get("order", ""), fields.get("nr_reclaimed", "")
    if order.isdecimal() and int(order) < NULL_SMALL:
        found["order"] = int(order)
    if reclaimed.isdecimal() and int(reclaimed) < 2**63:
        found["result"] = int(reclaimed)
    if fields.get("status") in COMPACTION_RESULTS:
        found["result"] = COMPACTION_RESULTS.index(fields["status"])
    try:
        mask = parse_gfp(fields["gfp_flags"], gfp)
        found["gfp"] = mask if 0 <= mask < 2**32 else None
    except (KeyError, ValueError):
        pass
    return found


def mm_batch(rows: Columns) -> pa.RecordBatch:
    """Rows of ``mm_events``; -1 stands for null in ``order gfp result``."""
    return _batch(
        {
            "ts_ns": pa.array(rows["ts_ns"]),
            "cpu": pa.array(rows["cpu"]),
            "kind": _kind("mm_events", rows["kind"]),
            "pid": pa.array(rows["pid"]),
            "order": _wide(rows["order"], np.uint8),
            "gfp": _wide(rows["gfp"], np.uint32),
            "result": _wide(rows["result"], np.int64),
        }
    )
