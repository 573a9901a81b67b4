"""The comparison of two recordings of one run: on samples of a capture and of trace-cmd's recording (Debian 6.12,
dm-crypt writes, both at once), whole and with faults put in."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import polars as pl
import pytest

from tests.reference.compare_tracecmd import KindResult, common_window, compare, main, report
from tracereplay.trace.reader import Trace
from tracereplay.trace.writer import TraceWriter

DATA = Path(__file__).parent.parent / "data" / "compare"
OURS, THEIRS = DATA / "capture-6.12", DATA / "tracecmd-6.12"
WRITES = (163_301_702_811, 163_376_000_000)
COMPACTION = (165_571_867_701, 165_573_873_265)
TOLERANCE = 500_000


def by_kind(ours: Path = OURS, theirs: Path = THEIRS, window: tuple[int, int] = WRITES) -> dict[str, KindResult]:
    results = compare(Trace.open(ours), Trace.open(theirs), window, TOLERANCE)
    return {r.kind: r for r in results}


def changed(folder: Path, table: str, change: Callable[[pl.DataFrame], pl.DataFrame]) -> Path:
    """The capture's sample with one table changed."""
    source = Trace.open(OURS)
    with TraceWriter(folder / "changed", source.metadata) as writer:
        for name in source.tables:
            frame = source.table(name).collect()
            frame = change(frame) if name == table else frame
            if len(frame):
                writer.write(name, frame.to_arrow())
    return folder / "changed"


def test_both_saw_the_same_writes() -> None:
    results = by_kind()
    assert {"alloc", "free", "zone_locked", "queue", "remap", "split", "bio_complete"} <= set(results)
    for r in results.values():
        assert r.same, report([r])
        assert r.ours == r.theirs == r.pairs > 0
        assert r.edge == 0
        assert all(0 < gap < TOLERANCE for gap in r.gaps_ns)  # the capture's taps come first


def test_both_saw_the_same_compaction() -> None:
    results = by_kind(window=COMPACTION)
    assert results["compaction_begin"].pairs == 2
    assert all(r.same for r in results.values())


def test_a_missing_event_is_found(tmp_path: Path) -> None:
    inside = pl.col("ts_ns").is_between(*WRITES) & (pl.col("kind") == "alloc")
    gone = Trace.open(OURS).page_events.filter(inside).collect().row(7, named=True)

    def drop(frame: pl.DataFrame) -> pl.DataFrame:
        return frame.filter(~((pl.col("ts_ns") == gone["ts_ns"]) & (pl.col("cpu") == gone["cpu"])))

    results = by_kind(changed(tmp_path, "page_events", drop))
    alloc = results["alloc"]
    assert not alloc.same
    assert alloc.only_ours == []
    assert [row["pfn"] for row in alloc.only_theirs] == [gone["pfn"]]
    assert (alloc.ours, alloc.pairs) == (alloc.theirs - 1, alloc.theirs - 1)
    assert all(r.same for r in results.values() if r.kind != "alloc")
    assert "only theirs:" in report([alloc])


def test_a_kind_that_one_of_them_lacks_is_found(tmp_path: Path) -> None:
    results = by_kind(changed(tmp_path, "bio_events", lambda f: f.filter(pl.col("kind") != "split")))
    assert results["split"].pairs == 0
    assert len(results["split"].only_theirs) == results["split"].theirs > 0


def test_a_wrong_field_is_found(tmp_path: Path) -> None:
    def flip(frame: pl.DataFrame) -> pl.DataFrame:
        other = pl.when(pl.col("kind") == "alloc").then(pl.col("gfp") ^ 0x80).otherwise(pl.col("gfp"))
        return frame.with_columns(other)

    alloc = by_kind(changed(tmp_path, "page_events", flip))["alloc"]
    assert alloc.pairs == alloc.ours
    assert list(alloc.differing) == ["gfp"]
    assert len(alloc.differing["gfp"]) == alloc.pairs
    assert not alloc.same


def test_events_at_other_times_are_no_pairs(tmp_path: Path) -> None:
    late = by_kind(changed(tmp_path, "bio_events", lambda f: f.with_columns(pl.col("ts_ns") - 10 * TOLERANCE)))
    assert late["queue"].pairs < late["queue"].theirs
    assert late["queue"].only_theirs


def test_pairs_across_the_edge_are_told_apart() -> None:
    first = Trace.open(OURS).bio_events.filter(pl.col("kind") == "queue").collect().row(0, named=True)
    queue = by_kind(window=(first["ts_ns"] + 1, WRITES[1]))["queue"]
    assert queue.edge == 1
    assert queue.ours == queue.theirs - 1
    assert queue.same


def test_the_window_is_where_both_recorded() -> None:
    a, b = common_window(Trace.open(OURS), Trace.open(THEIRS))
    assert WRITES[0] < a < WRITES[1]
    assert WRITES[1] < b < COMPACTION[1]


def test_the_exit_code_says_whether_they_agree(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    window = ["--window", str(WRITES[0]), str(WRITES[1]), "--tolerance-us", "500"]
    assert main([str(OURS), str(THEIRS), *window]) == 0
    assert "zone_locked" in capsys.readouterr().out
    other = changed(tmp_path, "bio_events", lambda f: f.filter(pl.col("kind") != "remap"))
    assert main([str(other), str(THEIRS), *window]) == 1
