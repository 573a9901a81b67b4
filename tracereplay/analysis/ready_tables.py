"""The ready-made tables of SQL: their columns, and what makes them. Imports nothing heavy.

Each is made from a trace once, by a function of another module that streams record batches, and kept (derived.py).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pyarrow as pa

Columns = tuple[tuple[str, str, bool, str], ...]


@dataclass(frozen=True, slots=True)
class ReadyTable:
    """A table that is made from a trace when a statement first names it."""

    name: str
    title: str
    """What a row is."""
    module: str
    """Module whose ``function(trace)`` yields the record batches, and whose ``schema`` says their columns."""
    function: str
    schema: str
    columns: Columns
    """Name, type, whether it may be null, meaning; strings are dictionaries in the file."""

    def arrow_schema(self) -> pa.Schema:
        """The columns, without loading the module."""
        return arrow_schema(self.columns)


def arrow_schema(columns: Columns) -> pa.Schema:
    """Columns as a schema."""
    import pyarrow as pa

    return pa.schema([pa.field(n, _arrow_type(t), nullable=null) for n, t, null, _ in columns])


def _arrow_type(name: str) -> pa.DataType:
    import pyarrow as pa

    if name == "string":
        return pa.dictionary(pa.int32(), pa.string())
    return pa.bool_() if name == "bool" else pa.type_for_alias(name)


LIFETIMES = ReadyTable(
    "lifetimes",
    "one block from its allocation to its free",
    "tracereplay.demand.lifetime",
    "lifetimes",
    "LIFETIMES",
    (
        ("pfn", "uint64", False, "first frame of the block, or of a piece of it"),
        ("order", "uint8", False, "block of 2^order pages"),
        ("pages", "uint32", False, "2^order"),
        ("t_alloc_ns", "int64", True, "allocated, trace clock; null: not seen"),
        ("t_free_ns", "int64", True, "freed; null: not seen"),
        ("lifetime_ns", "int64", True, "how long it lived, class complete only"),
        ("alloc_cpu", "uint16", True, "CPU that allocated it"),
        ("free_cpu", "uint16", True, "CPU that freed it"),
        ("pid", "uint32", True, "thread that allocated it"),
        ("gfp", "uint32", True, "gfp mask of the allocation"),
        ("caller", "string", True, "who: by stack, or by command and gfp"),
        ("class", "string", False, "complete left_censored right_censored ..."),
        ("stack_id", "uint32", True, "stack of the allocation, where there is one"),
    ),
)
REQUESTS = ReadyTable(
    "requests",
    "what one caller wanted at one time",
    "tracereplay.analysis.requests",
    "requests",
    "REQUESTS",
    (
        ("request_id", "int64", False, "number, in order of arrival"),
        ("ts_ns", "int64", False, "arrival, trace clock"),
        ("cpu", "uint16", False, "CPU that asked"),
        ("caller", "string", True, "who asked: by stack, or by command and gfp"),
        ("gfp", "uint32", False, "gfp mask of the first block"),
        ("migratetype", "uint8", False, "type asked for, by number"),
        ("pages", "uint32", False, "pages wanted"),
        ("extents", "uint32", False, "blocks in which the kernel gave them"),
        ("order", "uint8", False, "of the largest of these blocks"),
        ("contiguity", "string", False, "required: a block must be one piece; or none"),
        ("origin", "string", False, "traced; unseen: known by its frees only"),
        ("batch", "bool", False, "two pages or more, one caller's batch"),
        ("targeted", "bool", False, "--target batches would choose it"),
        ("of_bio", "bool", False, "known to be for one WRITE bio"),
        ("pages_freed", "uint32", False, "pages that came back within the trace"),
        ("released_ns", "int64", True, "last page back; null: some did not come"),
        ("hold_ns", "int64", True, "from arrival until then"),
        ("page_ns", "int64", True, "sum over pages that came back of their hold"),
    ),
)
REFILLS = ReadyTable(
    "refills",
    "one refill of a per-CPU list",
    "tracereplay.analysis.refills",
    "refills",
    "REFILLS",
    (
        ("t0_ns", "int64", False, "first block left the buddy lists, trace clock"),
        ("t1_ns", "int64", False, "last block left them"),
        ("cpu", "uint16", False, "CPU whose list was refilled"),
        ("order", "uint8", False, "blocks of 2^order pages"),
        ("migratetype", "uint8", False, "list that was refilled, by number"),
        ("blocks", "uint32", False, "blocks of the run"),
        ("pages", "uint64", False, "blocks times 2^order"),
        ("fallbacks", "uint32", False, "blocks of another type broken for it"),
        ("pid", "uint32", False, "thread on whose behalf"),
    ),
)
IO = ReadyTable(
    "io",
    "one I/O on one layer: a bio from its queueing to its completion",
    "tracereplay.analysis.io",
    "io_table",
    "IO",
    (
        ("id", "int64", False, "number of the I/O, in order of first sight"),
        ("parent_id", "int64", True, "I/O of the layer above that it belongs to"),
        ("root_id", "int64", False, "uppermost I/O that it belongs to"),
        ("layer", "uint8", False, "0: uppermost device of the stack"),
        ("dev", "uint32", False, "device as the bio names it, perhaps a partition"),
        ("disk", "uint32", False, "whole device"),
        ("op", "string", True, "R W D DE F N ZA ..."),
        ("flags", "string", True, "rwbs of the first event"),
        ("sector", "uint64", True, "null: it has none (empty flush, command)"),
        ("nr_sectors", "uint32", False, "512-byte sectors"),
        ("bytes", "uint64", False, "512 times nr_sectors; commands: their data"),
        ("q_ns", "int64", True, "queued, trace clock; null: not seen"),
        ("i_ns", "int64", True, "inserted into the scheduler"),
        ("d_ns", "int64", True, "issued to the driver, or to the device below"),
        ("c_ns", "int64", True, "complete; null: not seen"),
        ("below_c_ns", "int64", True, "complete on the layer below"),
        ("q2d_ns", "int64", True, "time in software on this layer"),
        ("d2c_ns", "int64", True, "time in the device, or in the layers below"),
        ("q2c_ns", "int64", True, "time in all"),
        ("pid", "uint32", True, "thread that queued it on this layer"),
        ("root_pid", "uint32", True, "thread that queued the uppermost I/O"),
        ("cpu", "uint16", False, "CPU on which it was queued"),
        ("c_cpu", "uint16", True, "CPU on which it completed"),
        ("merged_into", "int64", True, "I/O that its request begins with"),
        ("merges", "uint32", False, "I/Os that joined its request"),
        ("splits", "uint32", False, "cuts"),
        ("requeues", "uint32", False, "times it was given back or issued again"),
        ("error", "int32", False, "errno of the first failure; 0: none"),
        ("stack_id", "uint32", True, "key into table stacks"),
        ("class", "string", False, "complete left_censored right_censored broken"),
    ),
)
READY_TABLES: dict[str, ReadyTable] = {t.name: t for t in (LIFETIMES, REQUESTS, REFILLS, IO)}

CALLERS: Columns = (
    ("stack_id", "uint32", False, "key: page_events, bio_events, lifetimes, io"),
    ("caller", "string", False, "innermost function not the allocator's"),
    ("stack", "string", False, "functions joined by ;, outermost first"),
)
"""Table ``callers``: small, made anew by each statement that reads it."""


def describe_ready_tables() -> list[list[str]]:
    """``[table, column, type, "yes" or "no" (may be null), meaning]`` of every column, in order."""
    return [
        [table.name, name, kind, "yes" if null else "no", says]
        for table in READY_TABLES.values()
        for name, kind, null, says in table.columns
    ] + [["callers", name, kind, "yes" if null else "no", says] for name, kind, null, says in CALLERS]
