"""Sorted streams of batches put into one, in memory of one batch a stream."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa


class _Head:
    """What is at hand of a stream."""

    def __init__(self, source: Iterator[pa.RecordBatch], key: str) -> None:
        self._source = source
        self._key = key
        self.batch: pa.RecordBatch | None = None
        self.keys: npt.NDArray[np.int64] = np.zeros(0, np.int64)
        self.at = 0
        self.load()

    def load(self) -> None:
        """The next batch that has rows; None at the end."""
        self.batch = next((b for b in self._source if b.num_rows), None)
        self.at = 0
        if self.batch is not None:
            self.keys = self.batch.column(self._key).to_numpy().astype(np.int64, copy=False)

    def take(self, until: int, *, inclusive: bool) -> pa.RecordBatch | None:
        """Rows up to ``until``; None: there are none at hand."""
        assert self.batch is not None
        end = int(np.searchsorted(self.keys, until, "right" if inclusive else "left"))
        if end <= self.at:
            return None
        taken = self.batch.slice(self.at, end - self.at)
        self.at = end
        return taken


def merge_sorted(sources: Sequence[Iterator[pa.RecordBatch]], key: str) -> Iterator[pa.RecordBatch]:
    """Rows of all sources in order of ``key``, which rises in each. Equal keys: in the order of the sources, and within
    one in its own order. All batches have one schema.
    """
    heads = [_Head(source, key) for source in sources]
    while True:
        live = [(int(h.keys[-1]), i) for i, h in enumerate(heads) if h.batch is not None]
        if not live:
            return
        # The stream whose batch ends first says how far all rows are known: up to its last one, of streams before it
        # with the same key, of those after it without, as it may go on with that key.
        until, limiting = min(live)
        pieces = [
            piece for _, i in live if (piece := heads[i].take(until, inclusive=i <= limiting)) is not None
        ]  # fmt: skip
        heads[limiting].load()
        yield pieces[0] if len(pieces) == 1 else _in_order(pieces, key)


def _in_order(pieces: list[pa.RecordBatch], key: str) -> pa.RecordBatch:
    rows = pa.Table.from_batches(pieces).unify_dictionaries().combine_chunks()
    order = np.argsort(rows.column(key).to_numpy(), kind="stable")
    (batch,) = rows.take(pa.array(order)).combine_chunks().to_batches()
    return batch
