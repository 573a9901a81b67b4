"""Validation: every kind of damage gives its own finding, and a sound trace gives none."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from tests.trace_samples import metadata, rows_batch, snapshot, write_sample
from tracereplay import Trace, TraceWriter
from tracereplay.errors import ValidationError
from tracereplay.trace.validate import Finding, ValidationReport, validate_trace

PART = "page_events/part-000001.parquet"


def check(path: Path) -> ValidationReport:
    return validate_trace(Trace.open(path))


def codes(report: ValidationReport) -> set[tuple[str, str, str]]:
    return {(f.severity, f.code, f.where) for f in report.findings}


def written(path: Path, table: str, *rows: Mapping[str, Any], **facts: Any) -> ValidationReport:
    with TraceWriter(path, metadata(**facts)) as writer:
        writer.write(table, rows_batch(table, rows))
    return check(path)


def test_a_sound_trace_has_no_findings(tmp_path: Path) -> None:
    path = write_sample(tmp_path / "t")
    report = check(path)
    assert report.findings == []
    assert report.ok
    assert report.files == report.sound_files == len(list(path.rglob("*.parquet")))
    assert report.rows["page_events"] == 1000
    report.raise_for_errors()


# ---------------------------------------------------------------- files
def _truncate(path: Path) -> None:
    (path / PART).write_bytes((path / PART).read_bytes()[:-50])


def _flip(path: Path) -> None:
    data = bytearray((path / PART).read_bytes())
    data[4:1000] = b"\xff" * 996
    (path / PART).write_bytes(bytes(data))


def _remove_last(path: Path) -> None:
    (path / PART).unlink()


def _remove_first(path: Path) -> None:
    (path / "page_events/part-000000.parquet").unlink()
    _edit(path, lambda m: m["tables"]["page_events"].pop(0))


def _leftover(path: Path) -> None:
    (path / "page_events/part-000002.parquet.tmp").write_bytes(b"PAR1")


def _foreign(path: Path) -> None:
    (path / "README").write_text("mine")


def _unlist(path: Path) -> None:
    _edit(path, lambda m: m["tables"]["page_events"].pop())


def _list_twice(path: Path) -> None:
    _edit(path, lambda m: m["tables"]["page_events"].append(m["tables"]["page_events"][1]))


def _copy_as_next(path: Path) -> None:
    (path / "page_events/part-000002.parquet").write_bytes((path / PART).read_bytes())


def _incomplete(path: Path) -> None:
    _edit(path, lambda m: m.update(complete=False))


def _wrong_rows(path: Path) -> None:
    _edit(path, lambda m: m["tables"]["page_events"][1].update(rows=7))


def _wrong_range(path: Path) -> None:
    _edit(path, lambda m: m["tables"]["page_events"][1].update(max=7))


def _swap(path: Path) -> None:
    """The two files of the table change places, and the manifest agrees."""
    first, second = path / "page_events/part-000000.parquet", path / PART
    content = first.read_bytes()
    first.write_bytes(second.read_bytes())
    second.write_bytes(content)

    def exchange(manifest: dict[str, Any]) -> None:
        a, b = manifest["tables"]["page_events"]
        a["file"], b["file"] = b["file"], a["file"]

    _edit(path, exchange)


def _extra_column(path: Path) -> None:
    table = pq.read_table(path / PART)
    _replace(path, table.append_column("colour", table["pid"]).drop_columns(["gfp"]))


def _no_required_column(path: Path) -> None:
    _replace(path, pq.read_table(path / PART).drop_columns(["cpu"]))


def _wrong_type(path: Path) -> None:
    table = pq.read_table(path / PART)
    index = table.schema.get_field_index("kind")
    _replace(path, table.set_column(index, "kind", [["nonsense"] * table.num_rows]))


def _replace(path: Path, table: Any) -> None:
    pq.write_table(table, path / PART)
    size = (path / PART).stat().st_size
    _edit(path, lambda m: m["tables"]["page_events"][1].update(bytes=size))


def _edit(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    file = path / "manifest.json"
    value = json.loads(file.read_text())
    change(value)
    file.write_text(json.dumps(value))


@pytest.mark.parametrize(
    ("damage", "expected"),
    [
        (_truncate, {("error", "damaged", PART)}),
        (_flip, {("error", "damaged", PART)}),
        (_remove_last, {("error", "damaged", PART)}),
        (_remove_first, {("error", "file-missing", "page_events/part-000000.parquet")}),
        (_leftover, {("warning", "unfinished-file", "page_events/part-000002.parquet.tmp")}),
        (_foreign, {("note", "foreign-file", "README")}),
        (_unlist, {("warning", "not-listed", PART)}),
        (_list_twice, {("error", "listed-twice", PART)}),
        (
            _copy_as_next,
            {
                ("error", "order", "page_events/part-000002.parquet"),
                ("warning", "not-listed", "page_events/part-000002.parquet"),
            },
        ),
        (_incomplete, {("warning", "incomplete", "trace")}),
        (_wrong_rows, {("error", "row-count", PART)}),
        (_wrong_range, {("error", "range", PART)}),
        (_swap, {("error", "order", PART)}),
        (
            _extra_column,
            {
                ("note", "extra-column", PART),
                ("note", "column-missing", PART),
                ("warning", "gfp-missing", PART),
            },
        ),
        (_no_required_column, {("error", "column-missing", PART), ("error", "bad-values", PART)}),
        (_wrong_type, {("error", "bad-values", PART)}),
    ],
)  # fmt: skip
def test_damage(tmp_path: Path, damage: Callable[[Path], None], expected: set[tuple[str, str, str]]) -> None:
    path = write_sample(tmp_path / "t", rows=4000)
    damage(path)
    report = check(path)
    assert codes(report) == expected
    assert report.ok == all(e[0] != "error" for e in expected)
    if not report.ok:
        with pytest.raises(ValidationError):
            report.raise_for_errors()


# ---------------------------------------------------------------- rows
PAGE = {"ts_ns": 1, "cpu": 0, "kind": "alloc", "pfn": 9, "order": 0, "gfp": 0xCC0}
BIO = {"ts_ns": 1, "cpu": 0, "kind": "queue", "dev": 1, "sector": 0, "nr_sectors": 8}
LOSS = {"table": "page_events", "class": "ring_full", "n": 1, "t0_ns": 1, "t1_ns": 2}


@pytest.mark.parametrize(
    ("table", "row", "severity", "code"),
    [
        ("page_events", {"order": 11}, "error", "order-range"),
        ("page_events", {"cpu": 4}, "warning", "cpu-range"),
        ("page_events", {"pfn": None}, "error", "pfn-missing"),
        ("page_events", {"kind": "alloc_failed"}, "error", "pfn-unexpected"),
        ("page_events", {"kind": "bulk", "returned": 4}, "error", "pfn-unexpected"),
        ("page_events", {"kind": "free", "order": None}, "error", "order-missing"),
        ("page_events", {"gfp": None}, "warning", "gfp-missing"),
        ("page_events", {"kind": "drain"}, "warning", "migratetype-missing"),
        ("page_events", {"kind": "extfrag"}, "error", "fallback_order-missing"),
        ("page_events", {"kind": "bulk", "pfn": None}, "error", "returned-missing"),
        ("bio_events", {"kind": "split"}, "error", "new_sector-missing"),
        ("bio_events", {"kind": "remap"}, "error", "old_sector-missing"),
        ("bio_events", {"sector": None}, "error", "sector-missing"),
        ("mm_events", {"kind": "reclaim_begin", "ts_ns": 1, "cpu": 0, "order": 99}, "error", "order-range"),
        ("loss", {"class": "cosmic_ray"}, "error", "class-unknown"),
        ("loss", {"table": "rings"}, "error", "table-unknown"),
        ("loss", {"t0_ns": 3}, "error", "t1_ns-before-t0_ns"),
        ("tasks", {"pid": 1, "first_ns": 5, "last_ns": 4}, "error", "last_ns-before-first_ns"),
        ("page_map", {"pfn": 1, "pages": 0, "kind": "lru"}, "error", "pages-empty"),
        ("snapshots", {"phase": "later", "source": "vmstat", "name": "x", "value": 1}, "error", "phase-unknown"),
    ],
)  # fmt: skip
def test_rows_that_no_kernel_writes(tmp_path: Path, table: str, row: dict[str, Any], severity: str, code: str) -> None:
    sound = {"page_events": PAGE, "bio_events": BIO, "loss": LOSS}.get(table, {})
    report = written(tmp_path / "t", table, sound, {**sound, **row}) if sound else written(tmp_path / "t", table, row)
    assert [(f.severity, f.code, f.count) for f in report.findings] == [(severity, code, 1)]
    if sound:
        assert "row 1" in report.findings[0].message
        assert written(tmp_path / "sound", table, sound, sound).findings == []


def test_findings_count_rows_instead_of_repeating(tmp_path: Path) -> None:
    report = written(tmp_path / "t", "page_events", *[{**PAGE, "pfn": None}] * 50)
    assert [(f.code, f.count) for f in report.findings] == [("pfn-missing", 50)]


def test_loss_table_against_the_recorders_counts(tmp_path: Path) -> None:
    counted = {"by_class": {"ring_full": 2, "recursion": 5}}
    report = written(tmp_path / "t", "loss", LOSS, LOSS, loss=counted)
    assert report.findings == [
        Finding("error", "loss-sum", "loss", "class recursion: the loss table sums to 0, the recorder counted 5")
    ]
    counted = {"by_class": {"ring_full": 2}}
    assert written(tmp_path / "u", "loss", LOSS, LOSS, loss=counted).findings == []


@pytest.mark.parametrize(
    ("counted", "sound"),
    [
        ({"ring_full": 3}, True),
        ({"ring_full": 2, "ring_lock": 1}, True),
        ({"ring_full": 4}, False),  # one more than the rows hold
        ({"ring_full": 2}, False),  # one less
        ({"ring_lock": 3}, False),  # the row of class ring_full is not among them
        ({"ring_full": 2, "recursion": 1}, False),  # no gap hides what has no place in time
    ],
)
def test_a_gap_of_several_reasons_is_counted_under_each(tmp_path: Path, counted: dict[str, int], sound: bool) -> None:
    mixed = {**LOSS, "class": "unknown", "n": 2}
    report = written(tmp_path / "t", "loss", {**LOSS, "n": 1}, mixed, loss={"by_class": counted})
    assert report.ok is sound


def test_snapshots_that_cannot_be(tmp_path: Path) -> None:
    zone = {"phase": "start", "source": "zoneinfo", "node": 0, "zone": "Normal"}
    free = {"phase": "start", "source": "buddyinfo", "node": 0, "zone": "Normal", "name": "nr_free"}
    report = written(
        tmp_path / "t",
        "snapshots",
        {**zone, "name": "managed", "value": 1000},
        {**zone, "name": "min", "value": 30},
        {**zone, "name": "low", "value": 20},
        {**free, "order": 10, "value": 1},
    )
    assert {f.code for f in report.findings} == {"snapshot-sums"}
    assert "1024 free pages of 1000" in report.findings[0].message
    assert "watermarks [30, 20] do not rise" in report.findings[1].message


@pytest.mark.parametrize("kernel", ["6.1", "6.12", "6.18"])
def test_snapshots_of_real_kernels_are_sound(tmp_path: Path, kernel: str) -> None:
    with TraceWriter(tmp_path / "t", metadata()) as writer:
        writer.write("snapshots", snapshot(kernel, 1, "start"))
        writer.write("snapshots", snapshot(kernel, 2, "end"))
    assert check(tmp_path / "t").findings == []


def test_an_empty_trace_is_a_warning(tmp_path: Path) -> None:
    TraceWriter(tmp_path / "t", metadata()).finish()
    assert codes(check(tmp_path / "t")) == {("warning", "empty", "trace")}
