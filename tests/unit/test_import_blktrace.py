"""blktrace records and blkparse text: a real recording against blkparse itself, then what can go wrong."""

from __future__ import annotations

import gzip
import shutil
import struct
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import zstandard

from tests.blktrace_records import (
    ACTS,
    AHEAD,
    COMPLETE,
    DISCARD,
    FLUSH,
    FS,
    FUA,
    META,
    NOTIFY,
    SDA,
    SYNC,
    WRITE,
    WRITE_ZEROES,
    ZONE_APPEND,
    ZONE_CLOSE,
    Record,
    decode,
    encode,
    line_row,
    numbered,
    process,
    row,
)
from tracereplay.analysis.ios import LAYERS
from tracereplay.errors import EmptyTraceError, ImportFormatError, TracereplayError, UnknownFormatError
from tracereplay.importers.base import ImportOptions
from tracereplay.importers.convert import Imported, import_trace
from tracereplay.trace.reader import Trace
from tracereplay.trace.validate import validate_trace

DATA = Path(__file__).parents[1] / "data" / "blktrace"
COLUMNS = list(row(Record(15, 0, pdu=bytes(16))) or ())
DM = 253 << 20


def unpacked(path: Path) -> bytes:
    return zstandard.ZstdDecompressor().decompressobj().decompress(path.read_bytes())


def imported(source: Path, tmp_path: Path, **options: Any) -> tuple[Imported, Trace]:
    result = import_trace(source, tmp_path / "out.trace", force=True, options=ImportOptions(**options))
    trace = Trace.open(result.path)
    assert validate_trace(trace).errors == []
    return result, trace


def rows_of(trace: Trace) -> list[dict[str, Any]]:
    return trace.bio_events.collect().select(COLUMNS).to_dicts()


def losses_of(trace: Trace) -> list[tuple[Any, ...]]:
    return trace.table("loss").collect().select("t0_ns", "t1_ns", "table", "cpu", "n", "class").rows()


def of(data: bytes, tmp_path: Path, name: str = "sda.blktrace.0", **options: Any) -> tuple[Imported, Trace]:
    (tmp_path / name).write_bytes(data)
    return imported(tmp_path / name, tmp_path, **options)


Q = Record(1, 1000, sector=64, nr_bytes=4096, category=WRITE | SYNC, pid=7)
D = Record(7, 2000, sector=64, nr_bytes=4096, category=WRITE | SYNC | FS, pid=7)
C = Record(8, 3000, sector=64, nr_bytes=4096, category=WRITE | SYNC | FS | COMPLETE, pid=0)
THREE = numbered([Q, D, C])
BYTES = b"".join(map(encode, THREE))


# ------------------------------------------------------------ real recordings
def test_a_recording_says_what_blkparse_says_of_it(tmp_path: Path) -> None:
    """dm-crypt over a partition of a SCSI disk, two CPUs: merges, splits, discards, flushes."""
    result, trace = imported(DATA / "6.12", tmp_path)
    lines = unpacked(DATA / "6.12.blkparse.txt.zst").decode().partition("CPU0 (")[0].splitlines()
    said = [found for line in lines if (found := line_row(line))]
    got = rows_of(trace)
    assert len(got) == len(said) == 3813
    begin = got[0]["ts_ns"]
    for mine, theirs in zip(got, said, strict=True):
        mine = {**mine, "ts_ns": mine["ts_ns"] - begin, "kind": mine["kind"].removeprefix("bio_")}
        if theirs["sector"] is None:
            mine["sector"] = None
        assert {name: mine[name] for name in theirs} == theirs
    assert result.summary.rejected == result.summary.lost == 0
    assert result.summary.other_events["G (getrq)"] == sum(" G " in line for line in lines) == 646
    dm = [r for r in got if r["dev"] == DM]
    assert {r["kind"] for r in dm} == {"queue", "split", "bio_complete"}
    assert not any(r["kind"] == "bio_complete" for r in got if r["dev"] == SDA)
    mono, boot, wall = trace.metadata.clock["triples"][0]
    assert (mono, boot, wall) == (10906171629, None, 1795297970163090388)
    assert trace.metadata.clock["name"] == "monotonic"
    assert trace.metadata.source["format"] == "blktrace v7"
    assert "4 files were merged by time: dm-0.blktrace.0.zst, " in result.summary.notes[0]
    assert trace.metadata.source["devices"] == {str(DM): "dm-0", str(SDA): "sda"}
    assert [f["path"] for f in trace.metadata.source["files"]] == [
        f"{device}.blktrace.{cpu}.zst" for device in ("dm-0", "sda") for cpu in (0, 1)
    ]
    tasks = {(t["pid"], t["comm"]) for t in trace.table("tasks").collect().to_dicts()}
    assert {(267, "mkfs.ext4"), (257, "dmcrypt_write/2"), (0, "swapper/0"), (0, "swapper/1")} <= tasks


