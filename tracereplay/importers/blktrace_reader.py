"""blktrace records as rows: the compiled merge, driven over the files of a recording."""

# mypy: disable-error-code="no-untyped-call"

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from tracereplay.importers import blktrace_state as st
from tracereplay.importers.blktrace_format import REASONS
from tracereplay.importers.blktrace_parser import DONE, GROW, REFILL, merge
from tracereplay.importers.blktrace_streams import Streams
from tracereplay.importers.block_reader import BlockState
from tracereplay.importers.losses import LossInterval
from tracereplay.importers.ordering import Columns
from tracereplay.importers.percpu import device_of
from tracereplay.importers.source import Source


class BlktraceReader:
    """Reads one recording, of one file or several."""

    relative = False

    def __init__(self, source: Source, block_bytes: int) -> None:
        self._streams = Streams(source, block_bytes)
        self.shared = BlockState(len(self._streams))

    def chunks(self, advance: Callable[[int], None]) -> Iterator[Columns]:
        """Rows in the order of time, as far as each file keeps it."""
        shared = self.shared
        scalars = shared.state.scalars
        with self._streams.open(shared.state.streams, advance):
            scalars[st.PENDING_END] = len(self._streams)
            code = REFILL
            while code != DONE:
                if code == REFILL:
                    self._streams.refill(shared.state.streams, int(scalars[st.PENDING]))
                elif code == GROW:
                    shared.grow()
                code = merge(self._streams.buffer, shared.state)
                if code != REFILL or scalars[st.ROWS] >= shared.state.rows.ts_ns.size // 2:
                    yield shared.drain()
                    self._read_rejects()

    def _read_rejects(self) -> None:
        """Damaged places as refusals; what a file lacks at its end is a loss of unknown size."""
        notes, state = self.shared.state.notes, self.shared.state.streams
        names = self._streams.names()
        for i in range(self.shared.scalar(st.REJECTS)):
            stream, at, length = int(notes.reject_stream[i]), int(notes.reject_at[i]), int(notes.reject_length[i])
            text = f"{names[stream]}: {length} bytes at {at}".encode()
            self.shared.rejects.add(None, text, REASONS[notes.reject_reason[i]])
            if state.done[stream] and at + length == int(state.base[stream] + state.end[stream]):
                last = int(state.last[stream])
                self.shared.losses.intervals.append(
                    LossInterval(None, last if last >= 0 else None, None, None, "unknown")
                )
        self.shared.state.scalars[st.REJECTS] = 0

    def settle(self, rows: Columns) -> None:
        """Nothing: a record tells by itself whether it is a request's."""

    def facts(self) -> dict[str, Any]:
        """Those of the file or files; ``devices``: their names by number, as the files are named."""
        state = self.shared.state
        devices = {
            str(int(state.sequences.key[state.streams.hint[number]]) >> 16): name
            for number, path in enumerate(self._streams.paths)
            if (name := device_of(path)) and state.streams.last[number] >= 0
        }
        return {**self._streams.facts(), **({"devices": devices} if devices else {})}

    def format(self) -> str:
        """``blktrace v7`` or ``v8``, or both."""
        old, records = self.shared.scalar(st.OLD), self.shared.scalar(st.RECORDS)
        versions = [v for v, n in (("v7", old), ("v8", records - old)) if n]
        return "blktrace " + " and ".join(versions)
