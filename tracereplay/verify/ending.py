"""Where twin and kernel stand at the end of a trace: free blocks, pages on per-CPU lists, pages handed out in all.

The kernel's side is what snapshots say, /proc/buddyinfo, zoneinfo and vmstat, read a moment after the last event
while the host went on; of several files that moment differs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import polars as pl

from tracereplay.kernel.constants import NR_PAGE_ORDERS
from tracereplay.machine import layout as machine_at
from tracereplay.trace.snapshots import ZoneFacts, snapshot_times, vmstat_readings, zones
from tracereplay.verify.controls import ordered_zones

if TYPE_CHECKING:
    from tracereplay.machine.config import MachineConfig
    from tracereplay.trace.reader import Trace
    from tracereplay.verify.run import Twin


def share(part: float, whole: float) -> float | None:
    """``part / whole``; None where there is nothing to have a part of."""
    return part / whole if whole else None


def l1_share(kernel: list[int], twin: list[int]) -> float | None:
    """Blocks that the twin has too many or too few of an order, over the kernel's blocks."""
    return share(sum(abs(k - t) for k, t in zip(kernel, twin, strict=True)), sum(kernel))


def _last_state(trace: Trace, config: MachineConfig) -> list[tuple[int, ZoneFacts]]:
    """Zones of the last snapshot of phase ``end`` with their number in the machine; empty where there is none."""
    numbers = {(z.node, z.name): i for i, z in enumerate(ordered_zones(config))}
    return [(numbers[z.node, z.zone], z) for z in zones(trace, "end") if (z.node, z.zone) in numbers]


def free_blocks(twin: Twin, changed: list[dict[str, Any]]) -> dict[str, Any]:
    """Free blocks by order in the twin and in the end snapshot's buddyinfo.

    ``order``, ``kernel``, ``twin``, ``l1_share`` (None without an end snapshot) over all zones; the same by zone in
    ``zones``, with ``managed_changed`` from :func:`zone_changes`.
    """
    w = twin.machine.w
    grown = {(c["node"], c["zone"]): c["pages"] for c in changed}
    found = []
    kernels, twins = [0] * NR_PAGE_ORDERS, [0] * NR_PAGE_ORDERS
    for number, zone in enumerate(ordered_zones(twin.config)):
        at = machine_at.NF + number * NR_PAGE_ORDERS * machine_at.NR_TYPES
        types = machine_at.NR_TYPES
        mine = [int(w[at + o * types : at + (o + 1) * types].sum()) for o in range(NR_PAGE_ORDERS)]
        twins = [a + b for a, b in zip(twins, mine, strict=True)]
        found.append({"node": zone.node, "zone": zone.name, "kernel": None, "twin": mine, "l1_share": None})
    known = [(number, z) for number, z in _last_state(twin.trace, twin.config) if z.free_blocks]
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
    }


def pcp_counts(twin: Twin) -> list[dict[str, Any]]:
    """Pages on the per-CPU lists at the end: ``node zone cpu twin unlisted kernel``.

    ``unlisted`` are those of the twin's pages that it counts without knowing which they are; ``kernel`` is zoneinfo's
    count in the end snapshot, None without one.
    """
    w, cpus = twin.machine.w, twin.config.cpus
    theirs = {number: z.pcp_count for number, z in _last_state(twin.trace, twin.config)}
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
    """Pages that vmstat counted between its first and last reading, and those of the events of that time.

    ``pgalloc``/``pgfree``: the counters' growth; ``allocated``/``freed``: of alloc and free rows; ``bulk``: returned
    by recorded bulk calls. None without two readings. An allocation counts before its event fires, so blocks on
    their way at a reading are on the wrong side of it.
    """
    readings = vmstat_readings(trace)
    if len(readings) < 2:
        return None
    (begin, _, before), (end, _, after) = readings[0], readings[-1]
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
        "seconds": (end - begin) / 1e9 if begin is not None and end is not None else None,
    }