def test_text_and_records_of_one_recording_agree(tmp_path: Path) -> None:
    _, records = imported(DATA / "6.12", tmp_path)
    result, text = imported(DATA / "6.12.blkparse.txt.zst", tmp_path / "text")
    begin = int(records.bio_events.collect()["ts_ns"][0])
    for mine, theirs in zip(rows_of(records), rows_of(text), strict=True):
        mine["ts_ns"] -= begin
        if mine["kind"] == "split":  # the text does not tell how long the bio was
            mine["nr_sectors"] = 0
        if mine["kind"] == "queue" and not mine["nr_sectors"]:
            mine["sector"] = 0
        assert mine == theirs
    assert text.metadata.clock["name"] == "since the first event"
    assert result.summary.rejected == 0
    assert result.summary.other_events == {
        "G (getrq)": 646,
        "P (plug)": 329,
        "U (unplug)": 154,
        "UT (unplug timer)": 175,
    }


def test_a_recording_with_cgroups(tmp_path: Path) -> None:
    result, trace = imported(DATA / "6.1", tmp_path)
    records = [r for file in sorted((DATA / "6.1").iterdir()) for r in decode(unpacked(file))]
    expected = sorted((found for r in records if (found := row(r))), key=lambda r: (r["ts_ns"], r["dev"] != DM))
    assert rows_of(trace) == expected
    tasks = trace.table("tasks").collect().to_dicts()
    inside = {t["comm"] for t in tasks if t["cgroup"] == "23"}
    assert "fio" in inside
    assert "mkfs.ext4" not in inside
    assert {t["cgroup"] for t in tasks} == {None, "1", "23"}
    assert any("cgroups are known by id" in note for note in result.summary.notes)


