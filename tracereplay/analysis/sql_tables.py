"""The ready-made tables as SQL sees them."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from tracereplay.analysis.derived import Note, derived
from tracereplay.analysis.ready_tables import READY_TABLES
from tracereplay.trace.sql import ExtraTable

if TYPE_CHECKING:
    from tracereplay.trace.reader import Trace


def sql_tables(trace: Trace, *, note: Note | None = None) -> dict[str, ExtraTable]:
    """The ready-made tables of a trace, for :class:`tracereplay.trace.sql.Statement`. Nothing is made before a
    statement names it."""
    return {
        name: ExtraTable(table.arrow_schema(), partial(derived, trace, name, note=note))
        for name, table in READY_TABLES.items()
    }
