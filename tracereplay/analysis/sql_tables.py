"""The ready-made tables as SQL sees them."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from tracereplay.analysis.derived import Note, derived
from tracereplay.analysis.ready_tables import CALLERS, READY_TABLES, arrow_schema
from tracereplay.trace.sql import ExtraTable

if TYPE_CHECKING:
    import polars as pl

    from tracereplay.trace.reader import Trace


def sql_tables(trace: Trace, *, note: Note | None = None) -> dict[str, ExtraTable]:
    """The ready-made tables of a trace, for :class:`tracereplay.trace.sql.Statement`. Nothing is made before a
    statement names it."""
    made = {
        name: ExtraTable(table.arrow_schema(), partial(derived, trace, name, note=note))
        for name, table in READY_TABLES.items()
    }
    return made | {"callers": ExtraTable(arrow_schema(CALLERS), partial(_callers, trace))}


def _callers(trace: Trace) -> pl.LazyFrame:
    import polars as pl

    from tracereplay.analysis.view import View

    return View.of(trace).callers().lazy().with_columns(pl.col("stack").list.join(";"))
