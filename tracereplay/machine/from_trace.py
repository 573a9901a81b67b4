"""The machine of a trace's host: zones, watermarks and free blocks of its start snapshot, CPUs, generation."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from tracereplay.kernel.constants import MIGRATETYPE_NAMES, NR_PAGE_ORDERS
from tracereplay.kernel.generations import generation_of_release
from tracereplay.machine.config import (
    SYNTHETIC_KSWAPD_RATE,
    ZONE_ORDER,
    MachineConfig,
    Watermarks,
    ZoneConfig,
    default_machine,
)
from tracereplay.machine.directmap_start import DirectMap
from tracereplay.machine.layout import MAX_CPUS
from tracereplay.machine.marks import derived_watermarks
from tracereplay.machine.options import machine_options
from tracereplay.trace.snapshots import ZoneFacts, directmap_kib, zones

if TYPE_CHECKING:
    from tracereplay.trace.reader import Trace


def machine_of(trace: Trace, cpus: int) -> MachineConfig:
    """The machine that recorded a trace, as far as the trace tells; else the stated default, with a note.

    ``cpus``: CPUs that the events name. Zones the simulator has no type for (Device, HighMem) are left out and noted.
    """
    host = trace.metadata.host
    cpus = min(max(cpus, int(host.get("cpus") or 1)), MAX_CPUS)
    generation = generation_of(trace)
    facts = [z for z in zones(trace) if z.start_pfn is not None]
    known = [z for z in facts if z.zone in ZONE_ORDER]
    if not known:
        base = default_machine(max(cpus, 1), generation)
        note = "the trace has no memory snapshot: 16 GiB, half in use, not fragmented, is simulated"
        return replace(base, notes=(note,), kswapd_rate=_kswapd_rate(trace))
    by_type = _free_by_type(trace)
    config = MachineConfig(
        zones=tuple(_zone(z, by_type.get((z.node, z.zone))) for z in known),
        cpus=cpus,
        generation=generation,
        nodes=max(z.node for z in known) + 1,
        init_on_alloc=_init_on_alloc(host),
        kswapd_rate=_kswapd_rate(trace),
        direct_map=_direct_map(trace),
        source="snapshot",
        notes=tuple(f"zone {z.zone} of node {z.node} is not simulated" for z in facts if z.zone not in ZONE_ORDER),
    )
    marks = derived_watermarks(config)  # for the lowmem reserves, which depend on all zones
    return replace(
        config,
        zones=tuple(
            replace(z, watermarks=replace(z.watermarks, low_reserve=m.low_reserve)) if z.watermarks else z
            for z, m in zip(config.zones, marks, strict=True)
        ),
    )


def configured_machine(trace: Trace, cpus: int, options: Mapping[str, str], seed: int) -> MachineConfig:
    """The machine of a trace with ``--machine`` options applied. Raises ParameterError."""
    return machine_options(replace(machine_of(trace, cpus), seed=seed), options)


def _zone(facts: ZoneFacts, by_type: tuple[tuple[int, ...], ...] | None) -> ZoneConfig:
    start = facts.start_pfn or 0
    watermarks = None
    if facts.min is not None and facts.low is not None and facts.high is not None:
        watermarks = Watermarks(min=facts.min, low=facts.low, high=facts.high)
    blocks = tuple(facts.free_blocks[:NR_PAGE_ORDERS]) or None
    return ZoneConfig(
        name=facts.zone,
        start=start,
        end=start + (facts.spanned or facts.managed),
        node=facts.node,
        managed=facts.managed,
        watermarks=watermarks,
        free_blocks=blocks,
        free_by_type=by_type if blocks else None,
    )


def _free_by_type(trace: Trace) -> dict[tuple[int, str], tuple[tuple[int, ...], ...]]:
    """Free blocks by migratetype and order per (node, zone), from the start snapshot's pagetypeinfo."""
    import polars as pl

    rows = (
        trace.snapshots.filter(
            (pl.col("phase") == "start") & (pl.col("source") == "pagetypeinfo") & (pl.col("name") == "nr_free")
        )
        .select("node", "zone", "order", "migratetype", "value")
        .collect()
    )
    found: dict[tuple[int, str], list[list[int]]] = {}
    for node, zone, order, migratetype, value in rows.iter_rows():
        if migratetype in MIGRATETYPE_NAMES[:3] and order is not None and order < NR_PAGE_ORDERS:
            table = found.setdefault((node, zone), [[0] * NR_PAGE_ORDERS for _ in range(3)])
            table[MIGRATETYPE_NAMES.index(migratetype)][order] = value
    return {key: tuple(tuple(row) for row in table) for key, table in found.items()}


def generation_of(trace: Trace) -> str:
    """Allocator generation of the recorded kernel.

    By what the trace shows where that decides (decimal frame numbers are 5.10 or 5.14), else by the kernel release.
    """
    host = trace.metadata.host
    by_release = generation_of_release(host.get("release"))
    features = host.get("features") or {}
    if isinstance(features, dict) and features.get("pfn_decimal") and not host.get("release"):
        return "5.10"
    return by_release


def _direct_map(trace: Trace) -> DirectMap:
    """The direct map of the start snapshot; all in 2 MiB entries where none was recorded."""
    found = directmap_kib(trace)
    if not found:
        return DirectMap()
    return DirectMap(recorded_kib=(found.get("DirectMap4k", 0), found.get("DirectMap1G", 0)))


def _kswapd_rate(trace: Trace) -> int:
    """What kswapd freed on a recorded host is in the trace as frees; behind synthetic events there was none."""
    return SYNTHETIC_KSWAPD_RATE if trace.metadata.source.get("kind") == "synthetic" else 0


def _init_on_alloc(host: dict[str, Any]) -> bool:
    known = host.get("init_on_alloc")  # from the command line or the kernel's configuration, where the capture saw it
    if isinstance(known, bool):
        return known
    return "init_on_alloc=1" in str(host.get("command_line", "")).split()
