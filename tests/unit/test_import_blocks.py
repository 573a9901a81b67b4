"""Block traces: real samples, recognition, clocks and units, and what is wrong with a file."""

from __future__ import annotations

import gzip
import tarfile
from pathlib import Path

import pytest

from tests.block_samples import TABLES, UNIT_NS, Request, line, read, text, vscsi
from tracereplay.demand import open_demand
from tracereplay.errors import AmbiguousFormatError, ImportFormatError, UnknownFormatError
from tracereplay.importers.base import Head
from tracereplay.importers.block_csv import BlockTableImporter
from tracereplay.importers.convert import import_trace
from tracereplay.importers.registry import recognise
from tracereplay.trace.reader import Trace
from tracereplay.trace.validate import validate_trace

DATA = Path(__file__).parents[1] / "data" / "blocks"
SOME = [Request(i * 3 % 40, i % 3, i * 1000, 8 + i, i % 2 == 0, i * 7) for i in range(20)]


def recognised(path: Path) -> str:
    data = path.read_bytes()
    return recognise(Head(path.name, data[: 64 << 10], len(data) < 64 << 10)).name


# ------------------------------------------------------------ real samples
def test_three_encodings_of_one_trace_give_the_same_requests() -> None:
    names = {"cloudphysics.csv": "libcachesim-csv", "cloudphysics.vscsi": "vscsi"}
    names["cloudphysics.oracleGeneral.bin"] = "oraclegeneral"
    got = {}
    for file, name in names.items():
        assert recognised(DATA / file) == name
        got[name] = read(DATA / file, name)
        assert len(got[name].rows) == 64
        assert got[name].rejected == 0
    binary = got["vscsi"].rows
    assert binary[0] == (5633898368802_000, "queue", "disk 0", 42_932_745, 1, "W")
    in_seconds = [(row[0] // 10**9 * 10**9, *row[1:]) for row in binary]
    assert [row[:2] + row[3:] for row in in_seconds] == [row[:2] + row[3:] for row in got["libcachesim-csv"].rows]
    # oracleGeneral keeps no operation, and one size for each object.
    assert [(r[0], r[3]) for r in in_seconds] == [(r[0], r[3]) for r in got["oraclegeneral"].rows]
    assert {r[5] for r in got["oraclegeneral"].rows} == {None}


def test_mqsim_sample() -> None:
    assert recognised(DATA / "mqsim-tpcc.trace") == "mqsim"
    got = read(DATA / "mqsim-tpcc.trace", "mqsim")
    assert got.rows[0] == (938_513_000, "queue", "device 4", 264_719_034, 16, "W")
    assert (len(got.rows), got.rejected) == (120, 0)


def test_iolog_of_fio() -> None:
    assert recognised(DATA / "fio-3.33.iolog") == "fio"
    got = read(DATA / "fio-3.33.iolog", "fio")
    assert got.rows[0] == (350_000, "queue", "f.dat", 96, 32, "R")
    assert [row[5] for row in got.rows].count("F") == 3
    assert got.conversion.summary.other_events == {"fio:add": 1, "fio:open": 1, "fio:close": 1}
    assert len(got.rows) + 3 + 1 == got.conversion.summary.lines


def test_a_written_trace_is_valid(tmp_path: Path) -> None:
    path = tmp_path / "web_0.csv.gz"
    path.write_bytes(gzip.compress(text("msr", SOME)))
    imported = import_trace(path, tmp_path / "t")
    trace = Trace.open(imported.path)
    assert imported.format == "msr"
    assert validate_trace(trace).errors == []
    assert trace.rows("bio_events") == 40
    meta = trace.metadata
    assert meta.source["latency"] is True
    assert meta.source["devices"] == {str(12 << 20 | n): f"web_{n}" for n in range(3)}
    first = trace.sort_range("bio_events")
    assert first is not None
    assert meta.clock["triples"] == [[first[0]] * 3]
    assert 1.17e18 < first[0] < 1.18e18  # February 2007
    assert meta.source["compression"] == "gzip"


def test_imported_writes_make_demand(tmp_path: Path) -> None:
    for name, completed in (("msr", True), ("alibaba", False)):
        (tmp_path / name).write_bytes(text(name, SOME))
        imported = import_trace(tmp_path / name, tmp_path / f"{name}.trace")
        device = "12,0" if name == "msr" else "0,0"
        demand = open_demand(Trace.open(imported.path), path="dm-crypt", device=device)
        for _ in demand:
            pass
        writes = sum(r.write and r.volume == 0 for r in SOME)
        path = demand.report.path
        assert path["bios"] == writes
        assert (path["completed"], path["right_censored"]) == ((writes, 0) if completed else (0, writes))


# ------------------------------------------------------------ recognition
@pytest.mark.parametrize("name", sorted(TABLES))
def test_recognised_with_and_without_a_header(name: str) -> None:
    for header in (False, True):
        for end in ("\n", "\r\n"):
            content = text(name, SOME, header=header, end=end)
            assert recognise(Head("x", content, True)).name == name
    # Some bad lines among many, and a block that ends within a line, do not hide the format.
    cut = (text(name, SOME * 4) + b"bad\n" + text(name, SOME))[:2000]
    assert recognise(Head("x", cut, False)).name == name


@pytest.mark.parametrize("name", sorted(TABLES))
def test_only_one_format_fits(name: str) -> None:
    fitting = [t.name for t in TABLES.values() if t.fits(text(name, SOME))]
    assert fitting == [name]


def test_alike_tables_are_refused_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    # The size of libCacheSim stands where Tencent has its operation; a version of ten digits does not exist.
    both = Head("x", b"1,1538323200,28,512,7\n", True)
    assert recognise(both).name == "libcachesim-csv"
    table = TABLES["tencent"]
    alike = [BlockTableImporter(table), BlockTableImporter(table)]
    monkeypatch.setattr("tracereplay.importers.registry.importers", lambda: alike)
    with pytest.raises(AmbiguousFormatError, match="tencent or tencent") as error:
        recognise(Head("x", text("tencent", SOME), True))
    assert "--from" in (error.value.hint or "")


@pytest.mark.parametrize(
    "content",
    [b"", b"1,2,3\n4,5,6\n", b"a,b,c,d,e\n", b"1 2 3\n", b'"1","R","2","3","4"\n', bytes(96), bytes(range(256)) * 20],
    ids=["empty", "three", "letters", "blanks", "quoted", "zeros", "binary"],
)
def test_others_are_not_taken_for_block_traces(content: bytes) -> None:
    with pytest.raises(UnknownFormatError):
        recognise(Head("x", content, True))


def test_archives_are_named(tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_bytes(text("tencent", SOME))
    with tarfile.open(tmp_path / "x.tgz", "w:gz") as archive:
        archive.add(tmp_path / "x.csv", "x.csv")
    with pytest.raises(UnknownFormatError, match="a tar archive"):
        import_trace(tmp_path / "x.tgz", tmp_path / "out")


# ------------------------------------------------------------ units
@pytest.mark.parametrize("name", sorted(TABLES))
def test_times_keep_their_distance(tmp_path: Path, name: str) -> None:
    path = tmp_path / "x"
    path.write_bytes(text(name, [Request(0, 0, 5, 3, True, 4), Request(7, 0, 5, 3, True, 4)]))
    got = read(path, name)
    queued = [row for row in got.rows if row[1] == "queue"]
    assert queued[1][0] - queued[0][0] == 7 * UNIT_NS[name]
    assert queued[0][3:] == (5, 3, "W")
    assert got.source["latency"] == (name == "msr")
    assert got.conversion.metadata.clock["resolution_ns"] >= 1


def test_bytes_that_are_no_sectors_are_counted(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_bytes(b"0,R,100,1000,1577808000000000\n0,R,512,512,1577808000000001\n0,W,0,0,1577808000000002\n")
    got = read(path, "alibaba")
    assert [row[3:5] for row in got.rows] == [(0, 3), (1, 1), (0, 0)]
    assert (got.source["unaligned"], got.source["empty"]) == (1, 1)


def test_completions_come_in_the_order_of_time(tmp_path: Path) -> None:
    path = tmp_path / "x"
    made = [Request(0, 0, 1, 1, True, 100), Request(50, 0, 2, 1, True, 10), Request(50, 0, 3, 1, True, 2**60)]
    path.write_bytes(text("msr", made))
    got = read(path, "msr")
    assert [(row[1], row[3]) for row in got.rows] == [
        ("queue", 1),
        ("queue", 2),
        ("queue", 3),
        ("bio_complete", 2),
        ("bio_complete", 1),
    ]
    assert got.source["absurd_latencies"] == 1
    assert any("above an hour" in note for note in got.conversion.metadata.notes)


def test_sizes_beside_alibabas_traces(tmp_path: Path) -> None:
    (tmp_path / "device_size.csv").write_text("device_id,capacity\n0,42949672960\n3,1\nx,y\n")
    (tmp_path / "io_traces.csv").write_bytes(text("alibaba", SOME))
    got = read(tmp_path / "io_traces.csv", "alibaba")
    assert got.source["capacity_bytes"] == {"0": 42949672960, "3": 1}


def test_large_volume_numbers_keep_their_names(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_bytes(text("tencent", [Request(0, 4_000_000_000, 1, 1, True), Request(0, 3, 1, 1, False)]))
    assert [row[2] for row in read(path, "tencent").rows] == ["volume 4000000000", "volume 3"]


def test_volumes_of_msr_have_one_number_in_all_files(tmp_path: Path) -> None:
    numbers = []
    for host in ("hm", "web", "other", "another"):
        path = tmp_path / host
        path.write_bytes(text("msr", SOME[:4]).replace(b",web,", f",{host},".encode()))
        numbers.append(sorted(read(path, "msr").source["devices"].items())[0])
    assert numbers == [
        ("0", "hm_0"),
        (str(12 << 20), "web_0"),
        (str(13 << 20), "other_0"),
        (str(13 << 20), "another_0"),
    ]


# ------------------------------------------------------------ fio
def test_version_2_waits_move_the_clock(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_text(
        "fio version 2 iolog\n/dev/a add\n/dev/a open\n/dev/a read 0 4096\n/dev/a wait 250 0\n/dev/a write 4096 512\n"
        "/dev/b trim 512 1024\n/dev/a wait 10 0\n/dev/a datasync 4096 0\n/dev/a wait x\n/dev/a jump 1 2\n/dev/a read\n"
    )
    got = read(path, "fio")
    assert got.rows == [
        (0, "queue", "/dev/a", 0, 8, "R"),
        (250_000, "queue", "/dev/a", 8, 1, "W"),
        (250_000, "queue", "/dev/b", 1, 2, "D"),
        (260_000, "queue", "/dev/a", 0, 0, "F"),
    ]
    assert got.rejected == 3
    assert [s["line"] for s in got.conversion.summary.samples] == [10, 11, 12]


def test_version_3_knows_no_waits_and_huge_numbers_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_text(
        f"fio version 3 iolog\n5 f write 0 512\n6 f wait 10 0\n{2**63 - 1} f read 0 512\n"
        f"7 f read {2**63} 512\n8 f read 0 {2**62}\n"
    )
    got = read(path, "fio")
    assert len(got.rows) == 1
    assert got.rejected == 4


def test_other_versions_of_fio_are_named(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_text("fio version 9 iolog\n")
    with pytest.raises(ImportFormatError, match="version 9; known are 2 and 3"):
        read(path, "fio")
    path.write_text("no iolog\n")
    with pytest.raises(ImportFormatError, match="does not begin with"):
        read(path, "fio")


# ------------------------------------------------------------ what is wrong with a file
def test_bad_lines_are_counted_and_sampled(tmp_path: Path) -> None:
    path = tmp_path / "x"
    good = line("msr", SOME[0])
    bad = [
        "",
        "# note",
        '"1",a,0,Read,0,0,0',
        good + ",1",
        "1,a,0,Read,0,0,0",
        good.replace("Write", "Flush"),
        "x" * 300,
    ]
    path.write_text("\n".join([good, *bad, good, good[:20]]))
    got = read(path, "msr")
    assert got.rejected == 6
    assert sorted((s["line"], s["reason"]) for s in got.conversion.summary.samples) == [
        (4, "a field is quoted"),
        (5, "there are more fields than columns"),
        (6, "a time out of range"),
        (7, "an operation that is neither read nor write"),
        (8, "a field is no number of its column"),
        (10, "the last line has no end: nobody can tell whether its last number is whole"),
    ]
    with pytest.raises(ImportFormatError, match="line 4"):
        read(path, "msr", strict=True)


def test_a_file_of_another_format_says_so(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_bytes(text("spc", SOME))
    with pytest.raises(ImportFormatError, match=r"no line of x is a request of msr \(20 refused; line 1") as error:
        read(path, "msr")
    assert "timestamp,hostname" in (error.value.hint or "")


def test_out_of_order_within_the_window_and_beyond(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_bytes(text("alibaba", [Request(t, 0, t, 1, True) for t in (5, 3, 9, 1, 8)]))
    assert [row[3] for row in read(path, "alibaba").rows] == [1, 3, 5, 8, 9]
    lines = [Request(t, 0, 1, 1, True) for t in range(1000)]
    path.write_bytes(text("alibaba", [*lines, Request(0, 0, 2, 1, True)]))
    got = read(path, "alibaba", reorder_rows=16, block_bytes=256)
    assert (len(got.rows), got.source["late"]) == (1000, 1)
    assert got.conversion.summary.events == {"block:block_bio_queue": 1000}


def test_a_file_sorted_by_device_is_refused_early(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tracereplay.importers.request_conversion._LATE_AT_LEAST", 100)
    path = tmp_path / "x"
    made = [Request(t, volume, t, 1, True) for volume in range(3) for t in range(500)]
    path.write_bytes(text("alibaba", made))
    with pytest.raises(ImportFormatError, match="not in the order of time") as error:
        read(path, "alibaba", reorder_rows=16, block_bytes=256)
    assert "sort -t, -s -n -k5,5" in (error.value.hint or "")


def test_implausible_vscsi_times_are_noted(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_bytes(vscsi(1, [Request(10**12 * i, 0, 1, 1, True) for i in range(200)]))  # picoseconds, say
    assert recognised(path) == "vscsi"
    assert "another unit" in read(path, "vscsi").conversion.metadata.notes[0]


def test_scsi_commands_without_data_are_counted_by_name(tmp_path: Path) -> None:
    path = tmp_path / "x"
    records = bytearray(vscsi(1, [SOME[0]] * 80))
    records[12] = 0x12  # INQUIRY
    records[70 * 32 + 14 : 70 * 32 + 16] = b"\0\3"  # of version 3, beyond what is looked at first
    path.write_bytes(records)
    assert recognised(path) == "vscsi"
    got = read(path, "vscsi")
    assert (len(got.rows), got.rejected) == (78, 1)
    assert got.conversion.summary.other_events == {"scsi:0x12": 1}
