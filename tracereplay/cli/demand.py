"""``tracereplay demand``."""

from __future__ import annotations

from textwrap import fill
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tracereplay.cli.console import Format, describe, emit, emit_json, emit_rows, note, progress, text_table

if TYPE_CHECKING:
    from tracereplay.demand.stream import DemandReport
    from tracereplay.trace.reader import Trace

_TOP = 12
_LABEL = 40


def run(
    trace: Annotated[str, typer.Argument(help="Trace to read.", metavar="TRACE")],
    target: Annotated[
        list[str] | None,
        typer.Option(
            "--target",
            metavar="SELECTOR",
            help="Requests the strategy would serve: batches (default), all, none, caller: symbol: comm: cgroup: GLOB,"
            " device:MAJ,MIN, gfp:NAME, pages>=N, origin:bio. Commas: all must hold; repeated: any.",
        ),
    ] = None,
    path: Annotated[
        str | None,
        typer.Option(
            "--path",
            metavar="NAME[:KEY=VALUE,..]",
            help="WRITE bios become requests: dm-crypt (mode, max_write, encrypt_ns, ...), blk-crypto, f2fs-compress.",
        ),
    ] = None,
    device: Annotated[
        str | None,
        typer.Option("--device", metavar="MAJ,MIN", help="Device of the path; the lowest when left out."),
    ] = None,
    max_write: Annotated[
        int | None,
        typer.Option("--max-write", help="Largest dm-crypt request in bytes; else by the kernel of the trace."),
    ] = None,
    single_ok: Annotated[
        list[str] | None,
        typer.Option("--single-ok", metavar="CALLER", help="Callers (glob) whose blocks may be single pages."),
    ] = None,
    load: Annotated[
        list[str] | None,
        typer.Option("--load", metavar="NAME:...", help="Add kvfree or network demand at a stated rate."),
    ] = None,
    lifetimes: Annotated[
        str | None, typer.Option("--lifetimes", metavar="FILE", help="Also write page lifetimes (Parquet).")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace the --lifetimes file.")] = False,
    fmt: Annotated[Format, typer.Option("--format", help="Output format.")] = Format.TABLE,
) -> None:
    """What callers asked for: requests by caller and size, and where every event went.

    Allocations of one caller in one go are one request (a 1 MiB dm-crypt write is one of 256 pages), whatever
    blocks the kernel gave. csv and parquet give the table of callers and sizes.

    Example:

    tracereplay demand host.trace

    tracereplay demand host.trace --path dm-crypt --target origin:bio --format json
    """
    from tracereplay.trace.outputs import check_file

    if lifetimes is not None:
        check_file(lifetimes, force=force)
    from tracereplay.demand.loaded import with_loads
    from tracereplay.demand.reconstruct import open_demand
    from tracereplay.demand.report import as_json
    from tracereplay.trace.completeness import completeness
    from tracereplay.trace.reader import Trace

    opened = Trace.open(trace)
    stream = with_loads(
        open_demand(
            opened,
            path=path,
            target=target or ("none" if load else "batches"),
            single_ok=single_ok or (),
            device=device,
            max_write=max_write,
        ),
        load or (),
    )
    with progress("reading demand", opened.rows("page_events")) as advance:
        for batch in stream:
            advance(len(batch))
    report = stream.report
    complete = completeness(opened)
    if lifetimes is not None:
        _write_lifetimes(opened, lifetimes)
    if fmt is Format.JSON:
        emit_json({**as_json(report), "trace": opened.identity(), "completeness": complete.to_json()})
    elif fmt is Format.TABLE:
        emit(f"{render(report)}\n\n{complete.text()}")
    else:
        rows = [
            (c["caller"], int(pages), n, int(pages) * n) for c in report.by_caller for pages, n in c["sizes"].items()
        ]
        emit_rows(["caller", "request_pages", "requests", "pages"], rows, fmt)
        note(complete.text())


def _write_lifetimes(trace: Trace, path: str) -> None:
    import pyarrow.parquet as pq

    from tracereplay.demand.lifetime import LIFETIMES, lifetimes
    from tracereplay.trace.outputs import written

    rows = 0
    with written(path) as part, pq.ParquetWriter(part, LIFETIMES, compression="zstd") as writer:
        for batch in lifetimes(trace):
            writer.write_batch(batch)
            rows += batch.num_rows
    note(f"wrote {path}: {rows:,} lifetimes")


def render(report: DemandReport) -> str:
    """The report for humans, within 80 columns."""
    share = report.targeted_pages / report.pages if report.pages else 0.0
    parts = [
        describe(
            {
                "requests": report.requests,
                "pages": report.pages,
                "targeted": f"{report.targeted_pages:,} pages in {report.targeted_requests:,} requests "
                f"({share:.1%}; {report.target})",
            }
        )
    ]
    shown = report.by_caller[:_TOP]
    rows = [(_cut(c["caller"], _LABEL), c["requests"], c["pages"], _sizes(c["sizes"])) for c in shown]
    parts.append(text_table(["caller", "requests", "pages", "sizes"], rows))
    if len(report.by_caller) > _TOP:
        parts[-1] += f"\n... and {len(report.by_caller) - _TOP} more callers (--format csv has all)"
    if report.path is not None:
        parts.append("path\n" + _path(report.path))
    parts += [f"{row['caller']} (stated, not recorded)\n{describe(row['parameters'])}" for row in report.loads]
    parts.append("accounting\n" + describe(_accounting(report)))
    if report.thresholds:
        top = report.thresholds["by_caller"][:3]
        lines = {_cut(t["caller"], _LABEL): f"{t['threshold_ns']:,} ns" for t in top}
        parts.append(
            f"gap that ends a burst (unit {report.thresholds['unit_ns']:,} ns)\n"
            + (describe(lines) if lines else "no gaps seen")
        )
    return "\n\n".join(parts)


def _path(path: dict[str, Any]) -> str:
    """The path in lines: options in a line each, long texts wrapped."""
    lines: dict[str, Any] = {}
    for key, value in path.items():
        if key == "options":
            lines |= {f"  {option}": setting for option, setting in value.items()}
        elif isinstance(value, bool):
            lines[key] = "yes" if value else "no"
        elif value is not None:
            lines[key.replace("_", " ")] = ", ".join(value) if isinstance(value, list) else value
    if "max write from" in lines:
        lines["  max_write"] = f"{lines['  max_write']:,} ({lines.pop('max write from')})"
    hold = lines.pop("hold", None)
    text = describe(lines)
    return text if hold is None else text + "\n" + fill(f"held {hold}", 79, subsequent_indent="  ")


def _accounting(report: DemandReport) -> dict[str, Any]:
    a = report.accounting
    lines: dict[str, Any] = {
        "events": a.events,
        "allocations": f"{a.allocations:,} ({a.failed:,} failed besides)",
        "frees": f"{a.frees:,} = {a.matched:,} matched + {a.unmatched_frees:,} unmatched",
        "left-censored frees": a.left_censored,
        "unseen": f"{a.unseen_pages:,} pages in {a.unseen_frees:,} frees",
        "live at the end": f"{a.right_censored:,} blocks, {a.right_censored_pages:,} pages",
        "reused without a free": a.reused,
        "lost": f"{'unknown' if a.lost is None else f'{a.lost:,}'} events in {a.loss_intervals:,} intervals",
        "ignored": ", ".join(f"{k} {v:,}" for k, v in a.ignored.items() if v) or "none",
    }
    if a.snapshots is not None:
        s = a.snapshots
        lines["vmstat pgalloc"] = f"{s['pgalloc_delta']:,}, not explained {s['difference']:,}"
    if a.unseen is not None:
        unseen = a.unseen["unseen_pages"]
        lines["unseen by vmstat"] = (
            f"not known, {a.unseen['reason']}"
            if unseen is None
            else f"{unseen:,} pages, give or take {a.unseen['noise_pages']:,}"
        )
    b = report.bios
    if b.get("writes"):
        where = f" on {', '.join(b['devices'])}" if b.get("devices") else ""
        lines["WRITE bios"] = f"{b['writes']:,}{where}, matched {b['matched']:,}"
        decided = b["boundaries_cut_by_bio"] + b["boundaries_joined_by_bio"]
        lines["boundaries by bio"] = decided
    return lines


def _sizes(sizes: dict[str, int]) -> str:
    common = sorted(sizes.items(), key=lambda e: (-int(e[0]) * e[1], -int(e[0])))[:2]
    text = " ".join(f"{p}x{n}" for p, n in common)
    return text + (" ..." if len(sizes) > 2 else "")


def _cut(text: str, width: int) -> str:
    return text if len(text) <= width else text[: width - 3] + "..."
