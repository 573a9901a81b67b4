"""The case study: its states of memory, its stored counters, its page."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tracereplay.casestudy.cases import FRAGMENTED, LARGE, MOVABLE, SEEDS, SOURCES, Case, Source, all_cases, machine_for
from tracereplay.casestudy.charts import Chart, Line, Panel, log_ticks, svg
from tracereplay.casestudy.kernels import beside, beside_cut, cut, ratio
from tracereplay.casestudy.page import renewed
from tracereplay.casestudy.run import RECORDED, packed, recorded_row, run, unpacked
from tracereplay.casestudy.study import Study
from tracereplay.cli.case_study import main
from tracereplay.cost.price import total
from tracereplay.cost.profile import load_profile
from tracereplay.errors import UsageError
from tracereplay.machine.build import build_machine
from tracereplay.machine.from_trace import machine_of
from tracereplay.machine.layout import CFG_UNPLACED
from tracereplay.trace.reader import Trace

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "case-study.md"
STORED = ROOT / "docs" / "case-study" / "counters.json"
BROUER = load_profile("brouer-2021")


@pytest.fixture(scope="module")
def rows() -> list[dict[str, Any]]:
    return unpacked(STORED.read_text())


# ------------------------------------------------------------------ states of memory
@pytest.fixture(scope="module")
def host() -> Any:
    return machine_of(Trace.open(ROOT / "traces" / LARGE[0].trace), 1)


@pytest.mark.parametrize("largest", [8, 3, 0])
def test_a_level_has_one_block_of_each_order_in_a_group(host: Any, largest: int) -> None:
    config = machine_for(Case(LARGE[0], largest), host)
    for before, zone in zip(host.zones, config.zones, strict=True):
        assert before.free_blocks is not None
        assert zone.free_blocks is not None
        pages = sum(n << k for k, n in enumerate(zone.free_blocks))
        free = sum(n << k for k, n in enumerate(before.free_blocks))
        kept = free / 2 ** (largest + 1)
        assert pages == pytest.approx(free - kept, abs=1)
        assert not any(zone.free_blocks[largest + 1 :])
        assert len(set(zone.free_blocks[1 : largest + 1])) <= 1
        # whole groups, but for the rest that makes the sum come out
        assert zone.free_blocks[0] - zone.free_blocks[largest] < 4 << largest
        assert zone.free_by_type is not None
        assert tuple(map(sum, zip(*zone.free_by_type, strict=True))) == zone.free_blocks


def test_nearly_all_blocks_find_a_place(host: Any) -> None:
    for largest in (8, 3, 0):
        assert build_machine(machine_for(Case(LARGE[0], largest), host)).w[CFG_UNPLACED] < 512


def test_what_a_case_changes_beside_the_blocks(host: Any) -> None:
    same = machine_for(Case(LARGE[0]), host)
    assert same == replace(host, init_on_alloc=False)
    other = machine_for(Case(LARGE[0], zeroed=True, seed=2, pcp_high=252), host)
    assert (other.init_on_alloc, other.seed, other.pcp_high) == (True, 2, 252)
    survived = machine_for(Case(LARGE[0], 0, survivors=4), host)
    assert [z.free_blocks[8] for z in survived.zones if z.free_blocks] == [0, 4]
    pressed = max(machine_for(Case(LARGE[0], 3, spare=100), host).zones, key=lambda z: z.pages)
    assert pressed.watermarks is not None
    assert pressed.free_blocks is not None
    assert sum(n << k for k, n in enumerate(pressed.free_blocks)) == pressed.watermarks.low + 100


def test_a_case_is_named_by_what_it_changes() -> None:
    assert Case(LARGE[0]).key() == {"trace": "dmcrypt-6.1-1M"}
    assert Case(LARGE[0], 0, zeroed=True).key() == {"trace": "dmcrypt-6.1-1M", "largest": 0, "zeroed": True}
    keys = [tuple(case.key().items()) for case in all_cases()]
    assert len(keys) == len(set(keys))


# ------------------------------------------------------------------ stored counters
def test_every_case_is_stored(rows: list[dict[str, Any]]) -> None:
    study = Study(rows)
    for case in all_cases():
        assert study.row(case, "compound")["pages"] > 0
    assert packed(rows) == STORED.read_text()


@pytest.mark.parametrize("case", [Case(LARGE[0], 3), Case(SOURCES[5]), Case(LARGE[1], 0, zeroed=True)])
def test_a_replay_gives_the_stored_counters(case: Case, rows: list[dict[str, Any]]) -> None:
    study = Study(rows)
    found, *_ = run([case])
    for row in unpacked(packed(found)):
        assert row == study.row(case, row["strategy"]), "make case-study"


def test_the_machine_does_what_the_fragmented_kernel_did(rows: list[dict[str, Any]]) -> None:
    """With pages for the page faults of others, whose fallbacks depend on where free blocks are."""
    study = Study(rows)
    kernel = study.row(Case(FRAGMENTED), RECORDED)
    for seed in SEEDS:
        machine = study.row(Case(FRAGMENTED, movable=MOVABLE, seed=seed), "compound")
        assert machine["blocks"] == kernel["blocks"]
        assert machine["counters"]["failed_attempts"] == kernel["counters"]["failed_attempts"]


def test_what_the_fragmented_kernel_did() -> None:
    row = recorded_row(FRAGMENTED, Trace.open(ROOT / "traces" / FRAGMENTED.trace))
    assert row["blocks"] == {"2": 48, "5": 122}
    assert row["counters"] == {"failed_attempts": 18}
    assert row["pages"] == 16 << 8
    assert row["peak"] == 3 * 32


def test_the_kernel_and_the_study_see_the_same_pages(rows: list[dict[str, Any]]) -> None:
    study = Study(rows)
    for source in (*SOURCES, FRAGMENTED):
        assert study.row(Case(source), RECORDED)["pages"] == study.row(Case(source), "bulk")["pages"]


# ------------------------------------------------------------------ prices
def test_a_hinge_makes_both_cost_the_same(rows: list[dict[str, Any]]) -> None:
    study = Study(rows)
    for case in (Case(LARGE[0]), Case(LARGE[1], 1)):
        counters = [study.row(case, label)["counters"] for label in ("compound", "bulk")]
        found = study.hinges(case, "compound", "bulk", BROUER)
        assert len({h["name"] for h in found}) == len(found) > 0
        for h in found:
            plain = tuple(replace(c, value=h["crossing"]) if c.name == h["name"] else c for c in BROUER.coefficients)
            moved = replace(BROUER, coefficients=plain)
            if h["name"] in [p.name for p in BROUER.parameters]:
                moved = BROUER.with_parameters(**{h["name"]: h["crossing"]})
            a, b = (total(c, moved) for c in counters)
            assert a == pytest.approx(b)


def test_ratio_and_chance_agree(rows: list[dict[str, Any]]) -> None:
    study = Study(rows)
    ratio = study.ratio(Case(LARGE[0]), "compound", "bulk", BROUER)
    assert ratio.low < ratio.value < ratio.high < 1
    assert study.chance(Case(LARGE[0]), "compound", "bulk", BROUER) == 1
    assert study.chance(Case(LARGE[0], 0), "compound", "bulk", BROUER) == 0


# ------------------------------------------------------------------ real kernels
@pytest.mark.parametrize("source", [s for s in SOURCES if s.kib > 4], ids=lambda s: s.trace)
@pytest.mark.parametrize("zeroed", [False, True])
def test_ratios_are_those_of_the_kernel(source: Source, zeroed: bool, rows: list[dict[str, Any]]) -> None:
    kernel, here = beside(Study(rows), source, zeroed)
    assert ratio(here) == pytest.approx(ratio(kernel), rel=0.3)


@pytest.mark.parametrize("source", LARGE, ids=lambda s: s.trace)
@pytest.mark.parametrize("largest", [2, 0])
def test_ratios_in_fragmented_memory(source: Source, largest: int, rows: list[dict[str, Any]]) -> None:
    found = beside_cut(Study(rows), source, largest)
    assert found is not None
    kernel, here = found[0]
    assert ratio(here) == pytest.approx(ratio(kernel), rel=0.15)


def test_rows_that_larger_blocks_served_are_left_out() -> None:
    assert cut(SOURCES[1], 2) is None  # 64 KiB on 6.1: all of order 4
    assert cut(SOURCES[0], 2) is None  # no row for 4 KiB


# ------------------------------------------------------------------ page and pictures
def test_the_page_says_what_the_counters_and_prices_say(tmp_path: Path, request: pytest.FixtureRequest) -> None:
    if request.config.getoption("--update-golden"):
        main([str(ROOT / "docs"), "--reprice"])
    (tmp_path / "case-study").mkdir()
    (tmp_path / "case-study" / STORED.name).write_text(STORED.read_text())
    (tmp_path / PAGE.name).write_text(PAGE.read_text())
    main([str(tmp_path), "--reprice"])
    hint = "accept with: pytest --update-golden tests/unit/test_casestudy.py"
    assert (tmp_path / PAGE.name).read_text() == PAGE.read_text(), hint
    shipped = {path.name: path.read_text() for path in STORED.parent.iterdir()}
    assert {path.name: path.read_text() for path in (tmp_path / "case-study").iterdir()} == shipped, hint
    for name, text in shipped.items():
        assert f"(case-study/{name})" in PAGE.read_text()
        if name != STORED.name:
            ElementTree.fromstring(text)


def test_a_part_without_a_place_is_refused() -> None:
    page = "a\n<!-- x:begin -->\nold\n<!-- x:end -->\nb"
    assert renewed(page, {"x": "new"}) == "a\n<!-- x:begin -->\nnew\n<!-- x:end -->\nb"
    with pytest.raises(UsageError, match="y:begin"):
        renewed(page, {"y": "new"})


def test_a_chart_draws_what_it_is_given() -> None:
    line = Line("a & b", [(1.0, 0.5, 2.0), None, (4.0, 4.0, 4.0)])
    text = svg(Chart("title", "x", "y", [Panel("one", ["p", "q", "r"], [line])], even=1.0))
    root = ElementTree.fromstring(text)
    space = "{http://www.w3.org/2000/svg}"
    assert len(root.findall(f"{space}circle")) == 2
    assert len(root.findall(f"{space}polygon")) == 1
    assert "a & b" in [t.text for t in root.findall(f"{space}text")]
    flat = Line("flat", [(1.0, 1.0, 1.0)] * 2)
    assert "polygon" not in svg(Chart("t", "x", "y", [Panel("one", ["p", "q"], [flat])]))


def test_ticks_enclose_the_values() -> None:
    assert log_ticks(0.7, 40) == [0.5, 1, 2, 5, 10, 20, 50]
    assert log_ticks(1, 1) == [1, 2]
