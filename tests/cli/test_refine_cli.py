"""``tracereplay whatif --refine`` and ``suggest`` in one process."""

from __future__ import annotations

import io
import sys
from pathlib import Path

import polars as pl
import pytest

from tracereplay.cli.app import main
from tracereplay.whatif import suggest as module
from tracereplay.whatif.steps import Change
from tracereplay.whatif.table import read_table

TRACE = str(Path(__file__).parents[2] / "traces" / "dmcrypt-6.12-1M")


def tracereplay(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> object:
    """Exit code."""
    monkeypatch.setattr(sys, "argv", ["tracereplay", *arguments])
    with pytest.raises(SystemExit) as ended:
        main()
    return ended.value.code


def test_refine_tells_the_answer_ranks_the_table_and_goes_on(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    table = tmp_path / "sweep.parquet"
    question = ("whatif", TRACE, "-s", "per-page", "-s", "bulk", "--grid", "bulk.batch_cap=1:200:1", "-o", str(table))
    assert not tracereplay(monkeypatch, *question, "--refine")
    told = capsys.readouterr()
    frame = read_table(table)
    assert len(frame) < 20
    assert "so far: bulk.batch_cap: " in told.err
    assert f"ran {len(frame)} of 201 points; the others lie between points of the same settled ranking" in told.err
    assert "cost of a page, ns" in told.out
    (best,) = frame.filter(rank=1).to_dicts()
    assert best["per_page"] == frame["per_page"].min()
    assert best["versus"] == "per-page"
    assert best["difference_low95"] <= best["difference_per_page"] <= best["difference_high95"]

    seconds = frame["seconds"].to_list()
    assert not tracereplay(monkeypatch, *question, "--refine", "--resume", "--format", "csv")
    assert pl.read_csv(io.StringIO(capsys.readouterr().out))["seconds"].to_list() == pytest.approx(seconds)


def test_suggest_in_formats(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(module, "changes_of", lambda *_: [Change("init_on_alloc", "false", "true", "false")])
    assert not tracereplay(monkeypatch, "whatif", "suggest", TRACE, "-s", "per-page", "-s", "bulk")
    text = capsys.readouterr().out
    command = f"tracereplay whatif {TRACE} -s per-page -s bulk --grid init_on_alloc=false,true"
    assert text.splitlines()[-1] == command
    assert not tracereplay(monkeypatch, "whatif", "suggest", TRACE, "-s", "per-page", "-s", "bulk", "--format", "csv")
    told = capsys.readouterr()
    (row,) = pl.read_csv(io.StringIO(told.out)).to_dicts()
    assert row["tunable"] == "init_on_alloc"
    assert row["low95"] > 0
    assert told.err.splitlines()[-1] == f"next: {command}"
