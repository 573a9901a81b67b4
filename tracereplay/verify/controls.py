"""What happened beside the page events: the vmstat workers, kswapd, and zones as later snapshots show them.

The vmstat worker of a CPU runs about once a second, near the same fraction of the trace's clock all the time
(``round_jiffies_relative``, each CPU 3 jiffies before the one below it), but which fraction is recorded nowhere: it is
learnt from the times of drains by kworkers. tracereplay's own collector makes all workers run when it takes a
snapshot, since it writes to /proc/sys/vm/stat_refresh before it reads (``vmstat_refresh``, mm/vmstat.c).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import polars as pl

from tracereplay.machine.config import MachineConfig
from tracereplay.trace.snapshots import ZoneFacts, snapshot_times, zones
from tracereplay.verify.layout import (
    CONTROL_WORDS,
    CTL_COUNT,
    CTL_GROWN,
    CTL_LIMITS,
    CTL_RECLAIM,
    CTL_REFRESH,
    CTL_TICK,
)

if TYPE_CHECKING:
    from tracereplay.trace.reader import Trace

SECOND_NS = 1_000_000_000
WINDOW_NS = 64_000_000
EARLY_SHARE = 0.25
"""Of the drains in the window, those that come before the assumed time: the rest were waiting for the CPU."""
"""Drains of one second's workers come within this time of each other, mostly: a busy CPU lets a worker wait."""
BIN_NS = 1_000_000
REFRESH_NS = 5_000_000
"""The workers run within this time before the first file of a snapshot has been read."""
READING_NS = range(0, 300_001, 50_000)
"""Times before a snapshot's zoneinfo had been read at which its counts may have been taken."""
LEAST_DRAINS = 3
"""Drains in the window below which no phase is believed."""


@dataclass(frozen=True, slots=True)
class Phase:
    """Where in a second of the trace's clock the vmstat workers run."""

    ns: int
    """Of CPU 0; each next CPU ``skew_ns`` earlier."""
    skew_ns: int
    drains: int
    """Drains that it rests on; 0: it is not known, and whole seconds are assumed."""


def controls_of(trace: Trace, config: MachineConfig, base: int | None, phase: Phase) -> npt.NDArray[np.int64]:
    """Rows (time, what, a, b, c, d) in time order, as ``layout`` describes. ``base``: time of the snapshot that the
    machine starts from; later ones bring new bounds and grown zones."""
    rows: list[tuple[int, ...]] = []
    span = trace.sort_range("page_events")
    if span is not None and config.generation not in ("5.10", "5.14", "6.1"):
        rows += _ticks(span, config.cpus, phase)
    rows += _kswapd(trace)
    rows += _snapshots(trace, config, base)
    rows.sort()
    return np.array(rows, np.int64).reshape(-1, CONTROL_WORDS)