# ------------------------------------------------------------ which files
def test_one_file_a_prefix_or_a_directory_name_all_files(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    parts = {0: [THREE[0], THREE[2]], 1: [replace(THREE[1], cpu=1, sequence=1)], 2: []}
    parts[0][1] = replace(parts[0][1], sequence=2)
    for cpu, records in parts.items():
        (folder / f"sda.blktrace.{cpu}").write_bytes(b"".join(map(encode, records)))
    (folder / "notes.txt").write_text("not a part of it")
    for source in (
        folder / "sda.blktrace.1",
        folder / "sda.blktrace.2",
        folder,
        folder / "sda",
        folder / "sda.blktrace",
    ):
        result, trace = imported(source, tmp_path)
        assert [r["kind"] for r in rows_of(trace)] == ["queue", "issue", "complete"]
        assert result.summary.lost == 0
    (folder / "sdb.blktrace.0").write_bytes(encode(replace(Q, dev=SDA + 16, time=1)))
    assert len(rows_of(imported(folder, tmp_path)[1])) == 4
    assert len(rows_of(imported(folder / "sda", tmp_path)[1])) == 3
    (folder / "sda.blktrace.1.gz").write_bytes(gzip.compress(b""))
    with pytest.raises(ImportFormatError, match=r"sda\.blktrace\.1 and sda\.blktrace\.1\.gz are both of CPU 1"):
        imported(folder, tmp_path)
    shutil.rmtree(folder)
    folder.mkdir()
    with pytest.raises(ImportFormatError, match="it is a directory"):
        imported(folder, tmp_path)


def test_a_merged_dump_counts_from_its_first_event_and_keeps_the_clock_of_notes(tmp_path: Path) -> None:
    """blkparse -d takes the first event's time off events, not off notes, and puts these before them."""
    notes = [process(7, "dd", 5_000_000_000), process(8, "cp", 6_000_000_000)]
    wall = Record(1, 4_000_000_000, category=NOTIFY, pdu=struct.pack("<II", 1_700_000_000, 5))
    events = [replace(r, time=r.time - 1000) for r in THREE]
    _, trace = of(b"".join(map(encode, [notes[0], wall, notes[1], *events])), tmp_path, "merged.bin")
    assert [r["ts_ns"] for r in rows_of(trace)] == [0, 1000, 2000]
    assert trace.metadata.clock == {"name": "since the first event", "resolution_ns": 1}
    task = trace.table("tasks").collect().to_dicts()[0]
    assert (task["pid"], task["comm"], task["first_ns"], task["last_ns"]) == (7, "dd", 0, 1000)


# ------------------------------------------------------------ fields
@pytest.mark.parametrize("version", [7, 8])
@pytest.mark.parametrize("order", ["<", ">"])
def test_versions_and_byte_orders(version: int, order: str, tmp_path: Path) -> None:
    remap = Record(15, 4000, 99, 512, WRITE, 7, cpu=3, pdu=struct.pack(">IIQ", DM, SDA, 2**40 + 1), cgroup=2**33 + 1)
    split = Record(13, 5000, 8, 8192, 0, 7, cpu=3, pdu=struct.pack(">Q", 16))
    failed = Record(8, 6000, 2**63 + 5, 512, FS | COMPLETE, 7, cpu=3, error=-5)
    records = numbered([process(7, "dd", 1), *THREE, remap, split, failed])
    wall = Record(1, 0, category=NOTIFY, pdu=struct.pack(order + "II", 1_700_000_000, 5))
    result, trace = of(b"".join(encode(r, version, order) for r in [wall, *records]), tmp_path)
    assert rows_of(trace) == [found for r in records if (found := row(r))]
    assert result.summary.rejected == 0
    assert trace.metadata.source["format"] == f"blktrace v{version}"
    assert trace.metadata.clock["triples"] == [[0, None, 1_700_000_000_000_000_005]]
    assert trace.table("tasks").collect()["comm"].to_list() == ["dd", None]


def test_flags_are_those_of_the_kernel(tmp_path: Path) -> None:
    categories = [0, WRITE, WRITE | SYNC | META, FLUSH, FLUSH | WRITE | FUA | SYNC, DISCARD | WRITE | SYNC, AHEAD]
    categories += [ZONE_APPEND | WRITE, 1 << 17 | WRITE, 1 << 18, 1 << 19, 1 << 20, ZONE_CLOSE, WRITE_ZEROES | WRITE]
    records = numbered(Record(1, n, nr_bytes=0 if c == FLUSH else 512, category=c) for n, c in enumerate(categories, 1))
    landed = Record(8, 50, 8, 512, ZONE_APPEND | WRITE | FS)
    result, trace = of(b"".join(encode(r, 8) for r in numbered([*records, landed])), tmp_path)
    got = [(r["op"], r["flags"]) for r in rows_of(trace)]
    assert got[:7] == [("R", "R"), ("W", "W"), ("W", "WSM"), ("F", "FN"), ("W", "FWFS"), ("D", "DS"), ("R", "RA")]
    assert [op for op, _ in got[7:]] == ["ZA", "ZR", "ZRA", "ZF", "ZO", "ZC", "W"]
    assert result.summary.other_events == {"C of a zone append's place": 1}


def test_splits_beyond_two_tebibytes_get_their_high_bits_back(tmp_path: Path) -> None:
    """Kernels hand on the low 32 bits of the new sector, and blkparse prints no more than those."""
    sectors = [(2**32 - 8, 8), (2**33 + 100, 164), (5, 69)]
    records = [Record(13, n, s, 4096, pdu=struct.pack(">Q", new)) for n, (s, new) in enumerate(sectors, 1)]
    _, trace = of(b"".join(map(encode, numbered(records))), tmp_path)
    assert [r["new_sector"] for r in rows_of(trace)] == [2**32 + 8, 2**33 + 164, 69]


def test_names_and_cgroups_follow_a_pid_over_time(tmp_path: Path) -> None:
    def queue(time: int, cgroup: int | None = None, act: int = 1) -> Record:
        return replace(Q, time=time, cgroup=cgroup, act=act)

    records = [queue(10), process(7, "sh", 11), queue(12, 5), queue(13, 6), queue(14, 5), queue(15, 9, act=7)]
    records += [process(7, "dd", 20), queue(21)]
    _, trace = of(b"".join(map(encode, numbered(records))), tmp_path)
    got = trace.table("tasks").collect().select("comm", "cgroup", "first_ns", "last_ns").rows()
    assert got == [(None, None, 10, 10), ("sh", "5", 12, 15), ("sh", "6", 13, 13), ("dd", None, 21, 21)]


# ------------------------------------------------------------ losses and damage
def test_a_jump_in_sequence_numbers_is_a_loss(tmp_path: Path) -> None:
    records = [replace(Q, time=1000 * n, sequence=s) for n, s in enumerate((5, 6, 10, 11), 1)]
    result, trace = of(b"".join(map(encode, records)), tmp_path)
    assert result.summary.lost == 3
    assert losses_of(trace) == [(2000, 3000, "all", 0, 3, "unknown")]
    again = [replace(r, sequence=s) for r, s in zip(records, (2**32 - 1, 0, 1, 2), strict=True)]
    assert of(b"".join(map(encode, again)), tmp_path)[0].summary.lost == 0
    assert (
        of(b"".join(encode(replace(r, sequence=9 - i)) for i, r in enumerate(records)), tmp_path)[0].summary.lost == 0
    )


DAMAGES = {
    "zeros": bytes(4096),
    "garbage": b"\xa5" * 333,
    "a magic and no record": encode(Q)[:20] + b"\xff" * 50,
    "a length that leads nowhere": encode(replace(Q, pdu=bytes(40)))[:48],
    "a version not known": (MAGIC9 := struct.pack("<I", 0x65617409)) + encode(Q)[4:],
    "a CPU out of range": encode(replace(Q, cpu=1 << 20, time=1500)),
    "a time out of range": encode(replace(Q, time=2**63)),
    "a time out of line": encode(replace(Q, time=10**15)),
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_damage_is_passed_over_and_said(damage: bytes, tmp_path: Path) -> None:
    cut = len(encode(Q))
    result, trace = of(BYTES[:cut] + damage + BYTES[cut:], tmp_path)
    assert rows_of(trace) == [row(r) for r in THREE]
    assert result.summary.rejected == 1
    assert f"sda.blktrace.0: {len(damage)} bytes at {cut}" in result.summary.samples[0]["text"]
    with pytest.raises(ImportFormatError, match=f"{len(damage)} bytes at {cut}"):
        of(BYTES[:cut] + damage + BYTES[cut:], tmp_path, strict=True)
    # At the start nothing tells the format but the file's name; a record of another version at the start is refused.
    if damage.startswith(MAGIC9):
        with pytest.raises(ImportFormatError, match="version 9; known are 7 and 8"):
            of(damage + BYTES, tmp_path)
    else:
        assert rows_of(of(damage + BYTES, tmp_path)[1]) == [row(r) for r in THREE]


def test_a_cut_end_is_a_loss_nobody_can_count(tmp_path: Path) -> None:
    for cut in (1, 4, 47, 48 + 15):
        last = encode(process(9, "x", 9000))
        result, trace = of(BYTES + last[:cut], tmp_path)
        assert rows_of(trace) == [row(r) for r in THREE]
        assert result.summary.rejected == 1
        assert result.summary.lost is None
        assert losses_of(trace) == [(3000, None, "all", None, None, "unknown")]


def test_one_damaged_time_does_not_hold_back_its_file(tmp_path: Path) -> None:
    """A merge by time would keep all that follows it to the end, where it is too late."""
    a = numbered(replace(Q, time=10**10 * n) for n in range(1, 9))
    b = numbered(replace(Q, time=10**10 * n + 5, cpu=1) for n in range(1, 9))
    a[3] = replace(a[3], time=2**61)
    (tmp_path / "sda.blktrace.1").write_bytes(b"".join(map(encode, b)))
    result, trace = of(b"".join(map(encode, a)), tmp_path, reorder_rows=1)
    assert len(rows_of(trace)) == 15
    assert [s["reason"] for s in result.summary.samples] == ["the record's time is out of line with those around it"]
    assert result.summary.lost == 1


def test_sources_without_events_are_errors(tmp_path: Path) -> None:
    plug = encode(Record(9, 5, sequence=1))
    with pytest.raises(EmptyTraceError, match=r"no event on a bio or a request; it has: P \(plug\) \(1\)"):
        of(plug, tmp_path)
    with pytest.raises(ImportFormatError, match=r"nothing in .* is a block event"):
        of(bytes(100), tmp_path)
    with pytest.raises(UnknownFormatError, match="empty"):
        of(b"", tmp_path, "empty.bin")
    assert not (tmp_path / "out.trace").exists()
    (tmp_path / "sda.blktrace.1.gz").write_bytes(gzip.compress(BYTES)[:-20])
    with pytest.raises(ImportFormatError, match="cannot be read to its end"):
        of(BYTES, tmp_path)


def test_many_pids_names_and_devices_make_the_tables_grow(tmp_path: Path) -> None:
    records: list[Record] = []
    for n in range(1, 6000):
        dev = SDA + n % 1500
        records += [process(n, f"task{n}", 10 * n), replace(Q, time=10 * n + 1, pid=n, dev=dev)]
    result, trace = of(b"".join(map(encode, numbered(records))), tmp_path, block_bytes=1 << 17)
    assert rows_of(trace) == [row(r) for r in records if row(r)]
    assert result.summary.lost == 0
    tasks = trace.table("tasks").collect()
    assert tasks["comm"].to_list() == [f"task{n}" for n in range(1, 6000)]
    assert tasks["pid"].to_list() == list(range(1, 6000))


# ------------------------------------------------------------ text
HEAD = "  8,0    3 {:8d}     0.000000{:03d}   697 {:>2s} {:>3s} "


def text_of(*lines: tuple[str, str, str]) -> bytes:
    heads = [HEAD.format(n, n, action, rwbs) + rest for n, (action, rwbs, rest) in enumerate(lines, 1)]
    return ("\n".join(heads) + "\n").encode()


def test_text_of_every_action(tmp_path: Path) -> None:
    text = text_of(
        ("Q", "FWS", "[my]task]"),
        ("Q", "WS", "223490 + 8 [my]task]"),
        ("G", "WS", "223490 + 8 [my]task]"),
        ("P", "N", "[my]task]"),
        ("I", "WS", "223490 + 8 (     520) [my]task]"),
        ("U", "N", "[my]task] 1"),
        ("UT", "N", "[my]task] 1"),
        ("D", "R", "36 (12 00 00 00 24 00 ..) [(null)]"),
        ("M", "WSM", "223498 + 8 [a]"),
        ("F", "WSM", "223490 + 8 [a]"),
        ("X", "RA", "4294967290 / 2 [a]"),
        ("A", "WFS", "5 + 8 <- (253,17) 4"),
        ("R", "WS", "223490 + 8 [0]"),
        ("C", "WS", "223490 + 8 (  64345) [-5]"),
        ("C", "FN", "0 [0]"),
        ("C", "R", "(12 00 ..) [65531]"),
        ("m", "N", "cfq697 insert_request"),
        ("ZP", "W", "8 + 8 [a]"),
    )
    result, trace = of(text + b"CPU0 (sda):\n Reads Queued: 1\n8,0 not read\n", tmp_path, "x.txt")
    assert result.format == "blkparse"
    assert result.summary.rejected == 0
    got = [
        (r["kind"], r["op"], r["sector"], r["nr_sectors"], r["nr_bytes"], r["error"], r["new_sector"])
        for r in rows_of(trace)
    ]
    assert got == [
        ("queue", "W", 0, 0, None, None, None),
        ("queue", "W", 223490, 8, None, None, None),
        ("insert", "W", 223490, 8, 4096, None, None),
        ("issue", "R", 0, 0, 36, None, None),
        ("backmerge", "W", 223498, 8, None, None, None),
        ("frontmerge", "W", 223490, 8, None, None, None),
        ("split", "R", 4294967290, 0, None, None, 2**32 + 2),
        ("remap", "W", 5, 8, None, None, None),
        ("requeue", "W", 223490, 8, 4096, 0, None),
        ("complete", "W", 223490, 8, 4096, -5, None),
        ("complete", "F", 0, 0, 0, 0, None),
        ("complete", "R", 0, 0, 0, -5, None),
    ]
    assert {(r["old_dev"], r["old_sector"]) for r in rows_of(trace)} == {(None, None), (DM | 17, 4)}
    assert trace.table("tasks").collect()["comm"].to_list() == ["my]task", "a"]
    assert result.summary.other_events["m (message)"] == 1
    assert result.summary.other_events["ZP (zone plug)"] == 1


def test_text_that_does_not_fit_is_refused_by_line(tmp_path: Path) -> None:
    good = text_of(("Q", "WS", "8 + 8 [a]"))
    bad = [
        b"  8,0   W 8 8\n",  # another format
        text_of(("K", "WS", "8 + 8 [a]")),
        text_of(("Q", "XS", "8 + 8 [a]")),
        text_of(("Q", "WS", "8 + [a]")),
        text_of(("Q", "WS", "8 + 8")),
        text_of(("C", "WS", "8 + 8 [x]")),
        text_of(("X", "WS", "8 + 8 [a]")),
        text_of(("A", "WS", "8 + 8 [a]")),
        text_of(("A", "WS", "8 + 8 <- (8,x) 4")),
        text_of(("Q", "WS", "99999999999999999999 + 8 [a]")),
        text_of(("Q", "WS", "8 + 99999999999 [a]")),
        good.replace(b"8,0", b"8,9999999"),
        good.replace(b"  697", b"99999999999"),
        good.replace(b"0.000000001", b"99999999999.000000001"),
    ]
    added = b"Input file sda.blktrace.0 added\n\n"
    result, trace = of(added + good + b"".join(bad) + good.rstrip(), tmp_path, "x.txt")
    assert trace.rows("bio_events") == 1
    assert result.summary.rejected == len(bad) + 1
    assert [s["line"] for s in result.summary.samples] == list(range(4, 4 + len(bad) + 1))
    with pytest.raises(ImportFormatError, match="line 2: no device, CPU"):
        of(good + b"".join(bad), tmp_path, "x.txt", strict=True)
    with pytest.raises(TracereplayError):
        of(b"".join(bad), tmp_path, "x.txt")


def test_text_completions_of_a_device_that_issues_nothing_are_bios(tmp_path: Path) -> None:
    lines = text_of(("C", "W", "8 + 8 [0]"), ("D", "W", "8 + 8 [a]"), ("C", "W", "8 + 8 [0]"))
    dm = lines.replace(b"8,0 ", b"253,0 ")
    _, trace = of(lines + dm.splitlines(keepends=True)[2], tmp_path, "x.txt", reorder_rows=1)
    assert [(r["dev"], r["kind"], r["nr_bytes"]) for r in rows_of(trace) if "comp" in r["kind"]] == [
        (SDA, "complete", 4096),
        (SDA, "complete", 4096),
        (DM, "bio_complete", None),
    ]


def test_text_remaps_of_another_device_are_no_loss(tmp_path: Path) -> None:
    """Kernels 4.14 to 5.11 remap dm over a partition to the partition; the number is the disk's all the same."""
    lines = text_of(
        ("Q", "W", "8 + 8 [a]"), ("A", "W", "5 + 8 <- (253,0) 4"), ("Q", "W", "8 + 8 [a]"), ("D", "W", "8 + 8 [a]")
    ).splitlines(keepends=True)
    moved = lines[1].replace(b"8,0 ", b"8,1 ")
    assert of(b"".join([lines[0], moved, *lines[2:]]), tmp_path, "x.txt")[0].summary.lost == 0
    assert of(b"".join([lines[0], *lines[2:]]), tmp_path, "x.txt")[0].summary.lost == 1
    assert of(b"".join([*lines[:2], lines[3]]), tmp_path, "x.txt")[0].summary.lost == 1


def test_every_letter_of_the_grammar_is_known() -> None:
    from tracereplay.importers.blktrace_format import LETTERS

    assert ACTS.items() <= LETTERS.items()


def test_device_mapper_over_a_partition_is_one_stack(tmp_path: Path) -> None:
    """Two remaps lead down: to the disk with the partition's sector, then from the partition to the disk."""
    _, trace = imported(DATA / "6.12", tmp_path)
    layers = {(r["device"], r["layer"]): r["ios"] for r in LAYERS(trace).to_dicts()}
    queued = [r["dev"] for r in rows_of(trace) if r["kind"] == "queue"]
    assert layers == {("253:0 dm-0", 0): queued.count(DM), ("8:0 sda", 1): queued.count(SDA)}
