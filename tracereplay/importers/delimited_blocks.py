"""The compiled parser of delimited fields, driven: blocks of text in, columns and refused lines out."""

# mypy: disable-error-code="no-untyped-call"

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import BinaryIO

import numpy as np
import numpy.typing as npt

from tracereplay.importers.blocks import NEWLINE, SAMPLE_BYTES, Block, line_blocks
from tracereplay.importers.delimited_parser import (
    DONE,
    GROW,
    LINE,
    MOST_COLUMNS,
    POSITION,
    REASONS,
    REJECTS,
    ROWS,
    Lines,
    parse,
)
from tracereplay.importers.interning import Texts
from tracereplay.importers.rejects import Rejects

LEAST_LINE = 24
"""Bytes: rows are sized so that a block of lines this short needs one call."""
REJECTS_AT_ONCE = 1 << 12
TOO_LONG = "longer than a block"
CUT = "the last line has no end: nobody can tell whether its last number is whole"


@dataclass(slots=True)
class Fields:
    """Columns of some lines. Valid until the next ones are taken."""

    values: npt.NDArray[np.int64]
    """Column by row."""
    lines: npt.NDArray[np.int64]
    """Number of each row's line, from 1."""
    starts: npt.NDArray[np.int64]
    buffer: npt.NDArray[np.uint8]

    def text(self, row: int) -> bytes:
        """The start of a row's line."""
        return line_text(self.buffer, int(self.starts[row]))


def line_text(buffer: npt.NDArray[np.uint8], start: int) -> bytes:
    """The line at ``start``, without its end, up to SAMPLE_BYTES."""
    return buffer[start : start + SAMPLE_BYTES].tobytes().split(b"\n", 1)[0].rstrip(b"\r\0")


class DelimitedBlocks:
    """Parser state over one source. ``least``: fields a line has at the least; ``extra``: more are ignored."""

    def __init__(
        self, kinds: Sequence[int], separator: str, block_bytes: int, *, least: int, extra: bool = False
    ) -> None:
        assert len(kinds) <= MOST_COLUMNS
        self._kinds = np.array(kinds, np.int64)
        self._separator, self._least, self._extra = ord(separator), least, extra
        self._block_bytes = block_bytes
        rows = max(16, block_bytes // LEAST_LINE)
        self._values = np.zeros((len(kinds), rows), np.int64)
        self._lines = Lines(np.zeros(rows, np.int64), np.zeros(rows, np.int64), np.zeros(0, np.int64))
        self._refused = Lines(*(np.zeros(REJECTS_AT_ONCE, np.int64) for _ in range(3)))
        self._texts = Texts(arena=1 << 16)
        self._k = np.zeros(4, np.int64)
        self._k[LINE] = 1
        self._known: list[tuple[int, str]] = []
        self.rejects = Rejects()

    @property
    def lines(self) -> int:
        """Lines read."""
        return int(self._k[LINE]) - 1

    def texts(self) -> list[tuple[int, str]]:
        """(column, text) by the numbers that stand in text columns."""
        keys = self._texts.table.keys
        for number in range(len(self._known), len(self._texts)):
            self._known.append((int(keys[number]), self._texts.text(number).decode("utf-8", "backslashreplace")))
        return self._known

    def fields(self, stream: BinaryIO, *, header: bool = False) -> Iterator[Fields]:
        """Columns of the lines that have the form of the format, in their order. ``header``: the first is none."""
        for block in line_blocks(stream, self._block_bytes):
            if block.too_long is not None:
                self._count(block.too_long, TOO_LONG)
            self._k[POSITION] = 0
            if header and block.end:
                self._k[POSITION] = int(np.flatnonzero(block.buffer[: block.end] == NEWLINE)[0]) + 1
                self._k[LINE] += 1
                header = False
            yield from self._parse(block)
            if block.cut is not None:
                self._count(block.cut, CUT)

    def _count(self, text: bytes, reason: str) -> None:
        self.rejects.add(int(self._k[LINE]), text, reason)
        self._k[LINE] += 1

    def _parse(self, block: Block) -> Iterator[Fields]:
        code = GROW
        while code != DONE:
            if code == GROW:
                self._texts.grow()
            self._k[ROWS] = self._k[REJECTS] = 0
            code = parse(
                block.buffer,
                block.end,
                self._kinds,
                self._separator,
                self._least,
                self._extra,
                self._values,
                self._lines,
                self._refused,
                self._texts.table,
                self._k,
            )
            self._drain_refused(block.buffer)
            n = int(self._k[ROWS])
            if n:
                yield Fields(self._values[:, :n], self._lines.line[:n], self._lines.start[:n], block.buffer)

    def _drain_refused(self, buffer: npt.NDArray[np.uint8]) -> None:
        refused = self._refused
        for at in range(int(self._k[REJECTS])):
            text = line_text(buffer, int(refused.start[at]))
            self.rejects.add(int(refused.line[at]), text, REASONS[int(refused.reason[at])])
