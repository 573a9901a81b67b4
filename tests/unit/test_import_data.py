"""Real recordings, imported: counts agree with those of the text, and details with what the text says."""

from __future__ import annotations

import gzip
import hashlib
import re
from collections import Counter
from pathlib import Path

import polars as pl
import pytest
import zstandard

from tracereplay.importers.base import ImportOptions
from tracereplay.importers.convert import Imported, import_trace
from tracereplay.trace.reader import Trace
from tracereplay.trace.validate import validate_trace

DATA = Path(__file__).parents[1] / "data" / "import"
SHIPPED = Path(__file__).parents[2] / "traces"
SOURCES = {
    "crypt-6.12.txt.gz": 1,
    "failed-6.12.txt.gz": 1,
    "lost-6.18.txt.gz": 1000,
    "mix-6.18.ftrace.txt.zst": 1000,
    "overwritten-6.1.trace.gz": 1000,
    "stacks-6.1.txt.gz": 1,
}
"""File -> resolution of its times in ns."""


def text_of(name: str) -> bytes:
    data = (DATA / name).read_bytes()
    return (
        gzip.decompress(data) if name.endswith(".gz") else zstandard.ZstdDecompressor().decompressobj().decompress(data)
    )


def imported(name: str, tmp_path: Path, options: ImportOptions | None = None) -> tuple[Imported, Trace]:
    result = import_trace(DATA / name, tmp_path / "out.trace", options=options)
    return result, Trace.open(result.path)


@pytest.mark.parametrize("name", SOURCES)
def test_every_event_of_the_text_is_a_row(name: str, tmp_path: Path) -> None:
    result, trace = imported(name, tmp_path)
    counts = Counter(m.decode() for m in re.findall(rb": ((?:mm_page|block)_\w+): ", text_of(name)))
    assert {k.partition(":")[2]: n for k, n in result.summary.events.items()} == counts
    assert trace.rows("page_events") == sum(n for k, n in counts.items() if k.startswith("mm_"))
    assert trace.rows("bio_events") == sum(n for k, n in counts.items() if k.startswith("block_"))
    assert trace.metadata.events == sorted(result.summary.events)
    assert trace.metadata.rejected == {"lines": 0, "samples": []}
    assert trace.metadata.clock == {"name": "unknown", "resolution_ns": SOURCES[name]}
    assert trace.complete
    assert validate_trace(trace).errors == []


def test_values_of_one_line_of_each_sort(tmp_path: Path) -> None:
    _, trace = imported("failed-6.12.txt.gz", tmp_path)
    pages, bios = trace.page_events.collect(), trace.bio_events.collect()

    def page(pattern: str) -> tuple[re.Match[bytes], dict[str, object]]:
        match = re.search(rb"\[(\d+)\]\s+(\d+)\.(\d{9}): " + pattern.encode(), text_of("failed-6.12.txt.gz"))
        assert match is not None
        at = pages.filter(pl.col("ts_ns") == int(match[2] + match[3]), pl.col("cpu") == int(match[1]))
        return match, at.to_dicts()[0]

    match, row = page(
        r"mm_page_alloc: .*pfn=0x([1-9a-f]\w*) order=(\d+) migratetype=(\d+) gfp_flags=GFP_NOWAIT\|__GFP_HIGHMEM"
    )
    assert row["kind"] == "alloc"
    assert [row["pfn"], row["order"], row["migratetype"]] == [int(match[4], 16), int(match[5]), int(match[6])]
    assert row["gfp"] & 0x802 == 0x802  # type: ignore[operator]
    match, row = page(r"mm_page_alloc: +page=\(nil\) pfn=0x0 order=(\d+)")
    assert row["kind"] == "alloc_failed"
    assert [row["pfn"], row["order"]] == [None, int(match[4])]
    match, row = page(
        r"mm_page_alloc_extfrag: .*pfn=0x(\w+) alloc_order=(\d+) fallback_order=(\d+) .*"
        r"alloc_migratetype=(\d+) fallback_migratetype=(\d+) .*change_ownership=(\d+)"
    )
    names = ("alloc_order", "fallback_order", "migratetype", "fallback_migratetype")
    assert [row[n] for n in names] == [int(match[i]) for i in range(5, 9)]
    assert [row["pfn"], row["order"], row["change_ownership"]] == [int(match[4], 16), None, match[9] != b"0"]
    match, row = page(r"mm_page_alloc_zone_locked: .*pfn=0x(\w+) .*percpu_refill=(\d)")
    assert [row["pfn"], row["percpu_refill"], row["gfp"]] == [int(match[4], 16), match[5] != b"0", None]
    match, row = page(r"mm_page_free_batched: .*pfn=0x(\w+)")
    assert [row["pfn"], row["order"]] == [int(match[4], 16), None]  # the text's order=0 is not the page's

    split = bios.filter(pl.col("kind") == "split").row(0, named=True)
    match = re.search(rb"block_split: +(\d+),(\d+) WS (\d+) / (\d+) ", text_of("failed-6.12.txt.gz"))
    assert match is not None
    assert [split["dev"], split["sector"]] == [int(match[1]) << 20 | int(match[2]), int(match[3])]
    assert [split["new_sector"], split["nr_sectors"], split["old_sector"]] == [int(match[4]), None, None]
    issue = bios.filter(pl.col("kind") == "issue").row(0, named=True)
    assert (issue["nr_bytes"], issue["op"], issue["flags"]) == (512 * issue["nr_sectors"], "W", "WS")
    remap = bios.filter(pl.col("kind") == "remap").row(0, named=True)
    match = re.search(
        rb"block_bio_remap: +(\d+),0 WS (\d+) \+ (\d+) <- \((\d+),0\) (\d+)", text_of("failed-6.12.txt.gz")
    )
    assert match is not None
    found = [remap[n] for n in ("dev", "sector", "nr_sectors", "old_dev", "old_sector")]
    assert found == [int(match[1]) << 20, int(match[2]), int(match[3]), int(match[4]) << 20, int(match[5])]
    assert set(bios.filter(pl.col("kind").cast(pl.String).is_in(["complete", "bio_complete"]))["error"]) == {0}


