"""The report of a sweep: its data against literals, its pictures and page for good and bad tables."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import polars as pl
import pytest

from tests.sweep_samples import HOSTILE, crossing_sweep, sweep_frame, write_sweep
from tracereplay.errors import ResultsError
from tracereplay.report.accuracy import of_captures
from tracereplay.report.html import Report, render
from tracereplay.report.picture import FILE, NARROW, write_pictures
from tracereplay.report.sweep import Sweep, build_sweep, load_sweep
from tracereplay.report.sweep_words import crossing_text

BATCH = {"pcp.batch": ["8", "32", "64", "128"]}
BOTH = {**BATCH, "copies": ["1", "2", "4"]}


def page_of(sweep: Sweep) -> tuple[Report, str, ElementTree.Element]:
    report = Report(sweep=sweep, accuracy=of_captures(["6.12"], "its file is not here"))
    page = render(report, title="t", made="now")
    return report, page, ElementTree.fromstring(page.partition("\n")[2])


@pytest.fixture(scope="module")
def sweep() -> Sweep:
    return build_sweep(crossing_sweep(), BOTH)


def test_courses_go_along_one_axis_at_a_setting_of_the_others(sweep: Sweep) -> None:
    batch, copies = sweep.multiples
    assert (batch.axis, batch.values, batch.numeric) == ("pcp.batch", (8, 32, 64, 128), True)
    assert [c.setting for c in batch.courses] == ["copies=1", "copies=2", "copies=4"]
    first = batch.courses[batch.first]
    assert first.setting == "copies=1"  # the one with most points that ran
    assert copies.courses[copies.first].setting == "pcp.batch=32"
    assert [p.value for p in first.lines["bulk"]] == [80.0, 66.0, pytest.approx(47.333, abs=0.001), 10.0]
    assert (first.lines["bulk"][1].low, first.lines["bulk"][1].high) == pytest.approx((59.4, 72.6))
    assert [c.missing for c in sorted(batch.courses, key=lambda c: c.setting)] == [0, 1, 0]
    assert len(copies.courses) == 4


def test_settings_shown_differ_in_one_axis_from_the_first() -> None:
    axes = {"copies": [1, 2], "rate": [1.0, 2.0, 4.0], "nodes": [1, 2]}
    frame = sweep_frame(axes, {"bulk": lambda at: at["copies"] * at["rate"] + at["nodes"]})
    copies, rate, _ = build_sweep(frame, {name: [str(v) for v in values] for name, values in axes.items()}).multiples
    assert [c.name for c in copies.courses] == ["rate=1, nodes=1", "nodes=2", "rate=2", "rate=4"]
    assert [c.setting for c in copies.courses][1:3] == ["rate=1, nodes=2", "rate=2, nodes=1"]
    assert (copies.left_out, rate.left_out) == (2, 1)


def test_crossings_have_value_and_range(sweep: Sweep) -> None:
    (found,) = sweep.multiples[0].courses[0].crossings
    assert (found.below, found.above) == (HOSTILE, "bulk")
    # straight from 47.33 at 64 to 10 at 128, and 40 all along
    assert found.at == pytest.approx(64 + 64 * 7.3333 / 37.3333, abs=0.01)
    assert found.low is not None
    assert found.high is not None
    assert 32 < found.low < found.at < found.high < 128
    assert crossing_text(found).endswith(f"(not settled from {found.low:.1f} to {found.high:.1f})")


def test_failed_points_keep_their_error(sweep: Sweep) -> None:
    ((label, setting, error),) = sweep.failed
    assert (label, setting) == ("bulk", "pcp.batch=8, copies=4")
    assert HOSTILE in error
    (at4,) = [c for c in sweep.multiples[0].courses if c.setting == "copies=4"]
    assert at4.lines["bulk"][0].value is None


def test_cheapest_by_two_axes(sweep: Sweep) -> None:
    (heat,) = sweep.heats
    assert (heat.x, heat.y, heat.xs, heat.ys) == ("pcp.batch", "copies", (8, 32, 64, 128), (1, 2, 4))
    labels = {at: None if cell is None else cell.label for at, cell in heat.cells.items()}
    assert labels[8, 1] == HOSTILE
    assert labels[128, 1] == "bulk"
    cell = heat.cells[64, 1]
    assert cell is not None
    assert not cell.settled  # 47.3 and 40: their intervals overlap


def test_a_map_takes_the_best_of_own_parameters_and_thins_long_axes() -> None:
    axes = {"pcp.batch": list(range(1, 101)), "copies": [1, 2], "bulk.batch_cap": [1, 8]}
    frame = sweep_frame(
        axes,
        {
            "bulk": lambda at: 8.0 / at["bulk.batch_cap"],
            "per-page": lambda at: 5.0 if at["bulk.batch_cap"] == 1 else None,
        },
    ).with_columns(pl.when(pl.col("label") == "bulk").then("bulk.batch_cap").alias("bulk.batch_cap"))
    (heat,) = build_sweep(frame, {name: [str(v) for v in values] for name, values in axes.items()}).heats
    assert (len(heat.xs), heat.xs[0], heat.xs[-1], heat.thinned) == (40, 1, 100, True)
    assert {cell.label for cell in heat.cells.values() if cell} == {"bulk"}
    assert {cell.value for cell in heat.cells.values() if cell} == {1.0}


def test_page_shows_it_all_and_escapes_names(sweep: Sweep) -> None:
    _, page, root = page_of(sweep)
    assert "<script" not in page
    text = "".join(root.itertext())
    for part in ("Crosses at the bottom: 1 point failed.", "Not run: 1 point.", "1 point failed",
                 "(medians), 6.12: refills > 99.9 %", "Cheapest strategy by pcp.batch and copies"):  # fmt: skip
        assert part in text, part
    radios = list(root.iter("input"))
    assert {e.get("name") for e in radios} == {"axis0", "axis1"}
    ids = {e.get("id") for e in root.iter() if e.get("id")}
    assert all(e.get("for") in ids for e in root.iter("label"))
    assert len([e for e in radios if e.get("checked")]) == 2


def test_files_stand_alone_and_have_stable_names(sweep: Sweep, tmp_path: Path) -> None:
    report, _, _ = page_of(sweep)
    paths = [Path(p) for p in write_pictures(report.files, tmp_path / "plots", "machine: exact")]
    names = {p.name for p in paths}
    assert {"pcp-batch.svg", "pcp-batch-2.svg", "copies.svg", "pcp-batch-by-copies.svg"} <= names
    for path in paths:
        root = ElementTree.fromstring(path.read_text())
        assert root.get("width") == str(FILE)
        assert "prefers-color-scheme: dark" in path.read_text()
        assert "machine: exact." in "".join(root.itertext())
        assert not re.search(r"url\(|@import|href", path.read_text())


SETTINGS: dict[str, tuple[pl.DataFrame, Mapping[str, list[str]]]] = {
    "one point": (sweep_frame({"copies": [2]}, {"bulk": lambda at: 5.0}), {"copies": ["2"]}),
    "one strategy": (
        sweep_frame({"copies": [1, 2], "rate": [1.0, 2.0]}, {"bulk": lambda at: at["copies"] * at["rate"]}),
        {"copies": ["1", "2"], "rate": ["1", "2"]},
    ),
    "all failed": (sweep_frame({"copies": [1, 2]}, {"bulk": lambda at: "no"}), {"copies": ["1", "2"]}),
    "names": (sweep_frame({"path": ["none", "dm-crypt"]}, {"a": lambda at: 1.0, "b": lambda at: 2.0}), {"path": []}),
    "no prices": (
        sweep_frame(
            {"copies": [1, 2]}, {"bulk": lambda at: 1.0}, per_page=None, per_page_low95=None, per_page_high95=None
        ),
        {"copies": ["1", "2"]},
    ),
    "free of cost": (sweep_frame({"copies": [1, 2, 64]}, {"bulk": lambda at: 0.0}), {"copies": ["1", "2", "64"]}),
}


@pytest.mark.parametrize("case", SETTINGS)
def test_odd_sweeps(case: str) -> None:
    frame, axes = SETTINGS[case]
    found = build_sweep(frame, axes)
    report, page, root = page_of(found)
    for picture in report.files:
        for width in (FILE, NARROW):
            assert "nan" not in picture.draw(width, ())
    text = "".join(root.itertext())
    assert len(found.rows) == len(frame)
    said = {
        "one point": "bulk costs 5.00 ns a page.",
        "one strategy": "Cost of a page by copies and rate",
        "all failed": "No point of this sweep ran",
        "names": "a is cheapest at 2 of 2 settings",
        "no prices": "Zone lock acquisitions along each axis",
        "free of cost": "bulk costs 0 ns a page.",
    }
    assert said[case] in text
    assert page.count("<h2") >= 4


def test_who_lacks_an_axis_costs_the_same_all_along_it() -> None:
    frame = sweep_frame(
        {"bulk.batch_cap": [1, 8], "copies": [1, 2]},
        {
            "bulk": lambda at: 8.0 / at["bulk.batch_cap"],
            "per-page": lambda at: 5.0 if at["bulk.batch_cap"] == 1 else None,
        },
    ).with_columns(pl.when(pl.col("label") == "bulk").then("bulk.batch_cap").alias("bulk.batch_cap"))
    own, copies = build_sweep(frame, {"bulk.batch_cap": ["1", "8"], "copies": ["1", "2"]}).multiples
    assert [c.setting for c in own.courses] == ["copies=1", "copies=2"]
    assert [(p.x, p.value) for p in own.courses[0].lines["per-page"]] == [(1, 5.0), (8, 5.0)]
    assert own.courses[0].crossings
    assert [c.setting for c in copies.courses] == ["bulk.batch_cap=1", "bulk.batch_cap=8"]
    assert all(len(c.lines["per-page"]) == 2 for c in copies.courses)


def test_several_traces_are_an_axis() -> None:
    """Each with its own crossing; rows of all of them together are shown and not counted again."""
    frame = pl.concat(
        sweep_frame(
            {"copies": [1, 2, 4]},
            {"a": lambda at, fall=fall: 10.0 - fall * at["copies"], "b": lambda at: 5.0},
            trace=name,
            trace_id=name,
        )
        for name, fall in (("/srv/web.trace", 2.0), ("db.trace#lab", 4.0), ("(fleet)", 3.0))
    )
    found = build_sweep(frame, {"copies": ["1", "2", "4"]})
    trace, copies = found.multiples
    assert trace.values == ("web.trace", "db.trace#lab", "(fleet)")
    assert found.traces == ("/srv/web.trace", "db.trace#lab")
    assert [(c.setting, [x.at for x in c.crossings]) for c in copies.courses] == [
        ("trace=web.trace", [2.5]),
        ("trace=db.trace#lab", [1.25]),
        ("trace=(fleet)", [pytest.approx(1.667, abs=0.001)]),
    ]
    assert {f.label: f.value for f in found.facts}["points"] == "12"
    assert "of 6 settings" in found.verdict[0]
    assert len(found.rows) == 18


def test_loads_a_file_and_refuses_another(tmp_path: Path) -> None:
    path = tmp_path / "sweep.parquet"
    write_sweep(path, crossing_sweep(), ["pcp.batch", "copies"])
    assert len(load_sweep(path).rows) == 23
    sweep_frame({"x": [1]}, {"bulk": lambda at: 1.0}).write_parquet(path)
    with pytest.raises(ResultsError, match="holds no sweep"):
        load_sweep(path)


def test_samples_fit_the_table(sweep: Sweep) -> None:
    values: dict[str, Any] = {f.label: f.value for f in sweep.facts}
    assert values["points"] == "23"
    assert values["method replay"] == "23"
    assert sweep.generations == ("6.12",)
    assert sweep.commands == ("tracereplay whatif web.trace -s bulk",)


def test_a_table_without_a_point(tmp_path: Path) -> None:
    path = tmp_path / "sweep.parquet"
    write_sweep(path, crossing_sweep().head(0), ["pcp.batch"])
    _, page, _ = page_of(load_sweep(path))
    assert "there is nothing to show but the errors" in page
