"""HTML and SVG as escaped text: ``tag("p", "a < b", class_="note")``. Children are escaped unless they are
markup."""

from __future__ import annotations

from html import escape

VOID = frozenset({"meta", "wbr", "input", "rect", "line", "polyline"})
"""Elements without children: written self-closed, so that the page is XML as well."""


class Markup(str):
    """Text that is markup already."""

    __slots__ = ()


Child = str | None


def tag(name: str, /, *children: Child, **attributes: str | int | float | None) -> Markup:
    """One element. ``class_`` becomes class, other underscores hyphens; None leaves an attribute out."""
    text = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{escape(str(value))}"'
        for key, value in attributes.items()
        if value is not None
    )
    if name in VOID:
        return Markup(f"<{name}{text}/>")
    return Markup(f"<{name}{text}>{join(*children)}</{name}>")


def join(*children: Child) -> Markup:
    """Children after one another; None is nothing."""
    return Markup("".join(c if isinstance(c, Markup) else escape(c, quote=False) for c in children if c is not None))
