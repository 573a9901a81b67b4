"""Analyses of many traces: what adds up is added, what does not stays apart."""

from __future__ import annotations

import math
from collections import defaultdict
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.fleet_samples import TRACES, copy_of, fleet_in
from tracereplay.analysis.fleet import NONE_BY_OPTION, Sums, analyze_fleet
from tracereplay.analysis.registry import analyses, analysis_named
from tracereplay.analysis.selection import Selection
from tracereplay.analysis.together import Together
from tracereplay.errors import EmptyTraceError, UsageError
from tracereplay.trace.fleet import WHOLE, traces_of
from tracereplay.trace.reader import Trace

KNOWN = analyses()
TRACE_OF = {"bio-pages": "dmcrypt-6.1-1M", "extfrag": "dmcrypt-6.12-frag3", "layers": "dmcrypt-6.12-4k"}
"""Traces that have rows where mixed-6.12 has none."""


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return fleet_in(tmp_path_factory.mktemp("fleet"))


@pytest.mark.parametrize("name", KNOWN)
def test_each_analysis_says_what_adds_up(name: str) -> None:
    together = KNOWN[name].together
    assert together, "declare Together(...), or why nothing adds up"
    if isinstance(together, Together):
        assert set(together.unless) <= {o.name for o in KNOWN[name].options}


@pytest.mark.parametrize("name", [n for n, a in KNOWN.items() if isinstance(a.together, Together) and n != "stalls"])
def test_two_of_the_same_are_twice_as_much(name: str) -> None:
    """Sums double; shares, ratios, means and maxima stay; everything else is unknown."""
    analysis = KNOWN[name]
    how = analysis.together
    assert isinstance(how, Together)
    one = analysis.answer(Trace.open(TRACES / TRACE_OF.get(name, "mixed-6.12"))).frame
    assert len(one) or name == "failures"
    sums = Sums(how)
    assert sums.add(one)
    assert sums.add(one)
    found = sums.frame()
    assert found.schema == {
        n: (pl.Int64 if n in how.sums and k.is_integer() else k) for n, k in one.schema.items()
    }  # fmt: skip
    keys = [k for k in how.keys if k in one.columns]
    # rows that differ in other columns only (flags by another mask) are one thing
    once = Sums(how)
    once.add(one)
    both = once.frame().join(found, on=keys, how="full", nulls_equal=True, suffix=" twice")
    assert len(both) == len(found)
    for column in how.sums:
        assert (both[f"{column} twice"] == 2 * both[column]).all(), column
        assert math.isclose(float(found[column].sum()), 2 * float(one[column].sum()), rel_tol=1e-12), column
    for column in (*how.shares, *how.ratios, *how.means, *how.most):
        for twice, single in both.select(f"{column} twice", column).rows():
            assert (twice is None and single is None) or math.isclose(twice, single, rel_tol=1e-9, abs_tol=1e-9), column
    if once.frame().select(keys).equals(one.select(keys)):
        for column in (*how.shares, *how.ratios):
            assert (found[column] - one[column]).abs().max() in (None, pytest.approx(0, abs=1e-7)), column
    for column in set(one.columns) - {*keys, *how.sums, *how.shares, *how.ratios, *how.means, *how.most}:
        assert found[column].null_count() == len(found), column


HOW = Together(
    ("by", "low"),
    ("n", "bytes"),
    {"share": "n"},
    within=("by",),
    ratios={"size": ("bytes", "n")},
    means={"mean_ns": "n"},
    most=("max_ns",),
)
ROW = st.tuples(
    st.sampled_from(["x", "y", None]),
    st.sampled_from([0, 1]),
    st.integers(0, 50),
    st.integers(0, 10**6),
    st.one_of(st.none(), st.integers(0, 10**6)),
    st.one_of(st.none(), st.integers(0, 10**6)),
)


def naive(hosts: list[list[tuple[Any, ...]]]) -> dict[Any, list[Any]]:
    """Rows of the fleet, one number at a time: n, bytes, mean, maximum by key."""
    made: dict[Any, list[Any]] = defaultdict(lambda: [0, 0, 0, 0, None])
    for rows in hosts:
        for by, low, n, size, mean, most in rows:
            row = made[by, low]
            row[0] += n
            row[1] += size
            if mean is not None:
                row[2] += mean * n
                row[3] += n
            if most is not None:
                row[4] = most if row[4] is None else max(row[4], most)
    return made


