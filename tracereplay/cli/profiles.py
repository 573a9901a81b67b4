"""``tracereplay profiles``."""

from __future__ import annotations

import textwrap
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tracereplay.cli.console import Format, emit, emit_json, emit_rows, note, text_table, warn
from tracereplay.errors import OutputExistsError, RowsError, UsageError

if TYPE_CHECKING:
    from tracereplay.cost.check import Checked
    from tracereplay.cost.profile import Coefficient, Profile
    from tracereplay.cost.rows import Row

WIDTH = 80
WORST = 10
"""Rows whose counters are shown."""


def run(
    words: Annotated[
        list[str] | None,
        typer.Argument(
            help="NAME or a file: show it. fit ROWS, check ROWS: a CSV of measured cases.",
            metavar="[NAME | fit ROWS | check ROWS]",
        ),
    ] = None,
    profile: Annotated[str | None, typer.Option("--profile", help="check: a name or a TOML file.")] = None,
    kernel: Annotated[str | None, typer.Option("--kernel", help="Rows of this kernel only.")] = None,
    alone: Annotated[Path | None, typer.Option("--alone", help="fit: CSV of primitives timed alone.")] = None,
    base: Annotated[str | None, typer.Option("--base", help="fit: profile for what the rows do not use.")] = None,
    name: Annotated[str | None, typer.Option("--name", help="fit: name of the profile.")] = None,
    seed: Annotated[int, typer.Option("--seed", help="fit: of the intervals.")] = 0,
    output: Annotated[Path | None, typer.Option("-o", "--output", help="fit: write the profile (TOML) here.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace the output.")] = False,
    format: Annotated[Format, typer.Option("--format", help="table, json, csv or parquet.")] = Format.TABLE,
) -> None:
    """List the cost profiles, show one, fit one to a kernel's measured cases, or check one against them.

    Example:

    tracereplay profiles linux-6.1

    tracereplay profiles fit rows.csv -o mine.toml

    tracereplay profiles check rows.csv --profile mine.toml
    """
    match words or []:
        case []:
            _list(format)
        case ["fit", rows]:
            _fit(Path(rows), kernel, alone, base, name, seed, output, force, format)
        case ["check", rows]:
            _check(Path(rows), kernel, profile, format)
        case ["fit" | "check" as verb]:
            raise UsageError(
                f"profiles {verb} needs a file of measured cases", hint=f"tracereplay profiles {verb} ROWS"
            )
        case [shown]:
            _show(shown, format)
        case _:
            said = " ".join(words or [])
            raise UsageError(f"profiles cannot {said!r}", hint="tracereplay profiles [NAME | fit ROWS | check ROWS]")


def _list(format: Format) -> None:
    from tracereplay.cost.profile import DEFAULT_PROFILE, load_profile, shipped_profiles

    profiles = [load_profile(name) for name in shipped_profiles()]
    if format is Format.TABLE:
        width = max(len(p.name) for p in profiles) + 2
        for p in profiles:
            default = " (default)" if p.name == DEFAULT_PROFILE else ""
            text = f"{p.title}; {p.unit}, {_evidence(p)}{default}"
            emit(textwrap.fill(text, WIDTH, initial_indent=f"{p.name:{width}}", subsequent_indent=" " * width))
        return
    columns = ["profile", "title", "unit", "machine", "kernel", "measured", "derived", "assumption"]
    counts = [[sum(c.evidence == e for c in p.coefficients) for e in columns[5:]] for p in profiles]
    emit_rows(
        columns,
        [[p.name, p.title, p.unit, p.machine, p.kernel, *n] for p, n in zip(profiles, counts, strict=True)],
        format,
    )


def _evidence(profile: Profile) -> str:
    assumed = sum(c.evidence == "assumption" for c in profile.coefficients)
    return f"{assumed} of {len(profile.coefficients)} prices are assumptions"


COLUMNS = ["primitive", "value", "low", "high", "unit", "evidence", "counters", "formula", "group", "source"]


def _show(name: str, format: Format) -> None:
    from tracereplay.cost.price import coefficient_intervals95
    from tracereplay.cost.profile import load_profile

    profile = load_profile(name)
    if format is Format.JSON:
        emit_json(profile.to_dict())
        return
    ranges = coefficient_intervals95(profile)
    if format is not Format.TABLE:
        rows = [
            [c.name, c.value, *ranges[c.name], c.unit, c.evidence, " ".join(c.counters), c.formula, c.group, c.source]
            for c in profile.coefficients
        ]
        emit_rows(COLUMNS, rows, format)
        return
    emit(textwrap.fill(f"{profile.name}: {profile.title}", WIDTH))
    emit(textwrap.fill(f"machine: {profile.machine}", WIDTH))
    for group in profile.groups:
        emit(f"\n{group}, {profile.unit}")
        for c in profile.coefficients:
            if c.group == group:
                _coefficient(c, ranges[c.name])
    if profile.unpriced:
        emit(textwrap.fill("\nwithout a price: " + ", ".join(profile.unpriced), WIDTH))


def _coefficient(c: Coefficient, between: tuple[float, float]) -> None:
    from tracereplay.report.numbers import figure, span

    emit(f"  {c.name:<18}{figure(c.value):>9}  {span(between):<18}{c.evidence:<11} x {' + '.join(c.counters)}"[:WIDTH])
    emit(textwrap.fill(c.source, WIDTH, initial_indent=" " * 6, subsequent_indent=" " * 6))


