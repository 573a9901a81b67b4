"""Where twin and kernel stand at the end of a trace: free blocks, pages on per-CPU lists, pages handed out in all.

The kernel's side is what the snapshot nearest to the last event says. A capture takes one when it closes its gate and
another, of phase ``end``, once all is written: the host went on in between, so the first of them is compared with.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import polars as pl

from tracereplay.kernel.constants import NR_PAGE_ORDERS
from tracereplay.machine import layout as machine_at
from tracereplay.trace.snapshots import ZoneFacts, snapshot_times, vmstat_readings, zones
from tracereplay.verify.controls import ordered_zones

if TYPE_CHECKING:
    from tracereplay.trace.reader import Trace
    from tracereplay.verify.run import Twin


def share(part: float, whole: float) -> float | None:
    """``part / whole``; None where there is nothing to have a part of."""
    return part / whole if whole else None


def l1_share(kernel: list[int], twin: list[int]) -> float | None:
    """Blocks that the twin has too many or too few of an order, over the kernel's blocks."""
    return share(sum(abs(k - t) for k, t in zip(kernel, twin, strict=True)), sum(kernel))


@dataclass(frozen=True, slots=True)
class EndSnapshot:
    """The snapshot that the end is compared with."""

    ts_ns: int | None
    """None: foreign, without a time."""
    phase: str
    seconds_after: float | None
    """From the last event to the snapshot; below 0 where events follow it."""


def end_snapshot(trace: Trace) -> EndSnapshot | None:
    """The snapshot nearest to the last page event; of those without a time, that of phase ``end``. None: there is
    none behind the start."""
    span = trace.sort_range("page_events")
    taken = [(ts, phase) for ts, phase in snapshot_times(trace) if phase != "start"]
    timed = [(abs(ts - span[1]), ts, phase) for ts, phase in taken if ts is not None and span is not None]
    if timed and span is not None:
        _, ts, phase = min(timed)
        return EndSnapshot(ts, phase, (ts - span[1]) / 1e9)
    return EndSnapshot(None, "end", None) if (None, "end") in taken else None


def _last_state(twin: Twin, end: EndSnapshot | None) -> list[tuple[int, ZoneFacts]]:
    """Zones of the snapshot at the end with their number in the machine."""
    if end is None:
        return []
    numbers = {(z.node, z.name): i for i, z in enumerate(ordered_zones(twin.config))}
    found = zones(twin.trace, end.phase, end.ts_ns)
    return [(numbers[z.node, z.zone], z) for z in found if (z.node, z.zone) in numbers]


def free_now(twin: Twin, zone: int) -> list[int]:
    """Free blocks of a zone, by its number in the machine, by order, in the twin as it stands."""
    types = machine_at.NR_TYPES
    at = machine_at.NF + zone * NR_PAGE_ORDERS * types
    blocks = twin.machine.w[at : at + NR_PAGE_ORDERS * types].reshape(NR_PAGE_ORDERS, types)
    return [int(n) for n in blocks.sum(axis=1)]


def free_blocks(twin: Twin, end: EndSnapshot | None, changed: list[dict[str, Any]]) -> dict[str, Any]:
    """Free blocks by order in the twin and in buddyinfo at the end.

    ``order``, ``kernel``, ``twin``, ``l1_share`` (None without a snapshot) over all zones; the same by zone in
    ``zones``, with ``managed_changed`` from :func:`zone_changes`; ``snapshot``: which one it was.
    """
    grown = {(c["node"], c["zone"]): c["pages"] for c in changed}
    found = []
    kernels, twins = [0] * NR_PAGE_ORDERS, [0] * NR_PAGE_ORDERS
    for number, zone in enumerate(ordered_zones(twin.config)):
        mine = free_now(twin, number)
        twins = [a + b for a, b in zip(twins, mine, strict=True)]
        found.append({"node": zone.node, "zone": zone.name, "kernel": None, "twin": mine, "l1_share": None})
    known = [(number, z) for number, z in _last_state(twin, end) if z.free_blocks]
    for number, zone_facts in known:
        theirs = (zone_facts.free_blocks + [0] * NR_PAGE_ORDERS)[:NR_PAGE_ORDERS]
        kernels = [a + b for a, b in zip(kernels, theirs, strict=True)]
        entry = found[number]
        entry |= {"kernel": theirs, "l1_share": l1_share(theirs, entry["twin"])}
    for entry in found:
        entry["managed_changed"] = grown.get((entry["node"], entry["zone"]), 0)
    return {
        "order": list(range(NR_PAGE_ORDERS)),
        "kernel": kernels if known else None,
        "twin": twins,
        "l1_share": l1_share(kernels, twins) if known else None,
        "zones": found,
        "snapshot": None if end is None else asdict(end),
    }