def _ticks(span: tuple[int, int], cpus: int, phase: Phase) -> list[tuple[int, ...]]:
    rows: list[tuple[int, ...]] = []
    for cpu in range(cpus):
        offset = (phase.ns - cpu * phase.skew_ns) % SECOND_NS
        first = (span[0] - offset) // SECOND_NS + 1
        rows += [
            (second * SECOND_NS + offset, CTL_TICK, cpu, 0, 0, 0)
            for second in range(first, (span[1] - offset) // SECOND_NS + 1)
        ]
    return rows


def _kswapd(trace: Trace) -> list[tuple[int, ...]]:
    """Start and end of kswapd's work; a trace of several nodes does not say whose."""
    if not trace.rows("mm_events"):
        return []
    found = (
        trace.mm_events.select("ts_ns", pl.col("kind").cast(pl.String), "result")
        .filter(pl.col("kind").is_in(["kswapd_wake", "kswapd_sleep"]))
        .collect()
    )
    return [(ts, CTL_RECLAIM, 0, int(kind == "kswapd_wake"), 0, 0) for ts, kind, _ in found.iter_rows()]


def _snapshots(trace: Trace, config: MachineConfig, base: int | None) -> list[tuple[int, ...]]:
    rows: list[tuple[int, ...]] = []
    numbers = {(z.node, z.name): i for i, z in enumerate(ordered_zones(config))}
    managed: dict[tuple[int, str], int] = {}
    refreshing = trace.metadata.source.get("kind") == "capture"
    for ts, phase in snapshot_times(trace):
        if ts is None:
            continue
        read = read_times(trace, ts)
        if ts != base and refreshing and phase == "tick":
            rows.append((min(read.values(), default=ts) - REFRESH_NS, CTL_REFRESH, 0, 0, 0, 0))
        at = read.get("zoneinfo", ts)
        bounds = pcp_bounds(trace, ts)
        for facts in zones(trace, ts_ns=ts):
            key = (facts.node, facts.zone)
            if key not in numbers:
                continue
            if key in managed and facts.managed != managed[key]:
                rows.append((at, CTL_GROWN, numbers[key], facts.managed - managed[key], 0, 0))
            managed[key] = facts.managed
            if ts == base:
                continue
            for cpu, count in facts.pcp_count.items():
                if cpu < config.cpus:
                    page_set = numbers[key] * config.cpus + cpu
                    low, top = bounds.get((*key, cpu), (0, 0))
                    rows.append((at, CTL_LIMITS, page_set, facts.pcp_high.get(cpu, 0), low, top))
                    rows += [
                        (at - before, CTL_COUNT, page_set, count, int(before == max(READING_NS)), int(before == 0))
                        for before in READING_NS
                    ]
    return rows


def read_times(trace: Trace, ts_ns: int) -> dict[str, int]:
    """When each file of the snapshot at ``ts_ns`` had been read, ns, by name; captures say it."""
    rows = (
        trace.snapshots.filter((pl.col("ts_ns") == ts_ns) & (pl.col("source") == "read_ns"))
        .select(pl.col("name").cast(pl.String), "value")
        .collect()
    )
    return dict(rows.iter_rows())


def ordered_zones(config: MachineConfig) -> list[Any]:
    """Zones of a configuration by their number in the machine."""
    from tracereplay.machine.layout import ZONE_NAMES

    return sorted(config.zones, key=lambda z: (z.node, ZONE_NAMES.index(z.name)))


def pcp_bounds(trace: Trace, ts_ns: int | None) -> dict[tuple[int, str, int], tuple[int, int]]:
    """``high_min`` and ``high_max`` by (node, zone, CPU) in the snapshot at ``ts_ns``; printed since 6.14."""
    at = pl.col("ts_ns") == ts_ns if ts_ns is not None else pl.col("phase") == "start"
    rows = (
        trace.snapshots.filter(at & (pl.col("source") == "zoneinfo") & pl.col("cpu").is_not_null())
        .select("node", pl.col("zone").cast(pl.String), "cpu", pl.col("name").cast(pl.String), "value")
        .filter(pl.col("name").is_in(["high_min", "high_max"]))
        .collect()
    )
    found: dict[tuple[int, str, int], dict[str, int]] = {}
    for node, zone, cpu, name, value in rows.iter_rows():
        found.setdefault((node, zone, cpu), {})[name] = value
    return {key: (v["high_min"], v["high_max"]) for key, v in found.items() if len(v) == 2}


def snapshot_for_start(trace: Trace) -> tuple[int | None, list[ZoneFacts]]:
    """Time and zones of the snapshot nearest to the first event; (None, zones of the first) where none is timed."""
    span = trace.sort_range("page_events") if trace.rows("page_events") else None
    timed = [(abs(ts - span[0]), ts) for ts, _ in snapshot_times(trace) if ts is not None] if span else []
    if not timed:
        return None, zones(trace)
    ts = min(timed)[1]
    return ts, zones(trace, ts_ns=ts)


# ---------------------------------------------------------------- the workers' phase
def learn_phase(trace: Trace) -> Phase:
    """Phase of the vmstat workers: the beginning of the part of a second in which most drains by kworkers lie."""
    hz = int((trace.metadata.host.get("kernel_config") or {}).get("HZ") or 250)
    skew = 3 * SECOND_NS // hz
    if not trace.rows("page_events") or not trace.rows("tasks"):
        return Phase(0, skew, 0)
    workers = trace.tasks.filter(pl.col("comm").str.starts_with("kworker/")).select(pl.col("pid").unique())
    times = (
        trace.page_events.filter(pl.col("kind") == "drain")
        .select("ts_ns", "cpu", "pid")
        .join(workers, on="pid", how="semi")
        .sort("cpu", "ts_ns")
        .filter((pl.col("ts_ns").diff() > BIN_NS).fill_null(value=True) | (pl.col("cpu").diff() != 0))
        .collect()
    )
    refreshes = np.array([ts for ts, kind in snapshot_times(trace) if ts is not None and kind == "tick"], np.int64)
    ts = times["ts_ns"].to_numpy()
    if len(refreshes) and len(ts):
        ts_ok = np.min(np.abs(ts[:, None] - refreshes[None, :]), axis=1) > WINDOW_NS
    else:
        ts_ok = np.ones(len(ts), bool)
    return densest(ts[ts_ok] + times["cpu"].to_numpy()[ts_ok].astype(np.int64) * skew, skew)


def densest(times: npt.NDArray[np.int64], skew_ns: int) -> Phase:
    """The phase that most of ``times`` (ns, brought to CPU 0) speak for."""
    if len(times) == 0:
        return Phase(0, skew_ns, 0)
    within = np.sort(times % SECOND_NS)
    around = np.concatenate([within, within + SECOND_NS])
    counts = np.searchsorted(around, within + WINDOW_NS, side="right") - np.arange(len(within))
    best = int(np.argmax(counts))
    if counts[best] < LEAST_DRAINS:
        return Phase(0, skew_ns, 0)
    found = around[best : best + counts[best]]
    return Phase(int(np.quantile(found, EARLY_SHARE, method="lower")) % SECOND_NS, skew_ns, int(counts[best]))
