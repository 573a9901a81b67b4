"""A twin check for an 80-column terminal: the shares first, then what they rest on."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

from tracereplay.cli.console import text_table
from tracereplay.kernel.constants import MIGRATETYPE_NAMES
from tracereplay.verify.layout import REASONS

WIDTH = 80
_NAME = 14


def result_text(result: Mapping[str, Any]) -> str:
    """The document of ``verify --format json`` as text."""
    parts = [
        _facts(result),
        _frames(result),
        _matches(result),
        _orders(result),
        _reasons(result),
        _free_blocks(result),
        _pcp(result),
        _vmstat(result),
        _wrapped("completeness: " + result["completeness"]["line"], "", "  "),
    ]
    return "\n\n".join(part for part in parts if part)


def percent(value: float | None) -> str:
    """A share in percent."""
    return "-" if value is None else f"{100 * value:.2f} %"


def _wrapped(text: str, first: str, rest: str) -> str:
    return textwrap.fill(text, WIDTH, initial_indent=first, subsequent_indent=rest, break_on_hyphens=False)


def _lines(pairs: Sequence[tuple[str, str]]) -> str:
    return "\n".join(_wrapped(text, f"{name:<{_NAME}}", " " * _NAME) for name, text in pairs if text)


def _facts(result: Mapping[str, Any]) -> str:
    trace, machine, totals = result["trace"], result["machine"], result["totals"]
    kernel = f"kernel {trace['kernel'] or 'not known'}, generation {result['generation']}"
    zones = ", ".join(f"{z['node']} {z['zone']}" for z in machine["zones"])
    changed = "; ".join(
        f"zone {c['node']} {c['zone']} by {c['pages']:+,} pages in {len(c['steps'])} steps"
        for c in result["zone_changed"]
    )
    rate = result["events_per_second"]
    speed = "" if rate is None else f" in {result['seconds']:.2f} s ({rate / 1e6:,.1f} M/s)"
    return _lines(
        [
            ("trace", f"{trace['path']} (id {trace['id'][:12]}), {trace['duration_ns'] / 1e9:,.1f} s"),
            ("host", f"{trace['host'] or '-'} ({kernel}), {machine['cpus']} CPUs, zones {zones}"),
            ("start", _start(result)),
            ("vmstat worker", _worker(result)),
            ("events", f"{totals['events']:,}{speed}"),
            ("memory", f"managed pages changed: {changed}" if changed else ""),
        ]
    )


def _start(result: Mapping[str, Any]) -> str:
    """How the state that the twin starts from is known."""
    initial, machine = result["initial"], result["machine"]
    if machine["source"] != "snapshot":
        return "no snapshot: " + " ".join(machine["notes"])
    sources = initial.get("source")
    known = " and ".join(dict.fromkeys([sources] if isinstance(sources, str) else sources or ["counts"]))
    text = {"page_map": "page map, bit by bit", "counts": "counts of snapshots, and what events prove"}.get(
        known, f"by zone from {known}"
    )
    said = [text]
    if initial.get("l1") is not None:
        said.append(f"free blocks off by {percent(initial['l1'])} of buddyinfo's")
    pcp = initial.get("pcp") or {}
    if pcp.get("counted_pages"):
        said.append(f"{pcp['known_pages']:,} of {pcp['counted_pages']:,} pages on per-CPU lists known")
    return "; ".join(said)


def _worker(result: Mapping[str, Any]) -> str:
    worker = result["vmstat_worker"]
    if not worker["drains"]:
        return "phase not known (whole seconds assumed)"
    return f"{worker['phase_ns'] / 1e6:,.0f} ms into the second, learnt from {worker['drains']:,} drains"


def _frames(result: Mapping[str, Any]) -> str:
    totals, pfn = result["totals"], result["pfn"]
    free = result["pfn_free_running"]
    return _lines(
        [
            ("exact frame", f"{percent(pfn['share'])}: {pfn['exact']:,} of {pfn['eligible']:,} eligible allocations"),
            (
                "eligible",
                f"{percent(pfn['eligible_share'])} of {totals['pcp_allocations']:,} of orders that lists hold "
                f"({totals['allocations']:,} in all)",
            ),
            ("start's pages", f"{totals['initial_pops']:,} popped that lay on a list since before; never exact"),
            (
                "free running",
                ""
                if free is None
                else f"{percent(free['share'])} ({free['exact']:,} of {free['eligible']:,}) without frames of refills",
            ),
        ]
    )


def _matches(result: Mapping[str, Any]) -> str:
    rows = [
        (
            name,
            result[key]["kernel"],
            result[key]["twin"],
            result["totals"][f"{key}_matched"],
            percent(result[key]["precision"]),
            percent(result[key]["recall"]),
        )
        for name, key in (("refills", "refill"), ("drains", "drain"), ("fallbacks", "extfrag"))
    ]
    return text_table(["", "kernel", "twin", "same", "precision", "recall"], rows)


def _orders(result: Mapping[str, Any]) -> str:
    rows = [
        (
            str(r["order"]),
            r["allocations"],
            r["eligible"],
            r["exact"],
            percent(r["share"]),
            r["refill_kernel"],
            r["refill_twin"],
            r["refill_matched"],
        )
        for r in result["by_order"]
    ]
    names = ["order", "allocations", "eligible", "exact", "share", "refills", "twin", "same"]
    return text_table(names, rows) if rows else ""


def _reasons(result: Mapping[str, Any]) -> str:
    counted = sorted(((n, name) for name, n in result["resynchronisations"].items() if n), reverse=True)
    if not counted:
        return "resynchronisations: none"
    width = max(len(name) for _, name in counted)
    digits = max(len(f"{n:,}") for n, _ in counted)
    lines = [
        _wrapped(REASONS[name], f"  {name:<{width}}  {n:>{digits},}  ", " " * (width + digits + 6))
        for n, name in counted
    ]
    return "\n".join([f"resynchronisations: {sum(n for n, _ in counted):,}", *lines])


def _free_blocks(result: Mapping[str, Any]) -> str:
    blocks = result["free_blocks"]
    if blocks["kernel"] is None:
        return "free blocks at the end: no snapshot to compare with"
    # eleven columns of numbers do not fit beside a name: one line an order
    rows = list(zip(map(str, blocks["order"]), blocks["kernel"], blocks["twin"], strict=True))
    said = f"free blocks at the end, off by {percent(blocks['l1_share'])}"
    after = (blocks["snapshot"] or {}).get("seconds_after")
    if after is not None:
        said += f" (snapshot {abs(after):.3f} s {'after' if after >= 0 else 'before'} the last event)"
    zones = [
        f"zone {z['node']} {z['zone']} {percent(z['l1_share'])}"
        + (f", managed pages changed by {z['managed_changed']:+,}" if z["managed_changed"] else "")
        for z in blocks["zones"]
    ]
    return "\n".join([said, _wrapped("; ".join(zones), "  ", "  "), text_table(["order", "kernel", "twin"], rows)])


_MOST_SETS = 16


def _pcp(result: Mapping[str, Any]) -> str:
    rows = [
        (f"{c['node']} {c['zone']}", str(c["cpu"]), c["kernel"], c["twin"], c["unlisted"])
        for c in result["pcp_counts"]
        if c["kernel"] or c["twin"]
    ]
    if not rows:
        return ""
    text = text_table(["pcp lists of", "CPU", "kernel", "twin", "of these not known"], rows[:_MOST_SETS])
    return text + (f"\n... and {len(rows) - _MOST_SETS} more (--format json)" if len(rows) > _MOST_SETS else "")


def _vmstat(result: Mapping[str, Any]) -> str:
    sums = result["vmstat"]
    if sums is None:
        return ""
    outside = sums["outside_seconds"]
    beside = f", {outside:.3f} s of it outside the recording" if outside else ""
    lines = [
        (
            "vmstat",
            f"pgalloc {sums['pgalloc']:,}, recorded {sums['allocated']:,}"
            + (f" and {sums['bulk']:,} in bulk" if sums["bulk"] else "")
            + f"; pgfree {sums['pgfree'] or 0:,}, recorded {sums['freed']:,}{beside}",
        )
    ]
    return _lines(lines)


# ---------------------------------------------------------------- --explain
def disagreements_text(found: Sequence[Mapping[str, Any]]) -> str:
    """Disagreements one below the other, each with the events around it."""
    if not found:
        return "no disagreements"
    return "\n\n".join(_disagreement(d) for d in found)


def _disagreement(d: Mapping[str, Any]) -> str:
    head = f"{d['kind']} on CPU {d['cpu']}, noticed at event {d['event']:,}"
    now = next((e["ts_ns"] for e in d["context"] if e["event"] == d["event"]), None)
    lines = [head, _wrapped(d["text"], "  ", "  ")]
    for e in d["context"]:
        mark = ">" if e["event"] == d["event"] else " "
        since = "" if now is None else _span(e["ts_ns"] - now)
        pfn = "-" if e["pfn"] is None else f"{e['pfn']:#x}"
        mt = e["migratetype"]
        what = "" if mt is None or mt >= len(MIGRATETYPE_NAMES) else MIGRATETYPE_NAMES[mt]
        order = "" if e["order"] is None else f"order {e['order']}"
        task = "" if e["pid"] is None else f"pid {e['pid']}"
        line = f"  {mark} {e['event']:>9} {since:>11} {e['kind']:<12} {pfn:>9} {order:<8} {what:<11} {task}"
        lines.append(line.rstrip())
    return "\n".join(lines)


def _span(ns: int) -> str:
    return f"{ns / 1e3:+,.1f} us" if abs(ns) < 1e6 else f"{ns / 1e6:+,.1f} ms"
