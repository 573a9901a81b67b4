"""What ``tracereplay analyze`` shows and writes."""

from __future__ import annotations

import json
import math
import textwrap
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from tracereplay.cli.analyze_table import table, terminal_width
from tracereplay.cli.console import Format, emit, emit_frame, emit_json

if TYPE_CHECKING:
    import polars as pl

    from tracereplay.analysis.analysis import Analysis, Answer
    from tracereplay.analysis.view import View

WIDTH = 80


def listing(known: Iterable[Analysis]) -> str:
    """A line each, by group."""
    groups: dict[str, list[Analysis]] = {}
    for analysis in known:
        groups.setdefault(analysis.group, []).append(analysis)
    width = max((len(a.name) for members in groups.values() for a in members), default=0)
    lines = []
    for group, members in groups.items():
        lines.append(group)
        for a in members:
            lines += _wrapped(f"  {a.name.ljust(width)}  {a.title}", width + 4)
    return "\n".join(lines)


def description(analysis: Analysis) -> str:
    """What an analysis needs, and can be told."""
    lines = [*_wrapped(f"{analysis.name}: {analysis.title}", 0), ""]
    for need in analysis.needs:
        lines += _wrapped(f"needs    {' or '.join(need.kinds)} events ({need.option})")
    lines += _wrapped(f"filters  {' '.join('--' + name for name in sorted(analysis.filters)) or 'none'}")
    for option in analysis.options:
        name = "--by" if option.name == "by" else f"--set {option.name}="
        choices = f" ({', '.join(option.choices)})" if option.choices else ""
        lines += _wrapped(f"option   {name}  {option.help}{choices}; default {option.default}")
    lines += _wrapped(f"fleet    {_fleet(analysis)}")
    if analysis.picture is not None:
        lines.append(f"picture  {analysis.picture.kind} (--svg FILE)")
    return "\n".join(lines)


def _fleet(analysis: Analysis) -> str:
    """What several traces have together."""
    together = analysis.together
    if isinstance(together, str):
        return f"rows of each trace only: {together}"
    named = (*together.sums, *together.shares, *together.ratios, *together.means, *together.most)
    return f"rows of all traces too: {' '.join(named)}"


def _wrapped(line: str, indent: int = 9) -> list[str]:
    return textwrap.wrap(line, WIDTH, subsequent_indent=" " * indent, break_on_hyphens=False)


def document(view: View, analysis: Analysis, answer: Answer) -> dict[str, Any]:
    """An answer as plain values, with its accounting."""
    from tracereplay.trace.completeness import completeness

    return {
        "schema": 1,
        "analysis": analysis.name,
        "trace": view.trace.identity(),
        "selection": view.selection.to_json(),
        "method": answer.method,
        "account": dict(answer.account),
        "notes": list(answer.notes),
        "completeness": completeness(view.trace).to_json(),
        "rows": [{k: finite(v) for k, v in row.items()} for row in answer.frame.to_dicts()],
    }


def finite(value: Any) -> Any:
    """A value that JSON can hold: no NaN, no infinity."""
    return None if isinstance(value, float) and not math.isfinite(value) else value


def show(view: View, analysis: Analysis, answer: Answer, fmt: Format) -> None:
    """On standard output."""
    if fmt is Format.JSON:
        emit_json(document(view, analysis, answer))
    elif fmt is Format.TABLE:
        emit(table(answer.frame, terminal_width()))
    else:
        emit_frame(flat(answer.frame) if fmt is Format.CSV else answer.frame, fmt)


def write(view: View, analysis: Analysis, answer: Answer, place: str) -> None:
    """Into a file, by its suffix: whole or not at all."""
    write_rows(place, analysis, answer.frame, answer.frame, lambda: document(view, analysis, answer))


def write_rows(
    place: str, analysis: Analysis, frame: pl.DataFrame, pictured: pl.DataFrame, told: Callable[[], dict[str, Any]]
) -> None:
    """Rows into a file, by its suffix. ``pictured``: those that a picture shows; ``told``: makes the JSON document."""
    from tracereplay.trace.outputs import written

    with written(place) as path:
        if path.suffix == ".parquet":
            frame.write_parquet(path)
        elif path.suffix == ".csv":
            flat(frame).write_csv(path)
        elif path.suffix == ".json":
            path.write_text(f"{json.dumps(told(), indent=2, allow_nan=False, default=str)}\n")
        else:
            from tracereplay.report.answer_picture import picture

            assert analysis.picture is not None
            path.write_text(picture(pictured, analysis.picture, analysis.title), encoding="utf-8")


def remarks(view: View, analysis: Analysis, answer: Answer) -> str:
    """How it was found and how complete it is, for standard error."""
    from tracereplay.trace.completeness import completeness

    lines = [f"note: {text}" for text in answer.notes]
    lines.append(f"method: {answer.method}")
    if answer.account:
        counted = ", ".join(f"{name.replace('_', ' ')} {n:,}" for name, n in answer.account.items())
        lines.append(f"account: {counted}")
    wrapped = [textwrap.fill(line, WIDTH, subsequent_indent="  ", break_on_hyphens=False) for line in lines]
    return "\n".join([*wrapped, completeness(view.trace).text()])


def flat(frame: pl.DataFrame) -> pl.DataFrame:
    """A frame that CSV can hold: lists as texts joined by semicolons."""
    import polars as pl

    lists = [name for name, kind in frame.schema.items() if isinstance(kind, pl.List)]
    return frame.with_columns(pl.col(name).cast(pl.List(pl.String)).list.join(";") for name in lists)
