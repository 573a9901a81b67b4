"""Exports: each format held to its own grammar, and read back where there is a reader."""

from __future__ import annotations

import csv
import io
import json
import re
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pytest

from tests.block_samples import read
from tracereplay.analysis.selection import Selection
from tracereplay.analysis.view import View
from tracereplay.errors import EmptyTraceError, MissingTableError, OutputExistsError, UsageError
from tracereplay.export.fio import write_iolog
from tracereplay.export.formats import check, format_named
from tracereplay.export.stacks import weighted_stacks, write_folded, write_speedscope
from tracereplay.export.tables import tables_of, write_query, write_table, write_tables
from tracereplay.trace.metadata import TraceMetadata
from tracereplay.trace.outputs import check_directory, check_file, new_file
from tracereplay.trace.reader import Trace
from tracereplay.trace.writer import TraceWriter

DISK, UPPER = 254 << 20, 253 << 20 | 1


def trace_of(path: Path, **tables: list[dict[str, Any]]) -> Trace:
    with TraceWriter(path, TraceMetadata()) as writer:
        for name, rows in tables.items():
            names = list(dict.fromkeys(key for row in rows for key in row))
            writer.write(name, pa.RecordBatch.from_pydict({n: [row.get(n) for row in rows] for n in names}))
    return Trace.open(path)


def bio(ts: int, op: str, sector: int, sectors: int, *, dev: int = DISK, kind: str = "queue", flags: str = "") -> Any:
    return {
        "ts_ns": ts, "cpu": 0, "kind": kind, "dev": dev, "sector": sector, "nr_sectors": sectors, "op": op,
        "flags": flags or op, "pid": 7,
    }  # fmt: skip


BIOS = [
    bio(1_000_500, "W", 8, 16),
    bio(1_000_600, "W", 8, 16, kind="issue"),
    bio(1_002_499, "R", 100, 8),
    bio(1_003_000, "W", 0, 0, flags="FWS"),
    bio(1_004_000, "D", 2**40, 2**20),
    bio(1_005_000, "ZA", 5, 8),
    bio(1_006_000, "F", 9, 0),
    bio(1_007_000, "R", 9, 0),
    bio(2_000_000, "R", 16, 8),
]


def iolog(trace: Trace, *, file: str | None = None, **selected: Any) -> str:
    out = io.BytesIO()
    write_iolog(View(trace, Selection(**selected)), out, file=file)
    return out.getvalue().decode()


# ------------------------------------------------------------ fio
def test_iolog_of_a_device(tmp_path: Path) -> None:
    trace = trace_of(tmp_path / "t", bio_events=BIOS)
    out = io.BytesIO()
    done = write_iolog(View.of(trace), out)
    assert out.getvalue().decode().splitlines() == [
        "fio version 3 iolog",
        "0 device-254-0 add",
        "0 device-254-0 open",
        "0 device-254-0 write 4096 8192",
        "1 device-254-0 read 51200 4096",
        "2 device-254-0 sync 0 0",
        f"3 device-254-0 trim {2**49} {2**29}",
        "5 device-254-0 sync 0 0",
        "999 device-254-0 read 8192 4096",
        "999 device-254-0 close",
    ]
    assert done.requests == {"write": 1, "read": 2, "sync": 2, "trim": 1}
    assert done.left_out == {"ZA": 1, "R": 1}


