"""``tracereplay strategies``."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tracereplay.cli.console import Format, emit, emit_rows

if TYPE_CHECKING:
    from tracereplay.strategies.contract import Params


def run(
    name: Annotated[str | None, typer.Argument(help="Show one, with its parameters.", metavar="[NAME]")] = None,
    format: Annotated[Format, typer.Option("--format", help="table, json, csv or parquet.")] = Format.TABLE,
) -> None:
    """List the allocation strategies, or show one with its parameters.

    Example:

    tracereplay strategies compound
    """
    from tracereplay.strategies.registry import known_strategies, load_strategy

    if name is None:
        columns = ["strategy", "summary"]
        emit_rows(columns, [[n, load_strategy(n).summary] for n in known_strategies()], format)
        return
    params = load_strategy(name)
    if format is Format.TABLE:
        emit(_page(params))
    else:
        columns = ["parameter", "default", "unit", "range", "doc", "source"]
        emit_rows(columns, _parameters(params), format)


def _parameters(params: type[Params]) -> list[list[Any]]:
    return [[i.name, i.default, i.unit, i.range_text, i.doc, i.source] for i in params.infos().values()]


def _page(params: type[Params]) -> str:
    lines = [f"{params.name}: {params.summary}", ""]
    lines += _wrapped("mimics", params.mimics)
    if params.leaves_out:
        lines += _wrapped("leaves out", params.leaves_out)
    for info in params.infos().values():
        default = str(info.default).lower() if info.kind is bool else info.default
        lines += ["", f"{info.name} = {default}  ({info.range_text}; {info.unit})"]
        lines += textwrap.wrap(info.doc, 76, initial_indent="    ", subsequent_indent="    ")
        lines += textwrap.wrap(f"source: {info.source}", 76, initial_indent="    ", subsequent_indent="    ")
    if not params.infos():
        lines += ["", "no parameters"]
    return "\n".join(lines)


def _wrapped(label: str, text: str) -> list[str]:
    return textwrap.wrap(f"{label}: {text}", 78, subsequent_indent="    ")
