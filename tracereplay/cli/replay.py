"""``tracereplay replay``."""

from __future__ import annotations

import json
import shlex
import sys
import tomllib
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from tracereplay.cli.console import Format, emit, emit_json, emit_rows, note, progress, text_table, warn
from tracereplay.errors import ParameterError, UsageError

STANDARD = ("per-page", "bulk", "compound", "unmapped-cache")


def run(
    traces: Annotated[
        list[str], typer.Argument(help="Trace to replay; several, or a directory of them.", metavar="TRACE...")
    ],
    strategy: Annotated[
        list[str] | None,
        typer.Option(
            "-s",
            "--strategy",
            help="NAME, NAME:key=value,... or LABEL=NAME:...; repeat to compare. "
            "A strategy of your own: path/to/file.py:Name.",
        ),
    ] = None,
    set_: Annotated[list[str] | None, typer.Option("--set", help="LABEL.parameter=value.")] = None,
    target: Annotated[list[str] | None, typer.Option("--target", help="Requests the strategies serve.")] = None,
    path: Annotated[
        str | None,
        typer.Option("--path", help="dm-crypt, blk-crypto, f2fs-compress: bios ask too; its reserve applies."),
    ] = None,
    device: Annotated[
        str | None, typer.Option("--device", help="MAJ,MIN of the device whose bios the path takes.")
    ] = None,
    max_write: Annotated[int | None, typer.Option("--max-write", help="Path: largest request, bytes.")] = None,
    single_ok: Annotated[
        list[str] | None, typer.Option("--single-ok", help="Callers content with single pages.")
    ] = None,
    load: Annotated[
        list[str] | None,
        typer.Option("--load", metavar="NAME:...", help="kvfree or network demand at a stated rate, as target."),
    ] = None,
    copies: Annotated[
        int, typer.Option("--copies", metavar="N", help="Copies of the demand, on N times the CPUs.")
    ] = 1,
    rate: Annotated[
        float, typer.Option("--rate", metavar="X", help="The recording's clock runs X times faster.")
    ] = 1.0,
    request_pages: Annotated[
        int | None, typer.Option("--request-pages", metavar="N", min=1, help="Ask for at most N pages at once.")
    ] = None,
    machine: Annotated[list[str] | None, typer.Option("--machine", help="KEY=VALUE, or a TOML file of them.")] = None,
    profile: Annotated[str | None, typer.Option("--profile", help="Cost profile: a name or a TOML file.")] = None,
    seed: Annotated[int, typer.Option("--seed", help="Seed of initial placement and intervals.")] = 0,
    counters: Annotated[
        str | None, typer.Option("--counters", metavar="NAME,...", help="Table of these figures only.")
    ] = None,
    tornado: Annotated[
        bool, typer.Option("--tornado", help="Show how far each price moves each cost and each difference.")
    ] = False,
    distribution: Annotated[
        bool, typer.Option("--distribution", help="Also how costs are spread: percentiles, rates, memory.")
    ] = False,
    worst: Annotated[
        int | None, typer.Option("--worst", min=0, metavar="N", help="Also the N dearest kinds of requests, and why.")
    ] = None,
    output: Annotated[str | None, typer.Option("-o", "--output", help="Write the result (JSON) here.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace the output.")] = False,
    strict: Annotated[bool, typer.Option("--strict", help="Of several traces: stop at the first that fails.")] = False,
    executor: Annotated[
        str, typer.Option("--executor", help="Several traces: threads, processes or dask:ADDRESS.")
    ] = "threads",
    workers: Annotated[int | None, typer.Option("--workers", min=1, help="Traces at once [default: CPUs].")] = None,
    format: Annotated[Format, typer.Option("--format", help="table, json, csv or parquet.")] = Format.TABLE,
) -> None:
    """Replay a trace through allocation strategies and compare what each would cost.

    Of several traces, or a directory of host=NAME/date=DAY directories: each, and the fleet as a whole.

    Example:

    tracereplay replay web.trace -s per-page -s bulk -s cap3=compound:max_order=3

    tracereplay replay web.trace -s kvfree-cache --load kvfree:pointers_per_s=1000000
    """
    from tracereplay.trace.outputs import check_file, write_text

    if output is not None:
        check_file(output, force=force)
    if max_write is not None and path is None:
        raise UsageError("--max-write belongs to a path", hint="add --path dm-crypt")
    from tracereplay.strategies.registry import choose, parse_spec
    from tracereplay.testing.check import admit

    for text in strategy or ():
        admit(parse_spec(text).name, note)
    shown = known_counters(counters, format)
    choices = choose(strategy or list(STANDARD), set_ or [])
    options = machine_settings(machine or [])

    from tracereplay.cost.profile import DEFAULT_PROFILE, load_profile
    from tracereplay.cost.result import result_of
    from tracereplay.cost.worst import WORST
    from tracereplay.demand.spec import DemandSpec
    from tracereplay.machine.from_trace import configured_machine
    from tracereplay.replay.run import recorded_demand, replay_demand
    from tracereplay.trace.fleet import is_fleet
    from tracereplay.trace.reader import Trace

    spec = DemandSpec(
        path=path,
        target=tuple(target or ()),
        device=device,
        max_write=max_write,
        single_ok=tuple(single_ok or ()),
        rate=rate,
        request_pages=request_pages,
        copies=copies,
        loads=tuple(load or ()),
    )
    command = ["tracereplay", *map(shlex.quote, sys.argv[1:])]
    if is_fleet(traces):
        if shown or tornado or distribution or worst:
            raise UsageError(
                "--counters, --tornado, --distribution and --worst show one trace",
                hint="leave them out; --format json holds them for each",
            )
        from tracereplay.cli.replay_fleet import replay_fleet
        from tracereplay.whatif.fleet_replay import Question

        replay_fleet(
            traces,
            Question(
                tuple(strategy or STANDARD),
                tuple(set_ or ()),
                spec,
                tuple(options.items()),
                profile or DEFAULT_PROFILE,
                seed,
                tuple(command),
                WORST,
            ),
            strict=strict,
            executor=executor,
            workers=workers,
            output=output,
            format=format,
        )
        return
    prices = load_profile(profile or DEFAULT_PROFILE)
    source = Trace.open(traces[0])
    with progress("replay", source.rows("page_events")) as advance:
        machine_of = partial(configured_machine, source, options=options, seed=seed)
        done = replay_demand(source, recorded_demand(source, spec), spec, choices, machine_of, progress=advance)
    result = result_of(source, done, prices, seed=seed, command=command, dearest=WORST if worst is None else worst)
    for text in result["warnings"]:
        warn(text)
    if output is not None:
        write_text(output, json.dumps(result, indent=1, allow_nan=False) + "\n")
        note(f"result: {output}")
    if shown:
        from tracereplay.report.figures import figure_rows

        columns = ["", *(entry["label"] for entry in result["results"])]
        emit(text_table(columns, figure_rows(shown, result["results"])))
        return
    _show(result, format, tornado=tornado)
    if format is Format.TABLE:
        from tracereplay.report import terminal

        if distribution:
            emit(f"\n{terminal.spread(result)}")
        if worst:
            emit(f"\n{terminal.worst(result, worst)}")