def test_iolog_comes_back_through_the_importer(tmp_path: Path) -> None:
    trace = trace_of(tmp_path / "t", bio_events=BIOS)
    path = tmp_path / "x.iolog"
    path.write_text(iolog(trace, file="/dev/sdb"))
    back = read(path, "fio")
    assert back.rejected == 0
    kept = [b for b in BIOS if b["kind"] == "queue" and (b["nr_sectors"] or b["op"] in "FW") and b["op"] != "ZA"]
    expected = [
        ((b["ts_ns"] - 1_000_500) // 1000 * 1000, "F" if not b["nr_sectors"] else b["op"], b["nr_sectors"])
        for b in kept
    ]
    assert [(row[0], row[5], row[4]) for row in back.rows] == expected
    assert {row[2] for row in back.rows} == {"/dev/sdb"}


def test_a_layer_has_to_be_chosen(tmp_path: Path) -> None:
    upper = [bio(1, "W", 0, 8, dev=UPPER), bio(5, "W", 0, 8, dev=UPPER)]
    trace = trace_of(tmp_path / "t", bio_events=[*upper, *BIOS])
    with pytest.raises(UsageError, match=r"2 devices: 254:0 \(8\), 253:1 \(2\)") as error:
        iolog(trace)
    assert "--device 254:0" in (error.value.hint or "")
    assert iolog(trace, device=(UPPER,)).count("write") == 2
    both = iolog(trace, device=(UPPER, DISK))
    assert both.index("device-253-1 add") < both.index("device-254-0 write")


def test_requests_stand_in_for_bios_that_were_not_recorded(tmp_path: Path) -> None:
    trace = trace_of(tmp_path / "t", bio_events=[bio(5, "W", 0, 8, kind="issue"), bio(6, "W", 0, 8, kind="complete")])
    out = io.BytesIO()
    assert write_iolog(View.of(trace), out).kind == "issue"
    assert out.getvalue().count(b" write ") == 1


def test_nothing_to_replay_and_bad_names(tmp_path: Path) -> None:
    trace = trace_of(tmp_path / "t", bio_events=BIOS)
    with pytest.raises(EmptyTraceError, match="no bios that the filters keep"):
        iolog(trace, cpu=(9,))
    with pytest.raises(EmptyTraceError, match="fio can replay no bio of 254:0: operations are ZA"):
        iolog(trace_of(tmp_path / "z", bio_events=[bio(1, "ZA", 0, 8)]))
    for name in ("a b", "a:b", "x" * 256, ""):
        with pytest.raises(UsageError, match="cannot hold the name"):
            iolog(trace, file=name)


# ------------------------------------------------------------ stacks
def alloc(ts: int, order: int, stack: int | None, kind: str = "alloc") -> dict[str, Any]:
    return {"ts_ns": ts, "cpu": 0, "kind": kind, "pfn": ts * 16, "order": order, "stack_id": stack, "pid": 7, "gfp": 1}


NAMELESS = "(no stack);?: GFP_DMA 1"


def stacked(path: Path) -> Trace:
    names = {1: ["alloc_pages", "do_fault; odd", "main"], 2: ["alloc_pages", "write\nback", "main"], 3: ["idle"]}
    stacks = [
        {"stack_id": i, "depth": depth, "address": 1, "symbol": name}
        for i, functions in names.items()
        for depth, name in enumerate(functions)
    ]
    events = [alloc(1, 0, 1), alloc(2, 3, 1), alloc(3, 1, 2), alloc(4, 0, None), alloc(5, 0, 3, "free")]
    return trace_of(path, page_events=events, stacks=stacks)


def test_folded_lines_follow_their_grammar(tmp_path: Path) -> None:
    view = View.of(stacked(tmp_path / "t"))
    out = io.BytesIO()
    done = write_folded(view, out, "pages")
    lines = out.getvalue().decode().splitlines()
    assert lines == ["main;do_fault: odd;alloc_pages 9", "main;write back;alloc_pages 2", NAMELESS]
    assert all(re.fullmatch(r"(.*)\s+?(\d+(?:\.\d*)?)", text) for text in lines)  # flamegraph.pl's own pattern
    assert (done.stacks, done.total, done.without) == (3, 12, 1)
    assert weighted_stacks(view, "requests")["value"].to_list() == [2, 1, 1]
    assert weighted_stacks(view, "bytes")["value"].sum() == 12 * 4096
    assert weighted_stacks(View(view.trace, Selection(order=(3,))), "pages")["value"].to_list() == [8]


def test_speedscope_follows_its_schema(tmp_path: Path) -> None:
    out = io.BytesIO()
    write_speedscope(View.of(stacked(tmp_path / "t")), out, "bytes", name="t")
    document = json.loads(out.getvalue())
    assert document["$schema"] == "https://www.speedscope.app/file-format-schema.json"
    assert set(document) <= {"$schema", "name", "exporter", "activeProfileIndex", "shared", "profiles"}
    frames = document["shared"]["frames"]
    profile = document["profiles"][0]
    assert set(profile) == {"type", "name", "unit", "startValue", "endValue", "samples", "weights"}
    assert profile["unit"] in {"bytes", "microseconds", "milliseconds", "nanoseconds", "none", "seconds"}
    assert len(profile["samples"]) == len(profile["weights"])
    assert profile["endValue"] - profile["startValue"] == sum(profile["weights"])
    named = [[frames[i]["name"] for i in sample] for sample in profile["samples"]]
    assert named[0] == ["main", "do_fault; odd", "alloc_pages"]


def test_what_stacks_hold(tmp_path: Path) -> None:
    view = View.of(stacked(tmp_path / "t"))
    live = weighted_stacks(view, "live")
    assert live["value"].to_list() == [9, 2, 1]
    held = weighted_stacks(view, "byte-seconds")
    assert held.is_empty()  # a few nanoseconds: less than one byte-second


def test_a_trace_without_allocations_says_how_to_record_them(tmp_path: Path) -> None:
    trace = trace_of(tmp_path / "t", bio_events=BIOS)
    for weight in ("pages", "live"):
        with pytest.raises(EmptyTraceError) as error:
            write_folded(View.of(trace), io.BytesIO(), weight)
        assert "--events page" in (error.value.hint or "")


# ------------------------------------------------------------ tables
def test_tables_as_csv_and_parquet(tmp_path: Path) -> None:
    trace = trace_of(
        tmp_path / "t",
        bio_events=BIOS,
        page_events=[alloc(1, 0, None)],
        shed=[{"t0_ns": 1, "sample": 1, "overhead": float("nan"), "rate": float("inf")}],
    )
    view = View.of(trace)
    assert tables_of(view) == ["page_events", "bio_events", "shed"]
    for to in ("csv", "parquet"):
        write_tables(view, tables_of(view), tmp_path / to, to)
        assert sorted(p.name for p in (tmp_path / to).iterdir()) == [
            f"bio_events.{to}",
            f"page_events.{to}",
            f"shed.{to}",
        ]
    with (tmp_path / "csv" / "bio_events.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [int(row["ts_ns"]) for row in rows] == [b["ts_ns"] for b in BIOS]
    assert rows[0]["kind"] == "queue"
    assert pl.read_parquet(tmp_path / "parquet" / "bio_events.parquet")["op"].to_list() == [b["op"] for b in BIOS]
    shed = pl.read_parquet(tmp_path / "parquet" / "shed.parquet")
    assert shed.select("overhead", "rate").rows() == [(None, None)]
    write_table(View(trace, Selection(time=(1_000_000, 1_003_000))), "bio_events", tmp_path / "few.csv", "csv")
    assert len((tmp_path / "few.csv").read_text().splitlines()) == 1 + 4
    write_query(trace, "SELECT COUNT(*) AS n FROM bio_events", tmp_path / "n.parquet", "parquet")
    assert pl.read_parquet(tmp_path / "n.parquet")["n"].to_list() == [len(BIOS)]
    with pytest.raises(MissingTableError, match="bio_event"):
        tables_of(view, "bio_event")


# ------------------------------------------------------------ outputs and options
def test_outputs_are_whole_or_absent(tmp_path: Path) -> None:
    path = tmp_path / "out"

    def fail() -> None:
        with new_file(path) as file:
            file.write(b"half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert list(tmp_path.iterdir()) == []
    with new_file(path) as file:
        file.write(b"whole")
    assert path.read_bytes() == b"whole"
    assert [p.name for p in tmp_path.iterdir()] == ["out"]
    with pytest.raises(OutputExistsError):
        check_file(path, force=False)
    check_file(path, force=True)
    with pytest.raises(UsageError, match="no directory"):
        check_file(tmp_path / "no" / "out", force=False)


def test_only_directories_of_an_export_are_replaced(tmp_path: Path) -> None:
    folder = tmp_path / "out"
    folder.mkdir()
    (folder / "loss.csv").touch()
    with pytest.raises(OutputExistsError):
        check_directory(folder, ["loss.csv"], force=False)
    check_directory(folder, ["loss.csv"], force=True)
    (folder / "thesis.tex").touch()
    with pytest.raises(OutputExistsError):
        check_directory(folder, ["loss.csv"], force=True)


def test_what_has_no_meaning_is_refused_by_name() -> None:
    with pytest.raises(UsageError, match="no export format 'perfeto'") as error:
        format_named("perfeto")
    assert "did you mean 'perfetto'" in (error.value.hint or "")
    with pytest.raises(UsageError, match="cannot be filtered by device"):
        check(format_named("folded"), ("device",), ())
    with pytest.raises(UsageError, match="--weight has no meaning for fio"):
        check(format_named("fio"), (), ("weight",))
