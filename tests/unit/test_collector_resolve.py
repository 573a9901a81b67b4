"""From a user's options to the numbers that programs compare, and to the collector's command line and back."""

from __future__ import annotations

import mmap
from pathlib import Path

import pytest

from collectors.options import Options, options_of, parser
from collectors.resolve import FilterError, device_numbers, end_frame, filters_of
from tracereplay.errors import UsageError
from tracereplay.trace.capture import CaptureOptions


@pytest.fixture
def host(tmp_path: Path) -> Path:
    """A disk with two partitions, an unused loop device, and two zones."""
    for path, number, size in (
        ("sda", "8:0", 100),
        ("sda/sda1", "8:1", 40),
        ("sda/sda2", "8:2", 60),
        ("loop0", "7:0", 0),
    ):
        folder = tmp_path / "sys/class/block" / path
        folder.mkdir(parents=True)
        (folder / "dev").write_text(f"{number}\n")
        (folder / "size").write_text(f"{size}\n")
    zones = "Node 0, zone DMA\n        spanned  4095\n  start_pfn:           1\n"
    zones += "Node 0, zone Normal\n        spanned  262144\n  start_pfn:           1048576\n"
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc/zoneinfo").write_text(zones)
    return tmp_path


def test_a_disk_counts_with_its_partitions(host: Path) -> None:
    assert device_numbers("sda", host) == [8 << 20, 8 << 20 | 1, 8 << 20 | 2]
    assert device_numbers("/dev/sda", host) == device_numbers("sda", host)
    assert device_numbers("259:3", host) == [259 << 20 | 3]


def test_an_unknown_disk_is_refused_with_those_that_hold_something(host: Path) -> None:
    with pytest.raises(FilterError, match="sdz") as caught:
        device_numbers("sdz", host)
    assert "sda" in caught.value.hint
    assert "loop0" not in caught.value.hint


def test_bits_cover_the_highest_zone_and_only_where_pages_are_followed(host: Path) -> None:
    assert end_frame(host) == 1048576 + 262144
    assert filters_of(Options(comms=["fio"]), host).page_frames == end_frame(host)
    assert filters_of(Options(max_rate=5.0), host).samples
    bare = filters_of(Options(devices=["sda"]), host)
    assert (bare.page, bare.page_frames, len(bare.devices)) == (False, 0, 3)
    (host / "proc/zoneinfo").unlink()
    with pytest.raises(FilterError, match="zoneinfo"):
        filters_of(Options(orders=[0]), host)


def test_a_size_is_orders_for_pages_and_sectors_for_bios(host: Path) -> None:
    page = mmap.PAGESIZE
    found = filters_of(Options(min_bytes=4 * page + 1), host)
    assert min(found.orders) == 3
    assert found.min_sectors == 4 * page // 512 + 1
    assert filters_of(Options(min_bytes=page), host).orders == []
    assert filters_of(Options(min_bytes=2 * page, orders=[0, 1, 2]), host).orders == [1, 2]
    with pytest.raises(FilterError, match="no order is left"):
        filters_of(Options(min_bytes=2 * page, orders=[0]), host)


def test_every_option_reaches_the_collector() -> None:
    asked = CaptureOptions(
        groups=("page", "reclaim"),
        duration_s=2.5,
        ring_mib=4.0,
        tracer="ebpf",
        stacks=True,
        stack_sample=8,
        stack_every_s=0.001,
        pids=(1, 2),
        tgids=(3,),
        comms=("-x", "a b"),
        cgroups=("/a",),
        devices=("sda",),
        orders=(0, 9),
        gfp=0x100,
        min_bytes=8192,
        snapshot_every_s=3.0,
        page_map=False,
        max_overhead=0.25,
        max_rate=1000.0,
    )
    got = options_of(parser().parse_args(asked.collector_arguments()))
    same = ("duration_s", "ring_mib", "tracer", "stacks", "stack_sample", "gfp", "min_bytes", "snapshot_every_s")
    for name in (*same, "page_map", "max_overhead", "max_rate"):
        assert getattr(got, name) == getattr(asked, name), name
    for name in ("groups", "pids", "tgids", "comms", "cgroups", "devices", "orders"):
        assert tuple(getattr(got, name)) == getattr(asked, name), name
    assert got.stack_every_ns == 1_000_000
    assert got.attended
    assert options_of(parser().parse_args(CaptureOptions().collector_arguments())) == Options(
        groups=["page", "bio"], attended=True, pids=[], tgids=[], comms=[], cgroups=[], devices=[], orders=[]
    )


@pytest.mark.parametrize(
    "wrong",
    [
        {"pids": (-1,)},
        {"max_overhead": -0.1},
        {"max_rate": -1.0},
        {"min_bytes": -1},
        {"orders": (20,)},
        {"comms": ("x" * 16,)},
    ],
)
def test_what_makes_no_sense_is_refused_before_anything_starts(wrong: dict[str, object]) -> None:
    with pytest.raises(UsageError):
        CaptureOptions(**wrong)  # type: ignore[arg-type]
