"""The only place that prints and exits: data on stdout, talk on stderr, progress only on a terminal."""

from __future__ import annotations

import csv
import enum
import io
import json
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import wraps
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

from tracereplay.errors import TracereplayError

if TYPE_CHECKING:
    import polars as pl

    from tracereplay.whatif.progress import Pace

P = ParamSpec("P")
R = TypeVar("R")


class Format(enum.StrEnum):
    """``--format`` wherever data comes out."""

    TABLE = "table"
    JSON = "json"
    CSV = "csv"
    PARQUET = "parquet"


def note(text: str) -> None:
    """Talk to the user (stderr)."""
    print(text, file=sys.stderr)


def warn(text: str) -> None:
    """A warning (stderr)."""
    print(f"warning: {text}", file=sys.stderr)


def emit(text: str, *, end: str = "\n") -> None:
    """Data (stdout), a line unless ``end`` says otherwise."""
    sys.stdout.write(text if text.endswith("\n") else text + end)


def emit_json(value: Any) -> None:
    """One JSON document (stdout). NaN never appears: use null."""
    emit(json.dumps(value, indent=2, allow_nan=False, default=_plain))


def json_rows(rows: Sequence[Mapping[str, Any]]) -> str:
    """Rows as the inside of a JSON list, as emit_json would write them."""
    text = json.dumps(rows, indent=2, allow_nan=False, default=_plain)
    return text[2:-2]


def _plain(value: Any) -> Any:
    for method in ("item", "isoformat", "as_posix"):
        if hasattr(value, method):
            return getattr(value, method)()
    raise TypeError(f"cannot write {type(value).__name__} as JSON")


def emit_rows(columns: Sequence[str], rows: Sequence[Sequence[Any]], fmt: Format, *, title: str | None = None) -> None:
    """A small table in the chosen format. Parquet goes to stdout as bytes and refuses a terminal."""
    if fmt is Format.JSON:
        emit_json([dict(zip(columns, row, strict=True)) for row in rows])
    elif fmt is Format.CSV:
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(columns)
        writer.writerows(rows)
        emit(text.getvalue())
    elif fmt is Format.PARQUET:
        import polars as pl

        emit_frame(pl.DataFrame(rows, schema=list(columns), orient="row"), fmt)
    else:
        emit(text_table(columns, rows, title=title))


def emit_frame(frame: pl.DataFrame, fmt: Format) -> None:
    """A data frame in the chosen format."""
    if fmt is Format.PARQUET:
        from tracereplay.errors import UsageError

        if sys.stdout.isatty():
            raise UsageError(
                "Parquet is binary and stdout is a terminal",
                hint="redirect it: ... --format parquet > out.parquet",
            )
        buffer = io.BytesIO()
        frame.write_parquet(buffer)
        sys.stdout.buffer.write(buffer.getvalue())
    elif fmt is Format.CSV:
        emit(frame.write_csv())
    elif fmt is Format.JSON:
        emit_json(frame.to_dicts())
    else:
        emit(text_table(frame.columns, frame.rows()))


def text_table(columns: Sequence[str], rows: Sequence[Sequence[Any]], *, title: str | None = None) -> str:
    """Plain aligned text: numbers right, words left, two spaces between columns."""
    cells = [[cell(v) for v in row] for row in rows]
    numeric = [
        bool(rows) and all(v is None or (isinstance(v, int | float) and not isinstance(v, bool)) for v in col)
        for col in zip(*rows, strict=True)
    ]
    numeric = numeric or [False] * len(columns)
    widths = [max(len(h), *(len(r[i]) for r in cells)) if cells else len(h) for i, h in enumerate(columns)]

    def line(values: Sequence[str]) -> str:
        return "  ".join(
            v.rjust(w) if n else v.ljust(w) for v, w, n in zip(values, widths, numeric, strict=True)
        ).rstrip()

    head = [title, ""] if title else []
    return "\n".join([*head, line(columns), line(["-" * w for w in widths]), *(line(r) for r in cells)])


def cell(value: Any) -> str:
    """A value in a table."""
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:,.1f}" if abs(value) >= 100 else f"{value:,.3g}" if abs(value) < 1 else f"{value:,.2f}"
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}"
    return str(value)


@contextmanager
def progress(label: str, total: int | None = None) -> Iterator[Callable[[int], None]]:
    """A progress bar on a terminal's stderr, nothing elsewhere. The yielded function advances by n."""
    if not sys.stderr.isatty():
        yield lambda _n: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

    columns = [
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.completed:,.0f}"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    ]
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(label, total=total)
        yield lambda n: bar.advance(task, n)


LINE_EVERY_S = 60.0
"""Where there is no terminal, a line about progress comes at most this often."""


@contextmanager
def points(pace: Pace) -> Iterator[Callable[[], None]]:
    """How far a sweep is: a bar on a terminal's stderr, else a line a minute. The yielded function is called often."""
    if not sys.stderr.isatty():
        told = time.monotonic()

        def line() -> None:
            nonlocal told
            if time.monotonic() - told >= LINE_EVERY_S:
                told = time.monotonic()
                note(pace.line())

        yield line
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn

    columns = [BarColumn(), TextColumn("{task.fields[said]}")]
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("", total=pace.total, completed=pace.done, said=pace.line())
        yield lambda: bar.update(task, total=pace.total, completed=pace.done, said=pace.line())


def report_error(error: TracereplayError) -> int:
    """Print an error with its next step; the exit code."""
    print(f"error: {error.message}", file=sys.stderr)
    if error.hint:
        print(f"  next: {error.hint}", file=sys.stderr)
    return error.exit_code


def _note_fetched() -> None:
    """Say what was moved from stores, where something was."""
    if remote := sys.modules.get("tracereplay.trace.remote"):
        files, size = remote.FETCHED.take()
        if files:
            note(f"fetched: {files:,} file{'' if files == 1 else 's'}, {size:,} bytes; kept for the next time")


def verb(function: Callable[P, R]) -> Callable[P, R]:
    """Wrap a verb: our errors become text and an exit code, a closed pipe ends quietly."""

    @wraps(function)
    def run(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            result = function(*args, **kwargs)
            sys.stdout.flush()
            _note_fetched()
        except TracereplayError as error:
            raise SystemExit(report_error(error)) from None
        except BrokenPipeError:
            sys.stderr.close()
            raise SystemExit(141) from None
        return result

    return run


def describe(mapping: Mapping[str, Any]) -> str:
    """``key: value`` lines, aligned."""
    width = max((len(k) for k in mapping), default=0)
    return "\n".join(f"{k.ljust(width)}  {cell(v)}" for k, v in mapping.items())
