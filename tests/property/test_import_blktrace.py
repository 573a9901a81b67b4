"""Any blktrace records, in any number of files, versions and byte orders, become the rows that they say; and damage
anywhere never ends an import, nor costs more than the records it touches."""

from __future__ import annotations

import struct
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

from hypothesis import example, given, settings
from hypothesis import strategies as st

from tests.blktrace_records import (
    ACTS,
    DISCARD,
    FLUSH,
    FS,
    KINDS,
    PC,
    SYNC,
    WRITE,
    Record,
    encode,
    flags,
    numbered,
    row,
)
from tracereplay.errors import EmptyTraceError, ImportFormatError
from tracereplay.importers.base import ImportOptions
from tracereplay.importers.convert import Imported, import_trace
from tracereplay.trace.reader import Trace

COLUMNS = list(row(Record(15, 0, pdu=bytes(16))) or ())
U32, U64 = 2**32 - 1, 2**64 - 1
CATEGORIES = st.sets(st.sampled_from([WRITE, SYNC, FLUSH, DISCARD, FS, PC, 1 << 7, 1 << 12, 1 << 15])).map(sum)


@st.composite
def records(draw: st.DrawFn) -> Record:
    act = draw(st.sampled_from([*KINDS, 4, 9, 10, 14, 17, 40]))
    pdu = b""
    if act == 15:
        pdu = struct.pack(">IIQ", draw(st.integers(0, U32)), draw(st.integers(0, U32)), draw(st.integers(0, U64)))
    elif act == 13:
        pdu = struct.pack(">Q", draw(st.integers(0, 2**40)))
    elif act == 17:
        pdu = draw(st.binary(max_size=300))
    elif act == 10:
        pdu = bytes(8)
    return Record(
        act,
        draw(st.integers(0, 2**40)),
        draw(st.integers(0, 2**20)) if act == 13 else draw(st.integers(0, U64)),
        draw(st.integers(0, U32)),
        draw(CATEGORIES),
        draw(st.integers(0, U32)),
        draw(st.integers(0, U32)),
        cpu=draw(st.integers(0, 3)),
        error=draw(st.integers(-200, 0)),
        pdu=pdu,
        cgroup=draw(st.none() | st.integers(0, U64)),
    )


def imported(files: dict[str, bytes], *, name: str = "") -> tuple[Imported, list[dict[str, Any]]] | None:
    """None: refused with an error of ours."""
    with tempfile.TemporaryDirectory() as folder:
        for file, data in files.items():
            Path(folder, file).write_bytes(data)
        options = ImportOptions(block_bytes=1 << 12)
        try:
            result = import_trace(Path(folder, name), Path(folder, "out"), options=options)
        except (ImportFormatError, EmptyTraceError):
            return None
        return result, Trace.open(result.path).bio_events.collect().select(COLUMNS).to_dicts()


@settings(max_examples=40)
@given(st.lists(records(), max_size=40), st.sampled_from([7, 8]), st.sampled_from("<>"))
def test_records_become_their_rows(drawn: list[Record], version: int, order: str) -> None:
    sent = numbered(sorted(drawn, key=lambda r: (r.time, r.cpu)))
    expected = [found for r in sent if (found := row(r))]
    parts = {cpu: [r for r in sent if r.cpu == cpu] for cpu in range(4)}
    got = imported({f"sda.blktrace.{c}": b"".join(encode(r, version, order) for r in p) for c, p in parts.items()})
    if got is None:
        assert not expected
        return
    result, rows = got
    for told in (r for r in expected if r["kind"] == "split" and r["new_sector"] < r["sector"]):
        told["new_sector"] |= 1 << 32  # its high bits were lost
    assert rows == expected
    assert result.summary.rejected == result.summary.lost == 0
    counted = sum(result.summary.events.values()) + sum(result.summary.other_events.values())
    assert counted == len(sent)


SOUND = numbered(
    replace(Record(act, 1000 * n, 8 * n, 4096, WRITE | FS, 7), pdu=bytes(16) if act == 15 else b"")
    for n, act in enumerate((1, 12, 7, 8, 15, 1, 2, 7, 8, 1), 1)
)
PARTS = [encode(r) for r in SOUND]


