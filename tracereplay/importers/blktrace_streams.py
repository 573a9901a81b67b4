"""The files of a blktrace recording as streams in one buffer, each refilled where the compiled merge asks for it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from tracereplay.importers import blktrace_state as st
from tracereplay.importers.blktrace_format import MAGIC, VERSIONS
from tracereplay.importers.source import Source

LEAST_BYTES = 1 << 17
"""Of the buffer for a stream: more than the longest record."""
BUFFER_PADDING = 64
_MAGICS = [(MAGIC | version).to_bytes(4, "little") for version in VERSIONS]


def first_magic(data: bytes, *, swapped: bool) -> int:
    """Position of the first record's magic (of the other byte order), or the length of the data."""
    places = [data.find(magic[::-1] if swapped else magic) for magic in _MAGICS]
    return min((at for at in places if at >= 0), default=len(data))


class Streams:
    """Open files, their bytes, and where each of them is read."""

    def __init__(self, source: Source, block_bytes: int) -> None:
        self._source = source
        self.paths = source.files or [source.path]
        self._room = max(LEAST_BYTES, block_bytes // len(self.paths))
        self.buffer: npt.NDArray[np.uint8] = np.zeros(self._room * len(self.paths) + BUFFER_PADDING, np.uint8)
        self._sources: list[Source] = []
        self._files: list[Any] = []

    def __len__(self) -> int:
        return len(self.paths)

    @contextmanager
    def open(self, state: st.Streams, advance: Callable[[int], None]) -> Iterator[None]:
        """Open all files, and set up the state of their streams."""
        with ExitStack() as stack:
            for number, path in enumerate(self.paths):
                source = self._source
                if path != source.path:
                    source = stack.enter_context(Source(path, alone=True))
                head = source.head().data
                state.swapped[number] = first_magic(head, swapped=True) < first_magic(head, swapped=False)
                state.pos[number] = state.end[number] = number * self._room
                state.base[number] = -number * self._room
                self._sources.append(source)
                self._files.append(stack.enter_context(source.open(advance)))
            yield

    def refill(self, state: st.Streams, number: int) -> None:
        """Move a stream's rest to the front of its part of the buffer and read more behind it."""
        start, pos = number * self._room, int(state.pos[number])
        rest = int(state.end[number]) - pos
        self.buffer[start : start + rest] = self.buffer[pos : pos + rest]
        state.base[number] += pos - start
        state.pos[number] = start
        file: BinaryIO = self._files[number]
        end, stop = start + rest, start + self._room
        view: Any = self.buffer.data
        while end < stop:
            n = file.readinto(view[end:stop])  # type: ignore[attr-defined]
            if not n:
                state.done[number] = 1
                break
            end += n
        state.end[number] = end

    def names(self) -> list[str]:
        """Of the files, by number."""
        return [source.name for source in self._sources]

    def facts(self) -> dict[str, Any]:
        """Of the source: those of its only file, or of each."""
        each = [source.facts() for source in self._sources]
        if len(each) == 1:
            return each[0]
        return {
            "path": str(Path(each[0]["path"]).parent),
            "bytes": sum(facts["bytes"] for facts in each),
            "files": [{**facts, "path": Path(facts["path"]).name} for facts in each],
        }
