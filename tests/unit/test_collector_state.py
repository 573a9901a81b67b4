"""State of the allocator as the collector takes it: snapshots, facts of the memory, page map; on stub trees."""

from __future__ import annotations

import gzip
import os
import platform
import shutil
import struct
import sys
import time
import zlib
from pathlib import Path

import pytest

from collectors import memoryfacts, snapshots
from collectors.hostfacts import host_facts
from collectors.memoryfacts import memory_facts
from collectors.pagemap import MAX_ERRORS, NOT_OURS, PageMapReader, kind_bytes, memory_ranges
from collectors.protocol import FRAME_HEADER, FrameType
from collectors.snapshots import SnapshotTaker, take_snapshot

PROCFS = Path(__file__).parents[1] / "data" / "procfs"
S = 1_000_000_000


def tree(root: Path, files: dict[str, str]) -> Path:
    """Files with these texts below ``root``."""
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


def proc(root: Path, kernel: str) -> Path:
    """A root with the stored /proc texts of a kernel."""
    shutil.copytree(PROCFS / kernel, root / "proc")
    (root / "proc/sys/vm").mkdir(parents=True)
    return root


# ------------------------------------------------------------------ snapshots
@pytest.mark.parametrize("kernel", ["6.1", "6.12", "6.18"])
def test_a_snapshot_has_every_file_and_its_time(tmp_path: Path, kernel: str) -> None:
    taken = take_snapshot("start", proc(tmp_path, kernel))
    assert taken["errors"] == {}
    assert set(taken["files"]) == set(taken["read_ns"]) == set(snapshots.FILES)
    assert taken["files"]["vmstat"] == (PROCFS / kernel / "vmstat").read_text()
    assert {line.split(":")[0][:9] for line in taken["files"]["meminfo"].splitlines()} == {"DirectMap"}
    assert (tmp_path / "proc/sys/vm/stat_refresh").read_text() == "1\n"


def test_vmstat_is_read_next_to_the_events(tmp_path: Path) -> None:
    taker = SnapshotTaker(1.0, proc(tmp_path, "6.18"))
    for phase, place in (("start", -1), ("tick", -1), ("end", 0)):
        read = taker.take(phase)["read_ns"]
        assert sorted(read, key=lambda name: read[name])[place] == "vmstat"


