"""``tracereplay import``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tracereplay.cli.console import note, progress, text_table, warn
from tracereplay.errors import UsageError

if TYPE_CHECKING:
    from tracereplay.importers.convert import Imported


def run(
    source: Annotated[
        str, typer.Argument(help="File to import, directory of blktrace, or - for standard input.", metavar="SOURCE")
    ],
    out: Annotated[str, typer.Argument(help="Trace to write (a new directory, or a URL).", metavar="OUT")],
    from_: Annotated[
        str | None,
        typer.Option(
            "--from", help="Format; recognised when left out. An unknown name lists them all.", metavar="FORMAT"
        ),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace OUT when it is a trace.")] = False,
    kernel: Annotated[
        str | None, typer.Option("--kernel", help="Release of the traced kernel (6.1.0), where the file is silent.")
    ] = None,
    clock: Annotated[
        str | None, typer.Option("--clock", help="Name of the trace clock (mono), where the file is silent.")
    ] = None,
    snapshots: Annotated[
        Path | None,
        typer.Option("--snapshots", help="Memory snapshots PREFIX.before.buddyinfo and so on.", metavar="PREFIX"),
    ] = None,
    no_snapshots: Annotated[
        bool, typer.Option("--no-snapshots", help="Leave out snapshots that lie beside SOURCE.")
    ] = False,
    strict: Annotated[bool, typer.Option("--strict", help="Refuse the file at its first bad line.")] = False,
) -> None:
    """Turn a trace of another tool into a tracereplay trace.

    Reads ftrace text (tracefs trace and trace_pipe, trace-cmd report), trace.dat, perf script text, perf.data, bpftrace
    records, page_owner dumps, blktrace files and blkparse text, raw frames (capture --raw), and block traces (fio, MSR,
    Alibaba, Tencent, SPC, vSCSI, MQSim), also compressed with gzip, zstd, xz or bzip2. Lines that cannot be used are
    counted and sampled; lost events are kept as loss intervals. Raw frames that end early give an incomplete trace, and
    a warning.

    Example:

    tracereplay import trace.dat web.trace

    zstdcat host7.ftrace.zst | tracereplay import - host7.trace --kernel 6.1.0 --clock mono
    """
    if snapshots is not None and no_snapshots:
        raise UsageError("--snapshots and --no-snapshots exclude each other", hint="give one of them")
    from tracereplay.importers.base import ImportOptions
    from tracereplay.importers.convert import import_trace
    from tracereplay.trace.upload import bundle_at

    size = _size(source)
    with bundle_at(out, force=force) as path:
        with progress(f"importing {Path(source).name}", size) as advance:
            imported = import_trace(
                source,
                path,
                format=from_,
                force=force,
                options=ImportOptions(release=kernel, clock=clock, strict=strict),
                snapshots=snapshots,
                find_snapshots=not no_snapshots,
                advance=advance,
            )
        _report(imported, out)


def _size(source: str) -> int | None:
    """Bytes of a source, where they can be known before it is read."""
    from tracereplay.importers.percpu import percpu_files

    path = Path(source)
    if source == "-":
        return None
    files = percpu_files(path) or ([path] if path.is_file() else [])
    return sum(file.stat().st_size for file in files) or None


def _report(imported: Imported, out: str) -> None:
    from tracereplay.trace.completeness import completeness
    from tracereplay.trace.reader import Trace
    from tracereplay.trace.store import is_url

    summary, meta = imported.summary, imported.metadata
    place = out if is_url(out) else imported.path
    note(f"wrote {place} from {imported.format}")
    counts = sorted(summary.events.items(), key=lambda item: -item[1])
    note(text_table(["event", "rows"], counts))
    clock = meta.clock
    if summary.first_ns is not None and summary.last_ns is not None:
        ticks = clock.get("unit") == "ticks"
        span = summary.last_ns - summary.first_ns
        length = f"{span:,} ticks" if ticks else f"{span / 1e9:,.6f} s"
        note(f"time: {length}, clock {clock['name']}" + ("" if ticks else f", resolution {clock['resolution_ns']} ns"))
    note(f"kernel: {meta.host.get('release', 'unknown')}; tasks: {summary.tasks:,}; stacks: {summary.stacks:,}")
    if imported.snapshots:
        files = imported.snapshots
        note(f"snapshots: {files.count()} files of {files.prefix.name} ({', '.join(files.phases)})")
    if summary.other_events:
        others = ", ".join(f"{name} {n:,}" for name, n in sorted(summary.other_events.items())[:6])
        note(f"events without a table, counted only: {others}")
    if summary.loss_intervals:
        lost = "an unknown number of" if summary.lost is None else f"{summary.lost:,}"
        warn(f"{lost} events are missing, in {summary.loss_intervals:,} intervals (table loss)")
    if summary.incomplete:
        warn(f"the trace is incomplete: {summary.incomplete}")
    if summary.rejected:
        warn(f"{summary.rejected:,} of {summary.lines:,} lines were refused, for example:")
        for sample in summary.samples[:3]:
            where = f"line {sample['line']:,}" if sample["line"] else "row"
            note(f"  {where}: {sample['reason']}: {sample['text'][:40]!r}")
    for text in meta.notes:
        if text != summary.incomplete:
            note(f"note: {text}")
    note(completeness(Trace.open(imported.path)).text())
    note(f"next: tracereplay info {place}")
