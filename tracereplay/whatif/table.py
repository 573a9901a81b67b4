"""The table of a sweep: one tidy Parquet file, one row a point, with its provenance in every row and in the file.

It is written whole each time, beside the old one, and then takes its place: what is there is always a table.
"""

from __future__ import annotations

import io
import json
import threading
from collections.abc import Mapping
from functools import cached_property
from typing import TYPE_CHECKING

from tracereplay.errors import ResultsError, StorageError
from tracereplay.machine.counters import COUNTERS
from tracereplay.trace.fleet import WHOLE as ALL_TRACES
from tracereplay.trace.outputs import check_file, exists, read_bytes, written
from tracereplay.trace.store import Place, is_url
from tracereplay.whatif.task import OK, Row

if TYPE_CHECKING:
    import polars as pl

    from tracereplay.whatif.grid import Plan

SCHEMA = 1
TEXTS = (
    *("key", "status", "error", "method", "trace_id", "trace", "host", "kernel", "strategy", "label", "params"),
    *("profile", "profile_sha256", "unit", "target", "machine", "demand", "accounting", "sample", "version", "command"),
)
WHOLE = (
    *("seed", "requests", "pages", "failed", "waiting", "background_failed", "duration_ns"),
    *("demand_requests", "demand_pages", "unseen_pages", "lost", "loss_intervals"),
    *("reserve_pages_peak", "waste_pages_peak"),
)
REAL = (
    *("cost_total", "cost_low95", "cost_high95", "per_page", "per_page_low95", "per_page_high95"),
    *("per_request_mean", "per_request_p50", "per_request_p99", "seconds"),
)
NAMES = ("generation",)
"""Axes whose values are names, whatever they look like."""
FIRST = ("key", "status", "error", "method", "trace", "host", "kernel", "label")
"""Columns that stand first; then the axes, then the others."""


class Table:
    """Rows of a sweep, in memory, and the file that they are kept in."""

    def __init__(self, plan: Plan, path: Place | None = None, rows: list[Row] | None = None) -> None:
        self.plan = plan
        self.path = path
        self._rows = rows or []
        self._lock = threading.Lock()

    @classmethod
    def create(cls, plan: Plan, path: Place | None, *, force: bool = False) -> Table:
        """An empty one. Raises OutputExistsError, UsageError, StorageError."""
        if path is not None:
            check_file(path, force=force)
        return cls(plan, path)

    @classmethod
    def resume(cls, plan: Plan, path: Place) -> Table:
        """One that is there, to go on with; an empty one where none is. Failed points are tried again.

        Raises ResultsError for a file that holds no sweep.
        """
        if not exists(path):
            return cls.create(plan, path)
        rows = read_table(path).to_dicts()
        return cls(plan, path, [row for row in rows if row["status"] == OK and row["trace"] != ALL_TRACES])

    @property
    def done(self) -> set[str]:
        """Keys of the points that are there."""
        return {row["key"] for row in self._rows}

    @property
    def rows(self) -> list[Row]:
        """The points that are there, in the order in which they came."""
        return list(self._rows)

    def __len__(self) -> int:
        return len(self._rows)

    def add(self, row: Row) -> None:
        """Keep a row; from any thread."""
        with self._lock:
            self._rows.append(row)

    def frame(self) -> pl.DataFrame:
        """All rows, [point, columns]: FIRST, the axes, the others by name of their group; in the plan's order."""
        import polars as pl

        with self._lock:
            rows = list(self._rows)
        rows.sort(key=lambda row: self._order.get(row["key"], len(self._order)))
        names = list(dict.fromkeys([*FIRST, *self.plan.axes, *(name for row in rows for name in row)]))
        kinds = column_types(self.plan.axes)
        data = {name: [row.get(name) for row in rows] for name in names}
        columns = []
        for name, values in data.items():
            kind = kinds.get(name)
            if name in self.plan.axes and kind is not pl.String:
                values = [None if v is None else float(v) if kind is pl.Float64 else int(v) for v in values]
            columns.append(pl.Series(name, values, dtype=kind))
        return pl.DataFrame(columns)

    @cached_property
    def _order(self) -> dict[str, int]:
        """Place of a point in the plan, by key."""
        return {task.key: i for i, task in enumerate(self.plan.tasks())}

    def ranked(self) -> pl.DataFrame:
        """:meth:`frame` with each point's place among those at its settings (whatif/ranking.py)."""
        from tracereplay.whatif.ranking import with_ranks

        return with_ranks(self.frame(), list(self.plan.axes))

    def save(self, frame: pl.DataFrame | None = None) -> None:
        """Write the file, ``frame`` or all rows. Raises StorageError; the old one then stays."""
        self._write(frame, keep=True)

    def save_meanwhile(self) -> str | None:
        """Write what there is; more is to come. A store that refuses now may take the next one: what it says. Raises
        StorageError where a disk refuses."""
        try:
            self._write(None, keep=False)
        except StorageError as error:
            if self.path is None or not is_url(self.path):
                raise
            return error.message
        return None

    def _write(self, frame: pl.DataFrame | None, *, keep: bool) -> None:
        if self.path is None:
            return
        with written(self.path, keep=keep) as part:
            (self.frame() if frame is None else frame).write_parquet(part, metadata=self.metadata())

    def metadata(self) -> dict[str, str]:
        """The file's own key-value metadata."""
        plan = self.plan
        return {
            "tracereplay.sweep": str(SCHEMA),
            "tracereplay.command": plan.command,
            "tracereplay.axes": json.dumps({name: list(values) for name, values in plan.axes.items()}),
            "tracereplay.strategies": json.dumps(dict(plan.strategies)),
            "tracereplay.points": str(plan.points),
        }


