"""The same recording by perf kmem and by tracereplay: totals, and requests by order, type and gfp flags."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.reference.compare_perf_kmem import main, our_table, our_totals, perf_table, perf_totals
from tracereplay import Trace

DATA = Path(__file__).parent.parent / "data" / "perf-kmem"


def test_totals_are_the_same(capsys: pytest.CaptureFixture[str]) -> None:
    text, trace = (DATA / "kmem.txt").read_text(), Trace.open(DATA / "trace")
    totals = perf_totals(text)
    assert totals == our_totals(trace)
    assert totals["allocation requests"] == 2250
    assert totals["alloc+freed requests, KiB"] == 9904
    table = perf_table(text, trace.metadata.host["release"])
    assert table == our_table(trace)
    assert sum(table.values()) == 2250
    assert main(str(DATA / "kmem.txt"), str(DATA / "trace")) == 0
    assert "the same" in capsys.readouterr().out


def test_a_difference_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    other = tmp_path / "kmem.txt"
    other.write_text((DATA / "kmem.txt").read_text().replace("947 |     0", "948 |     0"))
    assert main(str(other), str(DATA / "trace")) == 1
    assert "DIFFERENT" in capsys.readouterr().out
