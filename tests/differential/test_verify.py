"""The compiled twin check and the slow one count the same: on streams of a known kernel, whole and with losses."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.reference.kernel_events import Event
from tests.reference.machine_driver import slow_twin
from tests.reference.slow_verify import SlowTwin
from tests.verify_samples import GENERATIONS, KERNELS, Stream, check, kernel_stream, reasons, totals
from tracereplay.machine.build import build_machine


def differences(stream: Stream, events: list[Event]) -> dict[str, tuple[int, int]]:
    """Totals and reasons by name that differ: the compiled check's, the slow one's."""
    v = check(stream.config, events, stream.rows())
    slow = SlowTwin(slow_twin(build_machine(stream.config), stream.config))
    slow.feed(events, stream.rows().tolist())
    pairs = ((totals(v), slow.totals), (reasons(v), slow.reasons))
    return {k: (a.get(k, 0), b[k]) for a, b in pairs for k in {*a, *b} if a.get(k, 0) != b[k]}


@pytest.mark.parametrize("generation", GENERATIONS)
@pytest.mark.parametrize("name", KERNELS)
def test_an_untouched_stream(name: str, generation: str) -> None:
    stream = kernel_stream(replace(KERNELS[name], generation=generation), random.Random(f"{name} {generation}"), 50)
    assert differences(stream, stream.events) == {}


@settings(max_examples=25)
@given(
    st.sampled_from(list(KERNELS)),
    st.sampled_from(GENERATIONS),
    st.sampled_from((0.001, 0.02, 0.2)),
    st.sampled_from((0.0, 0.2)),
    st.integers(0, 1 << 30),
)
def test_lost_events_and_pages_taken_unseen(name: str, generation: str, lost: float, bulk: float, seed: int) -> None:
    rng = random.Random(seed)
    stream = kernel_stream(replace(KERNELS[name], generation=generation), rng, 40, bulk=bulk)
    events = [e for e in stream.events if rng.random() >= lost]
    assert differences(stream, events) == {}
