"""Blocks of lines and rows back in order, for any input."""

from __future__ import annotations

import io

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from tracereplay.importers.blocks import line_blocks
from tracereplay.importers.ordering import Columns, Reorder
from tracereplay.importers.rejects import FIRST, RESERVOIR, Rejects


class Trickle(io.BytesIO):
    """A stream that hands out few bytes at a time, as a pipe may."""

    def __init__(self, data: bytes, most: int) -> None:
        super().__init__(data)
        self._most = most

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        return super().readinto(memoryview(buffer)[: self._most])


@given(
    st.lists(st.integers(0, 30) | st.integers(0, 200), max_size=60),
    st.integers(8, 90),
    st.integers(1, 100),
    st.booleans(),
)
def test_blocks_hold_every_line_that_fits(lengths: list[int], size: int, most: int, ends: bool) -> None:
    lines = [bytes([97 + i % 26]) * n for i, n in enumerate(lengths)]
    data = b"\n".join(lines) + (b"\n" if ends and lines else b"")
    found: list[bytes | None] = []
    cut = None
    for block in line_blocks(Trickle(data, most), size):
        found += [None] if block.too_long is not None else []
        text = block.buffer[: block.end].tobytes()
        assert text == b"" or text.endswith(b"\n")
        assert block.end == 0 or not block.buffer[block.end : block.end + 16].any()
        found += text.split(b"\n")[:-1]
        assert cut is None
        cut = block.cut
    *whole, last = data.split(b"\n")
    # A line and its newline must fit the block; the longest that is let through depends on what precedes it.
    assert found == [line if len(line) < size else None for line in whole] + ([None] if len(last) >= size else [])
    assert cut == (last[:200] if last and len(last) < size else None)


@given(
    st.lists(st.lists(st.integers(0, 60), max_size=12), max_size=12),
    st.integers(1, 30),
)
def test_reorder_is_a_stable_sort_of_what_is_not_too_late(chunks: list[list[int]], window: int) -> None:
    reorder = Reorder(window)
    emitted: list[Columns] = []
    late: list[Columns] = []
    row = 0
    for times in chunks:
        rows = np.arange(row, row + len(times))
        row += len(times)
        ready, dropped = reorder.push({"ts_ns": np.array(times, np.int64), "row": rows})
        emitted += ready
        late += [dropped] if dropped is not None else []
    emitted += reorder.flush()

    def pairs(parts: list[Columns]) -> list[tuple[int, int]]:
        return [(int(t), int(r)) for part in parts for t, r in zip(part["ts_ns"], part["row"], strict=True)]

    everything = [(t, r) for r, t in enumerate(t for chunk in chunks for t in chunk)]
    kept = [pair for pair in everything if pair not in set(pairs(late))]
    assert pairs(emitted) == sorted(kept)
    assert sorted(pairs(emitted) + pairs(late)) == sorted(everything)
    for t, r in pairs(late):  # at least a window of rows before it was later
        assert sum(other > t for other, q in everything if q < r) >= window


@given(st.lists(st.integers(0, 5), min_size=1, max_size=40), st.integers(40, 100))
def test_reorder_within_its_window_loses_nothing(jitter: list[int], window: int) -> None:
    times = [10 * i - j for i, j in enumerate(jitter)]
    reorder = Reorder(window)
    parts = []
    for t in times:
        ready, late = reorder.push({"ts_ns": np.array([t], np.int64)})
        assert late is None
        parts += ready
    parts += reorder.flush()
    assert [int(t) for part in parts for t in part["ts_ns"]] == sorted(times)


@given(st.integers(0, 300))
def test_rejects_count_all_and_keep_the_first_and_a_sample(n: int) -> None:
    rejects = Rejects()
    for line in range(1, n + 1):
        rejects.add(line, b"\xff" * 500, "bad")
    lines = [sample["line"] for sample in rejects.samples()]
    assert rejects.count == n
    assert lines[:FIRST] == list(range(1, min(n, FIRST) + 1))
    assert lines == sorted(set(lines))
    assert len(lines) == min(n, FIRST + RESERVOIR)
    assert all(len(sample["text"]) == 4 * 200 for sample in rejects.samples())