def test_overwritten_events_are_a_loss_before_all_cpus_had_events(tmp_path: Path) -> None:
    result, trace = imported("overwritten-6.1.trace.gz", tmp_path)
    (loss,) = trace.loss.collect().to_dicts()
    assert (loss["class"], loss["table"], loss["cpu"], loss["n"]) == ("overwritten", "all", None, 13846 - 9103)
    assert loss["t0_ns"] is None
    firsts = trace.page_events.group_by("cpu").agg(pl.col("ts_ns").min()).collect()["ts_ns"]
    assert loss["t1_ns"] == firsts.max() == 33_857_914_000
    assert (result.summary.lost, result.summary.loss_intervals) == (4743, 1)


def test_lost_lines_of_a_pipe_are_intervals_of_their_cpu(tmp_path: Path) -> None:
    result, trace = imported("lost-6.18.txt.gz", tmp_path)
    lines = text_of("lost-6.18.txt.gz").decode().splitlines()
    expected = []
    for i, line in enumerate(lines):
        if match := re.fullmatch(r"CPU:(\d+) \[LOST (\d+) EVENTS\]", line):
            event = re.compile(rf".*\[0*{match[1]}\] \S+ +(\d+)\.(\d+): (?!<stack)")
            before = next(m for text in reversed(lines[:i]) if (m := event.match(text)))
            after = next(m for text in lines[i:] if (m := event.match(text)))
            expected.append(
                (int(match[1]), int(before[1] + before[2] + "000"), int(after[1] + after[2] + "000"), int(match[2]))
            )
    columns = ("cpu", "t0_ns", "t1_ns", "n")
    assert [tuple(row[c] for c in columns) for row in trace.loss.collect().to_dicts()] == expected
    assert len(expected) == result.summary.loss_intervals == 2
    assert set(trace.loss.collect()["class"]) == {"reported"}
    tasks = trace.tasks.collect()
    assert tasks["tgid"].null_count() == 0


def test_snapshots_beside_the_source_are_taken_and_named(tmp_path: Path) -> None:
    result, trace = imported("overwritten-6.1.trace.gz", tmp_path)
    assert result.snapshots is not None
    assert result.snapshots.count() == 10
    assert any("overwritten-6.1" in note for note in trace.metadata.notes)
    rows = trace.snapshots.collect()
    assert set(rows["phase"]) == {"start", "end"}
    assert rows["ts_ns"].null_count() == rows.height
    free = rows.filter(phase="start", source="buddyinfo", zone="DMA32")
    first = (DATA / "overwritten-6.1.before.buddyinfo").read_text().splitlines()
    assert free["value"].to_list() == [int(n) for n in next(line for line in first if "DMA32" in line).split()[4:]]
    assert trace.metadata.migratetypes[:3] == ["Unmovable", "Movable", "Reclaimable"]


