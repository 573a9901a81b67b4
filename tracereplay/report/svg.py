"""SVG files that stand alone and follow the reader's light or dark scheme: their frame, style and axes."""

from __future__ import annotations

import math
import re
from collections.abc import Callable

from tracereplay.report.markup import Child, Markup, tag
from tracereplay.report.numbers import figure, seconds, size_bytes

STYLE = """
:root { --ink: #1c2126; --soft: #5b6570; --line: #d5dade; --back: #ffffff;
  --c0: #0072b2; --c1: #b87600; --c2: #008060; --c3: #b0508c; --c4: #d55e00; --c5: #6f6f6f; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6e9ec; --soft: #a3adb7; --line: #3a424a; --back: #15191d;
  --c0: #4aa3df; --c1: #f0b429; --c2: #2fc296; --c3: #dd97bd; --c4: #f0803c; --c5: #a0a0a0; } }
text { font: 14px system-ui, "Segoe UI", "DejaVu Sans", sans-serif; fill: var(--ink); }
.soft { fill: var(--soft); } .head { font-weight: 600; }
.grid { stroke: var(--line); stroke-width: 1; } .even { stroke: var(--ink); stroke-width: 1; stroke-dasharray: 5 4; }
.series { fill: none; stroke-width: 2.2; stroke-linejoin: round; } .band { stroke: none; opacity: 0.16; }
"""
XMLNS = "http://www.w3.org/2000/svg"
WIDTH = 900
COLOURS = 6
DASHES = ("none", "7 3", "2 3", "9 3 2 3")


def n(x: float) -> str:
    """A coordinate."""
    return f"{x:.1f}"


def document(height: float, label: str, *parts: Child, style: str = "", width: int = WIDTH) -> str:
    """Parts on a page, as the text of a file. ``label`` is read out in place of it."""
    tall = f"{height:g}"
    back = tag("rect", width=width, height=tall, fill="var(--back)")
    whole = tag(
        "svg", Markup(f"<style>{STYLE}{style}</style>"), *(Markup(f"\n{part}") for part in (back, *parts)),
        xmlns=XMLNS, viewBox=f"0 0 {width} {tall}", width=width, height=tall, role="img", aria_label=label,
    )  # fmt: skip
    return f"{whole}\n"


def look(index: int) -> dict[str, str]:
    """Colour and dashes of a series."""
    return {"stroke": f"var(--c{index % COLOURS})", "stroke_dasharray": DASHES[index % len(DASHES)]}


def in_unit(unit: str) -> Callable[[float], str]:
    """How a value of a unit is written on an axis."""
    if unit == "ns":
        return lambda x: _trimmed(seconds(x)) if x else "0"
    if unit.startswith("bytes"):
        return lambda x: _trimmed(size_bytes(round(x))) + unit.removeprefix("bytes")
    if unit == "share":
        return lambda x: f"{_trimmed(figure(100 * x))} %"
    return (lambda x: f"{_trimmed(figure(x))} {unit}") if unit else lambda x: _trimmed(figure(x))


def _trimmed(text: str) -> str:
    """A number without zeros after its point."""
    return re.sub(r"(\.\d*?)0+(?!\d)", r"\1", text).replace(". ", " ").removesuffix(".")


def unit_of(column: str, else_: str = "") -> str:
    """The unit in a column's name; ``else_`` where it has none."""
    for end, unit in (("_ns", "ns"), ("bytes", "bytes"), ("bytes_per_s", "bytes/s"), ("share", "share")):
        if column.endswith(end):
            return unit
    return else_


def marks(low: float, high: float, unit: str = "", least: int = 4) -> list[float]:
    """Round values from the last one below ``low`` to the first above ``high``, at least so many steps."""
    if high <= low:
        return [low, low + 1.0]
    scale = 1024.0 ** max(0, math.floor(math.log((high - low) / least, 1024))) if unit.startswith("bytes") else 1.0
    wanted = (high - low) / scale / least
    size = 10.0 ** math.floor(math.log10(wanted))
    step = max(s for s in (size, 2 * size, 5 * size) if s <= wanted * (1 + 1e-9)) * scale
    return [k * step for k in range(math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9) + 1)]


def powers(low: float, high: float, unit: str = "", most: int = 9) -> list[float]:
    """Powers of two (of bytes) or of ten between two positive values: marks of a logarithmic axis."""
    base = 2.0 if unit.startswith("bytes") else 10.0
    exponents = range(math.ceil(math.log(low, base) - 1e-9), math.floor(math.log(high, base) + 1e-9) + 1)
    return [base**k for k in exponents[:: max(1, -(-len(exponents) // most))]]


def label(text: str, x: float, y: float, anchor: str = "start", class_: str | None = "soft") -> Markup:
    """A text at a place."""
    return tag("text", text, class_=class_, x=n(x), y=n(y), text_anchor=None if anchor == "start" else anchor)


def legend(names: list[str], left: float, right: float, y: float) -> tuple[list[Markup], int]:
    """Names of series with their lines, from ``left`` to ``right``: the parts, and how many rows of 22 they take."""
    parts: list[Markup] = []
    x, row = left, 0
    for index, name in enumerate(names):
        wide = 52 + 7.8 * len(name)
        if x + wide > right and x > left:
            x, row = left, row + 1
        at = f"{y + 22 * row:g}"
        parts.append(tag("line", class_="series", x1=n(x), x2=n(x + 26), y1=at, y2=at, **look(index)))
        parts.append(tag("text", name, x=n(x + 32), y=f"{y + 22 * row + 5:g}"))
        x += wide
    return parts, row + 1
