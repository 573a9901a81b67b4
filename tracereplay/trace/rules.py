"""What the rows of each table must look like: the rules that ``validate`` applies batch by batch.

A rule is a named mask over a batch: rows in which it holds are wrong. Rules look at one row at a time; order,
sums and files are checked in validate.py.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tracereplay.kernel.constants import MAX_PAGE_ORDER
from tracereplay.trace.metadata import TraceMetadata
from tracereplay.trace.schema import BIO_KINDS, LOSS_CLASSES, PAGE_KINDS, SNAPSHOT_PHASES, TABLES

Mask = np.ndarray[Any, np.dtype[np.bool_]]
ERROR = "error"
WARNING = "warning"
NOTE = "note"


@dataclass(frozen=True, slots=True)
class Rule:
    """Rows for which ``broken`` is true violate the rule."""

    code: str
    severity: str
    says: str
    broken: Callable[[pa.RecordBatch], Mask]


def _mask(values: pa.Array) -> Mask:
    mask: Mask = pc.fill_null(values, False).to_numpy(zero_copy_only=False)
    return mask


def _of_kind(batch: pa.RecordBatch, kinds: Iterable[str], all_kinds: tuple[str, ...]) -> Mask:
    wanted = np.zeros(len(all_kinds), np.bool_)
    wanted[[all_kinds.index(k) for k in kinds]] = True
    found: Mask = wanted[batch.column("kind").indices.to_numpy()]
    return found


def _null(batch: pa.RecordBatch, column: str) -> Mask:
    mask: Mask = batch.column(column).is_null().to_numpy(zero_copy_only=False)
    return mask


def _needs(table: str, column: str, kinds: tuple[str, ...], severity: str = ERROR) -> Rule:
    """Events of these kinds carry the column."""
    names = BIO_KINDS if table == "bio_events" else PAGE_KINDS
    return Rule(
        f"{column}-missing",
        severity,
        f"{', '.join(kinds)} without {column}",
        lambda b: _of_kind(b, kinds, names) & _null(b, column),
    )


def _lacks(column: str, kinds: tuple[str, ...]) -> Rule:
    """Page events of these kinds do not carry the column."""
    return Rule(
        f"{column}-unexpected",
        ERROR,
        f"{', '.join(kinds)} with {column}",
        lambda b: _of_kind(b, kinds, PAGE_KINDS) & ~_null(b, column),
    )


def _above(column: str, limit: int, severity: str, says: str) -> Rule:
    def broken(batch: pa.RecordBatch) -> Mask:
        values = batch.column(column)
        # The scalar has the column's type: Arrow would cast both to int64, which large frames do not fit.
        return _mask(pc.greater(values, pa.scalar(limit, values.type)))

    return Rule(f"{column}-range", severity, says, broken)


def _is_zero(column: str, says: str) -> Rule:
    def broken(batch: pa.RecordBatch) -> Mask:
        values = batch.column(column)
        return _mask(pc.equal(values, pa.scalar(0, values.type)))

    return Rule(f"{column}-empty", ERROR, says, broken)


def _not_in(column: str, known: Iterable[str], severity: str) -> Rule:
    values = pa.array(sorted(known), pa.string())

    def broken(batch: pa.RecordBatch) -> Mask:
        found = batch.column(column)
        if len(found.dictionary) == 0:
            return np.zeros(len(found), np.bool_)
        unknown = pc.invert(pc.is_in(found.dictionary, value_set=values))
        return _mask(unknown.take(found.indices))

    return Rule(f"{column}-unknown", severity, f"{column} is none of {', '.join(values.to_pylist())}", broken)


def _after(first: str, second: str) -> Rule:
    return Rule(
        f"{second}-before-{first}",
        ERROR,
        f"{second} is before {first}",
        lambda b: _mask(pc.less(b.column(second), b.column(first))),
    )


def _cpu_rules(metadata: TraceMetadata) -> list[Rule]:
    cpus = metadata.host.get("cpus")
    if not isinstance(cpus, int) or cpus < 1:
        return []
    # A warning: CPU numbers are sparse after hot-unplug, and `cpus` counts those online at the start.
    return [_above("cpu", cpus - 1, WARNING, f"cpu is above {cpus - 1}, the host has {cpus}")]


def row_rules(table: str, metadata: TraceMetadata) -> list[Rule]:
    """The rules of a table. Kinds and their columns: page-allocator.md 7.1 and 7.5."""
    orders = [
        _above(name, MAX_PAGE_ORDER, ERROR, f"{name} is above {MAX_PAGE_ORDER}")
        for name in ("order", "alloc_order", "fallback_order")
    ]
    if table == "page_events":
        framed = ("alloc", "free", "free_batched", "zone_locked", "drain", "extfrag")
        return [
            *orders,
            *_cpu_rules(metadata),
            _needs(table, "pfn", framed),
            _lacks("pfn", ("alloc_failed", "bulk")),
            _needs(table, "order", ("alloc", "alloc_failed", "free", "zone_locked", "drain")),
            _needs(table, "gfp", ("alloc", "alloc_failed"), WARNING),
            _needs(table, "migratetype", ("zone_locked", "drain"), WARNING),
            _needs(table, "fallback_order", ("extfrag",)),
            _needs(table, "returned", ("bulk",)),
        ]
    if table == "bio_events":
        placed = tuple(k for k in BIO_KINDS if k != "error")
        return [
            *_cpu_rules(metadata),
            _needs(table, "dev", placed),
            _needs(table, "sector", placed),
            _needs(table, "new_sector", ("split",)),
            _needs(table, "old_sector", ("remap",)),
        ]
    if table == "mm_events":
        return [orders[0], *_cpu_rules(metadata)]
    if table == "loss":
        return [
            _not_in("class", LOSS_CLASSES, ERROR),
            _not_in("table", [*TABLES, "all"], ERROR),
            _after("t0_ns", "t1_ns"),
            *_cpu_rules(metadata),
        ]
    if table == "tasks":
        return [_after("first_ns", "last_ns")]
    if table == "snapshots":
        return [_not_in("phase", SNAPSHOT_PHASES, ERROR), orders[0]]
    if table == "page_map":
        return [_is_zero("pages", "a run of 0 pages")]
    return []