def test_readable_files_are_taken_where_others_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = proc(tmp_path, "6.12")
    (root / "proc/zoneinfo").unlink()
    read_text = Path.read_text

    def refuse(path: Path, *args: object, **more: object) -> str:
        if path.name == "pagetypeinfo":
            raise PermissionError(13, "Permission denied")
        return read_text(path, *args, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(Path, "read_text", refuse)
    taker = SnapshotTaker(10.0, root)
    taken = taker.take("start")
    assert set(taken["files"]) == {"buddyinfo", "vmstat", "meminfo"}
    assert taken["errors"] == {"pagetypeinfo": "Permission denied", "zoneinfo": "No such file or directory"}
    # A reason is said once, however many snapshots follow.
    assert [taker.take(phase)["errors"] for phase in ("tick", "tick", "end")] == [{}, {}, {}]


def test_a_host_without_any_of_the_files_gives_reasons_only(tmp_path: Path) -> None:
    taken = take_snapshot("start", tmp_path)
    assert taken["files"] == {}
    assert set(taken["errors"]) == set(snapshots.FILES)


def test_a_slow_pagetypeinfo_is_read_at_start_and_end_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [0]
    read_text = Path.read_text

    def slow(path: Path, *args: object, **more: object) -> str:
        clock[0] += 20_000_000 if path.name == "pagetypeinfo" else 1000
        return read_text(path, *args, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(Path, "read_text", slow)
    monkeypatch.setattr(time, "monotonic_ns", lambda: clock[0])
    taker = SnapshotTaker(10.0, proc(tmp_path, "6.18"))
    assert "pagetypeinfo" in taker.take("start")["files"]
    tick = taker.take("tick")
    assert "pagetypeinfo" not in tick["files"]
    assert "20.0 ms" in tick["errors"]["pagetypeinfo"]
    assert "buddyinfo" in tick["files"]
    assert taker.take("tick")["errors"] == {}
    assert "pagetypeinfo" in taker.take("end")["files"]


def test_ticks_are_due_at_once_and_then_by_the_clock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [5 * S]
    monkeypatch.setattr(time, "monotonic_ns", lambda: clock[0])
    taker = SnapshotTaker(2.0, proc(tmp_path, "6.18"))
    taker.take("start")
    assert taker.due(clock[0])
    taker.take("tick")
    assert not taker.due(clock[0])
    assert not taker.due(7 * S - 1)
    assert taker.due(7 * S)
    # After a stall there is one tick, not those that were missed.
    clock[0] = 60 * S
    assert taker.due(clock[0])
    taker.take("tick")
    assert not taker.due(61 * S)
    assert not SnapshotTaker(0.0, tmp_path).due(10**18)


# ------------------------------------------------------------------ facts
SYSTEM = {
    "proc/cmdline": "root=/dev/sda1 init_on_alloc=1 quiet\n",
    "proc/sys/vm/min_free_kbytes": "67584\n",
    "proc/sys/vm/lowmem_reserve_ratio": "256\t256\t32\t0\t0\n",
    "proc/sys/vm/percpu_pagelist_fraction": "0\n",
    "sys/devices/system/cpu/possible": "0-5\n",
    "sys/devices/system/node/node0/cpulist": "0,2\n",
    "sys/devices/system/node/node0/distance": "10 21\n",
    "sys/devices/system/node/node0/meminfo": "Node 0 MemTotal:       16000 kB\nNode 0 MemFree:  1 kB\n",
    "sys/devices/system/node/node1/cpulist": "1,3\n",
    "sys/devices/system/node/node1/distance": "21 10\n",
    "sys/devices/system/node/node10/cpulist": "\n",
    "sys/devices/system/node/possible": "0-1\n",
    "sys/kernel/mm/transparent_hugepage/enabled": "always [madvise] never\n",
    "sys/kernel/mm/transparent_hugepage/defrag": "always defer defer+madvise [madvise] never\n",
    "sys/kernel/mm/transparent_hugepage/khugepaged/pages_to_scan": "4096\n",
    "sys/kernel/mm/transparent_hugepage/hugepages-64kB/enabled": "always [inherit] madvise never\n",
    "sys/kernel/mm/transparent_hugepage/hugepages-2048kB/enabled": "always inherit madvise [never]\n",
    "sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages": "12\n",
    "sys/kernel/mm/hugepages/hugepages-2048kB/free_hugepages": "3\n",
    "sys/kernel/mm/hugepages/hugepages-1048576kB/nr_hugepages": "0\n",
    "sys/module/page_alloc/parameters/shuffle": "N\n",
}


def cache(cpu: int, index: int, level: int, kind: str, size: str, shared: str) -> dict[str, str]:
    """Files of one entry under cpuN/cache."""
    at = f"sys/devices/system/cpu/cpu{cpu}/cache/index{index}"
    return {
        f"{at}/level": f"{level}\n",
        f"{at}/type": f"{kind}\n",
        f"{at}/size": f"{size}\n",
        f"{at}/coherency_line_size": "64\n",
        f"{at}/shared_cpu_list": f"{shared}\n",
    }


def test_facts_of_a_two_node_host(tmp_path: Path) -> None:
    files = dict(SYSTEM)
    for cpu, (core, socket) in {0: ("0", "0,2"), 2: ("2", "0,2"), 1: ("1", "1,3"), 3: ("3", "1,3")}.items():
        files.update(cache(cpu, 0, 1, "Data", "48K", core))
        files.update(cache(cpu, 1, 1, "Instruction", "32K", core))
        files.update(cache(cpu, 2, 3, "Unified", "32M", socket))
    facts = memory_facts(tree(tmp_path, files))
    assert facts["vm"] == {
        "min_free_kbytes": 67584,
        "lowmem_reserve_ratio": [256, 256, 32, 0, 0],
        "percpu_pagelist_fraction": 0,
    }
    assert list(facts["nodes"]) == ["0", "1", "10"]
    assert facts["nodes"]["0"] == {"cpus": [0, 2], "distance": [10, 21], "mem_total_bytes": 16000 * 1024}
    assert facts["nodes"]["10"]["cpus"] == []
    assert facts["cpu_node"] == [0, 1, 0, 1, None, None]
    level1 = {"level": 1, "bytes": 48 << 10, "line_bytes": 64, "shared_by": 1, "instances": 4}
    level3 = {"level": 3, "bytes": 32 << 20, "line_bytes": 64, "shared_by": 2, "instances": 2}
    assert facts["caches"] == [level1, level3]
    assert [(c["bytes"], c["cpus"]) for c in facts["last_level_caches"]] == [(32 << 20, [0, 2]), (32 << 20, [1, 3])]
    assert facts["thp"] == {
        "enabled": "madvise",
        "defrag": "madvise",
        "khugepaged": {"pages_to_scan": 4096},
        "sizes": {"64kB": {"enabled": "inherit"}, "2048kB": {"enabled": "never"}},
    }
    assert facts["page_sizes"] == [os.sysconf("SC_PAGESIZE"), 2 << 20, 1 << 30]
    assert facts["hugetlb"] == {"2048kB": {"nr": 12, "free": 3}}
    assert facts["page_shuffle"] is False


@pytest.mark.parametrize(
    ("line", "config", "expected"),
    [
        ("quiet init_on_alloc=1", "", (True, "kernel command line")),
        ("init_on_alloc=1 init_on_alloc=off", "CONFIG_INIT_ON_ALLOC_DEFAULT_ON=y\n", (False, "kernel command line")),
        ("init_on_alloc=On", "", (True, "kernel command line")),
        ("init_on_alloc=maybe", "CONFIG_INIT_ON_ALLOC_DEFAULT_ON=y\n", (True, "/proc/config.gz")),
        ("xinit_on_alloc=1", "# CONFIG_INIT_ON_ALLOC_DEFAULT_ON is not set\n", (False, "/proc/config.gz")),
        ("quiet", "CONFIG_HZ=250\n", (False, "/proc/config.gz")),
    ],
)
def test_zeroing_is_known_from_command_line_or_configuration(
    tmp_path: Path, line: str, config: str, expected: tuple[bool, str]
) -> None:
    tree(tmp_path, {"proc/cmdline": line + "\n"})
    if config:
        (tmp_path / "proc/config.gz").write_bytes(gzip.compress(config.encode()))
    facts = memory_facts(tmp_path)
    assert (facts["init_on_alloc"], facts["init_on_alloc_source"]) == expected


def test_zeroing_that_is_not_visible_is_said_to_be_unknown(tmp_path: Path) -> None:
    facts = memory_facts(tmp_path)
    for name in ("init_on_alloc", "init_on_free"):
        assert facts[name] is None
        assert facts[f"{name}_source"].startswith("not known")
    assert set(facts) == {"page_sizes", *(f"init_on_{x}{y}" for x in ("alloc", "free") for y in ("", "_source"))}


def test_the_configuration_under_boot_is_read_when_proc_has_none(tmp_path: Path) -> None:
    name = f"boot/config-{platform.release()}"
    tree(tmp_path, {name: "CONFIG_INIT_ON_FREE_DEFAULT_ON=y\nCONFIG_PCP_BATCH_SCALE_MAX=5\nCONFIG_E1000=m\n"})
    facts = memory_facts(tmp_path)
    assert (facts["init_on_free"], facts["init_on_free_source"]) == (True, f"/{name}")
    assert facts["kernel_config"] == {"INIT_ON_FREE_DEFAULT_ON": "y", "PCP_BATCH_SCALE_MAX": "5"}
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc/config.gz").write_bytes(b"\x1f\x8b damaged")
    assert memory_facts(tmp_path)["init_on_free"] is True


def test_odd_trees_never_raise(tmp_path: Path) -> None:
    odd = dict.fromkeys(SYSTEM, "\x00 ?? 1-x,,9\n")
    tree(tmp_path, {**odd, "sys/devices/system/cpu/cpu0/cache/index0/level": "three\n"})
    (tmp_path / "proc/sys/vm/watermark_scale_factor").mkdir()
    (tmp_path / "proc/sys/vm/defrag_mode").write_bytes(b"\xff\xfe")
    facts = memory_facts(tmp_path)
    assert "watermark_scale_factor" not in facts["vm"]
    assert "defrag_mode" not in facts["vm"]


def test_host_facts_keep_their_old_names() -> None:
    facts = host_facts()
    old = {"hostname", "release", "version", "arch", "page_size", "cpus", "cpus_possible", "mem_total_bytes", "boot_id"}
    assert old <= set(facts)
    assert facts["vm"]["min_free_kbytes"] == int(Path("/proc/sys/vm/min_free_kbytes").read_text())
    assert set(facts["kernel_config"]) <= set(memoryfacts.CONFIG_OPTIONS)


# ------------------------------------------------------------------ page map
FREE, SLAB_HEAD, NO_PAGE, RESERVED = 1 << 10, 1 << 7 | 1 << 15, 1 << 20, 1 << 32


def flags_file(path: Path, flags: list[int]) -> str:
    """A file such as /proc/kpageflags."""
    path.write_bytes(struct.pack(f"={len(flags)}Q", *flags))
    return str(path)


def read_all(reader: PageMapReader) -> dict[int, bytes]:
    """Kind bytes by first frame of every chunk."""
    found = {}
    while not reader.done:
        buffers = reader.step()
        if buffers:
            head, payload = buffers
            _, kind, _, _, length, mono_ns, position = FRAME_HEADER.unpack(head)
            assert (kind, length) == (FrameType.PAGE_MAP, len(payload))
            begin_ns, pages = struct.unpack_from("<QQ", payload)
            assert 0 < begin_ns <= mono_ns
            found[position] = zlib.decompress(payload[16:])
            assert len(found[position]) == pages
    return found


def test_chunks_cover_the_file_and_end_with_it(tmp_path: Path) -> None:
    flags = [FREE] * 5 + [SLAB_HEAD, 0, RESERVED]
    reader = PageMapReader(flags_file(tmp_path / "k", flags), str(tmp_path / "none"), chunk_pages=3)
    found = read_all(reader)
    assert {first: list(kinds) for first, kinds in found.items()} == {0: [1, 1, 1], 3: [1, 1, 130], 6: [0, 64]}
    assert (reader.error, reader.pages, reader.step()) == ("", 8, [])


def test_chunks_without_memory_are_left_out(tmp_path: Path) -> None:
    flags = [FREE] * 2 + [NO_PAGE] * 4 + [NO_PAGE, FREE]
    found = read_all(PageMapReader(flags_file(tmp_path / "k", flags), str(tmp_path / "none"), chunk_pages=2))
    assert {first: list(kinds) for first, kinds in found.items()} == {0: [1, 1], 6: [64, 1]}


IOMEM = """\
00000000-00000fff : Reserved
00001000-00005fff : System RAM
  00002000-00002fff : Kernel code
100000000-100003fff : System RAM
100004000-100004fff : Persistent Memory
  100004000-100004fff : System RAM (kmem)
"""


def test_memory_ranges_are_those_of_system_ram() -> None:
    high = 0x100000
    assert memory_ranges(IOMEM, 4096) == [(1, 6), (high, high + 4), (high + 4, high + 5)]
    hidden = "00000000-00000000 : Reserved\n00000000-00000000 : System RAM\n"
    assert memory_ranges(hidden, 4096) == []
    assert memory_ranges("what is this\n", 4096) == []


def test_holes_are_skipped_and_marked(tmp_path: Path) -> None:
    # As 6.18 shows frames that do not exist: 0, like a plain page in use. Frames 4 to 5 and 13 to 15 are memory.
    flags = [0] * 4 + [FREE, 0] + [0] * 7 + [FREE, FREE, 0] + [0] * 100
    iomem = tmp_path / "iomem"
    iomem.write_text("00004000-00005fff : System RAM\n0000d000-0000ffff : System RAM\n")
    reader = PageMapReader(flags_file(tmp_path / "k", flags), str(iomem), chunk_pages=3, page_size=4096)
    found = {first: list(kinds) for first, kinds in read_all(reader).items()}
    assert found == {3: [NOT_OURS, 1, 0], 12: [NOT_OURS, 1, 1], 15: [0, NOT_OURS, NOT_OURS]}


def test_a_file_that_cannot_be_opened_is_said(tmp_path: Path) -> None:
    reader = PageMapReader(str(tmp_path / "none"), str(tmp_path / "none"))
    assert reader.done
    assert reader.step() == []
    assert reader.error == f"{tmp_path / 'none'}: No such file or directory"


@pytest.mark.parametrize("broken", [{1}, {1, 2}, set(range(1, 1000))])
def test_read_errors_in_the_middle_cost_their_chunk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, broken: set[int]
) -> None:
    reader = PageMapReader(flags_file(tmp_path / "k", [FREE] * 40), str(tmp_path / "none"), chunk_pages=2)
    pread = os.pread

    def fail(fd: int, size: int, at: int) -> bytes:
        if at // 16 in broken:
            raise OSError(5, "Input/output error")
        return pread(fd, size, at)

    monkeypatch.setattr(os, "pread", fail)
    found = read_all(reader)
    last = 20 if len(broken) < MAX_ERRORS else 0
    assert set(found) == {0, *(2 * n for n in range(1, last) if n not in broken)}
    assert reader.error == f"{tmp_path / 'k'}: frames from 2 on not read: Input/output error"


def test_short_reads_are_continued(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reader = PageMapReader(flags_file(tmp_path / "k", [FREE, 0, FREE, 0, FREE]), str(tmp_path / "none"), chunk_pages=4)
    pread = os.pread
    monkeypatch.setattr(os, "pread", lambda fd, size, at: pread(fd, min(size, 21), at))
    assert {first: list(kinds) for first, kinds in read_all(reader).items()} == {0: [1, 0], 2: [1, 0], 4: [1]}


def test_a_map_given_up_says_how_far_it_came(tmp_path: Path) -> None:
    reader = PageMapReader(flags_file(tmp_path / "k", [FREE] * 9), str(tmp_path / "none"), chunk_pages=4)
    reader.step()
    reader.close()
    assert reader.done
    assert reader.error.endswith("not read beyond frame 4, the capture ended")


def test_words_are_taken_apart_in_the_order_of_the_host() -> None:
    assert kind_bytes((FREE).to_bytes(8, sys.byteorder) + (1 << 26).to_bytes(8, sys.byteorder)) == bytes([1, 4])
