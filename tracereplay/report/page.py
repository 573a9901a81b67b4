"""The frame of the page: one file that needs nothing else, with its contents list, and a policy that forbids the rest.

There is no script. What opens and closes is ``details``, what is chosen is a radio button: both work by keyboard.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Sequence
from html import unescape
from importlib import resources

from tracereplay.report.markup import Markup, tag


def page(title: str, made: str, parts: Sequence[Markup]) -> str:
    """The whole page. ``parts``: its sections; those with an empty text are left out."""
    style = resources.files("tracereplay.report").joinpath("style.css").read_text()
    shown, names = _named([part for part in parts if part])
    head = tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", http_equiv="Content-Security-Policy", content=_policy(style)),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("meta", name="referrer", content="no-referrer"),
        tag("title", title),
        tag("style", Markup(style)),
    )
    contents = tag("ul", *(tag("li", tag("a", text, href=f"#{name}")) for name, text in names))
    body = tag(
        "body",
        tag("a", "Skip to the report", href="#report", class_="skip"),
        tag("header", tag("h1", title), tag("p", made, class_="soft")),
        tag("nav", contents, aria_label="Contents") if len(names) > 2 else None,
        tag("main", *shown, id="report", tabindex="-1"),
    )
    return f"<!DOCTYPE html>\n{tag('html', head, body, lang='en')}\n"


def _policy(style: str) -> str:
    """Nothing may be loaded or run; of styles this one alone holds."""
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    return f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"


def _named(parts: Sequence[Markup]) -> tuple[list[Markup], list[tuple[str, str]]]:
    """The sections with an id at each heading, and those ids with the headings."""
    found: list[tuple[str, str]] = []

    def name(match: re.Match[str]) -> str:
        text = unescape(match[1])
        base = re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-") or "part"
        used = {known for known, _ in found} | {"report"}
        own = base if base not in used else f"{base}-{len(found)}"
        found.append((own, text))
        return f'<h2 id="{own}">{match[1]}</h2>'

    return [Markup(re.sub(r"<h2>([^<]*)</h2>", name, part)) for part in parts], found
