"""The ready-made table ``requests`` against the demand stream that it is made from."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pytest

from tracereplay import Trace
from tracereplay.analysis import requests as made
from tracereplay.demand import open_demand
from tracereplay.demand.stream import ALLOC, FIRST, FREE, REQUIRED, UNSEEN

TRACES = Path(__file__).parents[2] / "traces"


def slow_requests(trace: Trace) -> list[dict[str, Any]]:
    """The same, a page at a time."""
    owner: dict[int, dict[str, Any]] = {}
    rows: list[dict[str, Any]] = []
    for ops in open_demand(trace, target="batches"):
        for op in ops:
            first = int(op["pfn"])
            pages = range(first, first + (1 << int(op["order"])))
            if op["kind"] == ALLOC:
                if op["flags"] & FIRST:
                    rows.append(defaultdict(int, ts=int(op["ts_ns"]), pages=int(op["pages"]), flags=int(op["flags"])))
                rows[-1]["extents"] += 1
                owner |= dict.fromkeys(pages, rows[-1])
            elif op["kind"] == FREE:
                for page in pages:
                    row = owner.pop(page)
                    row["freed"] += 1
                    row["page_ns"] += int(op["ts_ns"]) - row["ts"]
                    row["released"] = int(op["ts_ns"])
    return rows


def test_rows_are_the_requests_of_the_stream(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(made, "_OPEN", 4)  # grows often
    monkeypatch.setattr(made, "_DONE", 16)  # is delivered often
    trace = Trace.open(TRACES / "dmcrypt-6.12-1M")
    frame = pl.from_arrow(pa.Table.from_batches(list(made.requests(trace)), made.REQUESTS))
    assert isinstance(frame, pl.DataFrame)
    ended = frame["released_ns"].is_not_null()
    assert frame.filter(~ended)["request_id"].is_sorted()
    found = frame.sort("request_id").to_dicts()
    wanted = slow_requests(trace)
    assert [r["request_id"] for r in found] == list(range(len(wanted)))
    for row, slow in zip(found, wanted, strict=True):
        assert (row["ts_ns"], row["pages"], row["extents"]) == (slow["ts"], slow["pages"], slow["extents"])
        assert row["pages_freed"] == slow["freed"]
        assert row["contiguity"] == ("required" if slow["flags"] & REQUIRED else "none")
        whole = slow["freed"] == slow["pages"]
        assert row["released_ns"] == (slow["released"] if whole else None)
        seen = not slow["flags"] & UNSEEN
        assert row["hold_ns"] == (slow["released"] - slow["ts"] if whole and seen else None)
        assert row["page_ns"] == (slow["page_ns"] if seen else None)
    assert [r["pages"] for r in found if r["of_bio"]] == [256] * 16  # dm-crypt's buffers of 1 MiB
