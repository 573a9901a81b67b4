"""The columns of a block-trace table into requests."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np
import numpy.typing as npt

from tracereplay.importers.block_tables import BlockTable
from tracereplay.importers.delimited_blocks import DelimitedBlocks, Fields
from tracereplay.importers.delimited_parser import HEX, INTEGER, SECONDS, SKIP, TEXT
from tracereplay.importers.requests import I64, UNKNOWN_OPERATION, Mask, Requests, misfits, scaled
from tracereplay.importers.scsi import SCSI_OPERATIONS, scsi_name

if TYPE_CHECKING:
    from tracereplay.importers.base import ImportOptions
    from tracereplay.importers.source import Source

_KINDS = {"integer": INTEGER, "seconds": SECONDS, "hex": HEX, "text": TEXT, "skip": SKIP}
_MINORS = 1 << 20
SIZES_FILE = "device_size.csv"
MISFIT = "a device, place or size that no event can hold"
TIME = "a time out of range"
OPERATION = "an operation that is neither read nor write"


class BlockTableReader:
    """Reads one source. See :class:`~tracereplay.importers.request_conversion.RequestReader`."""

    unit = "line"

    def __init__(self, table: BlockTable, source: Source, options: ImportOptions) -> None:
        self._table = table
        self._at = {c.role: i for i, c in enumerate(table.columns) if c.role}
        self.format = table.name
        self.latency = any(c.role == "latency" for c in table.columns)
        self.remedy = f"{table.title} has lines of {table.header}; --from names another format"
        separator = "-t, " if table.separator == "," else ""
        self.sorting = f"LC_ALL=C sort {separator}-s -n -k{self._at['time'] + 1},{self._at['time'] + 1} FILE"
        self.other_events: dict[str, int] = {}
        self._header = table.has_header(source.head().data)
        self._sizes = {} if source.is_stdin or table.name != "alibaba" else _sizes(source.path.parent / SIZES_FILE)
        self._blocks = DelimitedBlocks(
            [_KINDS[c.kind] for c in table.columns],
            table.separator,
            options.block_bytes,
            least=len(table.columns),
            extra=table.extra,
        )
        self.rejects = self._blocks.rejects
        self._hosts = {name: number for number, name in enumerate(table.hosts)}
        self._host_codes = np.zeros(0, np.int64)
        self._op_codes = np.zeros(0, np.int8)

    @property
    def lines(self) -> int:
        """Lines read."""
        return self._blocks.lines

    def requests(self, stream: BinaryIO) -> Iterator[Requests]:
        """Requests that fit an event, in the order of the source."""
        for fields in self._blocks.fields(stream, header=self._header):
            yield self._convert(fields)

    # ------------------------------------------------------------ columns
    def _convert(self, fields: Fields) -> Requests:
        table = self._table
        self._learn()
        ts, bad_time = scaled(self._column(fields, "time"), table.time_unit_ns, table.epoch)
        op, other = self._operation(fields)
        requests = Requests(
            ts_ns=ts,
            dev=self._device(fields),
            offset=self._column(fields, "offset"),
            size=self._column(fields, "size"),
            op=op,
            unit=table.offset_unit,
            size_unit=table.size_unit,
        )
        if self.latency:
            latency, absurd = scaled(self._column(fields, "latency"), table.latency_unit_ns)
            requests.latency_ns = np.where(absurd, -1, latency)
        bad = misfits(requests)
        refused = self._refuse(fields, ((bad_time, TIME), (other, OPERATION), (bad, MISFIT)))
        return requests.kept(~refused)

    def _column(self, fields: Fields, role: str) -> I64:
        values: I64 = fields.values[self._at[role]].copy()
        return values

    def _learn(self) -> None:
        """What texts that are new stand for."""
        texts = self._blocks.texts()
        if self._op_codes.size == len(texts):
            return
        new = texts[self._op_codes.size :]
        operations, host = self._table.operations, self._at.get("host")
        for column, text in new:
            if column == host:
                self._hosts.setdefault(text, len(self._hosts))
        op_codes = [operations.get(text.lower(), UNKNOWN_OPERATION) for _, text in new]
        host_codes = [self._hosts.get(text, -1) for _, text in new]
        self._op_codes = np.concatenate([self._op_codes, np.array(op_codes, np.int8)])
        self._host_codes = np.concatenate([self._host_codes, np.array(host_codes, np.int64)])

    def _operation(self, fields: Fields) -> tuple[npt.NDArray[np.int8], Mask]:
        values = fields.values[self._at["op"]]
        kind = self._table.columns[self._at["op"]].kind
        if kind == "text":
            codes = self._op_codes[values]
        else:
            known = np.full(257, UNKNOWN_OPERATION, np.int8)
            for value, code in self._table.operations.items():
                known[int(value)] = code
            codes = known[np.minimum(values, 256)]
        return codes, codes == UNKNOWN_OPERATION

    def _device(self, fields: Fields) -> I64:
        if "device" not in self._at:
            return np.zeros(fields.lines.size, np.int64)
        number = fields.values[self._at["device"]]
        if "host" not in self._at:
            return np.asarray(number, np.int64).copy()
        hosts = self._host_codes[fields.values[self._at["host"]]]
        sound = (number < _MINORS) & (hosts < 1 << 12)
        return np.where(sound, hosts * _MINORS + number, -1)

    def _refuse(self, fields: Fields, checks: tuple[tuple[Mask, str], ...]) -> Mask:
        """Rows that fail a check, noted by the first that they fail. Other SCSI commands are counted by name."""
        refused = np.zeros(fields.lines.size, np.bool_)
        for mask, reason in checks:
            rows = np.flatnonzero(mask & ~refused)
            refused |= mask
            if reason is OPERATION and self._table.operations == SCSI_OPERATIONS:
                for code in fields.values[self._at["op"]][rows].tolist():
                    name = scsi_name(code)
                    self.other_events[name] = self.other_events.get(name, 0) + 1
                continue
            for row in rows.tolist():
                self.rejects.add(int(fields.lines[row]), fields.text(row), reason)
        return refused

    # ------------------------------------------------------------ facts
    def clock(self, first_ns: int | None) -> dict[str, Any]:
        """``metadata.clock``; on the wall clock, with a triple that says so."""
        clock = dict(self._table.clock)
        if clock["name"] == "realtime" and first_ns is not None:
            clock["triples"] = [[first_ns, first_ns, first_ns]]
        return clock

    def device_name(self, dev: int) -> str:
        """What the source calls a device."""
        if "host" not in self._at:
            return self._table.device_name.format(n=dev)
        names = list(self._hosts)
        return self._table.device_name.format(host=names[dev // _MINORS], n=dev % _MINORS)

    def facts(self) -> dict[str, Any]:
        """More of ``metadata.source``."""
        return {"capacity_bytes": {str(dev): size for dev, size in self._sizes.items()}} if self._sizes else {}

    def notes(self, rows: int, span_ns: int) -> list[str]:
        """What a user of the numbers should know."""
        notes = list(self._table.cautions)
        if self._sizes:
            notes.append(f"sizes of {len(self._sizes):,} devices were taken from {SIZES_FILE} beside the source")
        return notes


def _sizes(path: Path) -> dict[int, int]:
    """Capacities in bytes by device of Alibaba's ``device_size.csv``; lines that are no pair are passed over."""
    try:
        with path.open(encoding="utf-8", errors="replace", newline="") as file:
            pairs = [row for row in csv.reader(file) if len(row) == 2]
    except OSError:
        return {}
    return {int(dev): int(size) for dev, size in pairs if dev.strip().isdecimal() and size.strip().isdecimal()}
