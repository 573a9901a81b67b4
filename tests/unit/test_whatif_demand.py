"""Points of a grid over the demand: paths on a trace of bios alone, and demand that is changed."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import pytest

from tests.io_samples import DISK, write_bios
from tracereplay.cost.profile import load_profile
from tracereplay.cost.result import result_of
from tracereplay.demand.spec import DemandSpec
from tracereplay.machine.config import default_machine
from tracereplay.replay.run import replay
from tracereplay.report.data import build_comparison
from tracereplay.strategies.registry import choose
from tracereplay.trace.reader import Trace
from tracereplay.whatif.grid import plan
from tracereplay.whatif.task import FAILED, OK, run_task

WRITES, PAGES = 40, 32


@pytest.fixture(scope="module")
def bios(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A host of which only bios were recorded: writes of 128 KiB, each complete 3 ms later."""
    events = []
    for i in range(WRITES):
        row = {"cpu": i % 2, "dev": DISK, "sector": 8 * PAGES * i, "nr_sectors": 8 * PAGES, "op": "W", "flags": "W"}
        events.append(row | {"ts_ns": 1_000_000 * i, "kind": "queue", "pid": 7})
        events.append(row | {"ts_ns": 1_000_000 * i + 3_000_001, "kind": "bio_complete", "pid": 0})
    path = tmp_path_factory.mktemp("bios") / "host.trace"
    write_bios(path, sorted(events, key=lambda e: int(str(e["ts_ns"]))))
    return str(path)


def points(
    trace: str, grid: Sequence[str], machine: dict[str, str] | None = None, **demand: Any
) -> list[dict[str, Any]]:
    """Rows of all points, per-page."""
    spec = DemandSpec(**{"target": ("all",)} | demand)
    asked = plan([trace], ["per-page"], grid, profile="brouer-2021", machine=machine, demand=spec)
    return [run_task(task) for task in asked.tasks()]


def test_paths_on_a_host_of_which_only_bios_are_known(bios: str) -> None:
    none, crypt, inline = points(bios, ["path=none,dm-crypt,blk-crypto"], target=())
    assert (none["status"], none["path"]) == (FAILED, "none")
    assert "no page events in" in none["error"]
    assert "--path dm-crypt" in none["error"]
    for row in (crypt, inline):
        assert (row["status"], row["requests"], row["pages"]) == (OK, WRITES, WRITES * PAGES)


def test_smaller_requests_and_other_rates_say_what_they_are(bios: str) -> None:
    rows = points(bios, ["request_pages=none,32,8", "rate=1,10"], path="dm-crypt")
    made = {(row["request_pages"], row["rate"]): row for row in rows}
    assert [row["requests"] for row in rows] == [WRITES] * 4 + [4 * WRITES] * 2
    assert {row["pages"] for row in rows} == {WRITES * PAGES}
    assert {row["pages_allocated"] for row in rows} == {WRITES * PAGES}
    counters = [name for name in rows[0] if name.startswith(("pcp_", "zone_", "alloc_", "splits", "merges"))]
    for rate in ("1", "10"):  # requests as large as asked for, or smaller, are as they were
        assert [made["none", rate][name] for name in counters] == [made["32", rate][name] for name in counters]
    told = json.loads(made["8", "10"]["demand"])
    assert (told["rate"], told["request_pages"]) == (10.0, 8)


def test_points_that_share_a_demand_do_not_count_each_others_loads(bios: str) -> None:
    load = "network:packets_per_s=1000,cpus=1"
    first, again, without = points(bios, [f"load={load};{load.replace('=1000', '=2000')};none"], path="dm-crypt")
    assert without["demand_requests"] == WRITES
    assert json.loads(first["demand"])["loads"][0]["pages"] < json.loads(again["demand"])["loads"][0]["pages"]
    assert len(json.loads(again["demand"])["loads"]) == 1
    assert not json.loads(without["demand"])["loads"]


def test_a_machine_that_cannot_be_is_a_failed_point(bios: str) -> None:
    small, fine = points(bios, ["pcp.high=20,400"], path="dm-crypt", machine={"pcp.batch": "63"})
    assert (small["status"], fine["status"]) == (FAILED, OK)
    assert "below the batch" in small["error"]


def test_a_result_at_another_rate_says_so(bios: str) -> None:
    trace = Trace.open(bios)
    results = []
    for rate in (1.0, 4.0):
        done = replay(trace, choose(["per-page"], []), default_machine, path="dm-crypt", target="all", rate=rate)
        results.append(result_of(trace, done, load_profile("brouer-2021"), seed=0, command=["x"]))
    (slow,), (fast,) = (result["results"] for result in results)
    assert fast["counters"] == slow["counters"]
    assert fast["rates"]["requests_per_s"] == pytest.approx(4 * slow["rates"]["requests_per_s"])
    assert fast["series"]["bin_ns"] < slow["series"]["bin_ns"] / 3
    assert [result["demand"]["rate"] for result in results] == [1.0, 4.0]
    said = [build_comparison(result).demand[0].note for result in results]
    assert ["at 4 times the recorded rate" in note for note in said] == [False, True]
