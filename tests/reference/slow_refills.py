"""Refills of per-CPU lists, event by event: the oracle of tracereplay.analysis.refills."""

from __future__ import annotations

from typing import Any

PCP_TYPES = (0, 1, 2)


def slow_refills(events: list[dict[str, Any]], *, in_place: bool) -> list[dict[str, Any]]:
    """Runs of zone_locked events by CPU, sorted. ``in_place``: a fallback that leaves the pageblock its type is a block
    without a zone_locked event."""
    found = []
    for cpu in {e["cpu"] for e in events}:
        run: list[dict[str, Any]] = []
        for event in [*(e for e in events if e["cpu"] == cpu), None]:
            key = None if event is None else key_of(event)
            if run and key != key_of(run[0]):
                found += summed(run, in_place)
                run = []
            if key is not None:
                run.append(event)
    return sorted(found, key=lambda r: (r["cpu"], r["t0_ns"], r["t1_ns"]))


def key_of(event: dict[str, Any]) -> tuple[Any, ...] | None:
    """What all events of a run share; None for one that belongs to none."""
    if event["migratetype"] not in PCP_TYPES:
        return None
    if event["kind"] == "extfrag" and event["alloc_order"] <= 3:
        return event["alloc_order"], event["migratetype"], event["pid"]
    refill = event.get("percpu_refill")
    if event["kind"] == "zone_locked" and (refill or (refill is None and event["order"] == 0)):
        return event["order"], event["migratetype"], event["pid"]
    return None


def summed(run: list[dict[str, Any]], in_place: bool) -> list[dict[str, Any]]:
    """A run as a row; none for fallbacks that brought no block."""
    order, migratetype, pid = key_of(run[0]) or (0, 0, 0)
    fallbacks = [e for e in run if e["kind"] == "extfrag"]
    blocks = len(run) - len(fallbacks)
    if in_place:
        blocks += sum(not (e["change_ownership"] and e["fallback_order"] < 9) for e in fallbacks)
    if not blocks:
        return []
    return [
        {
            "t0_ns": run[0]["ts_ns"],
            "t1_ns": run[-1]["ts_ns"],
            "cpu": run[0]["cpu"],
            "order": order,
            "migratetype": migratetype,
            "blocks": blocks,
            "pages": blocks << order,
            "fallbacks": len(fallbacks),
            "pid": pid,
        }
    ]
