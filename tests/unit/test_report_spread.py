"""Distributions, rates and the dearest requests as text and on the page."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from dataclasses import replace
from typing import Any

import pytest

from tests.example_result import example_result
from tests.replay_samples import op, ops_of, request
from tests.unit.test_engine import engine, roomy
from tracereplay.cost.distribution import distributions
from tracereplay.cost.profile import load_profile
from tracereplay.cost.rates import Covered, against, memory, rates
from tracereplay.cost.worst import worst
from tracereplay.demand.stream import FREE, OF_BIO, TARGETED
from tracereplay.replay.result import result_entry
from tracereplay.report.data import build_comparison
from tracereplay.report.html import Report, render
from tracereplay.report.numbers import size_bytes
from tracereplay.report.terminal import comparison, spread
from tracereplay.report.terminal import worst as worst_text
from tracereplay.strategies.registry import choose


def result(*, bios: bool = True, lost_ns: float = 0.0, unit: str = "ns", requests: int = 30) -> dict[str, Any]:
    """The example's results, with the spread of a small replay."""
    made = example_result()
    profile = replace(load_profile(), unit=unit)
    flags = TARGETED | (OF_BIO if bios else 0)
    records: list[Any] = []
    for k in range(requests):
        records += request(64 * k, [0] * (1 + k % 40), flags=flags, ts=10 * k)
    records += [op(FREE, 64 * k, ts=900) for k in range(requests)]
    outcomes = []
    for row in made["results"][:3]:
        runner = engine(row["strategy"])
        runner.feed(ops_of(records))
        outcomes.append(runner.finish())
    made["results"] = made["results"][:3]
    spreads = distributions(outcomes, profile)
    for row, outcome, found in zip(made["results"], outcomes, spreads, strict=True):
        (choice,) = choose([row["strategy"]], [])
        entry = result_entry(choice, outcome, roomy())
        covered = Covered(1_000_000_000, lost_ns)
        row |= {
            "distribution": found,
            "worst": worst(outcome, profile, ["a caller <x>"], [], 10),
            "rates": rates(outcome, entry["counters"], profile, covered),
            "memory": memory(entry, None),
        }
    against(made["results"])
    return made


@pytest.mark.parametrize(
    "options", [{}, {"bios": False}, {"lost_ns": 2.5e8}, {"unit": "instructions"}, {"requests": 0}], ids=str
)
def test_text_fits_80_columns(options: dict[str, Any]) -> None:
    made = result(**options)
    text = "\n".join([spread(made), worst_text(made, 5)])
    assert max(map(len, text.splitlines())) <= 80
    for row in made["results"]:
        row["label"] = "a-label-that-is-longer-than-any-column-of-a-table-on-a-terminal-may-well-be"
    assert max(map(len, spread(made).splitlines())) <= 80


def test_text_says_what_it_rests_on() -> None:
    assert "Each bio is one request" in spread(result())
    assert "no cost per bio" in spread(result(bios=False))
    assert "0.750 s that the events cover" in spread(result(lost_ns=2.5e8))
    text = spread(result(unit="instructions"))
    assert "CPU time needs a profile in ns" in text
    assert "CPU-s a day" not in text
    assert "CPU-s a day" in spread(result())


def test_the_dearest_are_as_many_as_asked_for() -> None:
    made = result()
    assert worst_text(made, 3).count("the median request has") <= 9
    assert worst_text(made, 3).count("dearest requests of") == 3
    assert worst_text(made, 0) == ""


@pytest.mark.parametrize("options", [{}, {"bios": False}, {"unit": "instructions"}, {"requests": 0}], ids=str)
def test_page(options: dict[str, Any]) -> None:
    page = render(Report(build_comparison(result(**options))), title="t", made="now")
    tree = ElementTree.fromstring(page.removeprefix("<!DOCTYPE html>\n"))
    pictures = [svg for svg in tree.iter("svg") if "per request:" in svg.get("aria-label", "")]
    assert len(pictures) == (3 if options.get("requests") != 0 else 0)
    assert ("Cost of a WRITE bio" in page) == (options.get("bios", True) and options.get("requests") != 0)
    assert len([d for d in tree.iter("div") if d.get("class") == "tile"]) == 3


def test_results_of_a_version_without_it() -> None:
    old = example_result()
    assert spread(old) == worst_text(old, 5) == ""
    assert "How the cost is spread" not in render(Report(build_comparison(old)), title="t", made="")
    assert comparison(old)


def test_bytes() -> None:
    assert [size_bytes(n) for n in (0, 100, 4096, 1 << 20, 3 << 19, 5 << 30)] == [
        "0", "100 B", "4 KiB", "1 MiB", "1.5 MiB", "5 GiB",
    ]  # fmt: skip
