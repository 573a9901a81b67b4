"""The report as one HTML page: of a trace, a comparison or a sweep."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from tracereplay.report.accuracy import Accuracy
from tracereplay.report.comparison_page import comparison_parts, setting_parts
from tracereplay.report.cost_pictures import cost_pictures
from tracereplay.report.data import Comparison, Fact
from tracereplay.report.markup import Markup, tag
from tracereplay.report.page import page
from tracereplay.report.picture import Picture
from tracereplay.report.sweep import Sweep
from tracereplay.report.sweep_page import sweep_parts
from tracereplay.report.sweep_pictures import sweep_pictures
from tracereplay.report.tables import facts, section
from tracereplay.report.trace_page import captured, trace_parts
from tracereplay.report.trace_pictures import trace_pictures
from tracereplay.report.tracedata import TraceData


@dataclass(frozen=True, slots=True)
class Report:
    """All that a page shows; at least one of trace, comparison and sweep."""

    comparison: Comparison | None = None
    trace: TraceData | None = None
    sweep: Sweep | None = None
    accuracy: Accuracy | None = None
    """Of the machine, where costs are shown."""
    provenance: tuple[Fact, ...] = ()
    commands: tuple[str, ...] = ()
    """That repeat it, in order."""
    pictures: dict[str, list[Picture]] = field(init=False)
    """By the part of the page that they belong to."""

    def __post_init__(self) -> None:
        found: dict[str, list[Picture]] = {}
        if self.comparison is not None:
            found |= cost_pictures(self.comparison)
        if self.sweep is not None:
            found |= sweep_pictures(self.sweep)
        if self.trace is not None:
            found |= trace_pictures(self.trace)
        object.__setattr__(self, "pictures", found)

    @property
    def files(self) -> list[Picture]:
        """Every picture, for files of their own."""
        return [picture for members in self.pictures.values() for picture in members]


def render(report: Report, *, title: str, made: str) -> str:
    """The whole page. ``made``: by what and when."""
    parts: list[Markup] = []
    claim = tag("p", report.accuracy.line, class_="accuracy") if report.accuracy is not None else None
    if report.comparison is not None:
        parts += comparison_parts(report.comparison, report.trace, report.pictures, claim)
    if report.sweep is not None:
        parts += sweep_parts(report.sweep, report.pictures, claim)
    if report.trace is not None:
        if report.comparison is None:
            parts.append(captured(report.trace))
        parts += trace_parts(report.trace, report.pictures)
    parts += _accuracy(report.accuracy)
    if report.comparison is not None:
        parts += setting_parts(report.comparison)
    parts.append(_repeat(report.commands, report.provenance))
    return page(title, made, parts)


def _accuracy(accuracy: Accuracy | None) -> list[Markup]:
    if accuracy is None:
        return []
    found = facts("Machine against kernel", accuracy.facts) if accuracy.facts else None
    return [section("How well the machine stands for this kernel", tag("p", accuracy.note), found)]


def _repeat(commands: Sequence[str], provenance: Sequence[Fact]) -> Markup:
    return section(
        "Repeat this",
        tag("pre", tag("code", "\n".join(commands)), tabindex="0", role="region", aria_label="Commands"),
        facts("Where these figures come from", provenance) if provenance else None,
    )
