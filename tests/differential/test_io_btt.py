"""I/Os by layer against btt, on one recording of dm-linear and dm-crypt over a disk with a scheduler."""

from __future__ import annotations

import re
from pathlib import Path

import polars as pl
import pyarrow as pa
import pytest
from typer.testing import CliRunner

from tracereplay import Trace
from tracereplay.analysis.io import IO, io_table
from tracereplay.analysis.ios import MERGES
from tracereplay.cli.app import app
from tracereplay.kernel.constants import dev_number

DATA = Path(__file__).parents[1] / "data" / "btt"
DISK, LINEAR, CRYPT = dev_number(253, 0), dev_number(252, 0), dev_number(252, 1)


@pytest.fixture(scope="module")
def trace(tmp_path_factory: pytest.TempPathFactory) -> Trace:
    path = tmp_path_factory.mktemp("btt") / "trace"
    done = CliRunner().invoke(app, ["import", str(DATA / "stack-6.12.blktrace.zst"), str(path)])
    assert done.exit_code == 0, done.stderr
    return Trace.open(path)


@pytest.fixture(scope="module")
def rows(trace: Trace) -> pl.DataFrame:
    found = pl.from_arrow(pa.Table.from_batches(io_table(trace), schema=IO))
    assert isinstance(found, pl.DataFrame)
    return found


def said(what: str, dev: int) -> tuple[float, float, float, int]:
    """Least, mean and greatest ns, and number, of a table of btt."""
    text = (DATA / "stack-6.12.btt.txt").read_text()
    table = re.search(rf"^ +{what} .*\n[- ]+\n((?:\(.*\n)*)", text, re.MULTILINE)
    assert table
    number = rf"\({dev >> 20}, +{dev & 0xFFFFF}\) +([\d.]+) +([\d.]+) +([\d.]+) +(\d+)"
    found = re.search(number, table[1])
    assert found
    least, mean, most = (float(found[n]) * 1e9 for n in (1, 2, 3))
    return least, mean, most, int(found[4])


# btt leaves out I/Os that were split: their queue event is not as long as what completes.
@pytest.mark.parametrize(
    ("what", "dev", "column"),
    [("D2C", DISK, "d2c_ns"), ("Q2Cdm", DISK, "q2c_ns"), ("Q2C", LINEAR, "q2c_ns"), ("Q2A", LINEAR, "q2d_ns")],
)
def test_times_are_those_of_btt(rows: pl.DataFrame, what: str, dev: int, column: str) -> None:
    times = rows.filter((pl.col("disk") == dev) & (pl.col("splits") == 0))[column]
    least, mean, most, n = said(what, dev)
    assert len(times) == n
    assert (times.min(), times.max()) == (pytest.approx(least, abs=0.5), pytest.approx(most, abs=0.5))
    assert times.mean() == pytest.approx(mean, abs=1)


def test_counts_are_those_of_btt(trace: Trace, rows: pl.DataFrame) -> None:
    assert rows.filter(disk=DISK)["merged_into"].count() == said("Q2M", DISK)[3]
    queued, issued = re.findall(r"\(253, +0\) \| +(\d+) +(\d+) ", (DATA / "stack-6.12.btt.txt").read_text())[0]
    found = MERGES(trace).filter(pl.col("device") == "253:0").select(pl.col("ios", "requests").sum()).row(0)
    assert found == (int(queued), int(issued))


def test_what_btt_leaves_out(rows: pl.DataFrame) -> None:
    """dm-crypt's bios are split: they are whole here, and their parts below are theirs."""
    crypt = rows.filter(disk=CRYPT)
    assert crypt["class"].unique().to_list() == ["complete"]
    below = rows.filter(pl.col("parent_id").is_in(crypt["id"].to_list()))
    assert (len(crypt), len(below)) == (8, 16)
    assert below["bytes"].sum() == crypt["bytes"].sum()
    parts = below.group_by("parent_id").agg(pl.col("q_ns").min(), pl.col("c_ns").max()).sort("parent_id")
    assert (parts["q_ns"] >= crypt.sort("id")["d_ns"]).all()
    assert (parts["c_ns"] <= crypt.sort("id")["c_ns"]).all()
