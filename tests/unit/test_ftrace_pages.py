"""Ring-buffer pages: the vectorised walk against the slow one, and pages that are not what they should be."""

from __future__ import annotations

import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.ftrace_samples import DATA_AT, HEADER_PAGE, PAGE_BYTES, Page, random_page
from tests.reference.slow_ftrace import read_page
from tracereplay.errors import CollectorError
from tracereplay.trace.ftrace_pages import Events, PageLayout, Pages, gather_pages, read_events

LAYOUT = PageLayout.from_header_page(HEADER_PAGE)


def listed(pages: Pages, events: Events, index: int) -> list[tuple[int, bytes]]:
    """(time, data) of a page's events."""
    raw = pages.words.view(np.uint8)
    rows = np.flatnonzero(events.page == index)
    return [(int(events.ts[r]), raw[int(events.at[r]) * 4 :][: int(events.size[r])].tobytes()) for r in rows.tolist()]


@given(st.integers(0, 2**32), st.integers(1, 6), st.sampled_from([0, 10**13, 5 << 59]))
def test_the_fast_walk_equals_the_slow_one(seed: int, count: int, uptime: int) -> None:
    rng = random.Random(seed)
    made = [random_page(rng, uptime + rng.randrange(1 << 50), full=rng.random() < 0.3) for _ in range(count)]
    for page in made:
        if rng.random() < 0.4 and page.room >= 8:
            page.lost(rng.choice([-1, 1, 77, 1 << 40]))
    cuts = sorted(rng.sample(range(1, count), rng.randrange(count))) if count > 1 else []
    payloads = []
    for begin, end in zip([0, *cuts], [*cuts, count], strict=True):
        part = made[begin:end]
        payloads.append(b"".join([*(p.bytes() for p in part[:-1]), part[-1].bytes(cut=True)]))
    pages = gather_pages(LAYOUT, payloads)
    events = read_events(pages)
    assert len(pages) == count
    for index, page in enumerate(made):
        slow = read_page(page.bytes())
        assert listed(pages, events, index) == slow.events
        assert bool(pages.missed[index]) == slow.missed
        assert int(pages.lost[index]) == (slow.lost or 0)


def test_pages_without_events_are_no_trouble() -> None:
    pages = gather_pages(LAYOUT, [Page(5).bytes(), Page(6).bytes(cut=True), Page(7).extend(9).bytes()])
    events = read_events(pages)
    assert (len(pages), len(events.ts)) == (3, 0)
    assert len(read_events(gather_pages(LAYOUT, [])).ts) == 0


def test_a_page_filled_to_the_last_byte_keeps_its_last_event() -> None:
    page = Page(100)
    for _ in range(102):
        page.event(1, b"\x07" * 36)
    assert page.room == 0
    events = read_events(gather_pages(LAYOUT, [page.lost(-1).bytes()]))
    assert events.ts.tolist() == list(range(101, 203))


def test_a_record_taken_back_carries_its_time_but_not_the_one_it_has_for_none() -> None:
    page = Page(1000).event(5, b"aaaa").discarded(0, 8).event(7, b"bbbb").discarded(30, 8).event(1, b"cccc")
    events = read_events(gather_pages(LAYOUT, [page.bytes()]))
    assert events.ts.tolist() == [1005, 1012, 1043]


def test_absolute_stamps_are_completed_by_the_pages_upper_bits() -> None:
    high = 3 << 59
    page = Page(high + 10).absolute(20).event(1, b"aaaa").absolute(5).event(0, b"bbbb")
    events = read_events(gather_pages(LAYOUT, [page.bytes()]))
    assert events.ts.tolist() == [high + 21, high + (1 << 59) + 5]


@pytest.mark.parametrize(
    "damage",
    [
        lambda p: p[:8] + (4084).to_bytes(4, "little") + p[12:],
        lambda p: p[:8] + (6).to_bytes(4, "little") + p[12:],
        lambda p: p[: DATA_AT - 4],
        lambda p: p[:8] + (4076 | 1 << 31 | 1 << 30).to_bytes(4, "little") + p[12:],
    ],
    ids=["more than a page", "odd", "short", "no room for the count"],
)
def test_a_page_that_claims_more_than_it_has_is_refused(damage) -> None:  # type: ignore[no-untyped-def]
    page = Page(1).event(1, b"abcd").bytes()
    with pytest.raises(CollectorError, match="claims more bytes"):
        gather_pages(LAYOUT, [damage(page)])


def test_a_cut_page_that_lacks_used_bytes_is_refused() -> None:
    with pytest.raises(CollectorError, match="claims more bytes"):
        gather_pages(LAYOUT, [Page(1).event(1, b"abcd" * 9).bytes(cut=True)[:-4]])


def test_a_record_over_the_end_of_its_page_is_refused() -> None:
    page = Page(1).event(1, b"abcd")
    page.data[0] = 9
    with pytest.raises(CollectorError, match="runs over the end of ring-buffer page 0"):
        read_events(gather_pages(LAYOUT, [page.bytes()]))


def test_other_page_sizes_are_read_from_header_page() -> None:
    layout = PageLayout.from_header_page(HEADER_PAGE.replace("size:4080", "size:65520"))
    assert layout.page_bytes == 65536
    page = Page(1, 65536)
    for _ in range(1000):
        page.event(1, b"abcd" * 9)
    assert len(read_events(gather_pages(layout, [page.bytes()])).ts) == 1000
    narrow = HEADER_PAGE.replace("local_t commit;\toffset:8;\tsize:8", "local_t commit;\toffset:8;\tsize:4")
    narrow = narrow.replace("data;\toffset:16;\tsize:4080", "data;\toffset:12;\tsize:4084")
    assert PageLayout.from_header_page(narrow).data_at == 12


@pytest.mark.parametrize(
    "text",
    ["", HEADER_PAGE.replace("commit", "other"), HEADER_PAGE.replace("offset:0", "offset:4"), "field: x"],
)
def test_a_header_that_is_not_known_is_refused(text: str) -> None:
    with pytest.raises(CollectorError, match=r"no field|not known"):
        PageLayout.from_header_page(text)


def test_the_page_is_the_size_that_the_tests_use() -> None:
    assert LAYOUT.page_bytes == PAGE_BYTES
