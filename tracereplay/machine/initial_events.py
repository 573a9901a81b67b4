"""Streaming a trace's page events through the pass that tells the state before them."""

# mypy: disable-error-code="no-untyped-call"

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from tracereplay.demand.columns import plain
from tracereplay.kernel.constants import PAGEBLOCK_ORDER
from tracereplay.kernel.generations import GENERATIONS
from tracereplay.machine import initial_scan as scan
from tracereplay.machine.config import MachineConfig, ZoneConfig
from tracereplay.machine.initial_map import PageMap
from tracereplay.machine.initial_snapshots import Counted
from tracereplay.trace.schema import PAGE_KINDS

if TYPE_CHECKING:
    from tracereplay.trace.reader import Trace

COLUMNS = ["ts_ns", "cpu", "kind", "pfn", "order", "migratetype", "gfp"]
EXTFRAG_COLUMNS = ["alloc_order", "fallback_order", "fallback_migratetype", "change_ownership"]
ROOM = 1 << 16
"""Entries that a log of the scan starts with."""


def scan_trace(
    trace: Trace,
    config: MachineConfig,
    ordered: list[ZoneConfig],
    page_map: PageMap,
    counts: Counted,
) -> scan.Tables:
    """Everything that the events tell of the time before them. ``ordered``: the zones by number."""
    tables = _tables(trace, config, ordered, page_map, counts)
    if not trace.rows("page_events"):
        return tables
    kind = PAGE_KINDS.index("extfrag")
    zeros = np.zeros(0, np.uint8)
    step: Any = scan.scan
    for batch in trace.batches("page_events", [*COLUMNS, *EXTFRAG_COLUMNS]):
        ts, cpu, kinds, pfn, order, mt, gfp = (batch.column(i) for i in range(7))
        codes = plain(kinds.indices)
        if len(zeros) < len(codes):
            zeros = np.zeros(len(codes), np.uint8)
        extfrag = (codes == kind).any()
        more = [_small(batch.column(7 + i), 0) if extfrag else zeros[: len(codes)] for i in range(4)]
        columns: list[Any] = [
            plain(ts),
            plain(cpu),
            codes,
            plain(pfn).view(np.int64),
            plain(order),
            _small(mt, scan.NOT_RECORDED),
            plain(gfp),
            *more,
        ]
        at = 0
        while (at := step(tables, *columns, at)) < len(codes):
            tables = tables._replace(popped=_grown(tables.popped), taken=_grown(tables.taken))
    return tables


def _small(column: pa.Array, missing: int) -> npt.NDArray[np.uint8]:
    """A column of small numbers or truth values; nulls are ``missing``."""
    if pa.types.is_boolean(column.type):
        column = column.cast(pa.uint8())
    if column.null_count:
        column = pc.fill_null(column, pa.scalar(missing, column.type))
    values: npt.NDArray[np.uint8] = column.to_numpy(zero_copy_only=False)
    return values


def _grown(log: npt.NDArray[Any]) -> npt.NDArray[Any]:
    made = np.zeros(2 * len(log), log.dtype)
    made[: len(log)] = log
    return made


def _tables(
    trace: Trace,
    config: MachineConfig,
    ordered: list[ZoneConfig],
    page_map: PageMap,
    counts: Counted,
) -> scan.Tables:
    frames = max(z.end for z in config.zones) + 1023 & ~1023
    blocks = frames >> PAGEBLOCK_ORDER
    generation = GENERATIONS[config.generation]
    scalar = np.zeros(scan.SCALARS, np.int64)
    scalar[scan.S_KEEPS_TYPE] = generation.fallback_keeps_type
    scalar[scan.S_PCP_ORDERS] = generation.pcp_orders
    scalar[scan.S_THP_LISTS] = generation.pcp_thp_lists
    scalar[scan.S_REFILLS] = any("zone_locked" in name for name in trace.metadata.events)
    scalar[scan.S_CPUS] = config.cpus
    zone = np.full(blocks, -1, np.int8)
    for z, its in enumerate(ordered):
        zone[its.start >> PAGEBLOCK_ORDER : (its.end - 1 >> PAGEBLOCK_ORDER) + 1] = z
    return scan.Tables(
        scalar=scalar,
        first=np.zeros(frames, np.uint8),
        last=np.zeros(frames, np.uint16),
        need=np.zeros(frames, np.uint8),
        strong=np.full(blocks, -1, np.int8),
        weak=np.full(blocks, -1, np.int8),
        closed=np.zeros(blocks, np.uint8),
        against=np.zeros(blocks, np.int32),
        read_ns=page_map.read_ns(blocks),
        zone=zone,
        budget=counts.pcp.clip(min=0).reshape(-1),
        runs=np.full(2 * scan.RUNS * len(ordered), -1, np.int64),
        popped=np.zeros(ROOM, scan.POPPED),
        taken=np.zeros(ROOM, np.int64),
    )
