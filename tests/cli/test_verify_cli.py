"""``tracereplay verify``: the document, the table, the disagreements, and how it refuses."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from tests.trace_samples import write_sample
from tracereplay.cli.verify import flat
from tracereplay.verify.layout import DISAGREEMENTS, REASONS

SHIPPED = Path(__file__).parents[2] / "traces"
TRACE = SHIPPED / "mixed-6.18"
CRYPT = SHIPPED / "dmcrypt-6.1-1M"


def verify(*arguments: object) -> subprocess.CompletedProcess[bytes]:
    command = [sys.executable, "-c", "from tracereplay.cli.app import main; main()", "verify", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, check=False)


def document(*arguments: object) -> dict[str, Any]:
    done = verify(*arguments, "--format", "json")
    assert done.returncode == 0, done.stderr.decode()
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_json_has_the_agreed_form() -> None:
    found = document(CRYPT)
    assert (found["schema"], found["generation"]) == (1, "6.1")
    assert found["allocations"]["traced"] == 4751
    for name in ("refill", "drain", "extfrag"):
        assert {"kernel", "twin", "precision", "recall"} == set(found[name])
    assert {"eligible", "eligible_share", "exact", "share"} == set(found["pfn"])
    assert set(found["resynchronisations"]) == set(REASONS)
    blocks = found["free_blocks"]
    assert len(blocks["order"]) == len(blocks["kernel"]) == len(blocks["twin"]) == 11
    assert blocks["l1_share"] == sum(abs(k - t) for k, t in zip(blocks["kernel"], blocks["twin"], strict=True)) / sum(
        blocks["kernel"]
    )
    assert found["trace"]["kernel"] == "6.1.0-56-amd64"
    assert found["completeness"]["whole"] is True


def test_refills_of_a_dmcrypt_trace_without_a_page_map() -> None:
    """2,016 events of the zone lock are 32 refills of 63 pages."""
    refill = document(CRYPT)["refill"]
    assert refill["kernel"] == 32
    assert min(refill["precision"], refill["recall"]) >= 0.95


def test_the_table_fits_80_columns_and_says_what_reasons_mean() -> None:
    done = verify(TRACE, "--explain", "--limit", 8)
    assert done.returncode == 0, done.stderr.decode()
    text = done.stdout.decode()
    assert max(map(len, text.splitlines())) <= 80
    found = document(TRACE)
    assert f"{found['pfn']['exact']:,} of {found['pfn']['eligible']:,} eligible" in text
    for name, count in found["resynchronisations"].items():
        if count:
            line = next(line for line in text.splitlines() if line.startswith(f"  {name} "))
            assert line.split()[1] == f"{count:,}"
            assert REASONS[name].split()[0] in line
    assert "completeness: 217,091 events; none lost" in text
    assert text.count("noticed at event") == 8
    assert text.count("\n  > ") == 8


def test_explained_disagreements_are_at_their_events() -> None:
    found = document(TRACE, "--explain")["explain"]
    assert {d["kind"] for d in found} <= set(DISAGREEMENTS)
    assert [d["event"] for d in found] == sorted(d["event"] for d in found)
    events = pl.scan_parquet(sorted((TRACE / "page_events").rglob("*.parquet"))).collect()
    pops = [d for d in found if d["kind"] in ("pop", "pop_elsewhere")]
    assert pops
    for d in pops:
        row = events.row(d["event"], named=True)
        assert (row["kind"], row["cpu"], row["pfn"]) == ("alloc", d["cpu"], d["numbers"]["pfn"])
        assert d["event"] in [e["event"] for e in d["context"]]
    assert "explain" not in document(TRACE)


def test_csv_and_parquet_hold_every_number() -> None:
    done = verify(CRYPT, "--format", "csv")
    assert b"completeness:" in done.stderr
    csv = dict(pl.read_csv(io.BytesIO(done.stdout)).rows())
    parquet = dict(pl.read_parquet(io.BytesIO(verify(CRYPT, "--format", "parquet").stdout)).rows())
    timed = {"seconds", "events_per_second"}
    assert {k: v for k, v in csv.items() if k not in timed} == {k: v for k, v in parquet.items() if k not in timed}
    assert csv["allocations.traced"] == 4751
    assert csv["refill.kernel"] == csv["totals.refill_kernel"] == 32


def test_a_document_flat() -> None:
    value = {"a": {"b": 1, "c": [None, 2.5]}, "d": "text", "e": True}
    assert list(flat(value)) == [("a.b", 1.0), ("a.c.0", None), ("a.c.1", 2.5), ("e", 1.0)]


def test_the_result_goes_to_a_file_that_is_not_overwritten(tmp_path: Path) -> None:
    out = tmp_path / "r.json"
    assert verify(CRYPT, "-o", out).returncode == 0
    assert json.loads(out.read_text())["allocations"]["traced"] == 4751
    out.write_text("mine")
    done = verify(CRYPT, "-o", out)
    assert (done.returncode, out.read_text()) == (2, "mine")
    assert verify(CRYPT, "-o", out, "--force").returncode == 0
    assert json.loads(out.read_text())["schema"] == 1


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["/nosuch"], 3, "/nosuch"),
        ([str(SHIPPED / "README.md")], 3, "README.md"),
        ([str(CRYPT), "--limit", "3"], 2, "--explain"),
        ([str(CRYPT), "--explain", "--limit", "0"], 2, "from 1 on"),
        ([str(CRYPT), "--explain", "--limit", "x"], 2, "--limit"),
        ([str(CRYPT), "-o", "/nosuch/r.json"], 2, "a directory that exists"),
        ([str(CRYPT), "-o", "/tmp"], 2, "/tmp"),
        ([str(CRYPT), "--format", "xml"], 2, "parquet"),
        ([], 2, "TRACE"),
    ],
)
def test_errors_name_the_next_step(arguments: list[str], code: int, words: str) -> None:
    done = verify(*arguments)
    assert (done.returncode, done.stdout) == (code, b"")
    assert words in done.stderr.decode()
    assert "Traceback" not in done.stderr.decode()


def test_a_trace_without_the_zone_lock_is_refused(tmp_path: Path) -> None:
    trace = write_sample(tmp_path / "t")
    done = verify(trace)
    assert (done.returncode, done.stdout) == (3, b"")
    said = done.stderr.decode()
    assert "no zone_locked and no drain events" in said
    assert "capture with --events page,buddy" in said
