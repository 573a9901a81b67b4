"""The ring consumer on a synthetic ring: ordinary memory laid out as kernel/bpf/ringbuf.c does."""

from __future__ import annotations

import mmap
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from collectors.rings import RingReader, memory_barrier, ring_bytes

PAGE = mmap.PAGESIZE
PAYLOAD = 32
STRIDE = 40
BUSY = 1 << 31
DISCARD = 1 << 30


class SyntheticRing:
    """The kernel's side of a ring: reserve, commit, discard; both copies of the data area are kept equal."""

    def __init__(self, size: int = 4096, start: int = 0) -> None:
        self.size = size
        self.control = bytearray(PAGE)
        self.data = mmap.mmap(-1, PAGE + 2 * size)
        self.producer = start
        struct.pack_into("=Q", self.control, 0, start)
        struct.pack_into("=Q", self.data, 0, start)
        self.reader = RingReader(self.control, self.data, size, STRIDE, memory_barrier("x86_64"))

    @property
    def consumer(self) -> int:
        return int(struct.unpack_from("=Q", self.control)[0])

    def _put(self, position: int, data: bytes) -> None:
        for i, byte in enumerate(data):
            at = (position + i) & (self.size - 1)
            self.data[PAGE + at] = byte
            self.data[PAGE + self.size + at] = byte

    def reserve(self, payload: bytes) -> int | None:
        """Position of a busy record, None when the ring is full."""
        if self.producer + STRIDE - self.consumer > self.size - 1:
            return None
        position = self.producer
        self._put(position, struct.pack("=II", PAYLOAD | BUSY, 7) + payload)
        self.producer += STRIDE
        struct.pack_into("=Q", self.data, 0, self.producer)
        return position

    def commit(self, position: int, *, discard: bool = False) -> None:
        self._put(position, struct.pack("=I", PAYLOAD | (DISCARD if discard else 0)))

    def add(self, number: int) -> bool:
        position = self.reserve(number.to_bytes(4, "little") * 8)
        if position is None:
            return False
        self.commit(position)
        return True

    def drain(self) -> tuple[list[int], bool]:
        """Numbers of the records that the reader gives, and whether a busy one follows."""
        data, busy = self.reader.peek()
        if data is None:
            return [], busy
        raw = bytes(data)
        data.release()
        self.reader.advance(len(raw))
        assert len(raw) % STRIDE == 0
        return [int.from_bytes(raw[at + 8 : at + 12], "little") for at in range(0, len(raw), STRIDE)], busy


def test_an_empty_ring_gives_nothing() -> None:
    ring = SyntheticRing()
    assert ring.drain() == ([], False)
    assert ring.consumer == 0


def test_records_come_in_order_and_space_is_handed_back() -> None:
    ring = SyntheticRing()
    for number in range(10):
        assert ring.add(number)
    assert ring.drain() == (list(range(10)), False)
    assert ring.consumer == 10 * STRIDE
    assert ring.reader.high_water == 10 * STRIDE


def test_a_record_that_wraps_is_read_through_the_second_mapping() -> None:
    ring = SyntheticRing()
    per_round = ring.size // STRIDE - 1
    assert ring.size % STRIDE != 0
    seen = []
    for start in range(0, 20 * per_round, per_round):
        for number in range(start, start + per_round):
            assert ring.add(number)
        numbers, busy = ring.drain()
        assert not busy
        seen += numbers
    assert seen == list(range(20 * per_round))
    assert ring.consumer > 10 * ring.size


def test_a_busy_record_in_the_middle_stops_the_reader_until_it_is_committed() -> None:
    ring = SyntheticRing()
    ring.add(0)
    open_record = ring.reserve((1).to_bytes(4, "little") * 8)
    ring.add(2)
    assert open_record is not None
    assert ring.drain() == ([0], True)
    assert ring.drain() == ([], True)
    assert ring.consumer == STRIDE
    ring.commit(open_record)
    assert ring.drain() == ([1, 2], False)


def test_a_discarded_record_keeps_its_place_and_does_not_look_busy() -> None:
    ring = SyntheticRing()
    ring.add(0)
    dropped = ring.reserve(bytes(32))
    assert dropped is not None
    ring.commit(dropped, discard=True)
    ring.add(2)
    data, busy = ring.reader.peek()
    assert data is not None
    assert not busy
    headers = [struct.unpack_from("=I", data, at)[0] for at in range(0, len(data), STRIDE)]
    assert headers == [PAYLOAD, PAYLOAD | DISCARD, PAYLOAD]


def test_an_exactly_full_ring_is_read_whole() -> None:
    ring = SyntheticRing(size=8192)
    count = 0
    while ring.add(count):
        count += 1
    assert count == (ring.size - 1) // STRIDE
    assert ring.drain() == (list(range(count)), False)
    assert ring.add(count)
    assert ring.drain() == ([count], False)


@pytest.mark.parametrize("start", [2**32 - 2 * STRIDE, 2**40 + 8, 2**33 + 4088])
def test_positions_beyond_32_bits(start: int) -> None:
    ring = SyntheticRing(start=start)
    assert ring.reader.position == start
    for number in range(5):
        assert ring.add(number)
    assert ring.drain() == ([0, 1, 2, 3, 4], False)
    assert ring.consumer == start + 5 * STRIDE


@given(st.lists(st.sampled_from(["add", "reserve", "commit", "discard", "drain"]), max_size=200))
def test_any_interleaving_gives_every_committed_record_once_and_in_order(steps: list[str]) -> None:
    ring = SyntheticRing()
    number = 0
    opened: list[int] = []
    expected: list[int] = []
    seen: list[int] = []
    for step in steps:
        if step in ("add", "reserve"):
            position = ring.reserve(number.to_bytes(4, "little") * 8)
            if position is None:
                continue
            expected.append(number)
            number += 1
            if step == "add":
                ring.commit(position)
            else:
                opened.append(position)
        elif step in ("commit", "discard") and opened:
            ring.commit(opened.pop(0), discard=step == "discard")
        elif step == "drain":
            seen += ring.drain()[0]
    for position in opened:
        ring.commit(position)
    seen += ring.drain()[0]
    assert seen == expected
    assert ring.consumer == ring.producer


def test_an_unordered_machine_without_a_known_barrier_is_refused() -> None:
    with pytest.raises(OSError, match="no memory barrier"):
        memory_barrier("vax")


@pytest.mark.parametrize(
    ("mib", "share", "expected"), [(16, 1, 16 << 20), (16, 4, 4 << 20), (3, 1, 2 << 20), (0.01, 64, 64 << 10)]
)
def test_ring_sizes_are_powers_of_two(mib: float, share: int, expected: int) -> None:
    assert ring_bytes(mib, share) == expected
