"""Refills: the streaming pass against the slow one, on made-up and on recorded events."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.reference.slow_refills import slow_refills
from tests.trace_samples import metadata, rows_batch
from tracereplay import Trace, TraceWriter
from tracereplay.analysis.refills import COLUMNS, REFILLS, follow_refills, refills

TRACES = Path(__file__).parents[2] / "traces"


def found_in(trace: Trace) -> list[dict[str, Any]]:
    table = pa.Table.from_batches(refills(trace), schema=REFILLS)
    return sorted(table.to_pylist(), key=lambda r: (r["cpu"], r["t0_ns"], r["t1_ns"]))


@st.composite
def events(draw: st.DrawFn) -> list[dict[str, Any]]:
    made = []
    for number in range(draw(st.integers(1, 60))):
        kind = draw(st.sampled_from(["zone_locked"] * 4 + ["extfrag", "alloc", "free"]))
        row = {
            "ts_ns": number // 2,
            "cpu": draw(st.integers(0, 1)),
            "kind": kind,
            "pid": draw(st.sampled_from([7, 7, 8])),
        }
        row |= {"pfn": number, "migratetype": draw(st.sampled_from([0, 1, 1, 3]))}
        if kind == "extfrag":
            row |= {"alloc_order": draw(st.sampled_from([0, 0, 1, 4])), "fallback_order": draw(st.sampled_from([3, 9]))}
            row |= {"fallback_migratetype": 0, "change_ownership": draw(st.booleans())}
        else:
            row["order"] = draw(st.sampled_from([0, 0, 1]))
        if kind == "zone_locked":
            row["percpu_refill"] = draw(st.sampled_from([True, True, True, False, None]))
        made.append(row)
    return made


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows=events(), release=st.sampled_from(["6.1.0", "6.12.3"]))
def test_made_up(rows: list[dict[str, Any]], release: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.mktemp("t") / "trace"
    with TraceWriter(path, metadata(host={"release": release, "cpus": 2, "page_size": 4096})) as writer:
        writer.write("page_events", rows_batch("page_events", rows))
    assert found_in(Trace.open(path)) == slow_refills(rows, in_place=release.startswith("6.12"))


@pytest.mark.parametrize("name", ["mixed-6.1", "mixed-6.12", "dmcrypt-6.12-frag3"])
def test_recorded(name: str) -> None:
    trace = Trace.open(TRACES / name)
    rows = trace.page_events.select(COLUMNS).with_columns(pl.col("kind").cast(pl.String)).collect().to_dicts()
    slow = slow_refills(rows, in_place="6.12" in name)
    assert found_in(trace) == slow
    assert sum(r["blocks"] for r in slow) > 100


def test_a_gap_ends_a_run(tmp_path: Path) -> None:
    row = {"cpu": 0, "kind": "zone_locked", "pid": 7, "pfn": 1, "migratetype": 1, "order": 0, "percpu_refill": True}
    with TraceWriter(tmp_path / "t", metadata()) as writer:
        writer.write("page_events", rows_batch("page_events", [{**row, "ts_ns": t} for t in (1, 2, 8, 9)]))
        lost = {"t0_ns": 2, "t1_ns": 8, "table": "page_events", "cpu": 0, "n": 3, "class": "ring_full"}
        writer.write("loss", rows_batch("loss", [lost]))
    trace = Trace.open(tmp_path / "t")
    assert [(r["t0_ns"], r["t1_ns"], r["blocks"]) for r in found_in(trace)] == [(1, 2, 2), (8, 9, 2)]
    assert [cut for _, cut in follow_refills(trace, trace.batches("page_events", COLUMNS))] == [1]


def test_no_page_events(tmp_path: Path) -> None:
    with TraceWriter(tmp_path / "t", metadata()):
        pass
    assert list(refills(Trace.open(tmp_path / "t"))) == []
