"""Several traces as one: of hosts side by side on a common clock, or of one boot one after the other.

Events of all parts are put in order of time, equal times in the order of the parts. Memory does not grow with their
length: it is that of the row groups at hand of each part (about 140 MB with full ones), and the stacks of one.

Parts of one boot become an ordinary trace. Of several hosts or boots each row says its ``host``: CPUs, tasks and frames
keep their numbers, which mean something on their host only.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tracereplay.trace.merge_plan import Host, Part, hosts_of, merged_metadata, place
from tracereplay.trace.merge_rows import merge_sorted
from tracereplay.trace.merge_stacks import StackMap, StackNumbers
from tracereplay.trace.reader import Trace
from tracereplay.trace.schema import EVENT_TABLES, HOST, TABLES
from tracereplay.trace.writer import TraceWriter

TIMES = {
    "page_events": ("ts_ns",),
    "bio_events": ("ts_ns",),
    "mm_events": ("ts_ns",),
    "loss": ("t0_ns", "t1_ns"),
    "shed": ("t0_ns", "t1_ns"),
    "tasks": ("first_ns", "last_ns"),
    "snapshots": ("ts_ns",),
    "page_map": ("ts_ns",),
}
"""Columns that hold times of the trace's clock; ``snapshots.value`` too where ``source`` is read_ns."""
BATCH_ROWS = 1 << 17
"""Rows of a part in memory; many parts may be read at once."""


def merge_traces(
    out: str | os.PathLike[str],
    traces: Sequence[Trace],
    *,
    align: bool = False,
    offsets: Mapping[str, int] | None = None,
    contiguous: bool = False,
    force: bool = False,
) -> Trace:
    """Write the traces as one. A host's times are put on the wall clock by the instants that its capture recorded;
    ``align``: each host begins at 0 instead; ``offsets``: ns to add, by host. ``contiguous``: nothing is missing
    between parts of one boot; else the time between them is an interval of loss.

    Raises MergeError, OutputExistsError, StorageError, TruncatedTraceError for a damaged part.
    """
    hosts = hosts_of(traces)
    clock = place(hosts, align=align, offsets=offsets or {})
    metadata = merged_metadata(hosts, clock)
    if any(len(host.parts) > 1 for host in hosts) and not contiguous:
        metadata.loss = {}  # the gaps are in no recorder's sum
    if len(hosts) > 1:
        metadata.hosts = [_entry(host) for host in hosts]
    numbers = StackNumbers()
    with TraceWriter(out, metadata, force=force) as writer:
        counts: dict[str, Counter[str]] = {host.name: Counter() for host in hosts}
        stacks: dict[int, StackMap] = {}
        for part in (p for h in hosts for p in h.parts):
            stacks[id(part)], rows = numbers.take(part.trace)
            for batch in rows:
                writer.write("stacks", batch)
        for table in TIMES:
            streams = [
                _counted(_rows(h, p, table, stacks[id(p)], len(hosts) > 1), counts[h.name], table)
                for h in hosts
                for p in h.parts
            ]
            if table == "loss" and not contiguous:
                streams += [_counted(iter([_gaps(h, len(hosts) > 1)]), counts[h.name], table) for h in hosts]
            key = TABLES[table].sorted_by
            for batch in (b for s in streams for b in s) if key is None else merge_sorted(streams, key):
                writer.write(table, batch)
        for entry in metadata.hosts:
            entry["rows"] = dict(counts[entry["host"]])
        if not all(p.trace.complete for h in hosts for p in h.parts):
            writer.abort()  # what was not whole does not become so
    return Trace.open(writer.path)


