"""``tracereplay whatif``."""

from __future__ import annotations

import shlex
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tracereplay.cli.console import Format, emit, emit_frame, note, points, progress
from tracereplay.cli.fleet_view import fleet_of, remark, warn_of
from tracereplay.cli.replay import STANDARD, machine_settings
from tracereplay.errors import GridError, UsageError, nearest

if TYPE_CHECKING:
    import polars as pl

    from tracereplay.whatif.grid import Plan
    from tracereplay.whatif.table import Table
    from tracereplay.whatif.task import Row

METHODS = ("replay", "one-pass", "sampled")
SAVE_EVERY_S = 2.0
SAVE_SHARE = 0.05
"""The table is written at most this often, and for at most this share of the time."""
INTERRUPTED = 130


def run(
    traces: Annotated[
        list[str], typer.Argument(help="Traces. `suggest` before them: what is worth varying.", metavar="TRACE...")
    ],
    strategy: Annotated[
        list[str] | None,
        typer.Option("-s", "--strategy", help="NAME, NAME:key=value,... or LABEL=NAME:...; repeat to compare."),
    ] = None,
    grid: Annotated[
        list[str] | None,
        typer.Option("--grid", metavar="NAME=VALUES", help="What varies: a,b or a:b:step or a..b; repeat for more."),
    ] = None,
    set_: Annotated[list[str] | None, typer.Option("--set", help="LABEL.parameter=value.")] = None,
    output: Annotated[str | None, typer.Option("-o", "--output", help="Keep the table (Parquet) here.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the table that is there.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Replace the table.")] = False,
    method: Annotated[str, typer.Option("--method", help="replay, one-pass or sampled.")] = METHODS[0],
    precision: Annotated[
        float, typer.Option("--precision", help="Sampled: how exact a cost is to be, as a share of it.")
    ] = 0.02,
    sample: Annotated[
        str, typer.Option("--sample", metavar="WAY", help="Sampled: blocks of trace time, or callers:SHARE.")
    ] = "blocks",
    counters: Annotated[
        str | None, typer.Option("--counters", metavar="A,B", help="By caller: those to estimate [default: all].")
    ] = None,
    refine: Annotated[bool, typer.Option("--refine", help="Only points where the ranking is not settled yet.")] = False,
    executor: Annotated[str, typer.Option("--executor", help="threads, processes or dask:ADDRESS.")] = "threads",
    workers: Annotated[int | None, typer.Option("--workers", min=1, help="Points at once [default: CPUs].")] = None,
    target: Annotated[list[str] | None, typer.Option("--target", help="Requests the strategies serve.")] = None,
    path: Annotated[str | None, typer.Option("--path", help="dm-crypt, blk-crypto, f2fs-compress.")] = None,
    device: Annotated[str | None, typer.Option("--device", help="MAJ,MIN whose bios the path takes.")] = None,
    max_write: Annotated[int | None, typer.Option("--max-write", help="Path: largest request, bytes.")] = None,
    single_ok: Annotated[
        list[str] | None, typer.Option("--single-ok", help="Callers content with single pages.")
    ] = None,
    load: Annotated[list[str] | None, typer.Option("--load", metavar="NAME:...", help="As of replay.")] = None,
    copies: Annotated[int, typer.Option("--copies", metavar="N", help="As of replay.")] = 1,
    rate: Annotated[float, typer.Option("--rate", metavar="X", help="As of replay.")] = 1.0,
    request_pages: Annotated[
        int | None, typer.Option("--request-pages", metavar="N", min=1, help="As of replay.")
    ] = None,
    machine: Annotated[list[str] | None, typer.Option("--machine", help="KEY=VALUE, or a TOML file of them.")] = None,
    profile: Annotated[str | None, typer.Option("--profile", help="Cost profile: a name or a TOML file.")] = None,
    seed: Annotated[int, typer.Option("--seed", help="Seed of initial placement and intervals.")] = 0,
    strict: Annotated[bool, typer.Option("--strict", help="Of several traces: stop where one is broken.")] = False,
    format: Annotated[Format, typer.Option("--format", help="table, json, csv or parquet.")] = Format.TABLE,
) -> None:
    """Replay a trace at every point of a grid of settings, and keep what each strategy would cost there.

    Example:

    tracereplay whatif web.trace -s per-page -s bulk --grid pcp.batch=31,63,127 --grid copies=1..8 -o sweep.parquet

    tracereplay whatif suggest web.trace
    """
    from tracereplay.cost.profile import DEFAULT_PROFILE
    from tracereplay.demand.spec import DemandSpec
    from tracereplay.trace.fleet import is_fleet
    from tracereplay.whatif.fleet_rows import leads_of
    from tracereplay.whatif.grid import plan
    from tracereplay.whatif.sampled_callers import share_of

    suggesting = traces[0] == "suggest" and not Path("suggest").exists()
    if method not in METHODS:
        guess = nearest(method, METHODS)
        raise UsageError(f"no method {method!r}", hint=f"did you mean {guess!r}?" if guess else ", ".join(METHODS))
    if refine and method != METHODS[0]:
        raise UsageError(f"--refine replays its points, and --method is {method}", hint="leave one of the two out")
    share = share_of(sample)
    if share is not None and method != "sampled":
        raise UsageError(f"--sample {sample} is a way of --method sampled, and --method is {method}", hint="add it")
    if counters is not None and share is None:
        raise UsageError("--counters names what is estimated by caller", hint="add --sample callers:0.1")
    if not grid and not suggesting:
        raise GridError(
            "an empty grid: nothing varies",
            hint="add --grid NAME=VALUES; `tracereplay whatif suggest TRACE` says what is worth varying",
        )
    named = traces[1:] if suggesting else traces
    fleet = fleet_of(named, strict=strict) if is_fleet(named) and not suggesting else None
    question = plan(
        named if fleet is None else [member.location for member in fleet.members],
        strategy or list(STANDARD),
        grid or [],
        settings=set_ or [],
        machine=machine_settings(machine or []),
        demand=DemandSpec(
            path=path,
            target=tuple(target or ()),
            device=device,
            max_write=max_write,
            single_ok=tuple(single_ok or ()),
            rate=rate,
            request_pages=request_pages,
            copies=copies,
            loads=tuple(load or ()),
        ),
        profile=profile or DEFAULT_PROFILE,
        seed=seed,
        command=shlex.join(["tracereplay", *sys.argv[1:]]),
    )
    if suggesting:
        _suggest(question, executor, workers, format)
        return
    table = _table(question, output, resume=resume, force=force)
    leads = {} if fleet is None else leads_of(fleet, list(question.axes))
    frame = _fill(
        question,
        table,
        leads,
        method=method,
        precision=precision,
        by_caller=None if share is None else (share, tuple(filter(None, (counters or "").split(",")))),
        refine=refine,
        executor=executor,
        workers=workers,
    )
    if format is Format.TABLE:
        from tracereplay.report.sweep_table import sweep_table

        emit(sweep_table(frame, list(question.axes)))
    else:
        emit_frame(frame, format)
    if table.path is not None:
        note(f"table: {table.path}, {len(frame)} points")
    if fleet is not None:
        warn_of(fleet.failures)
        remark(fleet.members, fleet.failures)


