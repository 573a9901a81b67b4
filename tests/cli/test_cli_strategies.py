"""``tracereplay strategies``: every format, every strategy's page, and no compiler needed for it."""

from __future__ import annotations

import csv
import io
import json
import subprocess
import sys

import polars as pl
import pytest

from tracereplay.strategies.registry import known_strategies, load_strategy

NAMES = sorted(known_strategies())
COMMAND = [sys.executable, "-c", "from tracereplay.cli.app import main; main()", "strategies"]


def strategies(*arguments: str) -> bytes:
    done = subprocess.run([*COMMAND, *arguments], capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout


def test_the_list_is_the_same_in_every_format() -> None:
    as_json = [row["strategy"] for row in json.loads(strategies("--format", "json"))]
    as_csv = [row["strategy"] for row in csv.DictReader(io.StringIO(strategies("--format", "csv").decode()))]
    as_parquet = pl.read_parquet(io.BytesIO(strategies("--format", "parquet")))["strategy"].to_list()
    assert as_json == as_csv == as_parquet == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_a_page_says_all_there_is(name: str) -> None:
    page = " ".join(strategies(name).decode().split())
    params = load_strategy(name)
    assert params.summary in page
    assert params.mimics in page
    for info in params.infos().values():
        assert f"{info.name} = " in page
        assert info.range_text in page
        assert info.unit in page
        assert info.source in page


def test_a_wrong_name_suggests_the_nearest() -> None:
    done = subprocess.run([*COMMAND, "compund"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (5, "")
    assert "did you mean 'compound'" in done.stderr


def test_listing_needs_no_compiler() -> None:
    code = "import sys; from typer.testing import CliRunner; from tracereplay.cli.app import app"
    code += "; r = CliRunner().invoke(app, ['strategies', 'compound']); assert r.exit_code == 0, r.output"
    code += "; print('numba' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("False\n", "")
