"""Tables of a trace bundle: the single source of truth for columns, types, units and encodings.

Column names and values are a contract with users' queries: add, never rename (architecture.md section 3).
Times are integer nanoseconds of the trace's own clock (``metadata.clock``), never wall clock. Sectors are 512
bytes. Frames are unsigned page frame numbers. What an event does not carry is null. Every table is sorted by
its time column over all its files, in file order.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import pyarrow as pa

SCHEMA_VERSION = 1
"""Version this tracereplay writes; it reads MIN_SCHEMA_VERSION..SCHEMA_VERSION."""
MIN_SCHEMA_VERSION = 1

BUNDLE_FORMAT = "tracereplay-trace"

_name = pa.dictionary(pa.int8(), pa.string())
_text = pa.dictionary(pa.int32(), pa.string())

PAGE_KINDS = ("alloc", "alloc_failed", "free", "free_batched", "zone_locked", "drain", "extfrag", "bulk")
"""Kinds of ``page_events``, and their codes: the writer always uses this dictionary in this order."""
BIO_KINDS = (
    "queue",
    "split",
    "remap",
    "backmerge",
    "frontmerge",
    "insert",
    "issue",
    "requeue",
    "complete",
    "bio_complete",
    "error",
)
"""Kinds of ``bio_events``, in code order.

``complete`` is block_rq_complete, ``bio_complete`` is block_bio_complete.
"""
MM_KINDS = (
    "compaction_begin",
    "compaction_end",
    "reclaim_begin",
    "reclaim_end",
    "compaction_try",
    "kswapd_wakeup",
    "kswapd_wake",
    "kswapd_sleep",
)
"""Kinds of ``mm_events``, in code order. ``compaction_try`` is the direct compaction of one allocation,
``compaction_begin`` and ``_end`` one zone's; ``reclaim_*`` direct reclaim; ``kswapd_wakeup`` the call that wakes
kswapd."""
LOSS_CLASSES = (
    "ring_full",
    "ring_lock",
    "recursion",
    "stack",
    "reader",
    "unnoticed",
    "overwritten",
    "reported",
    "unknown",
)
"""Why events were lost (capture.md 1.7).

