"""Parsers of /proc texts, on texts of real kernels and on layouts that those hosts do not have."""

from __future__ import annotations

from pathlib import Path

import pytest

from tracereplay.errors import ImportFormatError
from tracereplay.kernel.procfs import (
    PROC_PARSERS,
    SnapshotRow,
    parse_buddyinfo,
    parse_meminfo_directmap,
    parse_pagetypeinfo,
    parse_vmstat,
    parse_zoneinfo,
)

DATA = Path(__file__).parents[1] / "data" / "procfs"
KERNELS = ["6.1", "6.12", "6.18"]


def text(kernel: str, name: str) -> str:
    return (DATA / kernel / name).read_text()


def pick(rows: list[SnapshotRow], **wanted: object) -> list[int]:
    return [r["value"] for r in rows if all(r[k] == v for k, v in wanted.items())]  # type: ignore[literal-required]


def test_buddyinfo_of_6_1() -> None:
    rows = parse_buddyinfo(text("6.1", "buddyinfo"))
    assert len(rows) == 2 * 11
    assert pick(rows, zone="DMA32", node=0) == [2, 3, 2, 0, 2, 1, 1, 2, 1, 1, 398]
    assert {r["order"] for r in rows} == set(range(11))
    assert all(r["name"] == "nr_free" and r["migratetype"] is None for r in rows)


def test_pagetypeinfo_of_6_1() -> None:
    rows = parse_pagetypeinfo(text("6.1", "pagetypeinfo"))
    assert pick(rows, name="pageblock_order") == [9]
    assert pick(rows, name="pages_per_block") == [512]
    assert pick(rows, name="nr_free", zone="DMA32", migratetype="Movable") == [
        0, 1, 0, 0, 1, 0, 0, 1, 0, 0, 398,
    ]  # fmt: skip
    assert pick(rows, name="nr_blocks", zone="DMA32") == [162, 848, 6, 0, 0]
    assert pick(rows, name="nr_blocks", zone="DMA32", migratetype="Reclaimable") == [6]


@pytest.mark.parametrize("kernel", ["6.1", "6.12"])  # the 6.18 host was busy between the two reads
def test_pagetypeinfo_sums_to_buddyinfo(kernel: str) -> None:
    blocks = parse_buddyinfo(text(kernel, "buddyinfo"))
    types = parse_pagetypeinfo(text(kernel, "pagetypeinfo"))
    for row in blocks:
        assert row["value"] == sum(pick(types, name="nr_free", zone=row["zone"], order=row["order"]))


def test_pagetypeinfo_capped_counts_are_marked() -> None:
    rows = parse_pagetypeinfo(
        "Page block order: 9\nPages per block:  512\n\n"
        "Free pages count per migrate type at order       0      1\n"
        "Node    1, zone   Normal, type    Unmovable >100000     12\n\n"
        "Number of blocks type     Unmovable      Movable\n"
        "Node 1, zone   Normal            7            9\n"
    )
    assert pick(rows, name="nr_free", node=1, migratetype="Unmovable") == [100000, 12]
    assert [(r["order"], r["value"]) for r in rows if r["name"] == "nr_free_capped"] == [(0, 1)]
    assert pick(rows, name="nr_blocks", node=1) == [7, 9]


def test_zoneinfo_of_6_1() -> None:
    rows = parse_zoneinfo(text("6.1", "zoneinfo"))
    zone = {r["name"]: r["value"] for r in rows if r["zone"] == "DMA32" and r["cpu"] is None}
    assert zone["free"] == 408720
    assert (zone["min"], zone["low"], zone["high"]) == (11177, 13971, 16765)
    assert (zone["managed"], zone["spanned"], zone["present"]) == (499695, 520157, 520157)
    assert (zone["start_pfn"], zone["node_unreclaimable"]) == (4096, 0)
    assert zone["numa_hit"] == 101794
    assert "promo" not in zone
    assert pick(rows, zone="DMA", name="protection.1") == [1939]
    assert pick(rows, zone="DMA32", cpu=1, name="count") == [3489]
    assert pick(rows, zone="DMA32", cpu=0, name="high") == [6985]
    assert pick(rows, zone="DMA32", cpu=0, name="vm_stats_threshold") == [20]
    # Per-node counters belong to no zone, and empty zones still have their geometry.
    assert pick(rows, name="nr_inactive_file", zone=None, node=0) == [8935]
    assert pick(rows, name="nr_inactive_file", zone="DMA") == []
    assert pick(rows, zone="Movable", name="managed") == [0]
    assert pick(rows, zone="Movable", name="start_pfn") == []


def test_zoneinfo_of_6_18_has_promo_and_auto_tuned_lists() -> None:
    rows = parse_zoneinfo(text("6.18", "zoneinfo"))
    assert pick(rows, zone="DMA", name="promo", cpu=None) == [92]
    assert pick(rows, zone="DMA", cpu=1, name="high_min") == [33]
    assert pick(rows, zone="DMA", cpu=1, name="high_max") == [240]
    assert pick(rows, zone="DMA", name="nr_free_pages_blocks") == [3584]


def test_zoneinfo_with_two_nodes_and_a_node_without_memory() -> None:
    rows = parse_zoneinfo(
        "Node 0, zone   Normal\n  per-node stats\n      nr_dirty     4\n  pages free     10\n"
        "        min      1\n"
        "  pagesets\n    cpu: 0\n              count: 5\n              high:  6\n  node_unreclaimable:  0\n"
        "  start_pfn:           0\n"
        "Node 1, zone   Normal\n  per-node stats\n      nr_dirty     7\n"
        "Node 1, zone  Movable\n  pages free     0\n        managed  0\n"
    )
    assert pick(rows, node=0, name="free") == [10]
    assert pick(rows, node=0, name="start_pfn", cpu=None) == [0]
    assert pick(rows, node=1, name="nr_dirty", zone=None) == [7]
    assert pick(rows, node=1, zone="Normal") == []
    assert pick(rows, node=1, zone="Movable", name="managed") == [0]


def test_vmstat_keeps_every_counter_and_wraps_negative_ones() -> None:
    rows = parse_vmstat(text("6.1", "vmstat"))
    assert pick(rows, name="nr_free_pages") == [412496]
    assert len(rows) == len(text("6.1", "vmstat").splitlines())
    assert pick(parse_vmstat("nr_dirty 18446744073709551615\n"), name="nr_dirty") == [-1]


def test_directmap_in_kib() -> None:
    rows = parse_meminfo_directmap(text("6.1", "meminfo"))
    assert {r["name"]: r["value"] for r in rows} == {
        "DirectMap4k": 34676,
        "DirectMap2M": 2062336,
        "DirectMap1G": 0,
    }
    assert parse_meminfo_directmap("MemTotal:  16 kB\n") == []  # arm64 prints no DirectMap lines


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("name", sorted(PROC_PARSERS))
def test_every_text_parses(kernel: str, name: str) -> None:
    rows = PROC_PARSERS[name](text(kernel, name))
    assert rows
    assert all(-(2**63) <= r["value"] < 2**63 for r in rows)


@pytest.mark.parametrize("name", sorted(PROC_PARSERS))
@pytest.mark.parametrize("junk", ["", "hello world\n", "Node\n", "\x00\x01"])
def test_other_texts_are_refused(name: str, junk: str) -> None:
    with pytest.raises(ImportFormatError, match="/proc/"):
        PROC_PARSERS[name](junk)


@pytest.mark.parametrize("name", ["buddyinfo", "zoneinfo", "vmstat", "meminfo"])
def test_this_host(name: str) -> None:
    assert PROC_PARSERS[name](Path("/proc", name).read_text())
