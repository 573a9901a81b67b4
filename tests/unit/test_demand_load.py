"""Loads: what kvfree_rcu and a receive queue ask for at a stated rate, and how that joins a recorded stream."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.reference.slow_kvfree import kvfree_blocks
from tests.replay_samples import op, ops_of, request, run_engine
from tracereplay.demand.load import SECOND, Load, parse_load
from tracereplay.demand.load_kvfree import KvfreeLoad
from tracereplay.demand.load_network import NetworkLoad
from tracereplay.demand.loaded import LOADS, LoadedDemand, with_loads
from tracereplay.demand.stream import ALLOC, BATCH, FIRST, FREE, SYNTHETIC, TARGETED, DemandInfo, DemandReport
from tracereplay.errors import ParameterError
from tracereplay.machine.config import MachineConfig, ZoneConfig
from tracereplay.machine.counters import slot
from tracereplay.replay import layout as at

Batch = np.ndarray[Any, Any]
MS = 1_000_000


class Recorded:
    """A demand stream of given batches."""

    def __init__(self, batches: Sequence[Batch], *, frames: int = 64, cpus: int = 2, end_ns: int = 10 * MS) -> None:
        self.batches = batches
        self.info = DemandInfo(frames=frames, recorded_frames=frames, cpus=cpus, start_ns=0, end_ns=end_ns)
        self.report = DemandReport(requests=5, pages=9, target="none")

    def __iter__(self) -> Iterator[Batch]:
        yield from self.batches


def joined(load: Load, batches: Sequence[Batch] = (), **more: int) -> tuple[Batch, LoadedDemand]:
    demand = LoadedDemand(Recorded(batches, **more), [load])
    return np.concatenate(list(demand)), demand


def pages_of(load: Load, cpu: int, start: int, end: int) -> list[tuple[int, list[int]]]:
    """Arrival of each request, and when its pages come back."""
    return [
        (ts, back)
        for asked in load.asked(cpu, start, end)
        for ts, back in zip(asked.ts_ns.tolist(), asked.frees.tolist(), strict=True)
    ]


# ---------------------------------------------------------------- kvfree_rcu
@given(
    st.integers(1, 3000),
    st.integers(1, 60),
    st.integers(0, 40),
    st.integers(1, 3),
    st.integers(0, 2),
    st.integers(0, 9999),
)
def test_pointers_by_time_and_by_number_agree(rate: int, burst: int, spacing: int, cpus: int, cpu: int, t: int) -> None:
    """``queued_by`` counts what ``queued_at`` places; the unit of time is a millionth of a second here."""
    cpu %= cpus
    spacing = min(spacing, burst * SECOND * cpus // (rate * MS) // burst)
    load = KvfreeLoad(cpus=cpus, pointers_per_s=rate * MS, burst=burst, spacing_ns=spacing)
    count = load.queued_by(cpu, t)
    assert count == 0 or load.queued_at(cpu, count - 1) <= t
    assert load.queued_at(cpu, count) > t
    assert all(a <= b for a, b in pairwise(load.queued_at(cpu, k) for k in range(count + 2)))


@given(
    st.integers(100, 20000),
    st.integers(1, 40),
    st.integers(1, 9),
    st.integers(1, 60),
    st.integers(1, 5),
    st.integers(1, 40),
)
def test_blocks_are_those_of_the_slow_kvfree(
    rate: int, burst: int, block: int, drain: int, jiffy: int, grace: int
) -> None:
    load = KvfreeLoad(
        cpus=2,
        pointers_per_s=rate,
        burst=burst,
        spacing_ns=1000,
        block=block,
        drain_ms=drain + jiffy,
        jiffy_us=1000 * jiffy,
        grace_ms=grace,
    )
    end = 60 * MS
    for cpu in (0, 1):
        times = [load.queued_at(cpu, k) for k in range(load.queued_by(cpu, end - 1))]
        slow = kvfree_blocks(times, size=block, drain=(drain + jiffy) * MS, jiffy=jiffy * MS, grace=grace * MS)
        found = pages_of(load, cpu, 7, 7 + end)
        assert [(ts - 7, freed - 7) for ts, (freed,) in found] == slow


@pytest.mark.parametrize(("pointers", "pages"), [(1, 1), (507, 1), (508, 2), (202_800, 400), (202_801, 401)])
def test_pointers_before_any_drain_need_a_page_for_each_507(pointers: int, pages: int) -> None:
    load = KvfreeLoad(cpus=1, pointers_per_s=pointers, burst=pointers, spacing_ns=0)
    assert [ts for ts, _ in pages_of(load, 0, 0, SECOND)] == [0] * pages
    assert load.most_live(0, 0, SECOND) == pages
    older = KvfreeLoad(cpus=1, pointers_per_s=pointers, burst=pointers, spacing_ns=0, block=510)
    assert len(pages_of(older, 0, 0, SECOND)) == -(-pointers // 510)


def test_a_full_block_is_drained_a_jiffy_later_and_less_after_five_seconds() -> None:
    slow = KvfreeLoad(cpus=1, pointers_per_s=100)
    (first, second) = pages_of(slow, 0, 0, 5_020 * MS)
    # 501 pointers are queued when the first is 5 s old; those of the last grace period are too young to go at once
    assert first == (0, [5020 * MS])
    assert second[0] == slow.queued_at(0, slow.queued_by(0, 5000 * MS)) > 5000 * MS
    fast = KvfreeLoad(cpus=1, pointers_per_s=507_000)
    full = fast.queued_at(0, 506)
    assert pages_of(fast, 0, 0, SECOND)[0] == (0, [full + 4 * MS + 20 * MS])


# ---------------------------------------------------------------- receive queues
def test_a_poll_takes_a_batch_and_gives_it_back_packet_by_packet() -> None:
    load = NetworkLoad(cpus=2, packets_per_s=1_000_000, batch=4, hold_us=10, remote_percent=50)
    (asked,) = load.asked(1, 100, 100 + 20_000)
    assert asked.ts_ns.tolist() == [4100, 12100]
    assert asked.frees.tolist() == [[14100, 16100, 18100, 20100], [22100, 24100, 26100, 28100]]
    assert asked.cpus.tolist() == [[1, 0, 1, 0]] * 2
    assert load.most_live(1, 100, 20_100) >= 8


@given(st.integers(1, 4), st.integers(1, 10**6), st.integers(1, 40), st.integers(1, 3000), st.integers(0, 100))
def test_the_bound_of_a_queues_pages_holds(cpus: int, rate: int, batch: int, hold: int, percent: int) -> None:
    load = NetworkLoad(cpus=cpus, packets_per_s=rate, batch=batch, hold_us=hold, remote_percent=percent)
    end = min(5 * batch * SECOND * cpus // rate, 5000 * MS)
    bound, exact = load.most_live(0, 0, end), Load.most_live(load, 0, 0, end)
    assert exact <= bound
    found = pages_of(load, 0, 0, end)
    frees = [freed for _, back in found for freed in back]
    assert frees == sorted(frees)
    # polls come evenly: the n-th of all CPUs' when n batches of packets have come
    assert [ts for ts, _ in found] == [batch * SECOND * n * cpus // rate for n in range(len(found))]


# ---------------------------------------------------------------- in a stream
def recorded(times: Sequence[int]) -> Batch:
    """A request of three extents and a free at each time."""
    rows = []
    for i, ts in enumerate(times):
        rows += request(8 * i % 64, [1, 0, 0], ts=ts)
        rows.append(op(FREE, 8 * i % 64, 1, ts=ts))
    return ops_of(rows)


LOADED = [
    KvfreeLoad(cpus=3, pointers_per_s=4_000_000, block=40, drain_ms=1, jiffy_us=200, grace_ms=1),
    NetworkLoad(packets_per_s=100_000, batch=16, hold_us=800, remote_percent=30),
]


@pytest.mark.parametrize("load", LOADED, ids=lambda load: load.name)
@settings(max_examples=30)
@given(st.lists(st.integers(0, 10 * MS), max_size=20), st.integers(1, 7))
def test_a_joined_stream_keeps_the_rules(load: Load, times: list[int], cut: int) -> None:
    times = sorted(times)
    whole = recorded(times)
    batches = [whole[4 * i : 4 * (i + cut)] for i in range(0, len(times), cut)]
    ops, demand = joined(load, batches)
    assert np.all(np.diff(ops["ts_ns"]) >= 0)
    own = (ops["flags"] & SYNTHETIC != 0) | (ops["pfn"] >= 64)
    assert np.array_equal(ops[~own], whole)
    live: set[int] = set()
    for key, kind in zip(ops["pfn"][own].tolist(), ops["kind"][own].tolist(), strict=True):
        assert 64 <= key < demand.info.frames
        assert (key in live) == (kind == FREE)
        live ^= {key}
    heads = np.flatnonzero(ops["pages"] > 0)
    for i in heads.tolist():  # a request's extents follow one another
        n = 3 if not own[i] else int(ops["pages"][i])
        rest = ops[i : i + n]
        assert np.all(rest["kind"] == ALLOC)
        assert len(np.unique(rest["ts_ns"])) == 1
        assert np.all(rest["flags"][1:] & FIRST == 0)
        assert ops["flags"][i] & FIRST
    assert demand.info.cpus == max(2, load.cpus)
    # however the recorded stream is cut, the loads are the same
    assert np.array_equal(ops[own], joined(load)[0])


def test_a_load_is_in_the_report() -> None:
    ops, demand = joined(NetworkLoad(packets_per_s=100_000, batch=8), end_ns=10 * MS)
    polls = 10 * MS // 80_000 + 1
    assert (ops["flags"] == TARGETED | SYNTHETIC | BATCH | FIRST).sum() == polls
    report = demand.report
    assert (report.requests, report.pages) == (5 + polls, 9 + 8 * polls)
    assert report.target == "load network"
    assert (report.targeted_requests, report.targeted_pages) == (polls, 8 * polls)
    assert report.by_caller == [
        {"caller": "load network", "requests": polls, "pages": 8 * polls, "sizes": {"8": polls}}
    ]
    (row,) = report.loads
    assert row["parameters"] == {
        "load": "network",
        "cpus": 2,
        "packets_per_s": 100_000,
        "batch": 8,
        "hold_us": 1000,
        "remote_percent": 0,
    }


def test_two_loads_of_a_kind_share_nothing() -> None:
    loads = [NetworkLoad(packets_per_s=100_000, batch=4), NetworkLoad(packets_per_s=50_000, batch=2)]
    demand = LoadedDemand(Recorded([]), loads)
    ops = np.concatenate(list(demand))
    keys = [set(ops["pfn"][(ops["kind"] == ALLOC) & (ops["caller"] == -1 - n)].tolist()) for n in (0, 1)]
    assert keys[0]
    assert not keys[0] & keys[1]
    assert [row["caller"] for row in demand.report.loads] == ["load network", "load network 2"]


def test_a_strategy_serves_a_load() -> None:
    ops, demand = joined(LOADED[0], [recorded(range(0, 10 * MS, MS))])
    config = MachineConfig(zones=(ZoneConfig("Normal", 0, 1 << 15),), cpus=3, occupancy=0.0)
    outcome = run_engine(ops, config, frames=demand.info.frames)
    (row,) = demand.report.loads
    assert outcome.totals[slot("alloc_calls")] == row["pages"] == outcome.scalars[at.X_TARGETED_PAGES]
    assert outcome.scalars[at.X_ORPHANS] == 0
    assert outcome.totals[slot("failures")] == 0


# ---------------------------------------------------------------- what users write
def test_words_of_a_load() -> None:
    assert parse_load("kvfree", LOADS) == KvfreeLoad()
    assert parse_load("network:packets_per_s=5,cpus=3", LOADS) == NetworkLoad(packets_per_s=5, cpus=3)
    stream = Recorded([])
    assert with_loads(stream, []) is stream


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("kvfre", "did you mean 'kvfree'"),
        ("zzz", "loads: kvfree, network"),
        ("kvfree:pointer_per_s=3", "did you mean 'pointers_per_s'"),
        ("kvfree:qqq=3", "it has: cpus"),
        ("kvfree:block", "cannot be ''"),
        ("kvfree:block=x", "1..1000000"),
        ("kvfree:block=0", "1..1000000"),
        ("kvfree:drain_ms=3", "jiffy_us 4000 is longer than drain_ms 3"),
        ("network:cpus=2000", "0..1024"),
        ("network:remote_percent=101", "0..100"),
        (
            "kvfree:burst=1000,spacing_ns=2000,cpus=1",
            "takes longer than the 1000000 ns until the next",
        ),
    ],
)
def test_mistakes_are_named(text: str, says: str) -> None:
    with pytest.raises(ParameterError) as caught:
        parse_load(text, LOADS)
    assert says in f"{caught.value.message} {caught.value.hint}"


def test_more_pages_than_keys_are_refused() -> None:
    load = NetworkLoad(packets_per_s=10**10, hold_us=10**9)
    with pytest.raises(ParameterError, match="pages out at one time"):
        LoadedDemand(Recorded([]), [load])