@given(st.lists(st.lists(ROW, max_size=6, unique_by=lambda r: (r[0], r[1])), min_size=1, max_size=4))
def test_sums_are_those_of_plain_python(hosts: list[list[tuple[Any, ...]]]) -> None:
    schema = {"by": pl.String, "low": pl.Int64, "n": pl.UInt32, "bytes": pl.Int64, "mean_ns": pl.Int64,
              "max_ns": pl.Int64}  # fmt: skip
    sums = Sums(HOW)
    for rows in hosts:
        frame = pl.DataFrame(rows, schema=schema, orient="row").with_columns(
            (pl.col("n") / pl.col("n").sum().over("by")).fill_nan(0.0).alias("share"),
            (pl.col("bytes") / pl.col("n")).alias("size"),
            pl.lit(7.0).alias("p99"),
        )
        assert sums.add(frame)
    expected = naive(hosts)
    found = {(r["by"], r["low"]): r for r in sums.frame().to_dicts()}
    assert found.keys() == expected.keys()
    for key, (n, size, weighted, weight, most) in expected.items():
        row = found[key]
        of = sum(e[0] for k, e in expected.items() if k[0] == key[0])
        assert (row["n"], row["bytes"], row["max_ns"], row["p99"]) == (n, size, most, None)
        assert row["share"] == pytest.approx(n / of if of else 0.0)
        assert row["size"] == (size / n if n else None)
        assert row["mean_ns"] == (None if not weight else pytest.approx(weighted / weight, abs=0.5))


def test_rows_of_traces_then_of_the_fleet(root: Path) -> None:
    found = analyze_fleet(traces_of([str(root)]), analysis_named("orders"), Selection())
    frame = found.frame
    assert frame.columns[:6] == ["host", "date", "rack", "trace", "order", "migratetype"]
    assert frame["host"].unique(maintain_order=True).to_list() == ["a", "b", "c", WHOLE]
    alone = analysis_named("orders")(Trace.open(TRACES / "mixed-6.12"))
    assert frame.filter(host="c").drop("host", "date", "rack", "trace").equals(alone)
    whole = frame.filter(host=WHOLE)
    assert whole["pages"].sum() == frame.filter(pl.col("host") != WHOLE)["pages"].sum()
    assert whole["share"].sum() == pytest.approx(1)
    assert whole["rack"].null_count() == len(whole)


def test_best_first_is_decided_over_all_rows(root: Path) -> None:
    fleet = traces_of([str(root)])
    every = analyze_fleet(fleet, analysis_named("callers"), Selection())
    best = analyze_fleet(fleet, analysis_named("callers"), Selection(), top=2)
    assert len(best.frame) == 2 * 4
    whole = every.frame.filter(host=WHOLE)
    assert best.frame.filter(host=WHOLE).equals(whole.head(2))
    assert whole["pages"].to_list() == sorted(whole["pages"], reverse=True)


def test_options_with_which_nothing_adds_up(root: Path) -> None:
    fleet = traces_of([str(root)])
    for name, options in (("bio-pages", {"by": "bio"}), ("flame", {"against": "0s:1ms"})):
        found = analyze_fleet(fleet, analysis_named(name), Selection(), options=options)
        assert found.apart == NONE_BY_OPTION
        assert WHOLE not in found.frame["host"]
    found = analyze_fleet(fleet, analysis_named("peak"), Selection())
    assert "different moments" in found.apart


def test_a_trace_without_the_events_is_left_out(root: Path) -> None:
    fleet = traces_of([str(root)])
    found = analyze_fleet(fleet, analysis_named("bulk"), Selection())
    assert [f.host for f in found.failures] == ["a", "b"]
    assert found.frame["host"].to_list() == ["c", WHOLE]
    with pytest.raises(EmptyTraceError):
        analyze_fleet(fleet, analysis_named("bulk"), Selection(), strict=True)
    with pytest.raises(EmptyTraceError, match="no trace of the fleet"):
        analyze_fleet(traces_of([f"{root}/rack=r1"]), analysis_named("bulk"), Selection())
    with pytest.raises(UsageError, match="no option"):
        analyze_fleet(fleet, analysis_named("bulk"), Selection(), options={"bye": 1})


def test_a_partition_named_like_a_column_is_refused(tmp_path: Path) -> None:
    for order in (1, 2):
        copy_of("dmcrypt-6.1-1M", tmp_path / f"order={order}" / "x.trace", anew=True)
    with pytest.raises(UsageError, match="partition order="):
        analyze_fleet(traces_of([str(tmp_path)]), analysis_named("orders"), Selection())
