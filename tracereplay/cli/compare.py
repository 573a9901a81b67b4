"""``tracereplay compare``."""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tracereplay.cli.console import Format, emit, emit_json, emit_rows

if TYPE_CHECKING:
    from tracereplay.report.sides import Sides


class Form(enum.StrEnum):
    """How a comparison is written."""

    TEXT = "text"
    TABLE = "table"
    JSON = "json"
    CSV = "csv"
    PARQUET = "parquet"


def run(
    a: Annotated[str, typer.Argument(help="Results before.", metavar="A")],
    b: Annotated[str, typer.Argument(help="Results after.", metavar="B")],
    profile: Annotated[
        str | None, typer.Option("--profile", help="Price both by this profile, a name or a TOML file.")
    ] = None,
    format: Annotated[
        Form, typer.Option("--format", help="text (72 columns, for a mail), table, json, csv or parquet.")
    ] = Form.TEXT,
) -> None:
    """Compare two results of `replay -o` or `whatif -o`: what each strategy costs in A, in B, and how sure that is.

    Example:

    tracereplay replay old.trace -s per-page -s bulk -o a.json

    tracereplay replay new.trace -s per-page -s bulk -o b.json

    tracereplay compare a.json b.json --format text
    """
    from tracereplay.cost.profile import load_profile
    from tracereplay.report.sides import compare, read_side

    sides = compare(read_side(a), read_side(b), load_profile(profile) if profile else None)
    if format is Form.TEXT:
        from tracereplay.report.letter import letter

        emit(letter(sides))
        return
    rows = _rows(sides)
    if format is Form.JSON:
        emit_json({"schema": 1, "profile": sides.profile.name, "unit": sides.profile.unit, "paired": sides.paired}
                  | {"a": a, "b": b, "results": rows})  # fmt: skip
    else:
        shown = [row if format is not Form.TABLE else {k: row[k] for k in SHORT} for row in rows]
        emit_rows(list(shown[0]), [list(row.values()) for row in shown], Format(format.value))


SHORT = ("label", "a", "b", "ratio", "ratio_low95", "ratio_high95", "beyond")


def _rows(sides: Sides) -> list[dict[str, Any]]:
    """A row a strategy: costs of a page in A and B, the ratio, counters per 1,000 pages."""
    rows = []
    for pair in sides.pairs:
        row: dict[str, Any] = {"label": pair.label}
        for name, value, ends in (
            ("a", pair.a, pair.a_interval),
            ("b", pair.b, pair.b_interval),
            ("ratio", pair.ratio, pair.ratio_interval),
        ):
            low, high = ends or (None, None)
            row |= {name: value, f"{name}_low95": low, f"{name}_high95": high}
        row |= {"beyond": pair.beyond, "a_unserved": pair.unserved[0], "b_unserved": pair.unserved[1]}
        for name, (one, other) in pair.counters.items():
            row |= {f"a_{name}_per_1000": one, f"b_{name}_per_1000": other}
        rows.append(row)
    return rows
