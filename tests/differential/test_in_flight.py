"""I/Os followed device by device (in_flight) against I/Os followed through layers and merges (io)."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest

from tracereplay import Trace
from tracereplay.analysis.in_flight import InFlight
from tracereplay.analysis.io import io_table
from tracereplay.analysis.view import View

SHIPPED = Path(__file__).parents[2] / "traces"
WITHOUT_SPLITS = ("dmcrypt-6.1-64k", "mixed-6.1", "mixed-6.12", "pages-6.1", "pages-6.12", "pages-6.18")


def both(name: str, at: str, column: str) -> tuple[set[tuple[int, int, int]], set[tuple[int, int, int]]]:
    """(device, start, end) of I/Os, as either tells them."""
    trace = Trace.open(SHIPPED / name)
    flight = InFlight(View.of(trace), at)
    flight.drain()
    end = (pl.col("start_ns") + pl.col("latency_ns")).alias("end")
    mine = pl.concat(list(flight.ended())).select("dev", "start_ns", end)
    table = pl.concat([pl.DataFrame(pl.from_arrow(batch)) for batch in io_table(trace)])
    known = pl.col("disk").is_in(flight.devices.numbers) & pl.col(column).is_not_null() & pl.col("c_ns").is_not_null()
    return set(mine.iter_rows()), set(table.filter(known).select("disk", column, "c_ns").iter_rows())


@pytest.mark.parametrize("name", [*WITHOUT_SPLITS, "mixed-6.18", "dmcrypt-6.12-bulk", "dmcrypt-6.12-frag3"])
def test_from_queue(name: str) -> None:
    mine, theirs = both(name, "queue", "q_ns")
    assert mine == theirs
    assert mine


@pytest.mark.parametrize("name", WITHOUT_SPLITS[1:])
def test_from_issue(name: str) -> None:
    mine, theirs = both(name, "issue", "d_ns")
    assert mine == theirs
    assert mine
