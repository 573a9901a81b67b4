"""Pictures of analyses: every form is an SVG file of its own, says what it shows, and loses no row silently."""

from __future__ import annotations

import re
from xml.etree import ElementTree

import polars as pl
import pytest

from tracereplay.analysis.analysis import Picture
from tracereplay.report.answer_picture import picture
from tracereplay.report.svg import in_unit, marks

SVG = "{http://www.w3.org/2000/svg}"


def drawn(frame: pl.DataFrame, spec: Picture) -> tuple[ElementTree.Element, list[str]]:
    """The root, and all texts."""
    root = ElementTree.fromstring(picture(frame, spec, "A <title>"))
    return root, [e.text or "" for e in root.iter(f"{SVG}text")]


def rects(root: ElementTree.Element, **attributes: str) -> list[ElementTree.Element]:
    return [e for e in root.iter(f"{SVG}rect") if all(e.get(k) == v for k, v in attributes.items())]


def test_bars_are_as_long_as_their_values() -> None:
    frame = pl.DataFrame({"caller": ["do_fault", "a & b", "none"], "pages": [400, 100, 0]})
    root, texts = drawn(frame, Picture("bars", "caller", "pages", unit="pages"))
    wide = [float(e.get("width", 0)) for e in rects(root, fill="var(--c0)")]
    assert wide[0] / wide[1] == pytest.approx(4, rel=1e-3)
    assert texts[:5] == ["A <title>", "do_fault", "400 pages", "a & b", "100 pages"]
    assert root.get("aria-label", "").startswith("A <title>. do_fault: 400 pages; a & b: 100 pages")


def test_more_bars_than_fit_are_said_to_be_missing() -> None:
    frame = pl.DataFrame({"pid": range(100), "pages": range(100, 0, -1)})
    root, texts = drawn(frame, Picture("bars", "pid", "pages"))
    assert len(rects(root, fill="var(--c0)")) == 40
    assert "and 60 more" in texts


def test_a_histogram_has_a_column_a_bin() -> None:
    frame = pl.DataFrame({"from_ns": [1024, 2048, 8192], "count": [10, 20, 5]})
    root, texts = drawn(frame, Picture("histogram", "from_ns", "count"))
    tall = [float(e.get("height", 0)) for e in rects(root, fill="var(--c0)")]
    assert [t / tall[2] for t in tall] == pytest.approx([2, 4, 1], rel=1e-2)
    assert texts[-1] == "from, low edges of bins"


def test_groups_are_lines_with_a_legend() -> None:
    frame = pl.DataFrame({"t_ns": [0, 10**9] * 2, "pages": [1, 3, 2, 0], "op": ["R", "R", "W", "W"]})
    root, texts = drawn(frame, Picture("lines", "t_ns", "pages", group="op"))
    paths = list(root.iter(f"{SVG}polyline"))
    assert len(paths) == 2
    assert {"R", "W", "0", "1 s"} <= set(texts)


def test_a_heat_map_shades_cells_by_their_value() -> None:
    frame = pl.DataFrame(
        {"t_ns": [0, 0, 10**9, 3 * 10**9], "latency_ns": [1024, 4096, 4096, 1024], "count": [1, 1000, 30, 1]}
    )
    root, texts = drawn(frame, Picture("heat", "t_ns", "latency_ns", "count"))
    cells = [e for e in rects(root, fill="var(--c4)") if float(e.get("height", 0)) > 20]
    assert len(cells) == 4
    shades = [float(e.get("fill-opacity", 0)) for e in cells]
    assert shades[1] == 1
    assert shades[0] == shades[3] < shades[2] < 1
    assert min(shades) >= 0.12
    x = [float(e.get("x", 0)) for e in cells]
    assert (x[3] - x[0]) == pytest.approx(3 * (x[2] - x[0]), rel=1e-2)  # the empty second has its place
    assert "time since the first event across, latency up; low edges of cells" in texts


def test_a_flame_graph_nests_and_adds_up() -> None:
    frame = pl.DataFrame({"stack": ["a;b;c", "a;b", "a;d", "e"], "pages": [10, 20, 30, 40]})
    root, _ = drawn(frame, Picture("flame", "stack", value="pages", unit="pages"))
    told = [e.text or "" for e in root.iter(f"{SVG}title")]
    assert told[0] == "all: 100 pages, 100 %"
    assert {"a: 60 pages, 60 %", "b: 30 pages, 30 %", "c: 10 pages, 10 %", "e: 40 pages, 40 %"} <= set(told)
    wide = {
        t.split(":")[0]: float(e.get("width", 0)) for t, e in zip(told, rects(root, **{"class": "box"}), strict=True)
    }
    assert wide["a"] + wide["e"] == pytest.approx(wide["all"], abs=0.3)


@pytest.mark.parametrize("kind", ["bars", "histogram", "lines", "heat", "flame"])
def test_nothing_is_drawn_as_nothing(kind: str) -> None:
    frame = pl.DataFrame({"x": [], "y": [], "v": []}, schema={"x": pl.Int64, "y": pl.Int64, "v": pl.Int64})
    _, texts = drawn(frame, Picture(kind, "x", "y", "v"))
    assert texts == ["A <title>", "nothing to show"]


@pytest.mark.parametrize("kind", ["bars", "histogram", "lines", "heat", "flame"])
def test_nulls_zeros_and_single_rows_are_drawn(kind: str) -> None:
    frame = pl.DataFrame({"x": [5, 5], "y": [0, None], "v": [0, None]}, schema_overrides={"x": pl.Int64})
    if kind == "flame":
        frame = frame.with_columns(x=pl.lit("a;b"))
    text = picture(frame, Picture(kind, "x", "y", "v"), "t")
    assert not re.search(r"nan|inf\b", text)
    ElementTree.fromstring(text)


@pytest.mark.parametrize(
    ("low", "high", "unit", "expected"),
    [
        (0, 95, "", [0, 20, 40, 60, 80, 100]),
        (0, 4, "", [0, 1, 2, 3, 4]),
        (3, 9.5, "", [3, 4, 5, 6, 7, 8, 9, 10]),
        (0, 5 << 30, "bytes", [k << 30 for k in range(6)]),
        (0, 0, "", [0, 1]),
        (7, 7, "ns", [7, 8]),
    ],
)
def test_marks_are_round(low: float, high: float, unit: str, expected: list[float]) -> None:
    assert marks(low, high, unit) == expected


def test_numbers_on_an_axis() -> None:
    assert [in_unit("ns")(x) for x in (0, 8e9, 1.5e6)] == ["0", "8 s", "1.5 ms"]
    assert [in_unit("bytes")(x) for x in (0, 1 << 30, 1536)] == ["0", "1 GiB", "1.5 KiB"]
    assert [in_unit("")(x) for x in (100, 20.0, 0.25)] == ["100", "20", "0.25"]
    assert in_unit("pages")(10) == "10 pages"
