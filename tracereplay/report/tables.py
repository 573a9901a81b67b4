"""Tables of the page: with caption and heads, each in a box that scrolls sideways by itself."""

from __future__ import annotations

from collections.abc import Sequence

from tracereplay.report.data import Fact
from tracereplay.report.markup import Child, Markup, tag
from tracereplay.report.numbers import share
from tracereplay.report.pictures import share_bar


def section(heading: str, *children: Child, name: str | None = None) -> Markup:
    """A part of the page under its heading, which a contents list can point to."""
    return tag("section", tag("h2", heading, id=name), *children)


def table(caption: str, head: Sequence[str], rows: Sequence[Sequence[Child]], *, text: Sequence[int] = ()) -> Markup:
    """A table with column heads. ``text``: columns of prose."""
    cells = [
        tag(
            "tr",
            tag("th", row[0], scope="row"),
            *(tag("td", cell, class_=_cell_class(cell, i in text)) for i, cell in enumerate(row[1:], 1)),
        )
        for row in rows
    ]
    columns = [tag("th", h, scope="col", class_="text" if i in text else None) for i, h in enumerate(head)]
    return scroll(
        caption,
        tag(
            "table",
            tag("caption", caption),
            tag("thead", tag("tr", *columns)),
            tag("tbody", *cells),
        ),
    )


def _cell_class(cell: Child, is_text: bool) -> str | None:
    """Style of a cell: prose, a picture, or a number."""
    if isinstance(cell, Markup):
        return "bar-cell"
    return "text" if is_text else None


def share_cells(part: int, whole: int) -> tuple[str, Markup]:
    """A share as a number and as a bar."""
    return share(part, whole), share_bar(part, whole)


def facts(caption: str, rows: Sequence[Fact]) -> Markup:
    """Label, value and remark per line; no column heads, the caption says what it is."""
    lines = [
        tag(
            "tr",
            tag("th", f.label, scope="row"),
            tag("td", f.value, *(("  ", tag("span", f.note, class_="soft")) if f.note else ())),
        )
        for f in rows
    ]
    return scroll(caption, tag("table", tag("caption", caption), tag("tbody", *lines), class_="facts"))


def scroll(label: str, inner: Markup) -> Markup:
    """Something that scrolls sideways by itself on a narrow screen."""
    return tag("div", inner, class_="scroll", role="region", aria_label=label, tabindex="0")


def notes(said: Sequence[str]) -> Markup | None:
    """What to hold against the numbers."""
    if not said:
        return None
    return tag(
        "div",
        tag("strong", "Hold against these numbers"),
        tag("ul", *(tag("li", text) for text in said)),
        class_="cautions",
        role="note",
    )