def known_counters(text: str | None, format: Format) -> list[str]:
    """Names given with ``--counters``, checked. Raises UsageError."""
    if text is None:
        return []
    if format is not Format.TABLE:
        raise UsageError("--counters chooses lines of the table", hint="csv and json hold all counters")
    from tracereplay.report.figures import known_figures

    return known_figures(text)


def machine_settings(texts: list[str]) -> dict[str, str]:
    """``--machine`` texts as key and value: ``KEY=VALUE``, or a TOML file holding them. Raises ParameterError."""
    settings: dict[str, str] = {}
    for text in texts:
        key, sep, value = text.partition("=")
        if sep:
            settings[key.strip()] = value.strip()
            continue
        try:
            settings |= _flat(tomllib.loads(Path(text).read_text()))
        except FileNotFoundError:
            raise ParameterError(f"--machine {text!r} is neither KEY=VALUE nor a file") from None
        except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
            raise ParameterError(
                f"machine file {text!r} cannot be read: {error}", hint="a TOML file of keys"
            ) from error
    return settings


def _flat(table: dict[str, Any], prefix: str = "") -> dict[str, str]:
    found: dict[str, str] = {}
    for key, value in table.items():
        found |= _flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: str(value)}
    return found


def _show(result: dict[str, Any], format: Format, *, tornado: bool) -> None:
    if format is Format.JSON:
        emit_json(result)
    elif format is Format.TABLE:
        from tracereplay.report.terminal import comparison

        emit(comparison(result, tornado=tornado))
    else:
        rows = []
        for entry in result["results"]:
            cost = entry["cost"]
            rows.append(
                {
                    "label": entry["label"],
                    "strategy": entry["strategy"],
                    "unit": cost["unit"],
                    "total": cost["total"],
                    "low95": cost["interval95"][0],
                    "high95": cost["interval95"][1],
                    "per_page": cost["per_page"],
                    "per_request_mean": cost["per_request"]["mean"],
                    "per_request_p50": cost["per_request"]["p50"],
                    "per_request_p99": cost["per_request"]["p99"],
                }
                | _spread_columns(entry)
                | entry["counters"]
            )
        if not rows:
            raise UsageError("no strategy to show")
        emit_rows(list(rows[0]), [list(r.values()) for r in rows], format)
        note(f"completeness: {result['trace']['completeness']['line']}")


def _spread_columns(entry: dict[str, Any]) -> dict[str, Any]:
    """Distribution, rates and memory of a strategy as columns."""
    spread, rates = entry["distribution"], entry["rates"]
    per_bio = spread["per_bio"] or {}
    names = ("p10", "p25", "p75", "p90", "p95", "p99.9", "max")  # p50 and p99 stand before these
    return {
        **{f"per_request_{name.replace('.', '_')}": spread["per_request"]["percentiles"][name] for name in names},
        "top1_percent_share": spread["per_request"]["top1_percent_share"],
        "per_bio_mean": per_bio.get("mean"),
        "per_bio_p50": per_bio.get("percentiles", {}).get("p50"),
        "per_bio_p99": per_bio.get("percentiles", {}).get("p99"),
        **{name: rates[name] for name in ("requests_per_s", "pages_per_s", "cost_per_s", "cpu_s_per_day")},
        "busiest_cost_per_s": rates["busiest"] and rates["busiest"]["cost_per_s"],
        **entry["memory"],
    }
