"""Modelled dm-crypt writes of many sizes, depths, CPUs and clocks: requests must be what was asked for."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.crypt_workload import Workload, crypt_trace
from tests.reference.stream_check import check_stream
from tracereplay.demand import open_demand


def _share_right(work: Workload, *, bios: bool = True) -> float:
    trace, truth = crypt_trace(work, bios=bios)
    stream = open_demand(trace)  # type: ignore[arg-type]
    found = check_stream(stream, stream.info)
    sizes = [r.pages for r in found.requests if "dm-crypt" in stream.report.callers[r.caller]]
    assert sum(sizes) == sum(truth)
    return sum((Counter(sizes) & Counter(truth)).values()) / len(truth)


@settings(max_examples=60)
@given(
    size=st.sampled_from([1, 4, 16, 24, 32, 128, 256]),
    depth=st.sampled_from([1, 2, 8, 32]),
    cpus=st.integers(1, 8),
    compound=st.booleans(),
    cap=st.sampled_from([32, 256]),
    resolution=st.sampled_from([1, 1000]),
    refills=st.booleans(),
    seed=st.integers(0, 1000),
)
def test_one_size(
    size: int, depth: int, cpus: int, compound: bool, cap: int, resolution: int, refills: bool, seed: int
) -> None:
    work = Workload(
        sizes=(size,),
        writes=max(30, min(300, 3000 // size)),
        depth=depth,
        cpus=cpus,
        compound=compound,
        cap=cap,
        resolution_ns=resolution,
        refills=refills,
        seed=seed,
    )
    assert _share_right(work) >= 0.93


@settings(max_examples=30)
@given(depth=st.sampled_from([1, 4, 32]), cpus=st.integers(1, 4), compound=st.booleans(), seed=st.integers(0, 1000))
def test_writeback_of_many_sizes(depth: int, cpus: int, compound: bool, seed: int) -> None:
    work = Workload(sizes=(1, 2, 5, 16, 33, 100, 256), writes=150, depth=depth, cpus=cpus, compound=compound, seed=seed)
    assert _share_right(work) >= 0.85


@pytest.mark.parametrize("size", [16, 32, 128, 256])
def test_page_events_alone_suffice_for_buffers_of_many_pages(size: int) -> None:
    assert _share_right(Workload(sizes=(size,), writes=100), bios=False) >= 0.93
