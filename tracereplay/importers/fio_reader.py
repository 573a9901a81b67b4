"""Lines of a fio iolog into requests (``iolog.c`` of fio: ``log_io_u``, ``log_file``, ``read_iolog``).

Version 3: ``MICROSECONDS FILE ACTION [OFFSET LENGTH]``, times from the start of the run. Version 2: ``FILE ACTION
[OFFSET LENGTH]``, and ``FILE wait MICROSECONDS 0``, which moves the clock on.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, BinaryIO

import numpy as np

from tracereplay.importers.base import ImportOptions
from tracereplay.importers.delimited_blocks import DelimitedBlocks, Fields
from tracereplay.importers.delimited_parser import INTEGER, MISSING, TEXT
from tracereplay.importers.requests import I64, OPERATIONS, Requests, misfits, scaled

_FLUSH = OPERATIONS.index("F")
_ACTIONS = {
    "read": OPERATIONS.index("R"),
    "write": OPERATIONS.index("W"),
    "trim": OPERATIONS.index("D"),
    "sync": _FLUSH,
    "datasync": _FLUSH,
    "sync_file_range": _FLUSH,
}
_WAIT, _FILE_ACTION, _UNKNOWN = 10, 11, -1
FILE_ACTIONS = ("add", "open", "close", "unlink")
NO_ACTION = "no action of a fio iolog"
NO_PLACE = "a request without offset or length, or with one that no event can hold"
TIME = "a time out of range"
MICROSECOND = 1000


class FioReader:
    """Reads one iolog. See :class:`~tracereplay.importers.request_conversion.RequestReader`."""

    format = "fio"
    unit = "line"
    latency = False
    sorting = "iologs of one run each are; import those of several runs apart"
    remedy = "record requests: fio --write_iolog=FILE"

    def __init__(self, version: int, options: ImportOptions) -> None:
        self._version = version
        kinds = [TEXT, TEXT, INTEGER, INTEGER]
        self._file = version - 2
        self._blocks = DelimitedBlocks(
            [INTEGER, *kinds] if version == 3 else kinds, " ", options.block_bytes, least=self._file + 2
        )
        self.rejects = self._blocks.rejects
        self.other_events: dict[str, int] = {}
        self._files: list[str] = []
        self._codes = np.zeros(0, np.int64)
        self._devices = np.zeros(0, np.int64)
        self._clock_us = 0
        self._waits = 0

    @property
    def lines(self) -> int:
        """Lines read."""
        return self._blocks.lines

    def requests(self, stream: BinaryIO) -> Iterator[Requests]:
        """Requests that fit an event, in the order of the source."""
        for fields in self._blocks.fields(stream, header=True):
            yield self._convert(fields)

    def _learn(self) -> None:
        """What texts that are new stand for: a file gets the next number, an action its code."""
        texts = self._blocks.texts()
        if self._codes.size == len(texts):
            return
        devices = self._devices.tolist()
        codes = self._codes.tolist()
        for column, text in texts[len(codes) :]:
            is_file = column == self._file
            devices.append(len(self._files) if is_file else -1)
            if is_file:
                self._files.append(text)
            codes.append(_WAIT if text == "wait" else _FILE_ACTION if text in FILE_ACTIONS else _ACTIONS.get(text, -1))
        self._codes, self._devices = np.array(codes, np.int64), np.array(devices, np.int64)

    def _convert(self, fields: Fields) -> Requests:
        self._learn()
        file, action, offset, length = fields.values[self._file :]
        code = self._codes[action]
        if self._version == 2:
            code = np.where((code == _WAIT) & (offset == MISSING), _UNKNOWN, code)
        else:
            code = np.where(code == _WAIT, _UNKNOWN, code)  # fio: wait is not allowed as of version 3
        time, bad_time = scaled(self._times(fields, code, offset), MICROSECOND)
        self._count_actions(code, action)
        flush = code == _FLUSH
        requests = Requests(
            ts_ns=time,
            dev=self._devices[file],
            # A sync is of the whole file: fio prints the place of the request before it.
            offset=np.where(flush, 0, offset),
            size=np.where(flush, 0, length),
            op=code.astype(np.int8),
        )
        data = (code >= 0) & (code < _WAIT)
        unknown, placeless = code == _UNKNOWN, data & misfits(requests)
        for mask, reason in ((unknown, NO_ACTION), (bad_time & data, TIME), (placeless & ~bad_time, NO_PLACE)):
            for row in np.flatnonzero(mask).tolist():
                self.rejects.add(int(fields.lines[row]), fields.text(row), reason)
        return requests.kept(data & ~bad_time & ~placeless)

    def _times(self, fields: Fields, code: I64, offset: I64) -> I64:
        """Microseconds of each line."""
        if self._version == 3:
            times: I64 = fields.values[0]
            return times
        waiting = code == _WAIT
        self._waits += int(waiting.sum())
        most = np.int64(2**62 // max(1, offset.size))
        moved = self._clock_us + np.cumsum(np.where(waiting, np.minimum(offset, most), 0))
        self._clock_us = min(int(moved[-1]), 2**61)
        return moved

    def _count_actions(self, code: I64, action: I64) -> None:
        for number in np.unique(action[code >= _WAIT]).tolist():
            name = f"fio:{self._blocks.texts()[number][1]}"
            count = int((action == number).sum())
            self.other_events[name] = self.other_events.get(name, 0) + count

    # ------------------------------------------------------------ facts
    def clock(self, first_ns: int | None) -> dict[str, Any]:
        """``metadata.clock``."""
        return {"name": "fio run", "resolution_ns": MICROSECOND, "source_unit": "us since the start of the run"}

    def device_name(self, dev: int) -> str:
        """The file that a device number stands for."""
        return self._files[dev]

    def facts(self) -> dict[str, Any]:
        """More of ``metadata.source``."""
        return {"version": self._version}

    def notes(self, rows: int, span_ns: int) -> list[str]:
        """What a user of the numbers should know."""
        if self._version == 2 and not self._waits:
            return ["an iolog of version 2 without waits has no times: all requests are at 0, in their order"]
        return []
