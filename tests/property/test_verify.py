"""The twin check follows a kernel whose first state it knows without a single correction, and ends where it ends."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.reference.machine_driver import picture_of_compiled
from tests.reference.slow_machine import SlowMachine
from tests.verify_samples import (
    GENERATIONS,
    KERNELS,
    Stream,
    check,
    disagreements,
    kernel_stream,
    reasons,
    totals,
    twin_after,
)
from tracereplay.verify import layout as at

PAIRS = (
    ("exact", "eligible"),
    ("eligible", "pcp_allocations"),
    ("refill_matched", "refill_kernel"),
    ("refill_matched", "refill_twin"),
    ("drain_matched", "drain_kernel"),
    ("drain_matched", "drain_twin"),
    ("extfrag_matched", "extfrag_kernel"),
    ("extfrag_matched", "extfrag_twin"),
    ("tick_drain_matched", "tick_drain_twin"),
)
"""Totals that are equal where every prediction is right."""


def assert_all_right(stream: Stream) -> dict[str, int]:
    """Every prediction is right, and twin and kernel end in one state. The totals."""
    machine, v = twin_after(stream.config, stream.events, stream.rows(), room=20)
    found = totals(v)
    assert disagreements(v) == []
    # since 6.10 the zone_locked event of a claimed pageblock comes before the extfrag that says so
    assert set(reasons(v)) <= {"block_type"}
    assert [(a, b) for a, b in PAIRS if found.get(a, 0) != found.get(b, 0)] == []
    twin = picture_of_compiled(machine)
    for key, theirs in lists_of(stream.kernel).items():
        mine = twin["pcps"][key]
        assert {name: mine[name] for name in theirs if name != "lists"} | {
            "lists": [frames for frames in mine["lists"] if frames]
        } == theirs
    for z, zone in enumerate(stream.kernel.zones):
        free = {key: sorted(frames) for key, frames in zone.lists.items() if frames}
        assert {key: sorted(frames) for key, frames in twin["zones"][z]["lists"].items()} == free
        assert twin["zones"][z]["free_pages"] == zone.free_pages
        assert twin["zones"][z]["below_high"] == zone.below_high
    return found


def lists_of(kernel: SlowMachine) -> dict[tuple[int, int], dict[str, Any]]:
    """What the twin should know of the per-CPU lists."""
    return {
        key: {
            "lists": [[pfn for pfn, _, _ in entries] for entries in pcp.lists if entries],
            "count": pcp.count,
            "high": pcp.high,
            "alloc_factor": pcp.alloc_factor,
            "free_factor": pcp.free_factor,
            "free_count": pcp.free_count,
            "prev_high_order": pcp.prev_high_order,
        }
        for key, pcp in kernel.pcps.items()
    }


@pytest.mark.parametrize("generation", GENERATIONS)
@pytest.mark.parametrize("name", KERNELS)
def test_a_known_kernel_is_predicted_entirely(name: str, generation: str) -> None:
    config = replace(KERNELS[name], generation=generation)
    found = assert_all_right(kernel_stream(config, random.Random(f"{name} {generation}"), 150))
    for total in ("exact", "refill_matched", "drain_matched", "extfrag_matched"):
        assert found[total] > 0
    assert found.get("drain_away_from_free", 0) == found.get("tick_drain_matched", 0)
    if generation != "6.1" and name == "near the watermark":
        assert found["tick_drain_matched"] > 0


@pytest.mark.parametrize("generation", GENERATIONS)
def test_recorded_bulk_calls_are_predicted_entirely(generation: str) -> None:
    config = replace(KERNELS["two zones"], generation=generation)
    stream = kernel_stream(config, random.Random(generation), 100, bulk=0.3, probed=True)
    found = assert_all_right(stream)
    assert found["bulk_pages"] == sum(e.pfn for e in stream.events if e.kind == "bulk") > 500


@settings(max_examples=40)
@given(
    st.sampled_from(list(KERNELS)),
    st.sampled_from(GENERATIONS),
    st.sampled_from((3, 7, 15, 31)),
    st.sampled_from((None, 200)),
    st.integers(1, 6),
    st.integers(0, 1 << 30),
)
def test_any_known_kernel_is_predicted_entirely(
    name: str, generation: str, batch: int, high: int | None, scale: int, seed: int
) -> None:
    config = replace(KERNELS[name], generation=generation, pcp_batch=batch, pcp_high=high, pcp_scale_max=scale)
    assert_all_right(kernel_stream(config, random.Random(seed), 60))


@settings(max_examples=40)
@given(st.sampled_from(list(KERNELS)), st.sampled_from(GENERATIONS), st.integers(0, 1 << 30), st.data())
def test_whatever_is_lost_no_count_exceeds_what_it_is_part_of(
    name: str, generation: str, seed: int, data: st.DataObject
) -> None:
    stream = kernel_stream(replace(KERNELS[name], generation=generation), random.Random(seed), 40, bulk=0.2)
    rng = random.Random(data.draw(st.integers(0, 1 << 30)))
    lost = data.draw(st.sampled_from((0.0, 0.01, 0.2)))
    kinds = data.draw(st.sets(st.sampled_from(sorted({e.kind for e in stream.events})), min_size=1))
    events = [e for e in stream.events if e.kind not in kinds or rng.random() >= lost]
    machine, v = twin_after(stream.config, events, stream.rows())
    found = dict(zip(at.TOTALS, v[: len(at.TOTALS)].tolist(), strict=True))
    for part, whole in PAIRS:
        assert 0 <= found[part] <= found[whole]
    assert found["allocations"] == sum(e.kind == "alloc" for e in events)
    assert found["frees"] == sum(e.kind == "free" for e in events)
    assert found["drain_matched"] + found["drain_other_frames"] <= min(found["drain_kernel"], found["drain_twin"])
    assert found["refill_matched"] + found["refill_other_length"] <= min(found["refill_kernel"], found["refill_twin"])
    picture_of_compiled(machine)  # walks every list: links agree, no list leads into another
    assert (v == check(stream.config, events, stream.rows())).all(), "the same events, the same numbers"
