"""``tracereplay analyze``."""

from __future__ import annotations

from typing import Annotated

import typer

from tracereplay.cli.console import Format, emit, note
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

TABLE_ROWS = 20
SUFFIXES = (".parquet", ".csv", ".json", ".svg")


def run(
    name: Annotated[str | None, typer.Argument(help="Analysis; --list shows them.", metavar="NAME")] = None,
    traces: Annotated[
        list[str] | None, typer.Argument(help="Trace to look at; several, or a directory of them.", metavar="TRACE...")
    ] = None,
    list_: Annotated[bool, typer.Option("--list", help="Name all analyses, a line each.")] = False,
    time: TimeOption = None,
    pid: PidOption = None,
    comm: CommOption = None,
    cgroup: CgroupOption = None,
    cpu: CpuOption = None,
    order: OrderOption = None,
    device: DeviceOption = None,
    by: Annotated[str | None, typer.Option("--by", help="What to group by, where an analysis has a choice.")] = None,
    set_: Annotated[
        list[str] | None, typer.Option("--set", metavar="NAME=VALUE", help="Another option of the analysis.")
    ] = None,
    top: Annotated[
        int | None, typer.Option("--top", min=1, help=f"Best rows only; a table shows {TABLE_ROWS} by default.")
    ] = None,
    format: Annotated[Format, typer.Option("--format", help="Form of the result.")] = Format.TABLE,
    output: Annotated[
        str | None, typer.Option("-o", "--output", help="Write to a .parquet, .csv, .json or .svg file.")
    ] = None,
    svg: Annotated[str | None, typer.Option("--svg", help="Also draw it, as an SVG file.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace files that are there.")] = False,
    strict: Annotated[bool, typer.Option("--strict", help="Of several traces: stop at the first that fails.")] = False,
) -> None:
    """Answer a question about a trace: where pages come from, how long they live, what the disks did.

    Without TRACE: what the analysis needs, and can be told. Of several traces, or a directory of host=NAME/date=DAY
    directories: rows of each, then rows of all where these add up.

    Example:

    tracereplay analyze callers web.trace --comm 'kworker*' --top 10

    tracereplay analyze latency web.trace --by device --svg latency.svg
    """
    from tracereplay.analysis.registry import analyses, analysis_named
    from tracereplay.cli import analyze_view as view

    if list_ or name is None:
        emit(view.listing(analyses().values()))
        return
    analysis = analysis_named(name)
    if not traces:
        emit(view.description(analysis))
        return
    chosen = selection(time, pid, comm, cgroup, cpu, order, device)
    options = _options(by, set_ or [])
    analysis.told(options)  # refuses what cannot be before anything is read
    for path, suffixes in ((output, SUFFIXES), (svg, (".svg",))):
        _check_output(path, suffixes, force)
    if analysis.picture is None and (svg is not None or (output is not None and output.endswith(".svg"))):
        raise UsageError(f"{name} has no picture", hint="write it as .csv or .parquet")
    from tracereplay.analysis.view import View
    from tracereplay.trace.fleet import is_fleet
    from tracereplay.trace.reader import Trace

    if is_fleet(traces):
        from tracereplay.cli.analyze_fleet import analyze

        analyze(traces, analysis, chosen, options, top=top, strict=strict, format=format, output=output, svg=svg)
        return
    opened = View(Trace.open(traces[0]), chosen)
    limit = top if top is not None or format is not Format.TABLE or output is not None else TABLE_ROWS
    answer = analysis.answer(opened, top=limit, **options)
    if output is not None:
        view.write(opened, analysis, answer, output)
        note(f"wrote {output}")
    else:
        view.show(opened, analysis, answer, format)
    if svg is not None:
        view.write(opened, analysis, answer, svg)
        note(f"wrote {svg}")
    note(view.remarks(opened, analysis, answer))


def _options(by: str | None, given: list[str]) -> dict[str, str | int | float]:
    options: dict[str, str | int | float] = {}
    for text in given:
        name, equals, value = text.partition("=")
        if not equals:
            raise UsageError(f"no option: --set {text}", hint="--set NAME=VALUE")
        options[name.strip()] = value.strip()
    if by is not None:
        options["by"] = by
    return options


def _check_output(place: str | None, suffixes: tuple[str, ...], force: bool) -> None:
    from tracereplay.trace.outputs import check_file, suffix_of
    from tracereplay.trace.store import name_of

    if place is None:
        return
    if suffix_of(place) not in suffixes:
        raise UsageError(f"cannot tell a format from {name_of(place)!r}", hint=f"end it in {', '.join(suffixes)}")
    check_file(place, force=force)
