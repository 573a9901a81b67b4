"""Tables of analyses for people: units that they read, headings over several lines, as narrow as the terminal."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from tracereplay.cli.console import cell
from tracereplay.report.numbers import figure, seconds, share, size_bytes

if TYPE_CHECKING:
    import polars as pl

WIDTH = 80
LEAST = 16
"""Texts are cut down to so many characters to make a table fit."""
PLACES = ("lba", "sector", "pfn")
"""Beginnings of columns that say where: written in full, since neighbours would read alike."""
GAP = "  "


def terminal_width() -> int:
    """Columns of the terminal; WIDTH where there is none."""
    return shutil.get_terminal_size((WIDTH, 24)).columns if sys.stdout.isatty() else WIDTH


def table(frame: pl.DataFrame, width: int = WIDTH) -> str:
    """A frame as text. Columns without any value are left out, long texts are cut where the lines would be longer than
    ``width``; a table of numbers only may still be wider."""
    kept = [n for n in frame.columns if not len(frame) or frame[n].null_count() < len(frame)]
    columns = [_column(name, frame[name].to_list(), frame.schema[name].is_numeric()) for name in kept]
    headings = [
        _heading(name, max((len(v) for v in c.values), default=0)) for name, c in zip(kept, columns, strict=True)
    ]
    widths = [max(max(map(len, h)), *map(len, c.values), 1) for h, c in zip(headings, columns, strict=True)]
    _fit(widths, columns, headings, width)
    gap = GAP if sum(widths) + len(GAP) * (len(widths) - 1) <= width else " "
    lines = max(map(len, headings), default=0)
    padded = [[""] * (lines - len(h)) + h for h in headings]

    def line(values: list[str]) -> str:
        placed = [v.rjust(w) if c.right else v.ljust(w) for v, w, c in zip(values, widths, columns, strict=True)]
        return gap.join(placed).rstrip()

    head = [line([h[k] for h in padded]) for k in range(lines)]
    rows = [[_cut(c.values[k], w) for c, w in zip(columns, widths, strict=True)] for k in range(len(frame))]
    return "\n".join([*head, line(["-" * w for w in widths]), *map(line, rows)])


class _Column:
    """The texts of a column, and on which side they stand."""

    def __init__(self, values: list[str], right: bool) -> None:
        self.values, self.right = values, right


def _column(name: str, values: list[Any], numeric: bool) -> _Column:
    unit = _writer(name) if numeric else None
    if unit is not None:
        return _Column(["-" if v is None else unit(v) for v in values], True)
    return _Column([cell(" ".join(map(str, v)) if isinstance(v, list) else v) for v in values], numeric)


def _writer(name: str) -> Callable[[Any], str] | None:
    """How values of a column are written; None: as plain numbers."""
    if name.startswith(PLACES):
        return lambda v: f"{v:,}"
    if name.endswith("_ns"):
        return in_unit("ns")
    if name.endswith("bytes_per_s"):
        return in_unit("bytes/s")
    if "byte_seconds" in name:
        return in_unit("bytes s")
    if name.startswith("bytes") or name.endswith(("_bytes", "_bytes_mean")):
        return in_unit("bytes")
    if name.endswith("share"):
        return in_unit("share")
    return None


def in_unit(unit: str) -> Callable[[Any], str]:
    """How values of a unit are written: ``ns``, ``bytes``, ``bytes/s``, ``bytes s``, ``share``; others stand behind the
    number."""
    if unit == "ns":
        return lambda v: seconds(v) if v else "0"
    if unit.startswith("bytes"):
        return lambda v: size_bytes(round(v)) + unit.removeprefix("bytes")
    if unit == "share":
        return lambda v: share(v, 1.0)
    return lambda v: f"{figure(v)} {unit}" if not unit.startswith("1/") else f"{figure(v)}{unit[1:]}"


def _heading(name: str, width: int) -> list[str]:
    """The name in lines that are hardly wider than the column's values."""
    words = name.removesuffix("_ns").removesuffix("_bytes").removesuffix("_per_s").split("_")
    if name.endswith("_per_s"):
        words[-1] += "/s"
    lines = [words[0]]
    room = max(width, max(map(len, words)))
    for word in words[1:]:
        if len(lines[-1]) + 1 + len(word) <= room:
            lines[-1] += f" {word}"
        else:
            lines.append(word)
    return lines


def _fit(widths: list[int], columns: list[_Column], headings: list[list[str]], width: int) -> None:
    """Narrow the widest columns of texts until the lines fit."""
    texts = [k for k, c in enumerate(columns) if not c.right]
    while texts and sum(widths) + len(GAP) * (len(widths) - 1) > width:
        widest = max(texts, key=lambda k: widths[k])
        least = max(LEAST, max(map(len, headings[widest])))
        if widths[widest] <= least:
            return
        widths[widest] -= 1


def _cut(text: str, width: int) -> str:
    return text if len(text) <= width else f"{text[: width - 2]}.."
