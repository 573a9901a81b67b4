"""blkparse text as rows: the compiled parser, driven over blocks of lines.

The text prints C for the completion of a request and of a bio alike. A device that issues requests (D) completes
requests; one that never does, such as a device-mapper target, completes bios.
"""

# mypy: disable-error-code="no-untyped-call"

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from tracereplay.importers import blktrace_state as st
from tracereplay.importers.blkparse_parser import DONE, GROW, parse
from tracereplay.importers.blktrace_format import REASONS, actions_by_letter
from tracereplay.importers.block_reader import BlockState
from tracereplay.importers.blocks import SAMPLE_BYTES, Block, line_blocks
from tracereplay.importers.ftrace_vocabulary import CUT, TOO_LONG
from tracereplay.importers.ftrace_vocabulary import REASONS as TEXT_REASONS
from tracereplay.importers.ordering import Columns
from tracereplay.importers.source import Source
from tracereplay.trace.schema import BIO_KINDS

_ISSUE, _COMPLETE, _BIO_COMPLETE = (BIO_KINDS.index(k) for k in ("issue", "complete", "bio_complete"))


class BlkparseReader:
    """Reads one text."""

    relative = True

    def __init__(self, source: Source, block_bytes: int) -> None:
        self._source, self._block_bytes = source, block_bytes
        self.shared = BlockState(1)
        self._acts = np.array(actions_by_letter(), np.int8)
        self._issuing: set[int] = set()

    def chunks(self, advance: Callable[[int], None]) -> Iterator[Columns]:
        """Rows in line order."""
        shared = self.shared
        with self._source.open(advance) as stream:
            for block in line_blocks(stream, self._block_bytes):
                scalars = shared.state.scalars
                if block.too_long is not None:
                    self._refuse(block.too_long, TEXT_REASONS[TOO_LONG])
                scalars[st.POSITION] = 0
                code = GROW
                while code != DONE:
                    if code == GROW:
                        shared.grow()
                    code = parse(block.buffer, block.end, shared.state, self._acts)
                    rows = shared.drain()
                    self._issuing.update(np.unique(rows["dev"][rows["kind"] == _ISSUE]).tolist())
                    yield rows
                    self._read_rejects(block)
                if block.cut is not None and not scalars[st.ENDED]:
                    self._refuse(block.cut, TEXT_REASONS[CUT])

    def settle(self, rows: Columns) -> None:
        """Tell completions of bios from those of requests, by what their device has done up to now and later."""
        completions = rows["kind"] == _COMPLETE
        bios = completions & ~np.isin(rows["dev"], list(self._issuing))
        n = int(bios.sum())
        if n:
            rows["kind"] = np.where(bios, np.int8(_BIO_COMPLETE), rows["kind"])
            rows["nr_bytes"] = np.where(bios, st.NULL_WIDE, rows["nr_bytes"])
            self.shared.bio_completions(n)

    def _refuse(self, text: bytes, reason: str) -> None:
        scalars = self.shared.state.scalars
        self.shared.rejects.add(int(scalars[st.LINE]), text, reason)
        scalars[st.LINE] += 1

    def _read_rejects(self, block: Block) -> None:
        notes = self.shared.state.notes
        for i in range(self.shared.scalar(st.REJECTS)):
            start, length = int(notes.reject_start[i]), int(notes.reject_length[i])
            text = block.buffer[start : start + min(length, SAMPLE_BYTES)].tobytes()
            self.shared.rejects.add(int(notes.reject_at[i]), text, REASONS[notes.reject_reason[i]])
        self.shared.state.scalars[st.REJECTS] = 0

    def facts(self) -> dict[str, Any]:
        """Those of the file."""
        return self._source.facts()

    def format(self) -> str:
        """The text tells no version."""
        return "blkparse"