def _chosen(path: Path, kernel: str | None) -> list[Row]:
    """The rows of a file, of one kernel where that is asked for."""
    from tracereplay.cost.rows import read_rows

    rows = read_rows(path)
    kernels = list(dict.fromkeys(row.kernel for row in rows))
    if kernel is not None and kernel not in kernels:
        raise RowsError(f"{path}: no row of kernel {kernel!r}", hint=f"its rows are of {', '.join(kernels)}")
    return rows if kernel is None else [row for row in rows if row.kernel == kernel]


def _fit(
    path: Path, kernel: str | None, alone: Path | None, base: str | None, name: str | None, seed: int,
    output: Path | None, force: bool, format: Format,
) -> None:  # fmt: skip
    from tracereplay.cost.alone import known_alone, read_alone
    from tracereplay.cost.cases import run_cases
    from tracereplay.cost.fit import fit_rows
    from tracereplay.cost.fitted import profile_text
    from tracereplay.cost.profile import load_profile

    if output is not None and output.exists() and not force:
        raise OutputExistsError(output)
    rows = _chosen(path, kernel)
    kernels = sorted({row.kernel for row in rows})
    if len(kernels) > 1:
        raise UsageError(f"{path} has rows of kernels {', '.join(kernels)}", hint=f"choose one: --kernel {kernels[0]}")
    if len({row.unit for row in rows}) > 1:
        raise RowsError(f"{path}: rows in instructions and in ns", hint="a profile has one unit: fit them apart")
    below = load_profile(base) if base is not None else None
    if below is not None and below.unit != rows[0].unit:
        raise UsageError(f"--base {base} prices in {below.unit}, the rows are in {rows[0].unit}")
    timed = known_alone(read_alone(alone)) if alone is not None else None
    fit = fit_rows(rows, run_cases(rows), seed)
    text = profile_text(fit, rows, name or f"linux-{kernels[0]}", _origin(path, rows), below, timed)
    if output is None:
        emit(text)
        return
    part = output.with_name(output.name + ".tmp")
    part.write_text(text)
    part.replace(output)
    note(f"profile: {output}")
    columns = ["primitive", rows[0].unit, "low", "high", "decided"]
    numbers = zip(fit.names, fit.values.tolist(), fit.low.tolist(), fit.high.tolist(), fit.decided, strict=True)
    table = [[n, round(v, 2), round(a, 2), round(b, 2), "yes" if d else "with others"] for n, v, a, b, d in numbers]
    emit_rows(columns, table, format)


def _origin(path: Path, rows: list[Row]) -> str:
    zeroed = sorted({int(row.init_on_alloc) for row in rows})
    return f"{path.name}: {len(rows)} cases of kernel {rows[0].kernel}, init_on_alloc {' and '.join(map(str, zeroed))}"


def _check(path: Path, kernel: str | None, profile: str | None, format: Format) -> None:
    from tracereplay.cost.check import check_rows, rows_for, summary
    from tracereplay.cost.profile import load_profile, shipped_profiles

    rows = _chosen(path, kernel)
    if profile is not None:
        chosen = load_profile(profile)
        of_kernel, others = rows_for(rows, chosen)
        if others:
            note(f"{others} rows of other kernels than {chosen.kernel} left out")
        checked = check_rows(of_kernel, chosen)
        if chosen.kernel is not None and of_kernel[0].kernel != chosen.kernel:
            warn(f"profile {chosen.name!r} is of kernel {chosen.kernel}, no row is: all are predicted with its prices")
    else:
        shipped = {p.kernel: p for p in map(load_profile, shipped_profiles()) if p.kernel is not None}
        unknown = sorted({row.kernel for row in rows} - shipped.keys())
        if unknown:
            raise UsageError(f"no shipped profile of kernel {', '.join(unknown)}", hint="give one: --profile NAME|FILE")
        groups = [(p, [row for row in rows if row.kernel == k]) for k, p in shipped.items()]
        checked = [c for p, some in groups if some for c in check_rows(some, p)]
    found = summary(checked)
    if format is Format.JSON:
        emit_json({"schema": 1, "rows": [c.to_json() for c in checked], "summary": found})
    elif format is Format.TABLE:
        _table(checked)
        told = (
            f"{found['rows']} rows: error median {found['median_error']:.1%}, 95 % of them up to "
            f"{found['p95_error']:.1%}, at most {found['max_error']:.1%}; {found['within_10_percent']} within 10 %"
        )
        emit("\n" + textwrap.fill(told, WIDTH))
    else:
        flat = [c.to_json() | {"counters": _counters(c)} for c in checked]
        emit_rows(list(flat[0]), [list(row.values()) for row in flat], format)


def _table(checked: list[Checked]) -> None:
    columns = ["kernel", "init", "strategy", "pages", "held", "f", "took", "priced", "error"]
    rows = [
        [
            c.row.kernel, int(c.row.init_on_alloc), f"{c.row.strategy} {c.row.gfp}", c.row.n_pages, c.row.buffers_held,
            c.row.fragmentation, round(c.row.total), round(c.alloc + c.free), f"{c.error:+.1%}".rjust(6),
        ]
        for c in checked
    ]  # fmt: skip
    emit(text_table(columns, rows))
    emit("\ncounters of the worst, per buffer (of every row: --format json or csv)")
    for c in sorted(checked, key=lambda c: -abs(c.error))[:WORST]:
        head = f"{c.row.kernel} line {c.row.number} {c.error:+.1%}: "
        emit(textwrap.fill(head + _counters(c), WIDTH, subsequent_indent="    "))


def _counters(checked: Checked) -> str:
    return ", ".join(f"{name} {value:g}" for name, value in checked.outcome.counters().items())
