"""``tracereplay replay`` and ``tracereplay strategies``: JSON, formats, labels, errors."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from tracereplay.machine.counters import COUNTERS, PEAKS
from tracereplay.strategies.registry import load_strategy

TRACE = str(Path(__file__).parents[2] / "traces" / "dmcrypt-6.1-1M")


def tracereplay(*arguments: str) -> subprocess.CompletedProcess[bytes]:
    command = [sys.executable, "-c", "from tracereplay.cli.app import main; main()", *arguments]
    return subprocess.run(command, capture_output=True, check=False)


def replayed(*arguments: str) -> dict[str, Any]:
    done = tracereplay("replay", TRACE, "--format", "json", *arguments)
    assert done.returncode == 0, done.stderr.decode()
    result: dict[str, Any] = json.loads(done.stdout)
    return result


def test_json_has_the_agreed_form() -> None:
    result = replayed("-s", "per-page", "-s", "bulk")
    assert result["schema"] == 1
    assert {"id", "path", "kernel", "complete"} <= set(result["trace"])
    assert {"requests", "pages", "targeted_pages", "unseen_pages"} <= set(result["demand"])
    accounting = {"events", "matched", "unmatched_frees", "left_censored", "right_censored", "lost", "loss_intervals"}
    assert accounting <= set(result["accounting"])
    assert result["machine"]["generation"] == "6.1"
    assert result["machine"]["source"] == "snapshot"
    assert [r["strategy"] for r in result["results"]] == ["per-page", "bulk"]
    for entry in result["results"]:
        assert set(entry["counters"]) == {*COUNTERS, *PEAKS}
        assert not any(entry["worker"].values())
        assert not any(entry["waits"].values())
        cost = entry["cost"]
        assert cost["unit"] == "ns"
        assert {"mean", "p50", "p99"} <= set(cost["per_request"])
        assert cost["interval95"][0] <= cost["total"] <= cost["interval95"][1]
        assert sum(cost["by_primitive"].values()) == pytest.approx(cost["total"])
        assert cost["per_page"] == pytest.approx(cost["total"] / result["demand"]["targeted_pages"])


def test_eight_buffers_of_256_pages() -> None:
    """Eight 1 MiB writes; bulk and compound serve each with a call."""
    result = replayed("--target", "caller:dm-crypt*", "-s", "per-page", "-s", "bulk", "-s", "compound")
    assert result["demand"]["targeted_requests"] == 8
    assert result["demand"]["targeted_pages"] == 2048
    per_page, bulk, compound = (r["counters"] for r in result["results"])
    assert per_page["alloc_calls"] == per_page["free_calls"] == 2048
    assert (bulk["bulk_calls"], bulk["alloc_calls"]) == (8, 0)
    assert compound["alloc_calls"] == compound["free_calls"] == 8
    assert per_page["pages_allocated"] == bulk["pages_allocated"] == compound["pages_allocated"] == 2048


def test_path_holds_the_reserve_and_serves_the_same_requests() -> None:
    entry = replayed("--path", "dm-crypt", "--target", "caller:dm-crypt*", "-s", "per-page")["results"][0]
    assert entry["counters"]["alloc_calls"] == 2048
    assert entry["counters"]["mempool_calls"] == 2 * 2048
    assert entry["counters"]["mempool_takes"] == 0
    assert entry["counters"]["reserve_pages_peak"] == 256


def test_runs_agree() -> None:
    first, second = (replayed("-s", "per-page", "-s", "unmapped-cache")["results"] for _ in range(2))
    assert first == second


def test_labels_and_settings() -> None:
    result = replayed("-s", "wide=compound", "-s", "flat=compound:max_order=3", "--set", "flat.sticky_order=false")
    assert [(r["label"], r["params"]["max_order"]) for r in result["results"]] == [("wide", 10), ("flat", 3)]
    assert result["results"][1]["params"]["sticky_order"] is False


def test_copies_run_beside_each_other() -> None:
    one, four = replayed("-s", "bulk"), replayed("-s", "bulk", "--copies", "4")
    assert "copies" not in one["demand"]
    assert four["demand"]["copies"]["copies"] == 4
    assert four["demand"]["copies"]["offsets_ns"][0] == 0
    assert four["machine"]["cpus"] == 4 * one["machine"]["cpus"]
    for count in ("requests", "pages", "targeted_requests", "targeted_pages"):
        assert four["demand"][count] == 4 * one["demand"][count]
    before, after = one["results"][0], four["results"][0]
    assert after["counters"]["bulk_calls"] >= 4 * before["counters"]["bulk_calls"]
    assert before["contention"]["spin_total"] == 0  # the trace has one CPU
    locks = after["contention"]["locks"]
    assert sum(lock["acquisitions"] for lock in locks) == sum(lock["acquisitions"] for lock in after["zone_locks"])


def test_machine_file_and_keys(tmp_path: Path) -> None:
    settings = tmp_path / "machine.toml"
    settings.write_text('memory = "4GiB"\n[pcp]\nbatch = 31\n')
    machine = replayed("-s", "bulk", "--machine", str(settings), "--machine", "cpus=3")["machine"]
    assert (machine["memory_bytes"] >> 20, machine["cpus"], machine["pcp"]["batch"]) == (4095, 3, 31)


def test_csv_and_parquet_say_the_same() -> None:
    csv = pl.read_csv(io.BytesIO(tracereplay("replay", TRACE, "-s", "bulk", "--format", "csv").stdout))
    parquet = pl.read_parquet(io.BytesIO(tracereplay("replay", TRACE, "-s", "bulk", "--format", "parquet").stdout))
    assert csv.columns == parquet.columns
    assert csv["bulk_calls"].to_list() == parquet["bulk_calls"].to_list()


def test_figures_of_a_cache() -> None:
    load = ["-s", "kvfree-cache", "-s", "per-page", "--load", "kvfree:pointers_per_s=1000000"]
    names = "cache_hits,cache_misses,miss_percent,idle_mean,dry_spells,dry_longest_ms"
    lines = tracereplay("replay", TRACE, *load, "--counters", names).stdout.decode().splitlines()
    values = {row[0]: row[1:] for line in lines[2:] if (row := line.split())}
    assert list(values) == names.split(",")
    assert [values[name][1] for name in names.split(",")] == ["0", "0", "-", "0", "0", "-"]
    hits, misses, share = (float(values[name][0]) for name in names.split(",")[:3])
    assert misses > 0
    assert share == pytest.approx(100 * misses / (hits + misses), abs=0.005)
    reserve = replayed(*load)["results"][0]["reserve"]
    assert 0 < reserve["idle_mean"] <= 5
    assert 0 < reserve["dry_mean_ms"] <= reserve["dry_longest_ms"] <= 10
    assert reserve["dry_mean_ms"] * reserve["dry_spells"] == pytest.approx(reserve["dry_ns"] / 1e6)


def test_table_fits_80_columns() -> None:
    lines = tracereplay("replay", TRACE, "--tornado").stdout.decode().splitlines()
    assert any(line.startswith("unmapped-cache") for line in lines)
    assert max(map(len, lines)) <= 80
    assert sum("With one number at the ends of its range" in line for line in lines) >= 4
    assert any(line.startswith("bulk costs ") for line in lines)


def test_equal_strategies_cannot_be_told_apart() -> None:
    result = replayed("-s", "per-page", "-s", "twin=per-page")
    (row,) = result["comparison"]
    assert (row["label"], row["baseline"], row["beyond"]) == ("twin", "per-page", False)
    assert (row["difference_interval95"], row["ratio_interval95"]) == ([0.0, 0.0], [1.0, 1.0])
    first, second = (dict(entry["cost"]) for entry in result["results"])
    assert first == second
    assert first["interval95_prices"][0] >= first["interval95"][0]


def test_result_file_is_the_json(tmp_path: Path) -> None:
    out = tmp_path / "r.json"
    assert tracereplay("replay", TRACE, "-s", "bulk", "-o", str(out)).returncode == 0
    assert json.loads(out.read_text())["results"][0]["label"] == "bulk"


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["-s", "bluk"], 5, "did you mean 'bulk'"),
        (["-s", "bulk:cap=3"], 5, "batch_cap"),
        (["-s", "bulk:batch_cap=-1"], 5, "0..16384"),
        (["-s", "bulk", "-s", "bulk"], 2, "label"),
        (["--set", "x.y=1"], 2, "LABEL.PARAMETER=VALUE"),
        (["--machine", "memroy=1GiB"], 5, "did you mean 'memory'"),
        (["--machine", "cpus=0"], 5, "1 to 1024"),
        (["--copies", "0"], 5, "1 to 128"),
        (["--copies", "129"], 5, "1 to 128"),
        (
            ["--copies", "8", "--machine", "memory=64MiB", "--machine", "occupancy=0.9"],
            5,
            "8 copies of the demand need",
        ),
        (["--machine", "nosuch.toml"], 5, "neither KEY=VALUE nor a file"),
        (["--profile", "nosuch"], 5, "brouer-2021"),
        (["--target", "nosuch"], 2, "batches"),
        (["--path", "nosuch"], 2, "dm-crypt"),
        (["--max-write", "131072"], 2, "--path dm-crypt"),
        (["-o", "/nosuch/r.json"], 2, "a directory that exists"),
        (["-o", "/tmp", "--force"], 2, "a directory that exists"),
    ],
)
def test_errors_name_the_next_step(arguments: list[str], code: int, words: str) -> None:
    done = tracereplay("replay", TRACE, *arguments)
    assert (done.returncode, done.stdout) == (code, b"")
    assert words in done.stderr.decode()
    assert "Traceback" not in done.stderr.decode()


def test_existing_output_is_left_alone(tmp_path: Path) -> None:
    out = tmp_path / "r.json"
    out.write_text("mine")
    done = tracereplay("replay", TRACE, "-s", "bulk", "-o", str(out))
    assert (done.returncode, out.read_text()) == (2, "mine")


def test_strategies_list_and_page() -> None:
    listed = tracereplay("strategies").stdout.decode()
    assert all(name in listed for name in ("per-page", "bulk", "compound", "unmapped-cache"))
    assert max(map(len, listed.splitlines())) <= 80
    page = tracereplay("strategies", "compound").stdout.decode()
    assert "max_order = 10" in page
    assert max(map(len, page.splitlines())) <= 80
    rows = json.loads(tracereplay("strategies", "bulk", "--format", "json").stdout)
    assert [r["parameter"] for r in rows] == list(load_strategy("bulk").infos())
    assert tracereplay("strategies", "bulc").returncode == 5


def test_chosen_counters_alone() -> None:
    done = tracereplay(
        "replay", TRACE, "-s", "per-page", "-s", "few=bulk", "--target", "caller:dm-crypt*",
        "--counters", "alloc_calls,bulk_calls,requests,failed",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr.decode()
    lines = [line.split() for line in done.stdout.decode().splitlines()]
    assert lines[0] == ["per-page", "few"]
    assert lines[2:] == [["alloc_calls", "2,048", "0"], ["bulk_calls", "0", "8"], ["requests", "8", "8"],
                         ["failed", "0", "0"]]  # fmt: skip


def test_counters_that_are_none() -> None:
    done = tracereplay("replay", TRACE, "-s", "per-page", "--counters", "alloc_cals")
    assert done.returncode == 2
    assert b"did you mean 'alloc_calls'?" in done.stderr
    assert tracereplay("replay", TRACE, "--counters", "splits", "--format", "csv").returncode == 2


def test_spread_and_the_dearest_on_request() -> None:
    """Eight writes of 1 MiB: each bio is one request of 256 pages."""
    done = tracereplay("replay", TRACE, "-s", "per-page", "-s", "compound", "--distribution", "--worst", "2")
    text = done.stdout.decode()
    assert max(map(len, text.splitlines())) <= 80
    for words in ("ns per request", "ns per bio", "CPU-s a day", "dearest requests of compound", "Each bio is one"):
        assert words in text
    entry = replayed("-s", "compound", "--worst", "1")["results"][0]
    assert len(entry["worst"]) == 1
    assert entry["distribution"]["per_bio"]["count"] == 8
    assert entry["worst"][0]["cost"] == entry["distribution"]["per_request"]["percentiles"]["max"]
