"""A picture with its data: drawn at any width, for the page and as a file of its own."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tracereplay.errors import StorageError
from tracereplay.report.markup import Markup, tag
from tracereplay.report.svg import XMLNS
from tracereplay.report.tables import table
from tracereplay.trace.outputs import write_text
from tracereplay.trace.store import Place, below, is_url, path_of

WIDE, NARROW = 680, 330
"""Widths at which the page holds a picture: a style rule shows the one that suits."""
FILE = 600
"""Width of a file."""


@dataclass(frozen=True, slots=True)
class Picture:
    """Something drawn, and the same in figures."""

    name: str
    """Of its file, without ``.svg``; stable."""
    title: str
    draw: Callable[[int, Sequence[str]], str]
    """The text of an SVG file of a width, with lines of text beneath."""
    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    note: str = ""
    """How to read it."""
    small: bool = False
    """One of several beside each other: narrow always."""
    costs: bool = False
    """A claim about costs: the machine's accuracy is told with it."""


def figure_of(picture: Picture, claim: Markup | None = None) -> Markup:
    """The picture in the page, at two widths, with its data to unfold. ``claim``: stands beneath costs."""
    widths = [NARROW] if picture.small else [WIDE, NARROW]
    drawn = [
        tag("div", _inline(picture.draw(width, ())), class_="drawn" if picture.small else f"drawn w{width}")
        for width in widths
    ]
    return tag(
        "figure",
        *drawn,
        tag("figcaption", picture.note) if picture.note else None,
        claim if picture.costs else None,
        tag(
            "details",
            tag("summary", "The figures", tag("span", f" of {picture.title}", class_="hidden")),
            table(picture.title, picture.head, picture.rows),
        ),
        class_="picture",
    )


def _inline(svg: str) -> Markup:
    """A file's picture for the page, whose style it follows."""
    return Markup(re.sub(r"<style>.*?</style>\s*", "", svg, flags=re.S).replace(f' xmlns="{XMLNS}"', "").strip())


def write_pictures(pictures: Sequence[Picture], directory: Place, beside: str = "") -> list[str]:
    """Each as ``NAME.svg``; files of the same names are replaced. ``beside``: told with costs. Raises StorageError."""
    if not is_url(directory):
        try:
            path_of(directory).mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StorageError(f"cannot write {directory}: {error.strerror}", hint="choose another directory") from None
    places = []
    for picture in pictures:
        places.append(below(directory, f"{picture.name}.svg"))
        notes = [picture.note, f"{beside}." if picture.costs and beside else ""]
        write_text(places[-1], picture.draw(FILE, [text for text in notes if text]))
    return places