@settings(max_examples=80)
@given(st.integers(0, len(b"".join(PARTS)) - 1), st.integers(1, 60), st.binary(max_size=200))
@example(48, 48, b"")
@example(0, 1, bytes(200))
def test_damage_costs_no_more_than_the_records_it_touches(at: int, length: int, instead: bytes) -> None:
    whole = b"".join(PARTS)
    got = imported({"sda.blktrace.0": whole[:at] + instead + whole[at + length :]})
    begins, untouched = 0, []
    for record, part in zip(SOUND, PARTS, strict=True):
        ends = begins + len(part)
        if ends <= at or begins >= at + length:
            untouched.append(row(record))
        begins = ends
    if got is None:
        # What is left may begin with the version of a damaged first record, which is refused by its number.
        assert not untouched or at < 4
        return
    result, rows = got
    if instead or length % 48:
        assert all(r in rows for r in untouched)
        assert len(rows) <= len(SOUND) + len(instead) // 48 + 1
    assert result.summary.lines >= len(rows)


@settings(max_examples=40)
@given(st.binary(max_size=400))
def test_any_bytes_after_a_magic(noise: bytes) -> None:
    imported({"sda.blktrace.0": PARTS[0][:4] + noise})


def printed(record: Record, comm: str) -> str:
    """The line that blkparse prints (process_default, blkparse_fmt.c)."""
    letter = {number: text for text, number in ACTS.items()}[record.act]
    dev, nr = record.dev, record.nr_bytes // 512
    rest = f"{record.sector} + {nr} [{comm}]" if nr else f"[{comm}]"
    if record.act == 15:
        old, dev, start = struct.unpack(">IIQ", record.pdu)
        rest = f"{record.sector} + {nr} <- ({old >> 20},{old & 0xFFFFF}) {start}"
    elif record.act == 13:
        rest = f"{record.sector} / {struct.unpack('>Q', record.pdu)[0] & U32} [{comm}]"
    elif record.act in (6, 8):
        rest = f"{record.sector} + {nr} [{record.error}]" if nr else f"{record.sector} [{record.error}]"
    return (
        f"{dev >> 20:3d},{dev & 0xFFFFF:<3d} {record.cpu:2d} {record.sequence:8d} {record.time // 10**9:5d}."
        f"{record.time % 10**9:09d} {record.pid:5d} {letter:>2s} {flags(record):>3s} {rest}\n"
    )


@settings(max_examples=40)
@given(st.lists(records().filter(lambda r: r.act in ACTS.values()), max_size=30), st.text(max_size=16), st.binary())
def test_lines_become_their_rows_and_other_bytes_are_refused(drawn: list[Record], comm: str, noise: bytes) -> None:
    comm = "".join(c for c in comm if c.isprintable())
    sent = numbered(sorted(drawn, key=lambda r: r.time))
    text = "".join(printed(r, comm) for r in sent).encode()
    got = imported({"x.txt": text + b"\xff\n"}, name="x.txt")
    expected = [found for r in sent if (found := row(r))]
    for one in expected:  # what the text leaves out: sectors where nothing is moved, lengths of splits, whose C it is
        if one["nr_sectors"] == 0 and one["kind"] not in ("complete", "bio_complete", "requeue", "remap", "split"):
            one["sector"] = 0
        one["nr_sectors"] = 0 if one["kind"] == "split" else one["nr_sectors"]
        if one["kind"] == "split" and one["new_sector"] < one["sector"]:
            one["new_sector"] |= 1 << 32
    told = [name for name in COLUMNS if name not in ("kind", "nr_bytes")]
    if got is not None:
        assert [{name: r[name] for name in told} for r in got[1]] == [
            {name: r[name] for name in told} for r in expected
        ]
        assert got[0].summary.rejected == 1
    else:
        assert not expected
    imported({"x.txt": text[: len(text) // 2] + noise + text[len(text) // 2 :]}, name="x.txt")
