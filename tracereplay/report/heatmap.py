"""The cheapest strategy by two axes: a cell for each pair of values, told by colour, by letter and by its figure."""

from __future__ import annotations

from collections.abc import Sequence

from tracereplay.report.markup import Child, tag
from tracereplay.report.numbers import figure
from tracereplay.report.plot import LINE, STYLE, colour, fitted, heading, length, text_at, wrapped
from tracereplay.report.svg import document, n
from tracereplay.report.sweep import Heat
from tracereplay.report.sweep_words import text_of

SETTLED, OPEN = 0.42, 0.14
"""Opacity of a cell: text in ink stays readable on both."""
LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"


def heat_svg(heat: Heat, labels: Sequence[str], title: str, unit: str, width: int, below: Sequence[str]) -> str:
    """The text of an SVG file of a width, with lines of text beneath."""
    head, y = heading(title, width)
    several = len(labels) > 1
    named, y = _legend(labels, width, y + 2) if several else ([], y)
    parts: list[Child] = [*head, *named]
    parts.append(
        text_at(fitted(f"{heat.y} up, {heat.x} across" + (f"; {unit} a page" if unit else ""), width - 16), 8, y + 6)
    )
    top = y + 18
    names = [text_of(v) for v in heat.ys]
    left = min(14 + max(map(length, names)), width * 0.3)
    wide, high = (width - left - 8) / len(heat.xs), min(44.0, max(24.0, 320 / len(heat.ys)))
    values = [c.value for c in heat.cells.values() if c is not None]
    least, most = min(values, default=0.0), max(values, default=1.0)
    for row, (value, name) in enumerate(zip(reversed(heat.ys), reversed(names), strict=True)):
        at = top + high * row
        parts.append(text_at(fitted(name, left - 12), left - 6, at + high / 2 + 5, "end"))
        for column, x in enumerate(heat.xs):
            place = {"x": n(left + wide * column), "y": n(at), "width": n(wide), "height": n(high)}
            centre = left + wide * (column + 0.5), at + high / 2 + 5
            parts.append(tag("rect", class_="blank", fill="none", stroke="var(--line)", **place))
            if (x, value) not in heat.cells:
                continue
            cell = heat.cells[x, value]
            if cell is None:
                parts.append(_text("\u00d7", *centre, wide))
                continue
            index = labels.index(cell.label)
            shade = (SETTLED if cell.settled else OPEN) if several else _shade(cell.value, least, most)
            parts.append(tag("rect", class_="edge", fill=colour(index), fill_opacity=f"{shade:.2f}", **place))
            letter = LETTERS[index % len(LETTERS)] if several else ""
            open_ = "?" if several and not cell.settled else ""
            full = f"{letter}{open_} {figure(cell.value)}".strip()
            parts.append(_text(full if length(full) <= wide - 4 else f"{letter}{open_}", *centre, wide))
    bottom = top + high * len(heat.ys)
    step = max(1, -(-int(max(length(text_of(v)) for v in heat.xs) + 8) // int(max(wide, 1))))
    for column, x in enumerate(heat.xs):
        if column % step == 0:
            parts.append(text_at(text_of(x), left + wide * (column + 0.5), bottom + 18, "middle"))
    told = f"{title}: {sum(c is not None for c in heat.cells.values())} cells. The figures are in the table."
    said = ["\u00d7 failed; empty: not run", *(line for text in below for line in wrapped(text, width - 16))]
    parts += [text_at(line, 8, bottom + 18 + LINE * (i + 1)) for i, line in enumerate(said)]
    return document(bottom + 18 + LINE * len(said) + 12, told, *parts, style=STYLE, width=width)


def _shade(value: float, least: float, most: float) -> float:
    return OPEN + (0.6 - OPEN) * ((value - least) / (most - least) if most > least else 0.5)


def _text(text: str, x: float, y: float, room: float) -> Child:
    """Text of a cell, where it has room."""
    return text_at(text, x, y, "middle", class_=None) if text and length(text) <= room else None


def _legend(labels: Sequence[str], width: int, y: float) -> tuple[list[Child], float]:
    parts: list[Child] = []
    x, at = 8.0, y
    for index, label in enumerate(labels):
        shown = fitted(f"{LETTERS[index % len(LETTERS)]} {label}", width - 40)
        wide = 24 + length(shown) + 14
        if x > 8 and x + wide - 14 > width - 4:
            x, at = 8.0, at + LINE
        parts.append(tag("rect", x=n(x), y=n(at - 6), width=14, height=12, fill=colour(index), fill_opacity=SETTLED))
        parts.append(text_at(shown, x + 20, at + 5, class_=None))
        x += wide
    return parts, at + LINE + 2
