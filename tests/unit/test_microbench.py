"""The kernel module of docs/examples/microbench prints what `profiles fit` reads (it is not built here)."""

from __future__ import annotations

import csv
import re
import subprocess
from pathlib import Path

import pytest

from tracereplay.cost.rows import CASE_COLUMNS, GFP, REQUIRED, STRATEGIES, read_rows

ROOT = Path(__file__).parents[2]
MODULE = ROOT / "docs" / "examples" / "microbench"
DATA = ROOT / "tests" / "data" / "cost"


def columns() -> list[str]:
    """Of the header that the module prints."""
    text = (MODULE / "bench.h").read_text()
    define = re.search(r'#define COLUMNS ((?:"[^"]*"\s*\\?\s*)+)', text)
    assert define
    return "".join(re.findall(r'"([^"]*)"', define[1])).split(",")


def test_columns_are_those_of_the_given_table_and_more() -> None:
    with (DATA / "microbenchmark.csv").open(newline="") as source:
        given = next(csv.reader(source))
    assert columns() == [*given, "unit", "free_blocks"]
    assert {*REQUIRED, *CASE_COLUMNS} <= {*columns()}


def test_strategies_are_those_that_are_read() -> None:
    text = (MODULE / "microbench.c").read_text()
    assert {*re.findall(r'\{ "([a-z-]+)", take_', text)} - {"none"} == {*STRATEGIES}


@pytest.mark.parametrize("size", ["quick", "full"])
def test_plans_have_cases_that_are_read(size: str) -> None:
    plan = subprocess.run([MODULE / "plan.sh", size], capture_output=True, text=True, check=True).stdout
    cases = [line.split()[1:] for line in plan.splitlines() if line.startswith("case ")]
    assert len(cases) == len([line for line in plan.splitlines() if line.split()[0] == "case"]) > 100
    assert {gfp for gfp, *_ in cases} == {*GFP}
    assert {strategy for _, strategy, *_ in cases} == {*STRATEGIES}
    assert all(1 <= int(pages) <= 1024 and 1 <= int(held) <= 128 for *_, pages, held in cases)


@pytest.mark.parametrize("path", sorted(DATA.glob("measured-*.csv")), ids=lambda path: path.stem)
def test_measured_rows_are_read(path: Path) -> None:
    with path.open(newline="") as source:
        assert next(csv.reader(source)) == columns()
    rows = read_rows(path)
    assert {row.kernel for row in rows} == {path.stem.removeprefix("measured-")}
    assert all(row.free_blocks and row.unit == "instructions" for row in rows)
