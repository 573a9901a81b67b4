"""Block-trace tables, the obvious way: one line at a time, with Python's own integers and decimals."""

from __future__ import annotations

from decimal import Decimal, InvalidOperation

from tracereplay.importers.block_tables import BlockTable
from tracereplay.importers.requests import LONGEST_LATENCY_NS, OPERATIONS

Row = tuple[int, str, str, int, int, str]
"""Time, kind, device as the source calls it, sector, sectors, operation."""
MOST = 2**63 - 1


class RefusedError(Exception):
    """A line that holds no request."""


def rows(table: BlockTable, text: bytes) -> tuple[list[Row], list[int]]:
    """Rows in the order of time (requests before completions at equal times within the source's order), and the
    numbers of refused lines. A last line without an end is refused.
    """
    queued: list[Row] = []
    completed: list[Row] = []
    refused = []
    lines = text.split(b"\n")
    cut = lines.pop()
    for number, line in enumerate(lines, 1):
        if number == 1 and table.has_header(text):
            continue
        if not line.strip() or line.strip().startswith(b"#"):
            continue
        try:
            _request(table, line, queued, completed)
        except RefusedError:
            refused.append(number)
    if cut:
        refused.append(len(lines) + 1)
    return sorted(queued + completed, key=lambda row: row[0]), refused


def _request(table: BlockTable, line: bytes, queued: list[Row], completed: list[Row]) -> None:
    fields = line.split(b",") if table.separator == "," else line.split()
    fields = [field.strip() for field in fields]
    if len(fields) < len(table.columns) or (len(fields) > len(table.columns) and not table.extra):
        raise RefusedError
    role = {}
    for column, field in zip(table.columns, fields, strict=False):
        value: int | str
        if field.startswith(b'"'):
            raise RefusedError
        if column.kind == "text":
            if not 0 < len(field) <= 256:
                raise RefusedError
            value = field.decode()
        elif column.kind == "hex":
            value = _number(field, 16)
        elif column.kind == "seconds":
            if set(field) - set(b"0123456789.") or not set(field) & set(b"0123456789"):
                raise RefusedError
            try:
                value = int(Decimal(field.decode()) * 10**9)
            except InvalidOperation:
                raise RefusedError from None
            if value >= 9_000_000_001 * 10**9:
                raise RefusedError
        else:
            value = _number(field, 10)
        role[column.role] = value
    ts = (int(role["time"]) - table.epoch) * table.time_unit_ns
    op = table.operations.get(role["op"].lower() if isinstance(role["op"], str) else role["op"], -1)
    device = int(role.get("device", 0))
    first = int(role["offset"]) * table.offset_unit
    end = first + int(role["size"]) * table.size_unit
    if not 0 <= ts <= MOST or op < 0 or device >= (2**20 if "host" in role else 2**32):
        raise RefusedError
    if int(role["offset"]) > MOST // 512 // 4 and max(table.offset_unit, table.size_unit) == 512:
        raise RefusedError
    if int(role["offset"]) > MOST // 4 or end - first > (2**32 - 2) * 512:
        raise RefusedError
    sectors = (end + 511) // 512 - first // 512 if end > first else 0
    name = table.device_name.format(host=role.get("host", ""), n=device)
    row = (ts, "queue", name, first // 512, sectors, OPERATIONS[op])
    queued.append(row)
    if "latency" in role:
        latency = int(role["latency"]) * table.latency_unit_ns
        if latency <= LONGEST_LATENCY_NS and ts <= MOST - LONGEST_LATENCY_NS:
            completed.append((ts + latency, "bio_complete", *row[2:]))


def _number(field: bytes, base: int) -> int:
    digits = b"0123456789abcdef"[:base]
    if not field or set(field.lower()) - set(digits):
        raise RefusedError
    value = int(field, base)
    if value > MOST:
        raise RefusedError
    return value