def test_stacks_are_kept_once_and_found_by_their_events(tmp_path: Path) -> None:
    result, trace = imported("stacks-6.1.txt.gz", tmp_path)
    text = text_of("stacks-6.1.txt.gz").decode()
    blocks = re.findall(r"mm_page_alloc: .*pfn=(0x\w+).*\n.*kernel_stack: .*\n((?:=> .*\n)+)", text)
    frames = trace.stacks.collect()
    by_id = {i: g for (i,), g in frames.sort("depth").group_by(["stack_id"], maintain_order=True)}
    allocs = trace.page_events.filter(pl.col("kind").cast(pl.String) == "alloc").collect()
    assert allocs["stack_id"].null_count() <= 1  # the last one may be cut off
    for row, (pfn, block) in zip(allocs.to_dicts(), blocks, strict=False):
        expected = [re.fullmatch(r"=> (\S+) \((\w+)\)", line) for line in block.splitlines()]
        assert row["pfn"] == int(pfn, 16)
        got = by_id[row["stack_id"]]
        assert got["symbol"].cast(pl.String).to_list() == [m[1] for m in expected if m]
        assert got["address"].to_list() == [int(m[2], 16) for m in expected if m]
        assert got["offset"].null_count() == got.height
    assert (
        result.summary.stacks
        == len(by_id)
        == len({block for _, block in re.findall(r"(stack trace >)\n((?:=> .*\n)+)", text)})
    )


def test_kernel_is_inferred_and_can_be_named(tmp_path: Path) -> None:
    _, trace = imported("overwritten-6.1.trace.gz", tmp_path)
    assert trace.metadata.host["features"]["nowarn_apart_from_nowait"]
    assert "release" not in trace.metadata.host
    masks = set(trace.page_events.select("gfp").collect()["gfp"])
    assert 0x800 | 0x2 | 0x2000 | 0x10000 | 0x80000 in masks  # GFP_NOWAIT|HIGHMEM|NOWARN|NORETRY|NOMEMALLOC
    options = ImportOptions(release="6.12.1", clock="mono")
    named = import_trace(DATA / "crypt-6.12.txt.gz", tmp_path / "named.trace", options=options)
    assert named.metadata.host["release"] == "6.12.1"
    assert named.metadata.clock["name"] == "mono"
    assert not any("does not name its kernel" in note for note in named.metadata.notes)


def test_tasks(tmp_path: Path) -> None:
    _, trace = imported("crypt-6.12.txt.gz", tmp_path)
    tasks = trace.tasks.collect()
    found = set(re.findall(rb"^ *(\S.*?)-(\d+) +\[", text_of("crypt-6.12.txt.gz"), re.MULTILINE))
    assert {(c.encode(), str(p).encode()) for c, p in zip(tasks["comm"], tasks["pid"], strict=True)} == found
    assert (tasks["first_ns"] <= tasks["last_ns"]).all()


def test_shipped_trace_is_whole_and_says_where_it_comes_from() -> None:
    folder = SHIPPED / "dmcrypt-6.1-1M"
    trace = Trace.open(folder)
    assert validate_trace(trace).errors == []
    counts = dict(
        trace.page_events.group_by("kind").len().select(pl.col("kind").cast(pl.String), "len").collect().iter_rows()
    )
    assert counts == {"alloc": 4751, "free": 4756, "free_batched": 2637, "zone_locked": 2016}
    assert trace.metadata.host["release"].startswith("6.1.0")
    assert trace.rows("snapshots") > 0
    sums = [line.split() for line in (SHIPPED / "SHA256SUMS").read_text().splitlines()]
    listed = {path: digest for digest, path in sums if path.startswith(folder.name)}
    files = [folder / "manifest.json", *(f for f in folder.glob("*/*.parquet") if f.parent.name != "derived")]
    assert listed == {str(f.relative_to(SHIPPED)): hashlib.sha256(f.read_bytes()).hexdigest() for f in files}
    assert sum(f.stat().st_size for f in files) < 400 << 10
    assert trace.metadata.source["path"] == "trace-1M.dat"