def column_types(axes: Mapping[str, tuple[str, ...]]) -> dict[str, type[pl.DataType]]:
    """Types of the columns that are known beforehand; of axes by their values."""
    import polars as pl

    kinds: dict[str, type[pl.DataType]] = dict.fromkeys(TEXTS, pl.String)
    kinds |= dict.fromkeys((*COUNTERS, *WHOLE), pl.Int64)
    kinds |= dict.fromkeys(REAL, pl.Float64)
    for name, values in axes.items():
        whole, real = (name not in NAMES and _all(kind, values) for kind in (int, float))
        kinds[name] = pl.Int64 if whole else pl.Float64 if real else pl.String
    return kinds


def _all(kind: type[int] | type[float], values: tuple[str, ...]) -> bool:
    try:
        return all(kind(value) is not None for value in values)
    except ValueError:
        return False


def read_table(path: Place) -> pl.DataFrame:
    """The rows of a sweep's file. Raises ResultsError, StorageError."""
    return _read(path)[0]


def _read(path: Place) -> tuple[pl.DataFrame, dict[str, str]]:
    """Rows of a sweep's file, and the file's own metadata."""
    import polars as pl

    hint = "sweeps come from: tracereplay whatif TRACE -s bulk --grid pcp.batch=31,63 -o sweep.parquet"
    try:
        content = read_bytes(path)
        known = pl.read_parquet_metadata(io.BytesIO(content))
        frame = pl.read_parquet(content)
    except (OSError, pl.exceptions.PolarsError) as error:
        raise ResultsError(f"{path}: not readable as Parquet: {str(error).splitlines()[0]}", hint=hint) from None
    if "tracereplay.sweep" not in known:
        raise ResultsError(f"{path}: holds no sweep", hint=hint)
    if int(known["tracereplay.sweep"]) > SCHEMA:
        raise ResultsError(f"{path}: written by a newer tracereplay", hint="upgrade tracereplay")
    return frame, known


def read_axes(path: Place) -> dict[str, tuple[str, ...]]:
    """Axes of a sweep's file and their values. Raises ResultsError, StorageError."""
    found = json.loads(_read(path)[1]["tracereplay.axes"])
    return {name: tuple(values) for name, values in found.items()}
