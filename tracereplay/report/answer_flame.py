"""Flame graphs: stacks as boxes over one another, as wide as what they stand for (Brendan Gregg's form)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from zlib import crc32

from tracereplay.report.markup import Markup, tag
from tracereplay.report.numbers import share
from tracereplay.report.svg import WIDTH, document, in_unit, label, n, unit_of

if TYPE_CHECKING:
    import polars as pl

    from tracereplay.analysis.analysis import Picture

SIDE, ROW = 10, 18
LEAST = 0.4
"""Narrower boxes are left out."""
CHARACTER = 6.6
STYLE = """
.box { stroke: var(--back); stroke-width: 0.6; } .box + text { font-size: 12px; fill: #1c2126; }
"""
WARM = ("#e8743b", "#f0903f", "#f6ab4b", "#ef8354", "#f2c14e", "#e36a4c", "#f4a259")


@dataclass(slots=True)
class _Box:
    value: float = 0.0
    above: dict[str, _Box] = field(default_factory=dict)


def flame(frame: pl.DataFrame, spec: Picture, title: str, width: int = WIDTH) -> str:
    """Stacks of a frame. A pointer on a box tells its function, its value and its share."""
    root = _Box()
    for stack, value in frame.select(spec.x, spec.value or spec.y).iter_rows():
        _add(root, stack.split(";") if isinstance(stack, str) else list(stack), float(value or 0))
    depth = _depth(root, LEAST * root.value / (width - 2 * SIDE))
    height = 50 + ROW * (depth + 1)
    boxes: list[Markup] = []
    scale = (width - 2 * SIDE) / (root.value or 1.0)
    write = in_unit(unit_of(spec.value or spec.y, spec.unit))
    todo: list[tuple[str, _Box, float, int]] = [("all", root, float(SIDE), 0)]
    while todo:
        name, box, x, level = todo.pop()
        wide = box.value * scale
        y = height - ROW * (level + 1) - 8
        boxes.append(_drawn(name, f"{name}: {write(box.value)}, {share(box.value, root.value)}", x, y, wide))
        for function, upper in sorted(box.above.items()):
            if upper.value * scale >= LEAST:
                todo.append((function, upper, x, level + 1))
            x += upper.value * scale
    return document(
        height, f"{title}: flame graph of {len(frame):,} stacks, {write(root.value)}",
        label(title, SIDE, 24, class_="head"), *boxes, style=STYLE, width=width,
    )  # fmt: skip


def _add(root: _Box, names: list[Any], value: float) -> None:
    root.value += value
    box = root
    for name in names:
        box = box.above.setdefault(str(name), _Box())
        box.value += value


def _depth(box: _Box, least: float) -> int:
    """Levels above a box that are wide enough to be seen."""
    deepest, todo = 0, [(box, 0)]
    while todo:
        now, level = todo.pop()
        deepest = max(deepest, level)
        todo += [(b, level + 1) for b in now.above.values() if b.value >= least]
    return deepest


def _drawn(name: str, told: str, x: float, y: float, wide: float) -> Markup:
    colour = WARM[crc32(name.encode()) % len(WARM)]
    shown = int((wide - 6) / CHARACTER)
    text = name if len(name) <= shown else f"{name[: shown - 2]}.." if shown > 3 else ""
    box = tag("rect", class_="box", x=n(x), y=n(y), width=n(wide), height=ROW - 1, fill=colour)
    return tag("g", tag("title", told), box, tag("text", text, x=n(x + 3), y=n(y + 13)) if text else None)