def _entry(host: Host) -> dict[str, Any]:
    """What ``metadata.hosts`` says of a host."""
    own = host.parts[0].trace.metadata
    if len(host.parts) > 1:
        own = merged_metadata([Host(host.name, host.parts)], dict(own.clock))
    ranges = {}
    for table in (t for t in TIMES if TABLES[t].sorted_by):
        found = [(p, r) for p in host.parts if (r := p.trace.sort_range(table)) is not None]
        if found:
            ends = [_moved(p, r) if table != "page_map" else r for p, r in found]
            ranges[table] = [min(e[0] for e in ends), max(e[1] for e in ends)]
    clock = host.parts[0].clock
    assert clock is not None
    begin = host.parts[0].start_ns
    return {
        "host": host.name,
        "boot": own.host.get("boot_id"),
        "trace_id": own.trace_id,
        "clock": own.clock.get("name"),
        "resolution_ns": own.clock.get("resolution_ns", 1),
        "offset_ns": int(clock(np.array([begin], np.int64))[0]) - begin,
        "uncertainty_ns": host.uncertainty_ns,
        "complete": all(p.trace.complete for p in host.parts),
        "rows": {},  # counted while they are written
        "ranges": ranges,
        "metadata": own.to_json(),
    }


def _moved(part: Part, ends: tuple[int, int]) -> tuple[int, int]:
    if part.clock is None:
        return ends
    first, last = part.clock(np.array(ends, np.int64)).tolist()
    return first, last


# ---------------------------------------------------------------- rows
def _counted(batches: Iterator[pa.RecordBatch], count: Counter[str], table: str) -> Iterator[pa.RecordBatch]:
    for batch in batches:
        count[table] += batch.num_rows
        yield batch


def _rows(host: Host, part: Part, table: str, stacks: StackMap, several: bool) -> Iterator[pa.RecordBatch]:
    """A part's rows of a table as they go into the whole."""
    later = part is not host.parts[0]
    if table == "page_map" and later:
        return  # the map of the beginning is the first part's
    names = [n for n in TABLES[table].schema.names if n != HOST.name]
    for batch in part.trace.batches(table, names, BATCH_ROWS):
        columns = dict(zip(names, batch.columns, strict=True))
        if part.clock is not None:
            for name in TIMES[table]:
                columns[name] = _on_clock(part, columns[name])
            if table == "snapshots":
                read = pc.fill_null(pc.equal(columns["source"].cast(pa.string()), "read_ns"), False)
                columns["value"] = pc.if_else(read, _on_clock(part, columns["value"]), columns["value"])
        if table == "snapshots":
            columns["phase"] = _phases(host, part, columns["phase"])
        if "stack_id" in columns:
            columns["stack_id"] = stacks(columns["stack_id"])
        if several:
            code = pa.array(np.zeros(batch.num_rows, np.int32))
            columns[HOST.name] = pa.DictionaryArray.from_arrays(code, pa.array([host.name], pa.string()))
        yield pa.RecordBatch.from_pydict(columns)


def _on_clock(part: Part, column: pa.Array) -> pa.Array:
    assert part.clock is not None
    absent = column.is_null().to_numpy(zero_copy_only=False)
    return pa.array(part.clock(column.fill_null(0).to_numpy()), pa.int64(), mask=absent)


def _phases(host: Host, part: Part, column: pa.Array) -> pa.Array:
    """Ends of parts within the whole are points in between: only the first start and the last end are such."""
    inner = [n for n, at in (("start", host.parts[0]), ("end", host.parts[-1])) if part is not at]
    text = column.cast(pa.string())
    return pc.if_else(pc.is_in(text, value_set=pa.array(inner, pa.string())), "tick", text) if inner else column


def _gaps(host: Host, several: bool) -> pa.RecordBatch:
    """Between one part's last event and the next one's first nobody recorded: loss of an unknown number."""
    rows = []
    for table in EVENT_TABLES:
        held = sorted(_moved(p, r) for p in host.parts if (r := p.trace.sort_range(table)) is not None)
        for before, after in pairwise(held):
            rows.append({"t0_ns": before[1], "t1_ns": after[0], "table": table, "class": "unknown"})
    names = ["t0_ns", "t1_ns", "table", "class"]
    columns = {n: [r[n] for r in rows] for n in names}
    if several:
        columns[HOST.name] = [host.name] * len(rows)
    types = {f.name: f.type.value_type if pa.types.is_dictionary(f.type) else f.type for f in TABLES["loss"].schema}
    return pa.RecordBatch.from_pydict({n: pa.array(v, types[n]) for n, v in columns.items()})