``unnoticed``: nothing counted it, the page frames' own events prove it (:mod:`tracereplay.trace.unnoticed`).
``overwritten``: ftrace ring overrun. ``reported``: a LOST or DROPPED line of a foreign trace.
"""
SNAPSHOT_PHASES = ("start", "tick", "end")

PAGE_EVENTS = pa.schema(
    [
        pa.field("ts_ns", pa.int64(), nullable=False),
        pa.field("cpu", pa.uint16(), nullable=False),
        pa.field("kind", _name, nullable=False),
        pa.field("pfn", pa.uint64()),  # null: alloc_failed, bulk
        pa.field("order", pa.uint8()),
        pa.field("gfp", pa.uint32()),
        pa.field("migratetype", pa.uint8()),
        pa.field("pid", pa.uint32()),  # the task's tid as tracepoints give it
        pa.field("stack_id", pa.uint32()),
        pa.field("percpu_refill", pa.bool_()),
        pa.field("requested", pa.uint32()),
        pa.field("returned", pa.uint32()),
        pa.field("alloc_order", pa.uint8()),
        pa.field("fallback_order", pa.uint8()),
        pa.field("fallback_migratetype", pa.uint8()),
        pa.field("change_ownership", pa.bool_()),
    ]
)
BIO_EVENTS = pa.schema(
    [
        pa.field("ts_ns", pa.int64(), nullable=False),
        pa.field("cpu", pa.uint16(), nullable=False),
        pa.field("kind", _name, nullable=False),
        pa.field("dev", pa.uint32()),  # kernel dev_t: major << 20 | minor
        pa.field("sector", pa.uint64()),
        pa.field("nr_sectors", pa.uint32()),
        pa.field("nr_bytes", pa.uint32()),  # requests only: bytes as the event gives them
        pa.field("op", _text),  # R W D DE F N ZA ... (rwbs without its flags)
        pa.field("flags", _text),  # rwbs as the kernel writes it, e.g. "WSM"
        pa.field("rq_flags", pa.uint32()),
        pa.field("pid", pa.uint32()),
        pa.field("error", pa.int32()),
        pa.field("old_dev", pa.uint32()),
        pa.field("old_sector", pa.uint64()),
        pa.field("new_sector", pa.uint64()),
        pa.field("stack_id", pa.uint32()),
    ]
)
MM_EVENTS = pa.schema(
    [
        pa.field("ts_ns", pa.int64(), nullable=False),
        pa.field("cpu", pa.uint16(), nullable=False),
        pa.field("kind", _name, nullable=False),
        pa.field("pid", pa.uint32()),
        pa.field("order", pa.uint8()),
        pa.field("gfp", pa.uint32()),
        pa.field("result", pa.int64()),
    ]
)
LOSS = pa.schema(
    [
        pa.field("t0_ns", pa.int64()),  # last event seen before the gap; null: none was
        pa.field("t1_ns", pa.int64()),  # first event seen after it; null: none was
        pa.field("table", _text, nullable=False),  # which stream lost: page_events, bio_events ... or "all"
        pa.field("cpu", pa.uint16()),
        pa.field("n", pa.uint64()),  # null: the source does not say how many
        pa.field("class", _text, nullable=False),
    ]
)
TASKS = pa.schema(
    [
        pa.field("pid", pa.uint32(), nullable=False),
        pa.field("tgid", pa.uint32()),
        pa.field("comm", pa.string()),
        pa.field("cgroup", pa.string()),
        pa.field("first_ns", pa.int64()),
        pa.field("last_ns", pa.int64()),
    ]
)
STACKS = pa.schema(
    [
        pa.field("stack_id", pa.uint32(), nullable=False),
        pa.field("depth", pa.uint16(), nullable=False),  # 0: innermost frame
        pa.field("address", pa.uint64()),
        pa.field("symbol", _text),
        pa.field("offset", pa.uint64()),
        pa.field("module", _text),  # null: the kernel itself
    ]
)
SHED = pa.schema(
    [
        pa.field("t0_ns", pa.int64(), nullable=False),
        pa.field("t1_ns", pa.int64()),  # null: to the end of the trace
        pa.field("stacks", pa.uint32()),  # a stack for one event in so many; 0: none; null: not asked for
        pa.field("sample", pa.uint32(), nullable=False),  # page events of one caller in so many; 1: all
        pa.field("reason", _text),
        pa.field("overhead", pa.float64()),  # share of a core when it was decided
        pa.field("rate", pa.float64()),  # events/s when it was decided
    ]
)
SNAPSHOTS = pa.schema(
    [
        pa.field("ts_ns", pa.int64()),  # null: foreign snapshot without a time
        pa.field("phase", _text, nullable=False),
        pa.field("source", _text, nullable=False),  # buddyinfo pagetypeinfo zoneinfo vmstat directmap
        pa.field("node", pa.int16()),
        pa.field("zone", _text),
        pa.field("cpu", pa.uint16()),  # zoneinfo pagesets
        pa.field("order", pa.uint8()),  # buddyinfo, pagetypeinfo
        pa.field("migratetype", _text),  # pagetypeinfo
        pa.field("name", _text, nullable=False),  # e.g. managed, start_pfn, low, count, high, batch, nr_free
        pa.field("value", pa.int64(), nullable=False),
    ]
)
PAGE_MAP = pa.schema(
    [
        pa.field("pfn", pa.uint64(), nullable=False),  # first frame of a run
        pa.field("pages", pa.uint64(), nullable=False),  # length of the run
        pa.field("kind", _text, nullable=False),  # buddy slab pgtable lru anon huge reserved other
        pa.field("ts_ns", pa.int64()),  # when this part of the map had been read
    ]
)

HOST = pa.field("host", _text)
"""In traces of several hosts: the host of the row. Files of other traces do not have the column."""


@dataclass(frozen=True, slots=True)
class Table:
    """A table of the bundle: its schema, the column it is sorted by, and its Parquet encodings."""

    name: str
    schema: pa.Schema
    sorted_by: str | None
    delta: tuple[str, ...] = ()
    """Columns written DELTA_BINARY_PACKED."""
    plain: tuple[str, ...] = ()
    """Columns written PLAIN, without a dictionary (nearly distinct values)."""
    hard: tuple[str, ...] = ()
    """Columns of high entropy, which are most of the bytes: compressed at a higher level."""
    statistics: tuple[str, ...] = ()
    """Columns with min and max in each row group; empty: all. Event tables keep few, they cost time."""


TABLES: dict[str, Table] = {
    t.name: t
    for t in (
        Table(
            "page_events",
            PAGE_EVENTS.append(HOST),
            "ts_ns",
            delta=("ts_ns",),
            plain=("pfn",),
            hard=("pfn",),
            statistics=("ts_ns", "cpu", "pfn", "order"),
        ),
        Table(
            "bio_events",
            BIO_EVENTS.append(HOST),
            "ts_ns",
            delta=("ts_ns", "sector", "old_sector", "new_sector"),
            statistics=("ts_ns", "cpu", "dev", "sector"),
        ),
        Table("mm_events", MM_EVENTS.append(HOST), "ts_ns", delta=("ts_ns",)),
        Table("loss", LOSS.append(HOST), None),
        Table("shed", SHED.append(HOST), "t0_ns"),
        Table("tasks", TASKS.append(HOST), None),
        Table("stacks", STACKS, None),
        Table("snapshots", SNAPSHOTS.append(HOST), None),
        Table("page_map", PAGE_MAP.append(HOST), "pfn", delta=("pfn",)),
    )
}
EVENT_TABLES = ("page_events", "bio_events", "mm_events")


def written_table(table: Table, *, hosts: bool) -> Table:
    """A table as it is written: without the column ``host`` unless the trace is of several hosts."""
    index = table.schema.get_field_index(HOST.name)
    return table if hosts or index < 0 else replace(table, schema=table.schema.remove(index))


COLUMN_NOTES: dict[str, str] = {
    "ts_ns": "ns of the trace clock",
    "cpu": "CPU on which it happened",
    "pfn": "page frame number",
    "order": "block of 2^order pages",
    "gfp": "gfp mask; bits: metadata.gfp_flags",
    "migratetype": "type asked for, or of the list (by number)",
    "pid": "thread id of the task on the CPU",
    "stack_id": "key into table stacks",
    "percpu_refill": "zone_locked: taken to refill a CPU list",
    "requested": "bulk: pages asked for in one call",
    "returned": "bulk: pages given",
    "alloc_order": "extfrag: order asked for",
    "fallback_order": "extfrag: order of the block broken",
    "fallback_migratetype": "extfrag: type of the block broken",
    "change_ownership": "extfrag: the pageblock changed its type",
    "dev": "major << 20 | minor, as tracepoints give it",
    "sector": "512-byte sectors, always",
    "nr_sectors": "512-byte sectors, always",
    "nr_bytes": "requests: bytes, as the event gives them",
    "op": "R W D DE F N ZA ...: rwbs without flags",
    "flags": "rwbs as the kernel writes it, e.g. WSM",
    "rq_flags": "request flags",
    "error": "errno, 0 for success",
    "old_dev": "remap: device before",
    "old_sector": "remap: sector before",
    "new_sector": "split: where the second part starts",
    "result": "end events: what was achieved",
    "t0_ns": "last event before the gap; null: none",
    "t1_ns": "first event after the gap; null: none",
    "shed.t0_ns": "from then on less was recorded",
    "shed.t1_ns": "until then; null: to the end",
    "stacks": "a stack for one in so many; 0: none",
    "sample": "page events of one caller in so many",
    "reason": "which limit was met",
    "overhead": "share of a core at that time",
    "rate": "events/s at that time",
    "module": "module of the function; null: kernel",
    "page_map.ts_ns": "when this part had been read",
    "n": "events lost; null: the source does not say",
    "class": "why: ring_full, overwritten, reported ...",
    "tgid": "process id",
    "comm": "command name",
    "cgroup": "cgroup path or id",
    "first_ns": "first seen, trace clock",
    "last_ns": "last seen, trace clock",
    "depth": "0: innermost frame",
    "address": "return address",
    "symbol": "function",
    "offset": "bytes into the function",
    "phase": "start, tick or end",
    "source": "file under /proc",
    "node": "NUMA node",
    "zone": "DMA, DMA32, Normal, Movable",
    "name": "what is counted, in the kernel's words",
    "value": "pages, blocks or events; directmap: KiB",
    "pages": "length of the run",
    "kind": "what happened",
    "host": "of several hosts: which; else null",
    "page_map.pfn": "first frame of a run",
    "page_map.kind": "buddy slab pgtable lru anon huge reserved",
    "loss.table": "stream that lost: a table, or all",
    "tasks.pid": "thread id (reused over time)",
    "loss.cpu": "CPU whose buffer lost; null: not known",
    "snapshots.ts_ns": "trace clock; null: not known",
    "snapshots.cpu": "zoneinfo pagesets: CPU of the list",
    "snapshots.order": "buddyinfo, pagetypeinfo: block order",
    "snapshots.migratetype": "pagetypeinfo: name of the type",
}
"""Meaning and unit by column, or by ``table.column`` where it differs; ``info --schema`` shows it."""


def describe_columns() -> list[list[str]]:
    """``[table, column, type, "yes" or "no" (may be null), meaning]`` of every column, in order."""
    return [
        [
            table.name,
            field.name,
            "string" if pa.types.is_dictionary(field.type) else str(field.type),
            "yes" if field.nullable else "no",
            COLUMN_NOTES.get(f"{table.name}.{field.name}", COLUMN_NOTES.get(field.name, "")),
        ]
        for table in TABLES.values()
        for field in table.schema
    ]
