"""What the page says of a trace: what was captured, its course, where pages and bios come from."""

from __future__ import annotations

from tracereplay.report.markup import Child, Markup, tag
from tracereplay.report.numbers import count
from tracereplay.report.picture import Picture, figure_of
from tracereplay.report.tables import facts, notes, section, share_cells, table
from tracereplay.report.tracedata import TraceData


def captured(trace: TraceData) -> Markup:
    """Of a page about the trace alone: what it is and how complete."""
    return section("What was captured, and how complete it is", facts("The trace", trace.facts), notes(trace.notes))


def trace_parts(trace: TraceData, pictures: dict[str, list[Picture]]) -> list[Markup]:
    """Sections of the page."""
    events = table("Events by kind", ("kind", "events", "rate"), [(f.label, f.value, f.note) for f in trace.kinds])
    found = [
        section(
            "The trace over time",
            *map(figure_of, pictures["time"]),
            tag("details", tag("summary", "Events by kind"), events),
        )
    ]
    if pictures["pages"] or trace.tasks:
        found.append(section("Where pages come from", *map(figure_of, pictures["pages"]), *_tasks(trace)))
    if pictures["bios"]:
        found.append(section("Where block I/O comes from", *map(figure_of, pictures["bios"])))
    if trace.sources.notes:
        said = tag("ul", *(tag("li", text) for text in trace.sources.notes))
        found.append(section("How these figures were made", said))
    return found


def _tasks(trace: TraceData) -> list[Child]:
    if not trace.tasks:
        return []
    rows = [(t.comm, count(t.tasks), count(t.pages), *share_cells(t.pages, trace.allocated_pages)) for t in trace.tasks]
    head = ("command", "threads", "pages", "share", "")
    return [table("Pages allocated by command name", head, rows, text=(4,))]
