"""Report data against literals; the text fits a terminal."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest

from tests.example_result import example_result
from tracereplay.cost.priced import repriced
from tracereplay.cost.profile import load_profile
from tracereplay.report.data import Fact, build_comparison
from tracereplay.report.numbers import figure, seconds, share, size, span
from tracereplay.report.terminal import comparison


@pytest.fixture
def result() -> dict[str, Any]:
    return example_result()


def test_facts(result: dict[str, Any]) -> None:
    data = build_comparison(result)
    assert data.accounting == (
        Fact("page events", "10,000"),
        Fact("allocations", "5,040"),
        Fact("frees", "4,960"),
        Fact("matched", "4,800", "96.8 % of the frees"),
        Fact("unmatched frees", "160", "frees whose allocation was not seen"),
        Fact("left-censored", "150", "of them: allocated before the trace began"),
        Fact("unseen frees", "10", "of them: prove an allocation that made no event"),
        Fact("right-censored", "100", "blocks still held when the trace ended"),
        Fact("lost", "7", "in 1 interval"),
        Fact("vmstat", "9,000", "pages allocated by the kernel's own count"),
        Fact("difference", "88", "of them neither traced nor inferred"),
    )
    assert data.demand[1] == Fact("targeted", "2,560", "pages, 64 %; --target batches")
    assert data.trace[0] == Fact("trace", "traces/example", "id 0123456789ab")
    assert data.machine[1] == Fact("memory", "16 GiB")
    assert data.machine[5:] == (
        Fact("pcp.batch", "63"),
        Fact("pcp.high", "-"),
        Fact("occupancy", "-"),
        Fact("zones.0.name", "Normal"),
        Fact("zones.0.managed", "4,194,304"),
        Fact("zones.0.free_blocks", "1, 2"),
    )


def test_costs(result: dict[str, Any]) -> None:
    data = build_comparison(result)
    per_page, bulk, compound, unmapped = data.strategies
    assert data.baseline == "per-page"
    # 256 pages: 55.472 each; 4 refills and 4 drains: 8 zone locks, 252 pages in and out, 250 splits and merges
    moved = 8 * 50 + 252 * 5 + 250 * 10 + 252 * 5 + 250 * 10
    assert per_page.per_page == pytest.approx(55.472 + moved / 256)
    assert bulk.per_page == pytest.approx(30.80 + (19.05 + moved) / 256)
    assert compound.per_page == pytest.approx(
        (6.533 + 13.139 + 2 * 50 + 20 + 20 + 17.189 + 10 + 5 + 255 * 3.5) / 256, rel=1e-4
    )
    assert bulk.ratio == pytest.approx(bulk.per_page / per_page.per_page)
    assert per_page.ratio == 1.0
    assert per_page.ratio_interval is None
    assert bulk.ratio_interval is not None
    assert bulk.ratio_interval[0] < bulk.ratio < bulk.ratio_interval[1] < 1
    assert sum(unmapped.groups.values()) == pytest.approx(unmapped.per_page)
    assert unmapped.groups["zeroing"] == pytest.approx(100)
    assert unmapped.unpriced == {"reclaim_attempts": 20}
    assert compound.assumed == pytest.approx(1 - (6.533 + 13.139 + 17.189) / (compound.per_page * 256), rel=1e-4)
    assert per_page.p50 == pytest.approx(per_page.per_page * 256)


def test_zone_locks_over_time(result: dict[str, Any]) -> None:
    (chart,) = build_comparison(result).charts
    assert {line.name: line.values[3] for line in chart.lines} == {
        "per-page": 8.0,
        "bulk": 8.0,
        "compound": 2.0,
        "unmapped-cache": 0.0,
    }


def test_callers_and_their_sizes(result: dict[str, Any]) -> None:
    callers = build_comparison(result).callers
    assert [(c.name, c.pages, dict(c.sizes)) for c in callers] == [
        ("kcryptd <alloc & co>", 2560, {256: 10}),
        ("GFP_HIGHUSER_MOVABLE", 1440, {1: 1, 512: 2}),
    ]


def test_who_leaves_requests_unserved_is_not_the_cheapest(result: dict[str, Any]) -> None:
    entry = next(row for row in result["results"] if row["label"] == "compound")
    entry["requests"] = {"served": 50, "failed": 48, "waiting": 2}
    said = build_comparison(result).verdict
    assert not said[0].startswith("compound")
    assert any(text.startswith("compound left 50 % of its requests unserved") for text in said)


def test_verdict_names_the_cheapest_and_its_coverage(result: dict[str, Any]) -> None:
    said = build_comparison(result).verdict
    assert said[0].startswith("compound is cheapest: 4.24 ns per page")
    assert "of what per-page costs" in said[1]
    assert "targeted 64 % of the pages" in said[-1]


def test_cautions_name_what_speaks_against_the_numbers(result: dict[str, Any]) -> None:
    said = " ".join(build_comparison(result).cautions)
    assert "7 events were lost" in said
    assert "compound 96" in said
    assert "Counted, but without a price: reclaim attempts (unmapped-cache 20)." in said
    assert "256 pages at once were idle in reserves" in said
    assert "did not finish" not in said


def change(path: str, value: Any) -> Callable[[dict[str, Any]], None]:
    def apply(result: dict[str, Any]) -> None:
        *parents, last = path.split(".")
        for key in parents:
            result = result[key]
        if value is None:
            del result[last]
        else:
            result[last] = value

    return apply


@pytest.mark.parametrize(
    ("edit", "expected"),
    [
        (change("trace.complete", False), "did not finish"),
        (change("demand.targeted.selector", "all"), "an upper bound"),
        (change("warnings", ["machine assumed: 16 GiB"]), "machine assumed: 16 GiB"),
    ],
)
def test_more_cautions(result: dict[str, Any], edit: Callable[[dict[str, Any]], None], expected: str) -> None:
    edit(result)
    assert expected in " ".join(build_comparison(result).cautions)


def test_unknown_loss_is_not_no_loss(result: dict[str, Any]) -> None:
    result["accounting"]["lost"] = None
    data = build_comparison(result)
    assert "does not say how many" in " ".join(data.cautions)
    assert [f.value for f in data.accounting if f.label == "lost"] == ["-"]


def test_failures_are_said(result: dict[str, Any]) -> None:
    result["results"][1]["counters"]["failures"] = 3
    assert "bulk: 3 requests got no memory." in build_comparison(result).cautions


def test_no_targeted_request(result: dict[str, Any]) -> None:
    result["demand"]["targeted_pages"] = 0
    for row in result["results"]:
        row["cost"] |= {"per_page": None, "per_request": {"mean": None, "p50": None, "p99": None}, "total": 0.0}
    data = build_comparison(result)
    assert data.verdict == ("No targeted request in this trace: there is nothing to compare. Try --target all.",)
    assert "nothing to compare" in comparison(result)


def test_a_tie_is_called_a_tie(result: dict[str, Any]) -> None:
    twin = copy.deepcopy(result["results"][0]) | {"strategy": "bulk", "label": "twin"}
    result["results"] = [result["results"][0], twin]
    data = build_comparison(result)
    assert "Within the uncertainty it cannot be told apart from twin." in data.verdict
    assert [d.sentence("ns") for d in data.differences] == ["twin costs the same as per-page."]


def test_differences_say_how_sure_they_are(result: dict[str, Any]) -> None:
    bulk, compound, unmapped = build_comparison(result).differences
    assert bulk.sentence("ns") == (
        "bulk costs 24.6 ns less per page than per-page (23.0 to 27.4): beyond the uncertainty of the prices; moved "
        "most by single."
    )
    assert compound.beyond
    assert unmapped.interval[0] < unmapped.value < unmapped.interval[1]
    result["results"][1]["counters"]["splits"] += 2450 * 2
    bulk = build_comparison(result).differences[0]
    assert bulk.sentence("ns") == (
        "bulk costs 5.46 ns less per page than per-page (-24.0 to 15.3): within the uncertainty of the prices, "
        "they cannot be told apart; hinges on split: they cost the same at 12.9 ns (its range is 5.00 - 25.0)."
    )


def test_tornado_of_a_difference(result: dict[str, Any]) -> None:
    result["results"][1]["counters"]["splits"] += 2450 * 2
    result |= repriced(result, load_profile())
    bulk = build_comparison(result).differences[0].tornado
    assert bulk.title == "bulk - per-page"
    assert [s.name for s in bulk.swings] == ["split", "single", "bulk_page", "bulk_call"]
    split = bulk.swings[0]
    assert (split.range, split.at_low, split.at_high) == (
        "5.00 - 25.0 ns",
        pytest.approx(-15.0, abs=0.1),
        pytest.approx(23.2, abs=0.1),
    )
    assert max(map(len, comparison(result, tornado=True).splitlines())) <= 80


def test_other_profile_than_stored(result: dict[str, Any]) -> None:
    """A result that names its profile only is still reported, without what needs the prices."""
    result["profile"] = {"name": "mine"}
    data = build_comparison(result)
    assert data.profile is None
    assert data.strategies[1].ratio is not None
    assert data.strategies[1].ratio_interval is None
    assert comparison(result)


def test_text_fits_80_columns(result: dict[str, Any], golden: Callable[[str, str], None]) -> None:
    text = comparison(result)
    assert max(map(len, text.splitlines())) <= 80
    golden("comparison.txt", text + "\n")


def test_long_labels_and_many_strategies_fit(result: dict[str, Any]) -> None:
    rows = []
    for i in range(9):
        row = copy.deepcopy(result["results"][1])
        row["label"] = f"bulk:batch_cap={i},two_pass=true"
        rows.append(row)
    result["results"] = rows
    result["trace"]["path"] = "/a/very/long/path" * 9
    text = comparison(result)
    assert max(map(len, text.splitlines())) <= 80


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "-"),
        (0.0, "0"),
        (0.0001, "1.0e-04"),
        (0.0573, "0.057"),
        (1.0, "1.00"),
        (9.999, "10.0"),
        (55.472, "55.5"),
        (99.96, "100"),
        (12345.6, "12,346"),
    ],
)
def test_figure(value: float | None, text: str) -> None:
    assert figure(value) == text


def test_other_numbers() -> None:
    assert share(1, 3) == "33.3 %"
    assert share(999_999, 1_000_000) == "> 99.9 %"
    assert share(1, 1_000_000) == "< 0.1 %"
    assert share(0, 5) == "0 %"
    assert share(1, 0) == "-"
    assert span((29.94, 31.8)) == "29.9 - 31.8"
    assert [seconds(n) for n in (10_000_000_000, 870_000, 12, None)] == ["10.0 s", "870 us", "12.0 ns", "-"]
    assert [size(n) for n in (1, 256, 384, 1 << 18)] == ["4 KiB", "1 MiB", "1.5 MiB", "1 GiB"]


def waiting(result: dict[str, Any], **waits: int) -> dict[str, Any]:
    none = {"requests": 0, "total_ns": 0, "longest_ns": 0, "waiting_at_end": 0, "deadlocked": 0}
    for row in result["results"]:
        row["waits"] = none | {"deadlocked_since_ns": None}
    result["results"][1]["waits"] |= waits
    return result


def test_waits_are_shown_where_there_were_any(result: dict[str, Any]) -> None:
    assert build_comparison(waiting(result)).waits == ()
    assert "waited" not in comparison(result)
    waiting(result, requests=5, total_ns=6_000_000, longest_ns=4_500_000, waiting_at_end=2, deadlocked=2)
    data = build_comparison(result)
    assert data.waits == (
        ("requests that waited", "0", "5", "0", "0"),
        ("mean wait", "-", "2.00 ms", "-", "-"),
        ("longest wait", "-", "4.50 ms", "-", "-"),
        ("waiting at the end", "0", "2", "0", "0"),
        ("deadlocked", "0", "2", "0", "0"),
    )
    text = comparison(result)
    assert "requests that waited         0        5" in text
    assert max(map(len, text.splitlines())) <= 80
