"""What the page says of a sweep: result, what was run, a curve for each axis with a chooser, maps, all points."""

from __future__ import annotations

from collections.abc import Sequence

from tracereplay.report.markup import Markup, tag
from tracereplay.report.picture import Picture, figure_of
from tracereplay.report.sweep import MEASURES, Multiple, Sweep
from tracereplay.report.sweep_words import point_count
from tracereplay.report.tables import facts, section, table

ROWS = 400
"""Points told on the page; the file has all."""


def sweep_parts(sweep: Sweep, pictures: dict[str, list[Picture]], claim: Markup | None) -> list[Markup]:
    """Sections of the page, first the result."""
    said = tag("div", *(tag("p", sentence) for sentence in sweep.verdict), class_="verdict")
    curves = [
        _curves(multiple, i, pictures[f"axis {multiple.axis}"], claim) for i, multiple in enumerate(sweep.multiples)
    ]
    found = [
        section("Result", said, claim if sweep.unit else None),
        section("What was run", facts("The sweep", sweep.facts), _failed(sweep)),
    ]
    if any(curves):
        found.append(
            section(
                f"{MEASURES[sweep.measure].capitalize()} along each axis",
                tag("p", "Bands are 95 % intervals of each cost by itself. Where curves cross, the line is at the "
                         "crossing and the shade over the range in which it is not settled which is cheaper.")
                if sweep.unit else None,
                tag("div", *curves, class_="multiples"),
            )
        )  # fmt: skip
    if pictures["heat"]:
        found.append(section("Two axes at once", *(figure_of(picture, claim) for picture in pictures["heat"])))
    found.append(_points(sweep))
    return found


def _curves(multiple: Multiple, number: int, pictures: Sequence[Picture], claim: Markup | None) -> Markup:
    """One axis: its curve, or a chooser among the settings of the other axes, which the arrow keys move."""
    if not pictures:
        return Markup("")
    heading = tag("h3", multiple.axis)
    left = multiple.left_out
    more = tag("p", f"{left} other settings are not shown.", class_="soft") if left else None
    if len(pictures) == 1:
        return tag("div", heading, figure_of(pictures[0], claim), more, class_="multiple")
    group = f"axis{number}"
    inputs = [
        tag("input", type="radio", name=group, id=f"{group}-{i}", checked="checked" if i == multiple.first else None)
        for i in range(len(pictures))
    ]
    labels = [
        tag("label", course.name or "the only setting", for_=f"{group}-{i}")
        for i, course in enumerate(multiple.courses)
    ]
    panels = [tag("div", figure_of(picture, claim), class_="panel") for picture in pictures]
    choose = tag(
        "fieldset",
        tag("legend", "The other axes at"),
        *(piece for pair in zip(inputs, labels, strict=True) for piece in pair),
        *panels,
        class_="chooser",
    )
    return tag("div", heading, choose, more, class_="multiple")


def _failed(sweep: Sweep) -> Markup | None:
    if not sweep.failed:
        return None
    shown = table("Points that failed", ("strategy", "setting", "error"), sweep.failed[:ROWS], text=(1, 2))
    return tag("details", tag("summary", f"{point_count(len(sweep.failed))} failed"), shown, open="open")


def _points(sweep: Sweep) -> Markup:
    caption = "Every point" if len(sweep.rows) <= ROWS else f"The first {ROWS} of {len(sweep.rows):,} points"
    inner = table(caption, sweep.head, sweep.rows[:ROWS])
    return section("All points", tag("details", tag("summary", caption), inner))
