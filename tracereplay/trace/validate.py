"""Is this trace sound? Every file, every row, the sums that must agree; memory bounded by a row group."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from tracereplay.errors import TraceError, ValidationError
from tracereplay.trace.columns import conform, sort_bounds
from tracereplay.trace.files import PartFile
from tracereplay.trace.manifest import MANIFEST_NAME, part_name, part_number
from tracereplay.trace.reader import Trace
from tracereplay.trace.rules import ERROR, NOTE, WARNING, Rule, row_rules
from tracereplay.trace.schema import TABLES, Table, written_table
from tracereplay.trace.snapshots import snapshot_problems

MIXED = "unknown"
HIDDEN = ("ring_full", "ring_lock")
"""Loss class of gaps with several reasons, and the classes of those reasons."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is wrong, or worth knowing."""

    severity: str
    """``error`` (the trace must not be trusted there), ``warning`` (it is incomplete or odd), ``note``."""
    code: str
    """Stable name of the check."""
    where: str
    """Table or file inside the bundle; ``trace`` for the bundle itself."""
    message: str
    count: int = 1
    """Rows concerned."""


@dataclass(slots=True)
class ValidationReport:
    """What validation found."""

    path: str
    findings: list[Finding] = field(default_factory=list)
    files: int = 0
    sound_files: int = 0
    rows: dict[str, int] = field(default_factory=dict)
    """Rows read, by table."""

    @property
    def errors(self) -> list[Finding]:
        """Findings of severity error."""
        return [f for f in self.findings if f.severity == ERROR]

    @property
    def warnings(self) -> list[Finding]:
        """Findings of severity warning."""
        return [f for f in self.findings if f.severity == WARNING]

    @property
    def ok(self) -> bool:
        """No errors."""
        return not self.errors

    def to_json(self) -> dict[str, Any]:
        """Plain values, with the schema of this report under ``schema``."""
        return {
            "schema": 1,
            "path": self.path,
            "ok": self.ok,
            "files": self.files,
            "sound_files": self.sound_files,
            "rows": self.rows,
            "findings": [asdict(f) for f in self.findings],
        }

    def raise_for_errors(self) -> None:
        """Raise ValidationError when there are errors."""
        if self.errors:
            first = self.errors[0]
            raise ValidationError(
                f"{self.path} has {len(self.errors)} error(s); the first: {first.where}: {first.message}",
                hint="restore the named files from a copy, or capture or import the trace again",
            )

    def add(self, severity: str, code: str, where: str, message: str, count: int = 1) -> None:
        """Record a finding."""
        self.findings.append(Finding(severity, code, where, message, count))


def validate_trace(trace: Trace) -> ValidationReport:
    """Check a trace against its schema, its manifest and itself. Damage becomes findings, not exceptions."""
    report = ValidationReport(trace.location)
    _check_bundle(trace, report)
    for table in TABLES:
        _check_table(trace, table, report)
    readable = {t for t in TABLES if all(f.where.split("/")[0] != t for f in report.errors)}
    if "loss" in readable:
        _check_loss(trace, report)
    if "snapshots" in readable:
        for one in [trace.select_host(name) for name in trace.hosts] or [trace]:
            for message in snapshot_problems(one):
                report.add(WARNING, "snapshot-sums", "snapshots", message)
    return report


# ---------------------------------------------------------------- the bundle
def _check_bundle(trace: Trace, report: ValidationReport) -> None:
    if not trace.complete:
        report.add(
            WARNING,
            "incomplete",
            "trace",
            "capture did not finish: it runs, was stopped by an error, or died; files open then are lost",
        )
    known = {f.name for parts in trace.files.values() for f in parts}
    for name in trace.bundle.names():
        folder = name.split("/")[0]
        if name in known or name == MANIFEST_NAME or folder == "derived":
            continue
        if name.endswith(".tmp"):
            report.add(WARNING, "unfinished-file", name, "left by a writer that died, never read")
        elif folder in trace.manifest.dropped_below and part_number(name) is not None:
            report.add(NOTE, "dropped-file", name, "dropped from the trace and not yet removed, not read")
        else:
            report.add(NOTE, "foreign-file", name, "not part of the trace, ignored")
    for name, entries in trace.manifest.tables.items():
        if name not in TABLES:
            report.add(WARNING, "unknown-table", name, "this tracereplay does not know the table; ignored")
        listed = [e.file for e in entries]
        for file in sorted({f for f in listed if listed.count(f) > 1}):
            report.add(ERROR, "listed-twice", file, "the manifest lists it twice")
    if not any(trace.rows(t) for t in TABLES):
        report.add(WARNING, "empty", "trace", "no table holds a row")


# ---------------------------------------------------------------- tables and files
@dataclass(slots=True)
class _Progress:
    """Where a table's check stands."""

    table: str
    hosts: list[str]
    last: int | None = None
    counts: dict[str, list[int]] = field(default_factory=dict)
    """Rule code -> rows that break it, first such row in the file."""


def _check_table(trace: Trace, table: str, report: ValidationReport) -> None:
    parts = trace.files.get(table, [])
    rules = row_rules(table, trace.metadata)
    progress = _Progress(table, trace.hosts)
    report.files += len(parts)
    _check_numbers(table, parts, trace.manifest.dropped_below.get(table, 0), report)
    for part in parts:
        where = f"{table}/{part.path.name}"
        if part.entry is None:
            severity = WARNING if trace.complete else NOTE
            report.add(severity, "not-listed", where, "not in the manifest, but finished: it is read")
        before = len(report.errors)
        if part.problem:
            report.add(ERROR, "damaged", where, f"cannot be read: {part.problem}")
            progress.last = None
        else:
            _check_file(part, where, rules, progress, report)
        report.sound_files += len(report.errors) == before


