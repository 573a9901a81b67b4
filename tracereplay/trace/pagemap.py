"""What page frames held: from a collector's kind bytes to runs of table ``page_map``, and sums of it."""

from __future__ import annotations

import struct
import zlib
from typing import TYPE_CHECKING, Protocol

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from tracereplay.errors import CollectorError

if TYPE_CHECKING:
    from tracereplay.trace.reader import Trace

BUDDY, SLAB, PGTABLE, LRU, ANON, HUGE, NOT_OURS, COMPOUND = 1, 2, 4, 8, 16, 32, 64, 128
"""Bits of a kind byte (collectors/pagemap.py has the flags behind them)."""

PRECEDENCE = (
    ("buddy", BUDDY),
    ("reserved", NOT_OURS),
    ("slab", SLAB),
    ("pgtable", PGTABLE),
    ("huge", HUGE),
    ("anon", ANON),
    ("lru", LRU),
)
"""A page's kind is the first of these whose bit it has, else ``other``. Slab comes before the bits that share a
word with its own data; huge before anon and LRU, which its pages are too."""
PAGE_KIND_NAMES = (*(name for name, _ in PRECEDENCE), "other")

MAX_CHUNK_PAGES = 1 << 24
_HEAD = struct.Struct("<QQ")

_SCHEMA = pa.schema(
    [
        pa.field("pfn", pa.uint64(), nullable=False),
        pa.field("pages", pa.uint64(), nullable=False),
        pa.field("kind", pa.dictionary(pa.int32(), pa.string()), nullable=False),
        pa.field("ts_ns", pa.int64()),
    ]
)


class PageMapBlob(Protocol):
    """A PAGE_MAP frame (``tracereplay.trace.frames.Blob``)."""

    @property
    def mono_ns(self) -> int:
        """When it had been read."""

    @property
    def position(self) -> int:
        """First page frame."""

    @property
    def payload(self) -> bytes | bytearray | memoryview:
        """u64 begin_ns, u64 pages, then the compressed kind bytes."""


def _codes() -> npt.NDArray[np.uint8]:
    """Index into PAGE_KIND_NAMES of every kind byte."""
    byte = np.arange(256)
    return np.select([(byte & bit) != 0 for _, bit in PRECEDENCE], range(len(PRECEDENCE)), len(PRECEDENCE)).astype(
        np.uint8
    )


_CODE_OF_BYTE = _codes()


def page_map_batch(blob: PageMapBlob) -> pa.RecordBatch:
    """Rows of ``page_map`` from one PAGE_MAP frame: runs of frames of one kind, ascending.

    Raises CollectorError for a frame that does not hold what it says.
    """
    kinds = _kind_bytes(blob)
    codes = _CODE_OF_BYTE[kinds]
    starts = np.concatenate([[0], np.flatnonzero(codes[1:] != codes[:-1]) + 1]) if len(codes) else np.zeros(0, np.int64)
    lengths = np.diff(starts, append=len(codes))
    names = pa.DictionaryArray.from_arrays(
        pa.array(codes[starts].astype(np.int32)), pa.array(PAGE_KIND_NAMES, pa.string())
    )
    arrays = [
        pa.array((starts + blob.position).astype(np.uint64)),
        pa.array(lengths.astype(np.uint64)),
        names,
        pa.array(np.full(len(starts), blob.mono_ns, np.int64)),
    ]
    return pa.RecordBatch.from_arrays(arrays, schema=_SCHEMA)


def _kind_bytes(blob: PageMapBlob) -> npt.NDArray[np.uint8]:
    where = f"page map at frame {blob.position}"
    if len(blob.payload) < _HEAD.size:
        raise CollectorError(f"{where}: {len(blob.payload)} bytes are no page map")
    _, pages = _HEAD.unpack_from(blob.payload)
    if pages > MAX_CHUNK_PAGES:
        raise CollectorError(f"{where} claims {pages} pages in one frame")
    unpacker = zlib.decompressobj()
    try:
        kinds = unpacker.decompress(memoryview(blob.payload)[_HEAD.size :], pages + 1)
    except zlib.error as error:
        raise CollectorError(f"{where} is damaged: {error}") from None
    if len(kinds) != pages or not unpacker.eof:
        raise CollectorError(f"{where} does not hold the {pages} pages that it claims")
    return np.frombuffer(kinds, np.uint8)


def pages_by_kind(trace: Trace) -> dict[str, int]:
    """Pages of each kind in ``page_map``, most first; empty when it was not recorded."""
    import polars as pl

    sums = trace.page_map.group_by(pl.col("kind").cast(pl.String)).agg(pl.col("pages").sum()).collect()
    return dict(sorted(sums.iter_rows(), key=lambda r: -r[1]))
