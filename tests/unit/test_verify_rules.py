"""Predictions of the twin check are no inputs: what is changed in a record costs matches, and the twin says the same.

The streams are those of a kernel whose state is known, cut where one event matters and changed there. And short ones,
in which one thing happened unseen: the reason of each correction, and that the twin is right again after it.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest

from tests.reference.kernel_events import Event, TracedKernel
from tests.reference.machine_driver import slow_twin
from tests.verify_samples import KERNELS, Stream, check, disagreements, kernel_stream, reasons, totals
from tracereplay.machine.build import build_machine
from tracereplay.verify import layout as at

GENERATIONS = ("6.1", "6.12", "6.18")
NO_CONTROLS = np.zeros((0, at.CONTROL_WORDS), np.int64)


@pytest.fixture(scope="module", params=GENERATIONS)
def stream(request: pytest.FixtureRequest) -> Stream:
    """Some thousand events of a kernel."""
    return kernel_stream(replace(KERNELS["roomy"], generation=request.param), random.Random(5), 60)


def runs_of(events: Sequence[Event], kind: str, least: int) -> list[tuple[int, int]]:
    """Stretches (first, end) of at least so many events of a kind on one CPU by one task; order 0 but for drains."""
    found, start = [], 0
    for i in range(1, len(events) + 1):
        same = i < len(events) and events[i][1:3] == events[i - 1][1:3] and events[i].pid == events[i - 1].pid
        if not same:
            stretch = events[start:i]
            plain = kind == "drain" or all(e.order == 0 for e in stretch)
            if stretch[0].kind == kind and len(stretch) >= least and plain:
                found.append((start, i))
            start = i
    return found


def numbers(stream: Stream, events: Sequence[Event]) -> dict[str, int]:
    """All totals."""
    v = check(stream.config, events, stream.rows())
    return dict(zip(at.TOTALS, v[: len(at.TOTALS)].tolist(), strict=True))


def change(before: dict[str, int], after: dict[str, int]) -> dict[str, int]:
    """What differs, leaving out how many rows there were."""
    return {k: after[k] - before[k] for k in before if after[k] != before[k] and k != "events"}


# ---------------------------------------------------------------- drains
def drains(stream: Stream) -> list[tuple[int, int]]:
    """Drains of frees, not of workers."""
    found = [(a, b) for a, b in runs_of(stream.events, "drain", 3) if stream.events[a].pid < 9000]
    assert len(found) >= 3
    return found[:: len(found) // 3]


def test_a_drain_that_is_not_recorded_is_predicted_all_the_same(stream: Stream) -> None:
    for a, b in drains(stream):
        whole = numbers(stream, stream.events[:b])
        without = numbers(stream, stream.events[:a])
        assert change(whole, without) == {"drain_kernel": -1, "drain_matched": -1}
        seen, unseen = (reasons(check(stream.config, stream.events[:end], stream.rows())) for end in (b, a))
        assert unseen["drain_not_seen"] == seen.get("drain_not_seen", 0) + 1


def test_a_drain_of_other_frames_does_not_match(stream: Stream) -> None:
    for _, b in drains(stream):
        whole = numbers(stream, stream.events[:b])
        shorter = change(whole, numbers(stream, stream.events[: b - 1]))
        shorter.pop("drain_twin", None)  # the page that stays may let a last free that waits drain
        assert shorter == {"drain_matched": -1, "drain_other_frames": 1}
        swapped = [*stream.events[: b - 2], stream.events[b - 1], stream.events[b - 2]]
        assert change(whole, numbers(stream, swapped)) == {"drain_matched": -1, "drain_other_frames": 1}


def test_a_drain_at_another_free_does_not_match(stream: Stream) -> None:
    """The frames are right, and the free before it is not the one."""
    for a, b in drains(stream):
        trigger = stream.events[a - 1]
        assert trigger.kind in ("free", "free_batched")
        elsewhere = [e._replace(pid=e.pid + 1) for e in stream.events[a:b]]
        moved = numbers(stream, [*stream.events[:a], *elsewhere])
        found = change(numbers(stream, stream.events[:b]), moved)
        assert found == {"drain_matched": -1, "drain_away_from_free": 1}


# ---------------------------------------------------------------- refills
def refills(stream: Stream) -> list[tuple[int, int]]:
    """Refills of order 0 and the place of the allocation after them."""
    events = stream.events
    found = [
        (a, b)
        for a, b in runs_of(events, "zone_locked", 3)
        if b < len(events) and events[b].pfn == events[a].pfn and events[a - 1].kind != "extfrag"
    ]
    assert len(found) >= 3
    return found[:: len(found) // 3]


def test_a_refill_of_another_length_does_not_match(stream: Stream) -> None:
    for _, b in refills(stream):
        whole = numbers(stream, stream.events[: b + 1])
        shorter = numbers(stream, [*stream.events[: b - 1], stream.events[b]])
        assert change(whole, shorter) == {"refill_matched": -1, "refill_other_length": 1}


def test_a_refill_that_is_not_recorded_is_predicted_all_the_same(stream: Stream) -> None:
    for a, b in refills(stream):
        whole = numbers(stream, stream.events[: b + 1])
        without = numbers(stream, [*stream.events[:a], stream.events[b]])
        lost = change(whole, without)
        assert lost.pop("eligible", 0) in (0, -1)  # where it was the first sign of its list
        assert lost == {"refill_kernel": -1, "refill_matched": -1, "exact": -1}


def test_frames_of_a_refill_are_inputs(stream: Stream) -> None:
    """The order of free lists is readable nowhere: other frames of the buddy lists do as well."""
    a, b = refills(stream)[0]
    last = stream.events[b]._replace(pfn=stream.events[b - 1].pfn)
    events = [*stream.events[:a], *reversed(stream.events[a:b]), last]
    assert change(numbers(stream, stream.events[: b + 1]), numbers(stream, events)) == {}


# ---------------------------------------------------------------- pops
def test_shuffled_pops_are_not_exact(stream: Stream) -> None:
    rng = random.Random(3)
    events = list(stream.events)
    stretches = runs_of(events, "alloc", 4)
    moved = 0
    for a, b in stretches:
        if len({e.migratetype for e in events[a:b]}) == 1:
            frames = [e.pfn for e in events[a:b]]
            rng.shuffle(frames)
            moved += sum(e.pfn != f for e, f in zip(events[a:b], frames, strict=True))
            events[a:b] = [e._replace(pfn=f) for e, f in zip(events[a:b], frames, strict=True)]
    assert moved > 50
    whole, shuffled = numbers(stream, stream.events), numbers(stream, events)
    assert whole["exact"] == whole["eligible"]
    assert shuffled["exact"] < shuffled["eligible"] - moved // 4
    assert shuffled["pcp_allocations"] == whole["pcp_allocations"]


def test_another_page_than_the_head_is_one_miss(stream: Stream) -> None:
    kinds = [(a, {e.migratetype for e in stream.events[a:b]}) for a, b in runs_of(stream.events, "alloc", 4)]
    a = next(a for a, types in kinds if len(types) == 1)
    right, wrong = stream.events[: a + 1], [*stream.events[:a], stream.events[a + 1]]
    assert change(numbers(stream, right), numbers(stream, wrong)) == {"exact": -1}
    before, after = (reasons(check(stream.config, events, stream.rows())) for events in (right, wrong))
    assert after == before | {"passed_over": 1}


# ---------------------------------------------------------------- what happened unseen
GFP = 0xCC0


class Script:
    """A kernel of two CPUs and its allocations, to do single things on."""

    def __init__(self, generation: str = "6.12") -> None:
        self.config = replace(KERNELS["roomy"], generation=generation)
        self.kernel = TracedKernel(slow_twin(build_machine(self.config), self.config))
        self.kernel.boost_factor = 0

    def alloc(self, n: int, cpu: int = 0, order: int = 0, gfp: int = GFP) -> list[int]:
        """Blocks for a task."""
        found = [self.kernel.alloc_on(cpu, order, gfp, 100) for _ in range(n)]
        assert None not in found
        return [pfn for pfn in found if pfn is not None]

    def free(self, blocks: Sequence[int], cpu: int = 0, order: int = 0) -> None:
        """Free blocks one by one."""
        for pfn in blocks:
            self.kernel.free_on(cpu, pfn, order, 100)

    def verdict(self, events: Sequence[Event] | None = None) -> tuple[dict[str, int], dict[str, int]]:
        """Totals and reasons."""
        v = check(self.config, self.kernel.events if events is None else events, NO_CONTROLS, room=5)
        assert len(disagreements(v)) <= 5
        return totals(v), reasons(v)


def test_pages_taken_in_bulk_are_passed_over_once() -> None:
    s = Script()
    s.free(s.alloc(10))
    s.kernel.bulk_on(0, 3, GFP, 100)
    s.alloc(5)
    found, why = s.verdict()
    assert why == {"passed_over": 1}
    assert found["exact"] == found["eligible"] - 1


def test_a_bulk_refill_is_a_refill_alone() -> None:
    s = Script()
    s.alloc(1)
    left = s.kernel.pcps[0, 0].count
    s.kernel.bulk_on(0, left + 2, GFP, 100)
    s.free(s.alloc(1, order=4), order=4)
    found, why = s.verdict()
    assert found["refill_without_allocation"] == 1
    assert why["refill_alone"] == 1
    assert found["refill_twin"] == found["refill_kernel"] - 1


def test_a_refill_over_pages_that_bulk_took_is_a_surplus() -> None:
    s = Script("6.1")
    s.alloc(1)
    s.kernel.bulk_on(0, s.kernel.pcps[0, 0].count, GFP, 100)
    s.alloc(20)
    found, why = s.verdict()
    assert why == {"surplus": 1}
    assert found["refill_kernel"] == found["refill_twin"] + 1
    assert found["exact"] == found["eligible"]


def test_a_lost_free_is_found_when_its_page_is_handed_out() -> None:
    s = Script()
    pages = s.alloc(6)
    s.free(pages)
    s.alloc(6)
    lost = next(i for i, e in enumerate(s.kernel.events) if e.kind == "free" and e.pfn == pages[3])
    found, why = s.verdict(s.kernel.events[:lost] + s.kernel.events[lost + 1 :])
    assert why == {"in_use_in_twin": 1}
    assert found["exact"] == found["eligible"] - 1


def test_a_lost_allocation_is_found_at_the_next_or_when_it_is_freed() -> None:
    s = Script()
    s.alloc(3)
    page = s.alloc(1)[0]
    s.free([page])
    s.alloc(2)
    lost = next(i for i, e in enumerate(s.kernel.events) if e.kind == "alloc" and e.pfn == page)
    found, why = s.verdict(s.kernel.events[:lost] + s.kernel.events[lost + 1 :])
    assert why == {"freed_while_free": 1}
    assert found["unmatched_frees"] == 1
    assert found["exact"] == found["eligible"]


def test_an_allocation_from_another_cpus_list_moves_the_page() -> None:
    s = Script()
    s.alloc(2, cpu=0)
    s.alloc(2, cpu=1)
    event = next(e for e in reversed(s.kernel.events) if e.kind == "alloc" and e.cpu == 0)
    last = s.kernel.alloc_on(0, 0, GFP, 100)
    assert last is not None
    assert event.cpu == 0
    moved = s.kernel.events[-1]._replace(cpu=1)  # the task moved between its pop and its event
    found, why = s.verdict([*s.kernel.events[:-1], moved])
    assert why == {"other_cpu": 1}
    assert found["exact"] == found["eligible"] - 1


def test_a_page_from_the_list_of_another_type_teaches_the_pageblocks_type() -> None:
    s = Script()
    s.alloc(2, gfp=GFP)
    s.alloc(2, gfp=0xC50)
    taken = s.kernel.events[-1]
    wrong = s.kernel.alloc_on(0, 0, GFP, 100)
    assert wrong is not None
    found, why = s.verdict([*s.kernel.events[:-1], s.kernel.events[-1]._replace(migratetype=taken.migratetype)])
    assert why == {"other_type": 1, "block_type": 1}
    assert found["exact"] == found["eligible"] - 1


def test_a_block_straight_from_the_buddy_lists_leaves_the_list_alone() -> None:
    """The pcp lock was busy (page-allocator.md 3.9)."""
    s = Script()
    s.alloc(2)
    zone = s.kernel.zones[0]
    pfn = s.kernel.rmqueue_smallest(zone, 0, 0)
    assert pfn is not None
    s.kernel.emit("alloc", pfn, 0, 0)
    s.kernel.used[pfn] = (0, 0, 0)
    s.alloc(3)
    found, why = s.verdict()
    assert why == {"buddy_path": 1}
    assert found["exact"] == found["eligible"] - 1
    assert found["refill_twin"] == found["refill_kernel"] == 1


def test_a_drain_of_all_lists_is_followed() -> None:
    s = Script()
    s.free(s.alloc(20))
    s.kernel.cpu, s.kernel.pid = 0, 300
    s.kernel.drain_cpu(0)
    s.alloc(20)
    found, why = s.verdict()
    assert found["drain_kernel"] == found["drain_away_from_free"] == 1
    assert why["drain_unpredicted"] == 1
    assert found["exact"] == found["eligible"]
    assert found["refill_kernel"] == found["refill_twin"]
