"""Bios joined with the pages allocated for them, on recordings of dm-crypt."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest

from tracereplay import Trace
from tracereplay.analysis.bio_pages import BIO_PAGES
from tracereplay.analysis.selection import Selection
from tracereplay.analysis.view import View

TRACES = Path(__file__).parents[2] / "traces"


@pytest.mark.parametrize(
    ("name", "parts", "allocations", "orders"),
    [("dmcrypt-6.1-1M", 1, 256, "0:256"), ("dmcrypt-6.12-bulk", 8, 8, "5:8")],
)
def test_a_write_of_one_mebibyte(name: str, parts: int, allocations: int, orders: str) -> None:
    """6.1 takes 256 pages one by one; 6.12 cuts it into eight parts of one block of 32 pages."""
    trace = Trace.open(TRACES / name)
    bios = BIO_PAGES(trace, by="bio")
    assert len(bios) == 8
    assert bios.select("bytes", "parts", "allocations", "pages", "orders").unique().rows() == [
        (1 << 20, parts, allocations, 256, orders)
    ]
    cut = BIO_PAGES(trace, by="part")
    assert len(cut) == 8 * parts
    assert (cut["wait_ns"] + cut["alloc_ns"] + cut["after_ns"]).to_list() == cut["q2d_ns"].to_list()
    assert cut.select(pl.col("wait_ns", "alloc_ns", "after_ns").min() >= 0).row(0) == (True, True, True)
    summary = BIO_PAGES.answer(trace)
    assert summary.frame.select("bytes", "bios", "allocations").rows() == [(1 << 20, 8, float(allocations))]
    assert summary.account == {"writes": 8, "writes_matched": 8, "parts": 8 * parts, "parts_matched": 8 * parts}


def test_times_are_those_of_the_events() -> None:
    trace = Trace.open(TRACES / "dmcrypt-6.1-1M")
    bio = BIO_PAGES(trace, by="bio").row(3, named=True)
    events = (
        trace.bio_events.filter(pl.col("sector") == bio["sector"]).select("ts_ns", "kind", "dev", "old_dev").collect()
    )
    queued = events.filter((pl.col("kind") == "queue") & (pl.col("dev") == 253 << 20))["ts_ns"][0]
    below = events.filter(pl.col("kind") == "queue")["ts_ns"].max()
    assert bio["q2d_ns"] == below - queued
    pages = trace.page_events.filter(
        (pl.col("kind") == "alloc")
        & pl.col("ts_ns").is_between(queued + bio["wait_ns"], queued + bio["wait_ns"] + bio["alloc_ns"])
    ).collect()
    assert len(pages) == 256


def test_filters_and_none(tmp_path: Path) -> None:
    trace = Trace.open(TRACES / "dmcrypt-6.1-1M")
    first = BIO_PAGES(trace, by="bio")["at_ns"][0]
    assert len(BIO_PAGES(View(trace, Selection(time=(None, first + 1))), by="bio")) == 1
    assert len(BIO_PAGES(View(trace, Selection(comm=("cat",))), by="bio")) == 0
    answer = BIO_PAGES.answer(Trace.open(TRACES / "mixed-6.12"))
    assert len(answer.frame) == 0
    assert "dm-crypt" in answer.notes[0]
