"""The page: well-formed, self-contained, accessible, and holding the data that was built."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pyarrow as pa
import pytest

from tests.example_result import example_result
from tracereplay.cost.priced import repriced
from tracereplay.cost.profile import load_profile
from tracereplay.report.accuracy import of_captures
from tracereplay.report.cost_pictures import cost_pictures
from tracereplay.report.data import Fact, build_comparison
from tracereplay.report.html import Report, render
from tracereplay.report.markup import Markup, join, tag
from tracereplay.report.svg import XMLNS
from tracereplay.report.trace_pictures import trace_pictures
from tracereplay.report.tracedata import BINS, Loss, OrderShare, TaskShare, TraceData, build_trace_data
from tracereplay.trace.merge import merge_traces
from tracereplay.trace.metadata import TraceMetadata
from tracereplay.trace.reader import Trace
from tracereplay.trace.writer import TraceWriter


@pytest.fixture
def trace(tmp_path: Path) -> Trace:
    """Two seconds: 3 single pages and an order-3 block allocated, one page freed; three writes."""
    metadata = TraceMetadata(source={"kind": "synthetic"})
    metadata.host = {"hostname": "lab<1>", "release": "6.1.0", "cpus": 2}
    with TraceWriter(tmp_path / "small.trace", metadata) as writer:
        writer.write(
            "page_events",
            pa.table(
                {
                    "ts_ns": pa.array([0, 10, 500_000_000, 1_000_000_000, 2_000_000_000], pa.int64()),
                    "cpu": pa.array([0] * 5, pa.uint16()),
                    "kind": ["alloc", "alloc", "alloc", "alloc", "free"],
                    "pfn": pa.array([1, 2, 3, 8, 1], pa.uint64()),
                    "order": pa.array([0, 0, 0, 3, 0], pa.uint8()),
                    "pid": pa.array([7, 7, 8, 9, 7], pa.uint32()),
                }
            ),
        )
        writer.write(
            "bio_events",
            pa.table(
                {
                    "ts_ns": pa.array([5, 6, 7], pa.int64()),
                    "cpu": pa.array([0] * 3, pa.uint16()),
                    "kind": ["queue"] * 3,
                    "nr_sectors": pa.array([8, 2048, 8], pa.uint32()),
                    "op": ["W", "W", "R"],
                }
            ),
        )
        writer.write("tasks", pa.table({"pid": pa.array([7, 8], pa.uint32()), "comm": ["fio", "fio"]}))
        writer.finish()
    return Trace.open(tmp_path / "small.trace")


def parse(page: str) -> ElementTree.Element:
    """The page as XML: the renderer closes every element, so this is a strict check."""
    assert page.startswith("<!DOCTYPE html>\n")
    return ElementTree.fromstring(page.partition("\n")[2])


def text_of(element: ElementTree.Element) -> str:
    return "".join(element.itertext())


def page_of(result: dict[str, Any] | None, data: TraceData | None = None) -> str:
    comparison = None if result is None else build_comparison(result)
    commands = tuple(filter(None, (comparison and comparison.command, "tracereplay report x -o 'y z.html'")))
    accuracy = None if comparison is None else of_captures(["6.12"], "its file is not here")
    report = Report(comparison, data, accuracy=accuracy, commands=commands, provenance=(Fact("trace", "<x>"),))
    return render(report, title="A <title>", made="today")


def test_trace_data(trace: Trace) -> None:
    data = build_trace_data(trace)
    assert data.orders == (OrderShare(0, 3, 3), OrderShare(3, 1, 8))
    assert data.tasks == (TaskShare("(unknown)", 1, 8), TaskShare("fio", 2, 3))
    assert data.allocated_pages == 11
    sizes = data.sources.frame("sizes")
    assert sizes is not None
    assert sizes.select("op", "size_bytes", "ios").rows() == [("R", 4096, 1), ("W", 4096, 1), ("W", 1 << 20, 1)]
    assert data.losses == ()
    pages, block = data.charts
    assert [line.name for line in pages.lines] == ["pages allocated", "pages freed"]
    allocated, freed = pages.lines
    assert len(allocated.values) == BINS
    assert sum(allocated.values) * pages.bin_s == pytest.approx(11)
    assert allocated.values[BINS // 2] * pages.bin_s == pytest.approx(8)
    assert freed.values[-1] * pages.bin_s == pytest.approx(1)
    assert [line.name for line in block.lines] == ["bios queued"]


def lossy(path: Path, host: str = "") -> Trace:
    """A hundred seconds with three losses: two next to each other, one to the end of which nobody knows the number."""
    second = 1_000_000_000
    metadata = TraceMetadata(source={"kind": "synthetic"})
    metadata.host = {"hostname": host, "release": "6.1.0", "cpus": 2}
    with TraceWriter(path, metadata) as writer:
        events = {
            "ts_ns": pa.array([5 * second, 105 * second], pa.int64()),
            "cpu": pa.array([0, 1], pa.uint16()),
            "kind": ["alloc", "alloc"],
            "pfn": pa.array([1, 2], pa.uint64()),
            "order": pa.array([0, 0], pa.uint8()),
            "pid": pa.array([7, 7], pa.uint32()),
        }
        writer.write("page_events", pa.table(events))
        lost = {
            "t0_ns": pa.array([25 * second, 27 * second, 95 * second, 50 * second], pa.int64()),
            "t1_ns": pa.array([27 * second, 30 * second, None, 60 * second], pa.int64()),
            "table": ["page_events"] * 4,
            "cpu": pa.array([0, 1, None, 0], pa.uint16()),
            "n": pa.array([10, 5, None, 3], pa.uint64()),
            "class": ["ring", "ring", "ring", "stack"],
        }
        writer.write("loss", pa.table(lost))
        writer.finish()
    return Trace.open(path)


def test_losses_are_on_the_time_axis(tmp_path: Path) -> None:
    data = build_trace_data(lossy(tmp_path / "lossy.trace"))
    assert data.losses == (Loss(20.0, 25.0, 15, "CPU 0, CPU 1"), Loss(90.0, 100.0, None, "all CPUs"))
    (picture,) = trace_pictures(data)["time"]
    root = ElementTree.fromstring(picture.draw(600, ()))
    shades = [e for e in root.iter(f"{{{XMLNS}}}rect") if e.get("class") == "lost"]
    first, last = shades
    assert float(last.attrib["width"]) == pytest.approx(2 * float(first.attrib["width"]), abs=0.2)
    assert ("lost, all CPUs", "at 90.0 s", "until 100 s", "events unknown") in picture.rows


def test_a_trace_of_several_hosts_names_them(tmp_path: Path) -> None:
    both = [lossy(tmp_path / name, name) for name in ("web1", "web2")]
    merged = merge_traces(tmp_path / "all.trace", both, align=True)
    page = page_of(None, build_trace_data(merged))
    assert "report each by itself: all.trace#web1, all.trace#web2." in page
    assert "Pages over time" in page
    one = build_trace_data(Trace.open(tmp_path / "all.trace#web1"))
    assert one.sources.frame("callers") is not None


def test_a_trace_of_nothing(tmp_path: Path) -> None:
    with TraceWriter(tmp_path / "empty.trace", TraceMetadata(source={"kind": "synthetic"})) as writer:
        writer.finish()
    data = build_trace_data(Trace.open(tmp_path / "empty.trace"))
    assert data.charts == ()
    assert trace_pictures(data) == {"time": [], "pages": [], "bios": []}
    assert parse(page_of(None, data)) is not None


@pytest.mark.parametrize("kind", ["results", "trace", "both"])
def test_page_is_whole(kind: str, trace: Trace) -> None:
    page = page_of(
        example_result() if kind != "trace" else None, build_trace_data(trace) if kind != "results" else None
    )
    root = parse(page)
    assert root.get("lang") == "en"
    assert [e.text for e in root.iter("h1")] == ["A <title>"]
    assert len(root.findall(".//h2")) >= 3
    ids = Counter(e.get("id") for e in root.iter() if e.get("id"))
    assert all(n == 1 for n in ids.values())


def test_page_needs_nothing_else(trace: Trace) -> None:
    page = page_of(example_result(), build_trace_data(trace))
    root = parse(page)
    assert {e.tag for e in root.iter()} & {"script", "link", "img", "iframe", "object", "embed"} == set()
    assert not [e for e in root.iter() if {"src", "srcset", "data", "style", "onclick"} & e.attrib.keys()]
    assert all(e.attrib["href"].startswith("#") for e in root.iter() if "href" in e.attrib)
    style = text_of(root.find(".//style"))  # type: ignore[arg-type]
    assert "url(" not in style
    assert "@import" not in style
    assert not re.search(r"https?:|//\w", style)


def test_pictures_are_told_and_tables_are_headed(trace: Trace) -> None:
    root = parse(page_of(example_result(), build_trace_data(trace)))
    pictures = list(root.iter("svg"))
    assert len(pictures) >= 6
    for svg in pictures:
        assert svg.get("aria-hidden") == "true" or (svg.get("role") == "img" and len(svg.get("aria-label", "")) > 20)
    for table in root.iter("table"):
        assert text_of(table.find("caption"))  # type: ignore[arg-type]
        widths = {len(row) for row in table.iter("tr")}
        assert len(widths) == 1
        assert all(row[0].tag == "th" for row in table.iter("tr"))


def test_bars_are_in_proportion() -> None:
    data = build_comparison(example_result())
    (picture,) = cost_pictures(data)["cost"]
    lengths: dict[str, float] = {}
    for e in ElementTree.fromstring(picture.draw(600, ())).iter(f"{{{XMLNS}}}rect"):
        if e.get("class") == "edge":
            lengths[e.attrib["y"]] = lengths.get(e.attrib["y"], 0.0) + float(e.attrib["width"])
    found, costs = list(lengths.values()), [s.per_page for s in data.strategies]
    assert [n / found[0] for n in found] == pytest.approx([c / costs[0] for c in costs], rel=0.03)


def test_foreign_text_is_escaped() -> None:
    page = page_of(example_result())
    assert "kcryptd &lt;alloc &amp; co&gt;" in page
    assert "<alloc" not in page
    assert "tracereplay report x -o 'y z.html'" in page


def test_page_says_what_numbers_rest_on() -> None:
    text = text_of(parse(page_of(example_result())))
    for part in (
        "7 events were lost", "brouer-2021", "prices are assumptions", "page_bench04_bulk", "Seed of the intervals: 0",
        "tracereplay replay traces/example -s per-page", "pcp.batch", "Hold against these numbers",
    ):  # fmt: skip
        assert part in text


def test_many_callers_are_summed_up() -> None:
    result = example_result()
    result["demand"]["by_caller"] = [
        {"caller": f"c{i}", "requests": 1, "pages": 100 - i, "sizes": {str(100 - i): 1}} for i in range(20)
    ]
    root = parse(page_of(result))
    (table,) = [t for t in root.iter("table") if "by caller" in text_of(t.find("caption"))]  # type: ignore[arg-type]
    last = [text_of(cell) for cell in list(table.iter("tr"))[-1]]
    assert last[:3] == ["5 others", "5", str(sum(100 - i for i in range(15, 20)))]
    assert len(list(table.iter("tr"))) == 1 + 15 + 1


def test_results_without_strategies_or_profile() -> None:
    result = example_result() | {"results": [], "profile": {}}
    assert "No strategy was replayed" in text_of(parse(page_of(result)))


def test_markup() -> None:
    assert tag("p", "a<b", Markup("<b/>"), None, class_="x", aria_hidden="true") == (
        '<p class="x" aria-hidden="true">a&lt;b<b/></p>'
    )
    assert tag("rect", x=1, y=None) == '<rect x="1"/>'
    assert join("&", '"') == '&amp;"'


def test_waits_have_a_table_where_there_were_any() -> None:
    result = example_result()
    assert "Waits" not in page_of(result)
    result["results"][0]["waits"] = {"requests": 3, "total_ns": 9000, "longest_ns": 4000, "waiting_at_end": 0}
    page = text_of(parse(page_of(result)))
    assert "requests that waited3" in page
    assert "longest wait4.00 us" in page


def test_tornadoes_are_drawn_to_one_scale() -> None:
    result = example_result()
    root = parse(page_of(result | repriced(result, load_profile())))
    figures = [f for f in root.iter("figure") if f.find("div[@class='bar tornado']") is not None]
    assert len(figures) == 4 + 3  # each strategy, each difference to the baseline
    compound = next(f for f in figures if text_of(f.find("figcaption")).startswith("compound: 4.24"))  # type: ignore[arg-type]
    first = compound.find("div[@class='bar tornado']/svg")
    assert first is not None
    assert first.get("aria-label") == (
        "tail_check: 3.24 at its low end, 12.2 at its high end, ns per page"
    )  # fmt: skip
    low, high = first.findall("rect")
    # 1 ns below 2 and 8 ns above it
    assert float(high.get("width", 0)) == pytest.approx(8 * float(low.get("width", 0)), rel=0.01)
    assert "nothing in its range; moved most by" in text_of(root)