def _check_numbers(table: str, parts: list[PartFile], floor: int, report: ValidationReport) -> None:
    """Files are numbered without gaps, from the first one that was not dropped."""
    numbers = {n for p in parts if (n := part_number(p.path.name)) is not None}
    for number in sorted(set(range(floor, max(numbers, default=-1) + 1)) - numbers):
        report.add(ERROR, "file-missing", part_name(table, number), "missing, and later files of the table exist")


def _check_file(part: PartFile, where: str, rules: list[Rule], progress: _Progress, report: ValidationReport) -> None:
    table = TABLES[progress.table]
    _check_schema(part, where, written_table(table, hosts=bool(progress.hosts)), report)
    progress.counts = {}
    first: int | None = None
    rows = 0
    try:
        for batch in _row_groups(part, progress.table):
            bounds = _check_order(batch, where, progress, report)
            if bounds is not None and first is None:
                first = bounds[0]
            for rule in rules:
                _apply(rule, batch, rows, progress)
            rows += batch.num_rows
    except TraceError as error:
        report.add(ERROR, "bad-values", where, error.message)
        return
    except (OSError, pa.ArrowException) as error:
        report.add(ERROR, "damaged", where, f"row {rows} on cannot be read: {str(error).splitlines()[0]}")
        return
    finally:
        report.rows[progress.table] = report.rows.get(progress.table, 0) + rows
        for rule in rules:
            if rule.code in progress.counts:
                count, row = progress.counts[rule.code]
                report.add(rule.severity, rule.code, where, f"{rule.says}, first in row {row}", count)
    entry = part.entry
    if entry is not None and rows != entry.rows:
        report.add(ERROR, "row-count", where, f"holds {rows} rows, the manifest says {entry.rows}")
    if entry is not None and table.sorted_by and rows and (first, progress.last) != (entry.min, entry.max):
        report.add(
            ERROR,
            "range",
            where,
            f"{table.sorted_by} spans {first}..{progress.last}, the manifest says {entry.min}..{entry.max}",
        )


def _check_schema(part: PartFile, where: str, table: Table, report: ValidationReport) -> None:
    found = part.footer.schema.to_arrow_schema()
    wanted = table.schema
    for name in found.names:
        if wanted.get_field_index(name) < 0:
            report.add(NOTE, "extra-column", where, f"column {name!r} is not in the schema, ignored")
    for column in wanted:
        index = found.get_field_index(column.name)
        if index < 0:
            severity = NOTE if column.nullable else ERROR
            report.add(severity, "column-missing", where, f"no column {column.name!r}")


def _row_groups(part: PartFile, table: str) -> Iterator[pa.RecordBatch]:
    """Row groups in the schema's form, nulls for absent optional columns.

    Raises TraceError for values or nulls that the schema forbids.
    """
    entry = TABLES[table]
    with pq.ParquetFile(part.path) as file:
        known = [name for name in file.schema_arrow.names if entry.schema.get_field_index(name) >= 0]
        for group in range(file.num_row_groups):
            for piece in file.read_row_group(group, columns=known).to_batches():
                columns = conform(entry, piece)
                arrays = [
                    columns[f.name] if f.name in columns else pa.nulls(piece.num_rows, f.type) for f in entry.schema
                ]
                yield pa.RecordBatch.from_arrays(arrays, schema=entry.schema)


def _check_order(
    batch: pa.RecordBatch, where: str, progress: _Progress, report: ValidationReport
) -> tuple[int, int] | None:
    table = TABLES[progress.table]
    if table.sorted_by is None or batch.num_rows == 0:
        return None
    column = batch.column(table.sorted_by)
    try:
        bounds = sort_bounds(table, {table.sorted_by: column})
    except TraceError as error:
        report.add(ERROR, "order", where, error.message)
        return (column[0].as_py(), column[-1].as_py())
    assert bounds is not None
    if progress.last is not None and bounds[0] < progress.last:
        report.add(ERROR, "order", where, f"{table.sorted_by} goes back from {progress.last} to {bounds[0]}")
    progress.last = bounds[1]
    return bounds


def _apply(rule: Rule, batch: pa.RecordBatch, offset: int, progress: _Progress) -> None:
    broken = rule.broken(batch)
    count = int(broken.sum())
    if count:
        seen = progress.counts.setdefault(rule.code, [0, offset + int(broken.argmax())])
        seen[0] += count


# ---------------------------------------------------------------- sums
def _check_loss(trace: Trace, report: ValidationReport) -> None:
    """The loss table against what the recorder counted."""
    counted = trace.metadata.loss.get("by_class")
    if not isinstance(counted, dict):
        return
    found = trace.loss_summary()["by_class"]
    if None in (*found.values(), *counted.values()):
        return
    # A gap that has several reasons is one row of class unknown: there, and only there, its events may be more
    # than the recorder counted as such, and those of the classes that it hides less.
    events = (sum(n for c, n in classes.items() if c != "stack") for classes in (found, counted))
    mixed = found.get(MIXED, 0) > counted.get(MIXED, 0) and len(set(events)) == 1
    for name in sorted(counted.keys() | found.keys()):
        in_table, by_recorder = found.get(name, 0), counted.get(name, 0)
        hidden = mixed and (name == MIXED or (name in HIDDEN and in_table < by_recorder))
        if in_table != by_recorder and not hidden:
            report.add(
                ERROR,
                "loss-sum",
                "loss",
                f"class {name}: the loss table sums to {in_table}, the recorder counted {by_recorder}",
            )
