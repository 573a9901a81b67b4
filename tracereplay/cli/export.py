"""``tracereplay export``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, BinaryIO

import typer

from tracereplay.cli.console import note, warn
from tracereplay.cli.selection import (
    CgroupOption,
    CommOption,
    CpuOption,
    DeviceOption,
    OrderOption,
    PidOption,
    TimeOption,
    selection,
)
from tracereplay.errors import UsageError
from tracereplay.export.formats import FORMATS, ExportFormat, check, format_named

if TYPE_CHECKING:
    from tracereplay.analysis.selection import Selection
    from tracereplay.analysis.view import View

_HELP = "Format: " + ", ".join(FORMATS) + "."


def run(
    trace: Annotated[str, typer.Argument(help="Trace to export.", metavar="TRACE")],
    out: Annotated[str, typer.Argument(help="File to write; for several tables a directory.", metavar="OUT")],
    to: Annotated[str, typer.Option("--to", help=_HELP, metavar="FORMAT")],
    time: TimeOption = None,
    pid: PidOption = None,
    comm: CommOption = None,
    cgroup: CgroupOption = None,
    cpu: CpuOption = None,
    order: OrderOption = None,
    device: DeviceOption = None,
    weight: Annotated[
        str | None,
        typer.Option("--weight", help="folded, speedscope: pages (default), requests, bytes, live, byte-seconds."),
    ] = None,
    file: Annotated[str | None, typer.Option("--file", help="fio: name of the disk or file in the iolog.")] = None,
    table: Annotated[str | None, typer.Option("--table", help="csv, parquet: one table; OUT is a file.")] = None,
    sql: Annotated[str | None, typer.Option("--sql", help="csv, parquet: the result of a SELECT.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace OUT.")] = False,
) -> None:
    """Write a trace, or a part of it, for another tool.

    folded, speedscope: allocation stacks as flame graphs. perfetto: a timeline of pages, I/Os and stalls. fio: the bios
    of one device, to replay on a real disk. csv, parquet: the tables, the result of a query.

    Example:

    tracereplay export web.trace web.folded --to folded && flamegraph.pl web.folded > web.svg

    tracereplay export web.trace web.iolog --to fio --device 254:0
    """
    chosen = format_named(to)
    asked = selection(time, pid, comm, cgroup, cpu, order, device)
    given = {"weight": weight, "file": file, "table": table, "sql": sql}
    check(chosen, asked.used, tuple(name for name, value in given.items() if value is not None))
    if chosen.name in ("csv", "parquet"):
        _tables(trace, out, chosen, asked, table, sql, force)
        return
    from tracereplay.analysis.view import View
    from tracereplay.trace.completeness import completeness
    from tracereplay.trace.hosts import one_host
    from tracereplay.trace.outputs import check_file, new_file
    from tracereplay.trace.reader import Trace

    check_file(out, force=force)
    view = View(Trace.open(trace), asked)
    one_host(view.trace, f"an export to {chosen.name}")
    with new_file(out) as stream:
        said = _write(view, stream, chosen, weight or "pages", file)
    note(f"wrote {out}: {said}")
    if chosen.name == "fio":
        onto = "" if file else "--replay_redirect=DISK "
        note(f"replay: fio --name=replay --read_iolog={out} {onto}--ioengine=libaio --iodepth=64 --direct=1")
        note(f"note: its writes destroy what is on {file or 'DISK'}")
    note(completeness(view.trace).text())


def _write(view: View, stream: BinaryIO, chosen: ExportFormat, weight: str, file: str | None) -> str:
    """Write one file; what it holds, in words."""
    if chosen.name == "fio":
        return _fio(view, stream, file)
    if chosen.name == "perfetto":
        from tracereplay.export.perfetto import write_timeline

        timeline = write_timeline(view, stream)
        for text in timeline.notes:
            note(f"note: {text}")
        return ", ".join(f"{n:,} {what}" for what, n in timeline.counts.items() if n) or "nothing but the frame"
    from tracereplay.export.stacks import WEIGHTS, write_folded, write_speedscope

    if weight not in WEIGHTS:
        raise UsageError(f"no weight {weight!r}", hint=f"one of: {', '.join(WEIGHTS)}")
    if chosen.name == "folded":
        folded = write_folded(view, stream, weight)
    else:
        folded = write_speedscope(view, stream, weight, name=view.trace.path.name)
    if folded.without:
        note(f"note: {folded.without:,} of them have no stack: (no stack), and who by task and gfp; capture --stacks")
    return f"{folded.stacks:,} stacks, {folded.total:,} {WEIGHTS[weight]}"


def _fio(view: View, stream: BinaryIO, file: str | None) -> str:
    from tracereplay.export.fio import write_iolog

    done = write_iolog(view, stream, file=file)
    if done.kind == "issue":
        note("note: the trace has no bios of this device: its requests are taken, as they were issued")
    if done.left_out:
        left = ", ".join(f"{name} {n:,}" for name, n in sorted(done.left_out.items()))
        warn(f"left out, fio has no action for them or they have no length: {left}")
    counts = ", ".join(f"{n:,} {action}" for action, n in sorted(done.requests.items()))
    return f"{counts} in {done.seconds:,.6f} s on {', '.join(done.devices)}"


def _tables(
    trace: str, out: str, chosen: ExportFormat, asked: Selection, table: str | None, sql: str | None, force: bool
) -> None:
    from tracereplay.analysis.view import View
    from tracereplay.export.tables import tables_of, write_table, write_tables
    from tracereplay.trace.completeness import completeness
    from tracereplay.trace.outputs import check_directory, check_file
    from tracereplay.trace.reader import Trace
    from tracereplay.trace.schema import TABLES

    if table is not None and sql is not None:
        raise UsageError("--table and --sql exclude each other", hint="give one of them")
    if sql is not None and asked.used:
        raise UsageError("filters do not apply to --sql", hint="put them into its WHERE")
    if table is None and sql is None:
        check_directory(out, [f"{name}.{chosen.name}" for name in TABLES], force=force)
    else:
        check_file(out, force=force)
    view = View(Trace.open(trace), asked)
    if sql is not None:
        from tracereplay.export.tables import write_query

        write_query(view.trace, sql, out, chosen.name)
        note(f"wrote {out}")
    elif table is not None:
        tables_of(view, table)
        write_table(view, table, out, chosen.name)
        note(f"wrote {out}")
    else:
        names = tables_of(view)
        write_tables(view, names, out, chosen.name)
        note(f"wrote {out}: {', '.join(names)}")
    note(completeness(view.trace).text())