def _table(question: Plan, output: str | None, *, resume: bool, force: bool) -> Table:
    from tracereplay.whatif.table import Table

    if resume and output is None:
        raise UsageError("--resume needs the table to go on with", hint="name it: -o sweep.parquet")
    if resume and output is not None:
        return Table.resume(question, output)
    return Table.create(question, output, force=force)


def _fill(
    question: Plan,
    table: Table,
    leads: dict[str, Row],
    *,
    method: str,
    precision: float,
    by_caller: tuple[float, tuple[str, ...]] | None,
    refine: bool,
    executor: str,
    workers: int | None,
) -> pl.DataFrame:
    """Run what is not in the table yet; the table with ranks. Interrupted, it saves what is finished and exits.

    ``leads``: by trace, what else its rows say of it; ``by_caller``: share of callers and counters, where callers are
    sampled.
    """
    from tracereplay.strategies.registry import parse_spec
    from tracereplay.testing.check import admit
    from tracereplay.whatif.executors import open_executor
    from tracereplay.whatif.progress import Pace
    from tracereplay.whatif.run import run_tasks

    for text in question.strategies.values():
        admit(parse_spec(text).name, note)
    saved_at, saving = time.monotonic(), 0.0
    done = table.done
    pace = Pace(question.points, len(done))
    with points(pace) as moved:

        def add(row: Row) -> None:
            nonlocal saved_at, saving
            table.add(row | leads.get(str(row["trace"]), {}))
            pace.point(row.get("seconds"))
            moved()
            now = time.monotonic()
            if now - saved_at > max(SAVE_EVERY_S, saving / SAVE_SHARE):
                if refused := table.save_meanwhile():
                    note(f"note: {refused}; the table will be tried again")
                saved_at = time.monotonic()
                saving = saved_at - now

        try:
            with open_executor(executor, workers) as opened:
                pace.workers = opened.workers
                if method == "one-pass":
                    from tracereplay.whatif.onepass import run_onepass

                    run_onepass(question, add, done=done)
                elif by_caller is not None:
                    from tracereplay.whatif.sampled_callers import run_callers

                    share, asked = by_caller
                    run_callers(question, opened, add, workers=opened.workers, done=done, share=share, counters=asked)
                elif method == "sampled":
                    from tracereplay.whatif.sampled import run_sampled

                    run_sampled(question, opened, add, workers=opened.workers, done=done, precision=precision)
                elif refine:
                    from tracereplay.whatif.refine import run_refined

                    run_refined(
                        question,
                        opened,
                        add,
                        workers=opened.workers,
                        known=table.rows,
                        expect=lambda total: setattr(pace, "total", total),
                        tell=note,
                    )
                else:
                    if others := len(done - {task.key for task in question.tasks()}):
                        note(f"{others} points of the table are of other settings, traces, prices or code, and stay")
                    todo = (task for task in question.tasks() if task.key not in done)
                    run_tasks(todo, opened, add, workers=opened.workers, note=note)
        except KeyboardInterrupt:
            table.save()
            kept = f" in {table.path}; continue with --resume" if table.path else ""
            note(f"stopped: {len(table)} of {question.points} points{kept}")
            raise SystemExit(INTERRUPTED) from None
        except BaseException:
            table.save()
            raise
    if len(question.traces) > 1:
        from tracereplay.whatif.fleet_rows import fleet_rows

        for row in fleet_rows(table.frame().to_dicts(), question.traces, list(question.axes)):
            table.add(row)
    frame = table.ranked()
    table.save(frame)
    return frame


def _suggest(question: Plan, executor: str, workers: int | None, format: Format) -> None:
    from tracereplay.report.suggestions import suggestions
    from tracereplay.strategies.registry import parse_spec
    from tracereplay.testing.check import admit
    from tracereplay.whatif.executors import open_executor
    from tracereplay.whatif.suggest import suggest

    for text in question.strategies.values():
        admit(parse_spec(text).name, note)
    with open_executor(executor, workers) as opened, progress("changes") as advance:
        found = suggest(question, opened, workers=opened.workers, done=lambda _n, _all: advance(1))
    if format is Format.TABLE:
        emit(suggestions(found, question.traces[0]))
        return
    emit_frame(found.frame, format)
    if found.command:
        note(f"next: {found.command}")
