"""Kinds of pages: the transform by slices and tables against a loop over pages, and runs against their pages."""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass
from itertools import groupby

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from collectors import pagemap as collected
from tracereplay.errors import CollectorError
from tracereplay.trace import pagemap

KPF = {"lru": 5, "slab": 7, "buddy": 10, "anon": 12, "head": 15, "tail": 16, "huge": 17, "hwpoison": 19, "nopage": 20,
       "thp": 22, "offline": 23, "pgtable": 26, "reserved": 32}  # fmt: skip
"""Bits of /proc/kpageflags (Documentation/admin-guide/mm/pagemap.rst)."""


def kind_byte(flags: int) -> int:
    """What one page's byte must be."""

    def has(*names: str) -> bool:
        return any(flags >> KPF[name] & 1 for name in names)

    return (
        1 * has("buddy")
        + 2 * has("slab")
        + 4 * has("pgtable")
        + 8 * has("lru")
        + 16 * has("anon")
        + 32 * has("huge", "thp")
        + 64 * has("reserved", "nopage", "offline", "hwpoison")
        + 128 * has("head", "tail")
    )


def kind_name(byte: int) -> str:
    """The kind that a byte stands for: the first that applies."""
    if byte & 1:
        return "buddy"
    if byte & 64:
        return "reserved"
    if byte & 2:
        return "slab"
    if byte & 4:
        return "pgtable"
    if byte & 32:
        return "huge"
    if byte & 16:
        return "anon"
    return "lru" if byte & 8 else "other"


@dataclass(frozen=True)
class Frame:
    """A PAGE_MAP frame."""

    mono_ns: int
    position: int
    payload: bytes


def frame(kinds: bytes, position: int = 0, claimed: int | None = None) -> Frame:
    """The frame that a collector makes of kind bytes."""
    head = struct.pack("<QQ", 5, len(kinds) if claimed is None else claimed)
    return Frame(9, position, head + zlib.compress(kinds, 1))


words = st.one_of(
    st.integers(0, 2**64 - 1),
    st.integers(0, 63).map(lambda bit: 1 << bit),
    st.lists(st.sampled_from(sorted(KPF.values())), max_size=4).map(lambda bits: sum({1 << b for b in bits})),
)


@given(st.lists(words, max_size=300))
def test_the_transform_is_that_of_a_loop_over_pages(flags: list[int]) -> None:
    made = collected.kind_bytes(struct.pack(f"={len(flags)}Q", *flags))
    assert list(made) == [kind_byte(f) for f in flags]


@pytest.mark.parametrize("bit", range(64))
def test_every_bit_alone(bit: int) -> None:
    assert list(collected.kind_bytes(struct.pack("=Q", 1 << bit))) == [kind_byte(1 << bit)]


def test_both_sides_name_the_bits_alike() -> None:
    names = ("BUDDY", "SLAB", "PGTABLE", "LRU", "ANON", "HUGE", "NOT_OURS", "COMPOUND")
    assert [getattr(collected, n) for n in names] == [getattr(pagemap, n) for n in names]


@given(st.lists(st.tuples(st.integers(0, 255), st.integers(1, 9)), max_size=60), st.integers(0, 2**40))
def test_runs_are_the_pages_again(groups: list[tuple[int, int]], position: int) -> None:
    kinds = b"".join(bytes([byte]) * n for byte, n in groups)
    rows = pagemap.page_map_batch(frame(kinds, position)).to_pylist()
    expected, at = [], position
    for name, run in groupby(kind_name(byte) for byte in kinds):
        length = len(list(run))
        expected.append({"pfn": at, "pages": length, "kind": name, "ts_ns": 9})
        at += length
    assert rows == expected


@settings(max_examples=50)
@given(st.binary(min_size=1, max_size=200), st.data())
def test_damaged_frames_are_refused(kinds: bytes, data: st.DataObject) -> None:
    good = frame(kinds)
    claimed = data.draw(st.integers(0, 2**63).filter(lambda n: n != len(kinds)))
    with pytest.raises(CollectorError, match="claim"):
        pagemap.page_map_batch(frame(kinds, claimed=claimed))
    with pytest.raises(CollectorError, match="page map at frame 0"):
        pagemap.page_map_batch(Frame(0, 0, good.payload[: data.draw(st.integers(0, len(good.payload) - 1))]))
