"""Records of fixed size into requests: vSCSI and oracleGeneral."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from tracereplay.importers.base import ImportOptions
from tracereplay.importers.rejects import Rejects
from tracereplay.importers.requests import SECTOR, UNKNOWN_OPERATION, Mask, Requests, misfits, scaled
from tracereplay.importers.scsi import SCSI_OPERATIONS, scsi_name

Records = npt.NDArray[Any]

V1 = np.dtype(
    [("sn", "<u4"), ("bytes", "<u4"), ("nsg", "<u4"), ("cmd", "<u2"), ("ver", "<u2"), ("lbn", "<u8"), ("ts", "<u8")]
)
V2 = np.dtype(
    [("cmd", "<u2"), ("ver", "<u2"), ("sn", "<u4"), ("bytes", "<u4"), ("nsg", "<u4"), ("lbn", "<u8")]
    + [(name, "<u8") for name in ("ts", "rt")]
)
GENERAL = np.dtype([("ts", "<u4"), ("lbn", "<u8"), ("bytes", "<u4"), ("next", "<i8")])
MICROSECOND = 1000
PLAUSIBLE_PER_S = 2_000_000
"""More requests a second than one virtual disk has: the times are in another unit."""
PLAUSIBLE_NS = 366 * 86400 * 10**9
CUT = "the last record is cut short"
MISFIT = "a place, size or time that no event can hold"
VERSION = "a record of another version"


class _Blocks:
    """A stream as arrays of whole records."""

    unit = "record"
    sorting = "with a program that knows its records"

    def __init__(self, dtype: np.dtype[Any], options: ImportOptions) -> None:
        self.rejects = Rejects()
        self.lines = 0
        self.other_events: dict[str, int] = {}
        self._dtype = dtype
        self._bytes = max(1, options.block_bytes // dtype.itemsize) * dtype.itemsize

    def records(self, stream: BinaryIO) -> Iterator[Records]:
        """Arrays in the order of the source; ``lines`` counts what came before each."""
        buffer = bytearray(self._bytes)
        at_end = False
        while not at_end:
            filled = 0
            while filled < self._bytes and not at_end:
                n = stream.readinto(memoryview(buffer)[filled:])  # type: ignore[attr-defined]
                at_end = not n
                filled += n or 0
            whole = filled // self._dtype.itemsize
            if whole:
                yield np.frombuffer(bytes(buffer[: whole * self._dtype.itemsize]), self._dtype)
            self.lines += whole
            if rest := filled - whole * self._dtype.itemsize:
                self.lines += 1
                self.rejects.add(self.lines, bytes(buffer[filled - rest : filled]), CUT)

    def refuse(self, records: Records, mask: Mask, reason: str) -> None:
        """Count records that cannot be used."""
        for row in np.flatnonzero(mask).tolist():
            self.rejects.add(self.lines + row + 1, records[row].tobytes().hex(" ").encode(), reason)

    def device_name(self, dev: int) -> str:
        """The only device has no name."""
        return f"disk {dev}"

    def facts(self) -> dict[str, Any]:
        """More of ``metadata.source``."""
        return {}


def _signed(values: npt.NDArray[Any]) -> npt.NDArray[np.int64]:
    """Unsigned values as int64; those that do not fit become negative, which every check refuses."""
    return values.astype(np.uint64).view(np.int64)


class VscsiReader(_Blocks):
    """Reads vSCSI records. See :class:`~tracereplay.importers.request_conversion.RequestReader`."""

    format = "vscsi"
    remedy = "a vSCSI trace holds records of 32 (version 1) or 40 bytes (version 2)"

    def __init__(self, version: int, options: ImportOptions) -> None:
        super().__init__(V2 if version == 2 else V1, options)
        self.latency = version == 2
        self._version = version

    def requests(self, stream: BinaryIO) -> Iterator[Requests]:
        """Requests that fit an event, in the order of the source."""
        known = np.full(256, UNKNOWN_OPERATION, np.int8)
        for opcode, operation in SCSI_OPERATIONS.items():
            known[opcode] = operation
        for records in self.records(stream):
            command = records["cmd"]
            ts, bad = scaled(_signed(records["ts"]), MICROSECOND)
            op = np.where(command < 256, known[np.minimum(command, 255)], UNKNOWN_OPERATION).astype(np.int8)
            requests = Requests(
                ts_ns=ts,
                dev=np.zeros(ts.size, np.int64),
                offset=_signed(records["lbn"]),
                size=records["bytes"].astype(np.int64),
                op=op,
                unit=SECTOR,
            )
            if self.latency:
                latency, absurd = scaled(_signed(records["rt"]), MICROSECOND)
                requests.latency_ns = np.where(absurd, -1, latency)
            foreign = records["ver"] >> 8 != self._version
            other = (op == UNKNOWN_OPERATION) & ~foreign
            bad = (bad | misfits(requests)) & ~foreign & ~other
            self.refuse(records, foreign, VERSION)
            self.refuse(records, bad, MISFIT)
            for opcode, count in zip(*np.unique(command[other], return_counts=True), strict=True):
                name = scsi_name(int(opcode))
                self.other_events[name] = self.other_events.get(name, 0) + int(count)
            yield requests.kept(~(foreign | other | bad))

    def clock(self, first_ns: int | None) -> dict[str, Any]:
        """``metadata.clock``."""
        return {"name": "traced host", "resolution_ns": MICROSECOND, "source_unit": "us of the traced host's clock"}

    def facts(self) -> dict[str, Any]:
        """More of ``metadata.source``."""
        return {"version": self._version}

    def notes(self, rows: int, span_ns: int) -> list[str]:
        """What a user of the numbers should know: the format does not state its unit of time."""
        if rows > 1 and (span_ns > PLAUSIBLE_NS or rows * 10**9 > PLAUSIBLE_PER_S * max(span_ns, 1)):
            rate = rows * 1e9 / max(span_ns, 1)
            return [
                f"times are read as microseconds, which makes {rate:,.3g} requests a second over "
                f"{span_ns / 1e9:,.3g} s: they seem to be in another unit"
            ]
        return ["times are read as microseconds, as in published traces; the format does not say"]


class OracleGeneralReader(_Blocks):
    """Reads oracleGeneral records. See :class:`~tracereplay.importers.request_conversion.RequestReader`."""

    format = "oraclegeneral"
    remedy = "oracleGeneral holds records of 24 bytes: u32 seconds, u64 object, u32 bytes, i64 next"
    latency = False

    def __init__(self, options: ImportOptions) -> None:
        super().__init__(GENERAL, options)

    def requests(self, stream: BinaryIO) -> Iterator[Requests]:
        """Requests that fit an event, in the order of the source; none has an operation."""
        for records in self.records(stream):
            n = records.size
            requests = Requests(
                ts_ns=records["ts"].astype(np.int64) * 10**9,
                dev=np.zeros(n, np.int64),
                offset=_signed(records["lbn"]),
                size=records["bytes"].astype(np.int64),
                op=np.full(n, UNKNOWN_OPERATION, np.int8),
                unit=SECTOR,
            )
            bad = misfits(requests)
            self.refuse(records, bad, MISFIT)
            yield requests.kept(~bad)

    def clock(self, first_ns: int | None) -> dict[str, Any]:
        """``metadata.clock``."""
        return {"name": "traced host", "resolution_ns": 10**9, "source_unit": "s of the traced host's clock"}

    def notes(self, rows: int, span_ns: int) -> list[str]:
        """What a user of the numbers should know."""
        return [
            "the format has no operation: op is null, and nothing can be replayed as a write",
            "objects are taken as 512-byte sectors, as in traces that were made from block traces",
            "times are whole seconds: requests of one second keep the order of their records, not their distance",
        ]
