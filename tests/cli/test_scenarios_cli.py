"""``tracereplay scenarios``: what each case shows, as its page in docs/scenarios tells it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from tracereplay.cli.app import app
from tracereplay.cli.scenario_pages import renewed
from tracereplay.scenarios.catalogue import SCENARIOS

PAGES = Path(__file__).parents[2] / "docs" / "scenarios"
Rows = dict[tuple[Any, str], dict[str, int]]


def table(name: str) -> Rows:
    """A scenario's rows by place on the axis and strategy."""
    done = CliRunner().invoke(app, ["scenarios", name, "--format", "json"])
    assert done.exit_code == 0, done.output
    axis = SCENARIOS[name].axis
    return {(row[axis], row["strategy"]): row for row in json.loads(done.stdout)}


def test_the_list_names_all_nine() -> None:
    done = CliRunner().invoke(app, ["scenarios"])
    assert done.exit_code == 0
    assert [s.letter for s in SCENARIOS.values()] == list("abcdefghi")
    assert all(f"({s.letter}) {s.name}" in done.stdout for s in SCENARIOS.values())
    assert max(map(len, done.stdout.splitlines())) <= 80


def test_an_unknown_name_suggests_the_nearest() -> None:
    done = CliRunner().invoke(app, ["scenarios", "fragmentaton"])
    assert done.exit_code == 2
    assert "did you mean 'fragmentation'?" in done.stderr


@pytest.mark.parametrize("name", SCENARIOS)
def test_the_page_shows_what_the_command_prints(name: str) -> None:
    text = (PAGES / f"{name}.md").read_text()
    assert f"$ tracereplay scenarios {name}\n" in text
    assert renewed(text) == text, "make scenarios"
    assert max(len(line) for line in text.split("```")[1].splitlines()) <= 80


def band(rows: Rows) -> bool:
    """Below LOW + 256 mempool-bulk takes from the reserve what the loop gets from the allocator."""
    by_bulk = {at: row["mempool_takes"] for (at, who), row in rows.items() if who == "mempool-bulk"}
    by_loop = {at: row["mempool_takes"] for (at, who), row in rows.items() if who == "per-page"}
    return by_bulk[2688] > 200 > by_loop[2688] == by_loop[3328] == by_bulk[3328] == 0


def fragmentation(rows: Rows) -> bool:
    """One block a buffer at order 8 and above; 8 failed attempts and 256 + calls at order 0."""
    compound = {at: row for (at, who), row in rows.items() if who == "compound"}
    return (
        [compound[o]["failed_attempts"] // 8 for o in range(11)] == [8, 7, 6, 5, 4, 3, 2, 1, 0, 0, 0]
        and compound[8]["alloc_calls"] == 8
        and compound[0]["alloc_calls"] == 8 * 264
        and all(row["failed_attempts"] == 0 for (_, who), row in rows.items() if who in ("per-page", "bulk"))
    )


def writers(rows: Rows) -> bool:
    """compound takes the zone lock twice a buffer, whoever writes; the others once for each cold list."""
    return {row["zone_lock_acquisitions"] for (_, who), row in rows.items() if who == "compound"} == {128} and (
        rows[1, "bulk"]["zone_lock_acquisitions"] == 1 < 128 < rows[64, "bulk"]["zone_lock_acquisitions"]
    )


def sizes(rows: Rows) -> bool:
    """compound makes as many calls as the size has binary digits that are set."""
    return all(row["alloc_calls"] == at.bit_count() for (at, who), row in rows.items() if who == "compound")


def small(rows: Rows) -> bool:
    """The same pages from the same list, whatever the strategy."""
    return {(row["pcp_hits"], row["zone_lock_acquisitions"]) for row in rows.values()} == {(1024, 0)}


def quota(rows: Rows) -> bool:
    """All wait at the quota but the one that does not count; without the mutex writers deadlock."""
    return (
        all(row["waited"] > 0 for (_, who), row in rows.items() if who not in ("uncounted", "no-mutex"))
        and all(row["quota_refusals"] == 0 for (_, who), row in rows.items() if who == "uncounted")
        and rows[8, "per-page"]["waited"] > rows[1, "per-page"]["waited"]
        and {key for key, row in rows.items() if row["deadlocked"]} == {(8, "no-mutex")}
    )


def node(rows: Rows) -> bool:
    """8 bulk calls while the node has memory, one a page when it has not."""
    return rows[8192, "bulk"]["bulk_calls"] == 8 and rows[2304, "bulk"]["bulk_calls"] == 512


def huge(rows: Rows) -> bool:
    """A flush for each refill, 512 pages apart while there are 2 MiB blocks, one a page at order 0."""
    flushes = {at: row["tlb_flushes"] for (at, _), row in rows.items()}
    return flushes == {10: 2, 9: 2, 8: 4, 6: 16, 3: 128, 0: 1024}


def burst(rows: Rows) -> bool:
    """Five pages do not serve 400; a pool with a watermark fails less at every length of the burst."""
    lengths = {at for at, _ in rows}
    return all(
        rows[at, "background-pool"]["failed"] < rows[at, "kvfree-cache"]["failed"] < 2 * at / 507 for at in lengths
    )


CLAIMS: dict[str, Callable[[Rows], bool]] = {
    "watermark-band": band,
    "fragmentation": fragmentation,
    "many-writers": writers,
    "odd-sizes": sizes,
    "small-writes": small,
    "quota-edge": quota,
    "full-node": node,
    "no-huge-block": huge,
    "kvfree-burst": burst,
}


@pytest.mark.parametrize("name", SCENARIOS)
def test_the_answer_holds(name: str) -> None:
    assert CLAIMS[name](table(name))