def pcp_counts(twin: Twin, end: EndSnapshot | None) -> list[dict[str, Any]]:
    """Pages on the per-CPU lists at the end: ``node zone cpu twin unlisted kernel``.

    ``unlisted`` are those of the twin's pages that it counts without knowing which they are; ``kernel`` is zoneinfo's
    count, None without a snapshot.
    """
    w, cpus = twin.machine.w, twin.config.cpus
    theirs = {number: z.pcp_count for number, z in _last_state(twin, end)}
    rows = []
    for number, zone in enumerate(ordered_zones(twin.config)):
        for cpu in range(cpus):
            p = (number * cpus + cpu) * machine_at.P_WORDS
            rows.append(
                {
                    "node": zone.node,
                    "zone": zone.name,
                    "cpu": cpu,
                    "twin": int(w[p + machine_at.P_COUNT]),
                    "unlisted": int(w[p + machine_at.P_UNLISTED]),
                    "kernel": theirs.get(number, {}).get(cpu),
                }
            )
    return rows


def zone_changes(trace: Trace) -> list[dict[str, Any]]:
    """Zones whose managed pages changed between snapshots: ``node zone pages`` (last less first) and ``steps``
    ([time of the snapshot, pages gained]). Memory comes and goes without page events (page-allocator.md 8.1)."""
    seen: dict[tuple[int, str], tuple[int, int, list[list[int | None]]]] = {}
    for ts, phase in snapshot_times(trace):
        for z in zones(trace, phase, ts):
            first, last, steps = seen.get((z.node, z.zone), (z.managed, z.managed, []))
            if z.managed != last:
                steps.append([ts, z.managed - last])
            seen[z.node, z.zone] = first, z.managed, steps
    return [
        {"node": node, "zone": zone, "pages": last - first, "steps": steps}
        for (node, zone), (first, last, steps) in seen.items()
        if steps
    ]


def vmstat_sums(trace: Trace) -> dict[str, Any] | None:
    """Pages that vmstat counted between its readings nearest to the first and last event, and those of the events
    of that time.

    ``pgalloc``/``pgfree``: the counters' growth; ``allocated``/``freed``: of alloc and free rows; ``bulk``: returned
    by recorded bulk calls; ``outside_seconds``: of that time, before the first or after the last event, when events
    went unrecorded. None without two readings. An allocation counts before its event fires, so blocks on their way
    at a reading are on the wrong side of it.
    """
    readings = vmstat_readings(trace)
    span = trace.sort_range("page_events")
    if len(readings) < 2 or span is None:
        return None
    untimed = any(ts is None for ts, _, _ in readings)
    first, last = readings[0], readings[-1]
    if not untimed:
        first = min(readings[:-1], key=lambda r: abs((r[0] or 0) - span[0]))
        last = min(readings[readings.index(first) + 1 :], key=lambda r: abs((r[0] or 0) - span[1]))
    (begin, _, before), (end, _, after) = first, last
    events = trace.page_events
    if begin is not None and end is not None:
        events = events.filter(pl.col("ts_ns").is_between(begin, end))
    kind = pl.col("kind").cast(pl.String)
    pages = pl.lit(1, pl.Int64) * 2 ** pl.col("order").cast(pl.Int64)
    row = events.select(
        pages.filter(kind == "alloc").sum().alias("allocated"),
        pages.filter(kind == "free").sum().alias("freed"),
        # a call that returned one page took the ordinary road, which fires the event (page-allocator.md 5.2)
        pl.col("returned").cast(pl.Int64).filter((kind == "bulk") & (pl.col("returned") > 1)).sum().alias("bulk"),
    ).collect()
    sums = {name: int(value or 0) for name, value in row.to_dicts()[0].items()}
    grown = {name: after[name] - before[name] for name in after if name in before}
    return {
        "pgalloc": sum(v for name, v in grown.items() if name.startswith("pgalloc_")),
        "pgfree": grown.get("pgfree"),
        **sums,
        "outside_seconds": None
        if begin is None or end is None
        else (max(span[0] - begin, 0) + max(end - span[1], 0)) / 1e9,
    }
