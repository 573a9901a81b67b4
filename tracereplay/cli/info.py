"""``tracereplay info``."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING, Annotated

import typer

from tracereplay.cli.console import Format, describe, emit, emit_json, emit_rows, text_table
from tracereplay.errors import UsageError

if TYPE_CHECKING:
    from tracereplay.trace.completeness import Completeness
    from tracereplay.trace.summary import BulkEstimate, TraceSummary


def run(
    trace: Annotated[str | None, typer.Argument(help="Trace to describe.", metavar="TRACE")] = None,
    format: Annotated[Format, typer.Option("--format", help="table or json; --schema: also csv.")] = Format.TABLE,
    schema: Annotated[bool, typer.Option("--schema", help="List every table and column instead.")] = False,
) -> None:
    """Say what a trace holds: host, clock, events, memory, losses.

    Example:

    tracereplay info web.trace
    """
    if schema:
        _schema(format)
        return
    if trace is None:
        raise UsageError("no trace given", hint="tracereplay info TRACE, or tracereplay info --schema")
    if format not in (Format.TABLE, Format.JSON):
        raise UsageError(f"info does not write {format.value}", hint="use --format table or json")
    from tracereplay.trace.completeness import completeness
    from tracereplay.trace.reader import Trace
    from tracereplay.trace.summary import summarize

    opened = Trace.open(trace)
    summary, complete = summarize(opened), completeness(opened)
    if format is Format.JSON:
        emit_json(summary.to_json() | {"completeness": complete.to_json()})
    else:
        emit("\n\n".join(part for part in _parts(summary, complete) if part))


def _schema(format: Format) -> None:
    from tracereplay.analysis.ready_tables import describe_ready_tables
    from tracereplay.trace.schema import describe_columns

    rows = describe_columns() + describe_ready_tables()
    if format is Format.TABLE:
        names = dict.fromkeys(r[0] for r in rows)
        columns = ["column", "type", "null", "meaning"]
        emit("\n\n".join(text_table(columns, [r[1:] for r in rows if r[0] == n], title=n) for n in names))
    else:
        emit_rows(["table", "column", "type", "null", "meaning"], rows, format)


def _parts(summary: TraceSummary, complete: Completeness) -> list[str]:
    return [
        describe(_facts(summary)),
        _events(summary),
        _tables(summary),
        _memory(summary),
        _settings(summary),
        _completeness(summary, complete),
        "\n".join(_wrapped(f"note: {n}") for n in [*summary.notes, *summary.metadata["notes"]]),
    ]


def _facts(summary: TraceSummary) -> dict[str, object]:
    meta = summary.metadata
    host, source, clock = meta["host"], meta["source"], meta["clock"]
    resolution = clock.get("resolution_ns")
    facts: dict[str, object] = {
        "trace": summary.identity["id"],
        "path": summary.identity["path"],
        "created": f"{meta['created']} by {meta['tool']}",
        "source": " ".join(str(source[k]) for k in ("kind", "format", "path") if source.get(k)) or None,
        "host": host.get("hostname"),
        "hosts": ", ".join(h["host"] for h in meta["hosts"]) or None,
        "kernel": " ".join(str(host[k]) for k in ("release", "arch") if host.get(k)) or None,
        "cpus": host.get("cpus"),
        "clock": f"{clock.get('name')}, resolution {resolution} ns" if clock else None,
        "duration": f"{summary.duration_s:.3f} s",
        "tasks": summary.tasks or None,
        "snapshots": _snapshots(summary),
        "filters": ", ".join(f"{k}={v}" for k, v in meta["filters"].items()) or None,
    }
    return {k: v for k, v in facts.items() if v is not None}


def _events(summary: TraceSummary) -> str:
    rows = [[k.table, k.kind, k.events, k.per_second, k.pages] for k in summary.kinds]
    if not rows:
        return "no events"
    return text_table(["table", "kind", "events", "events/s", "pages"], rows)


def _tables(summary: TraceSummary) -> str:
    rows = [[t.name, t.rows, t.files, t.bytes, t.bytes_per_row] for t in summary.tables]
    return text_table(["table", "rows", "files", "bytes", "bytes/row"], rows) if rows else ""


def _memory(summary: TraceSummary) -> str:
    rows = [[f"{z.node} {z.zone}", z.managed, z.free, z.min, z.low, z.high, z.start_pfn] for z in summary.zones]
    if not rows:
        return ""
    names = ["zone", "managed", "free", "min", "low", "high", "start_pfn"]
    parts = [text_table(names, rows, title="memory at the start, in pages, by node and zone")]
    lists = [
        f"{z.node} {z.zone} holds {sum(z.pcp_count.values()):,}, batch {max(z.pcp_batch.values())}, "
        f"high {max(z.pcp_high.values(), default=0):,}"
        for z in summary.zones
        if z.pcp_batch
    ]
    if lists:
        parts.append(_wrapped(f"per-CPU lists: {'; '.join(lists)}"))
    if summary.directmap_kib:
        parts.append(_wrapped(", ".join(f"{k} {v:,} KiB" for k, v in summary.directmap_kib.items())))
    return "\n".join(parts)


def _wrapped(text: str) -> str:
    return textwrap.fill(text, 80, subsequent_indent="  ", break_on_hyphens=False, break_long_words=False)


def _snapshots(summary: TraceSummary) -> str:
    ticks = summary.snapshot_counts.get("tick", 0)
    named = {"tick": f"{ticks:,} in between" if ticks != 1 else "one in between"}
    return ", ".join(named.get(p, p) for p in summary.snapshots) or "none"


def _settings(summary: TraceSummary) -> str:
    """What the frames held, and the settings that decide how pages are handed out, as far as they are known."""
    host = summary.metadata["host"]
    lines = []
    if summary.page_map:
        total = sum(summary.page_map.values())
        shares = [f"{kind} {_percent(pages, total)}" for kind, pages in summary.page_map.items()]
        lines.append(("page map", f"{total:,} pages: {', '.join(shares)}"))
    outside = sum(max(0, (z.present or z.managed) - z.managed) for z in summary.zones)
    if outside:
        lines.append(("unmanaged", f"{outside:,} pages present and not handed to the allocator"))
    thp = host.get("thp", {})
    if thp.get("enabled"):
        sizes = [size for size, at in thp.get("sizes", {}).items() if at.get("enabled") not in ("never", None)]
        more = f", sizes {' '.join(sizes)}" if sizes else ""
        lines.append(("huge pages", f"{thp['enabled']}, defrag {thp.get('defrag')}{more}"))
    zeroing = [
        f"{name.removeprefix('init_on_')} {'not known' if host[name] is None else 'yes' if host[name] else 'no'}"
        for name in ("init_on_alloc", "init_on_free")
        if name in host
    ]
    if zeroing:
        lines.append(("zeroed at", ", ".join(zeroing)))
    if summary.pageblock_order is not None:
        lines.append(("pageblock", f"order {summary.pageblock_order}"))
    vm = host.get("vm", {})
    settings = ("min_free_kbytes", "watermark_scale_factor", "percpu_pagelist_high_fraction", "zone_reclaim_mode")
    if vm:
        lines.append(("vm", ", ".join(f"{name} {vm[name]}" for name in settings if name in vm)))
    caches = host.get("last_level_caches", [])
    if caches:
        first = caches[0]
        each = f"{first['bytes'] >> 10:,} KiB, shared by {len(first['cpus'])} CPUs"
        lines.append(("last cache", each if len(caches) == 1 else f"{len(caches)} of {each}"))
    return "\n".join(
        textwrap.fill(text, 80, initial_indent=f"{name:<12}", subsequent_indent=" " * 12) for name, text in lines
    )


def _percent(part: int, total: int) -> str:
    share = 100 * part / total
    return f"{share:.1f} %" if share >= 0.05 or not part else "< 0.05 %"


def _completeness(summary: TraceSummary, complete: Completeness) -> str:
    lines = []
    loss = summary.loss
    if loss is None:
        lines.append("lost: unknown, the loss table is damaged")
    elif loss["intervals"] == 0:
        lines.append("lost: none")
    else:
        count = "unknown how many" if loss["lost"] is None else f"{loss['lost']:,}"
        share = _lost_share(loss["lost"], sum(k.events for k in summary.kinds))
        lines.append(f"lost: {count} events{share} in {loss['intervals']:,} intervals")
        lines += [f"  {name}: {'unknown' if n is None else f'{n:,}'}" for name, n in loss["by_class"].items()]
    rejected = summary.metadata["rejected"].get("lines", 0)
    if rejected:
        lines.append(f"rejected input lines: {rejected:,}")
        lines += [
            f"  line {s.get('line')}: {s.get('reason')}" for s in summary.metadata["rejected"].get("samples", [])[:3]
        ]
    lines += [textwrap.fill(f"left out: {what}", 80, subsequent_indent="  ") for what in complete.left_out()]
    if summary.bulk is not None:
        lines += _unseen(summary.bulk)
    events = sum(k.events for k in summary.kinds)
    each = f", {summary.bytes / events:.2f} per event" if events else ""
    state = "finished" if not summary.notes else "INCOMPLETE"
    lines.append(f"{state}: {events:,} events, {summary.bytes:,} bytes{each}")
    return "\n".join(lines)


def _lost_share(lost: int | None, seen: int) -> str:
    return "" if not lost else f" ({100 * lost / (lost + seen):.2g} %)"


def _unseen(bulk: BulkEstimate) -> list[str]:
    if bulk.unseen_pages is None:
        return [f"allocated without an event: not known, {bulk.reason}"]
    share = 100 * bulk.unseen_pages / bulk.pgalloc_delta if bulk.pgalloc_delta else 0.0
    lines = [
        f"allocated without an event: {bulk.unseen_pages:,} pages, {share:.1f} % of vmstat's {bulk.pgalloc_delta:,}"
    ]
    if bulk.noise_pages:
        lines.append(f"  give or take {bulk.noise_pages:,}")
    if bulk.outside_pages:
        lines.append(f"  about {bulk.outside_pages:,} of them between the snapshots and the events")
    if bulk.bulk_pages:
        lines.append(f"  not among them: {bulk.bulk_pages:,} pages of bulk calls that were recorded")
    if bulk.lost_pages:
        lines.append(f"  not among them: about {bulk.lost_pages:,} pages of lost events")
    return [*lines, *(f"  rough: {r}" for r in bulk.remarks)]
