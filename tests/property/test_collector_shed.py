"""The controller of load shedding against simulated loads: it keeps its limits, settles, and lets go."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from collectors.shed import LAST_STAGE, QUIET_S, SAMPLES, Controller, Level

STEP_S = 0.1


@dataclass
class Host:
    """What recording costs: seconds per event for a look, for a record, for a stack; and a fixed share."""

    controller: Controller
    look: float = 80e-9
    record: float = 500e-9
    stack: float = 1600e-9
    fixed: float = 0.0
    whole_callers: random.Random | None = None
    """Given: one task makes all events, so that each slice of time is recorded whole or not at all."""
    now: float = 0.0
    changes: list[tuple[float, Level]] = field(default_factory=list)
    level: Level = field(init=False)

    def __post_init__(self) -> None:
        self.level = self.controller.level

    def overhead(self, rate: float) -> float:
        """Mean share of a core at the present level."""
        stacks = self.stack / self.level.stacks if self.level.stacks else 0.0
        return self.fixed + rate * (self.look + (self.record + stacks) / self.level.sample)

    def run(self, seconds: float, rate: float | Callable[[float], float]) -> list[float]:
        """Let time pass; the overhead of each step."""
        shares = []
        for _ in range(round(seconds / STEP_S)):
            self.now += STEP_S
            events = rate(self.now) if callable(rate) else rate
            share, recorded = self.overhead(events), events / self.level.sample
            if self.whole_callers is not None and self.level.sample > 1:
                kept = self.whole_callers.random() < 1 / self.level.sample
                share = self.fixed + events * (self.look + self.record * kept)
                recorded = events * kept
            shares.append(share)
            level = self.controller.decide(round(self.now * 1e9), share, events, recorded)
            if level is not None:
                self.level = level
                self.changes.append((self.now, level))
        return shares


rates = st.floats(3, 6.5).map(lambda x: 10**x)
limits = st.floats(0.002, 0.5)


@settings(max_examples=150, deadline=None)
@given(
    rate=rates,
    limit=limits,
    stacks=st.booleans(),
    look=st.floats(20e-9, 200e-9),
    record=st.floats(50e-9, 3e-6),
    stack=st.floats(100e-9, 20e-6),
)
def test_any_constant_load_settles_within_the_limit_and_shedding_ends_with_it(
    rate: float, limit: float, stacks: bool, look: float, record: float, stack: float
) -> None:
    host = Host(Controller(limit, 0, stacks), look, record, stack)
    reachable = rate * (look + record / SAMPLES[-1]) <= limit
    host.run(60, rate)
    settled = len(host.changes)
    # What is not yet shed is within what the bucket takes half a minute to fill with.
    assert host.overhead(rate) <= 1.02 * limit or (not reachable and host.level.stage == LAST_STAGE)
    host.run(60, rate)
    assert len(host.changes) - settled <= 1, "it settles"
    host.run(40, 0.0)
    assert host.level.stage == 0


@settings(max_examples=60, deadline=None)
@given(rate=rates, limit=limits, stacks=st.booleans(), times=st.floats(3, 1000))
def test_a_load_far_above_is_shed_within_seconds(rate: float, limit: float, stacks: bool, times: float) -> None:
    """Programs that cost nothing to look: every limit can be reached."""
    host = Host(Controller(limit, 0, stacks), look=0.0, record=times * limit / rate, stack=2 * times * limit / rate)
    shares = host.run(12, rate)
    assert shares[-1] <= 1.02 * limit or host.level.stage == LAST_STAGE
    assert host.changes[0][0] <= 0.6


@settings(max_examples=60, deadline=None)
@given(rate=st.floats(100, 1e6), limit=st.floats(100, 1e6), stacks=st.booleans())
def test_a_rate_limit_is_met_by_sampling(rate: float, limit: float, stacks: bool) -> None:
    host = Host(Controller(0.0, limit, stacks))
    host.run(60, rate)
    assert rate / host.level.sample <= 1.02 * limit or host.level.stage == LAST_STAGE
    if host.level.stage:
        assert rate > limit
        assert host.level.sample < 4 * rate / limit, "no more is left out than it takes"
        assert host.level.stacks == 0, "stacks go first"
    host.run(40, 0.0)
    assert host.level.stage == 0


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**32), rate=st.floats(50_000, 200_000))
def test_one_task_that_makes_all_events_does_not_make_it_swing(seed: int, rate: float) -> None:
    """Its slices come whole: a level is judged by the mean, not by the slice just seen."""
    host = Host(Controller(0.02, 0, stacks=True), whole_callers=random.Random(seed))
    host.run(300, rate)
    stages = [level.stage for _, level in host.changes]
    assert stages == sorted(stages), "it never comes back"
    assert len(stages) <= 8
    assert host.overhead(rate) <= 0.02 * 1.1
    if host.level.sample > 2:
        before = Host(Controller(0.02, 0, stacks=True))
        before.level = Level(0, 0, host.level.sample // 4, "")
        assert before.overhead(rate) > 0.02, "no more is left out than it takes, or twice that"


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**32), rate=st.floats(50_000, 2_000_000))
def test_the_rate_of_one_task_is_judged_by_its_mean(seed: int, rate: float) -> None:
    host = Host(Controller(0, 20_000, stacks=False), whole_callers=random.Random(seed))
    host.run(120, rate)
    assert rate / host.level.sample <= 20_000 * 1.02
    assert rate / host.level.sample >= 20_000 / 4
    assert len(host.changes) <= 4


def test_the_order_is_stacks_then_sampling() -> None:
    host = Host(Controller(0.02, 0, stacks=True))
    host.run(300, lambda t: 1000 * 1.02**t)
    seen = [(level.stacks, level.sample) for _, level in host.changes]
    assert seen[:3] == [(16, 1), (0, 1), (0, 2)]
    assert [sample for _, sample in seen] == sorted(sample for _, sample in seen)


def test_a_users_own_stack_sampling_is_thinned_further() -> None:
    host = Host(Controller(0.02, 0, stacks=True, stack_sample=8))
    assert host.level == Level(0, 8, 1, "")
    host.run(30, 30_000)
    assert host.level.stacks == 128


def test_without_stacks_sampling_comes_first() -> None:
    host = Host(Controller(0.02, 0, stacks=False))
    host.run(30, 50_000)
    assert host.changes[0][1].stage == 3
    assert host.level.stacks == 0


def test_a_short_peak_is_no_reason() -> None:
    host = Host(Controller(0.02, 0, stacks=True))
    host.run(100, lambda t: 100_000 if t % 20 < 0.15 else 1000)
    assert host.changes == []


def test_what_no_level_leaves_out_counts_for_the_rate() -> None:
    """Bios are not sampled: a host that makes nothing else cannot be kept below a rate."""
    controller = Controller(0.0, 1000, stacks=False)
    said = []
    for step in range(1, 400):
        level = controller.decide(step * 100_000_000, 0.01, 20_000, 20_000, fixed=20_000)
        if level is not None:
            said.append(level)
    assert said[-1].stage == LAST_STAGE
    assert "cannot be kept" in said[-1].reason
    assert said[-2].stage == LAST_STAGE


def test_a_limit_out_of_reach_is_said_once_and_kept_at_the_last_stage() -> None:
    host = Host(Controller(0.02, 0, stacks=True))
    host.run(60, 1e6)
    assert host.level.stage == LAST_STAGE
    said = [level for _, level in host.changes if "cannot be kept" in level.reason]
    assert said == [host.level]
    assert host.level.sample == 1024


def test_a_stage_known_to_be_too_expensive_is_not_tried_again_and_again() -> None:
    """Without stacks 0.008, with stacks in every event 0.03: quiet, but there is no way down."""
    host = Host(Controller(0.02, 0, stacks=True), look=80e-9, record=300e-9, stack=1600e-9)
    host.run(250, 15_500)
    assert [level.stage for _, level in host.changes] == [1]


def test_coming_down_takes_quiet_time_and_small_steps() -> None:
    host = Host(Controller(0.02, 0, stacks=True))
    host.run(10, 2e6)
    assert host.level.stage == LAST_STAGE
    before = len(host.changes)
    host.run(60, 0.0)
    down = host.changes[before:]
    assert [level.stage for _, level in down] == [9, 6, 3, 0]
    assert all(b - a >= QUIET_S for (a, _), (b, _) in pairwise(down))


def test_a_load_that_comes_and_goes_is_let_in_ever_more_rarely() -> None:
    host = Host(Controller(0.02, 0, stacks=False))
    host.run(600, lambda t: 200_000 if t % 16 < 8 else 0)
    levels = [level.stage for _, level in host.changes]
    ups = [when for (when, level), before in zip(host.changes[1:], levels, strict=False) if level.stage > before]
    first, second = [w for w in ups if w < 300], [w for w in ups if w >= 300]
    assert len(second) < len(first)


@pytest.mark.parametrize("limits", [(0.0, 0.0)])
def test_without_limits_nothing_is_shed(limits: tuple[float, float]) -> None:
    host = Host(Controller(*limits, stacks=True))
    host.run(20, 1e7)
    assert host.changes == []


def test_a_clock_that_stands_still_decides_nothing() -> None:
    controller = Controller(0.02, 0, stacks=True)
    assert controller.decide(100, 5.0, 1e6) is None
    assert controller.decide(100, 5.0, 1e6) is None
    assert controller.decide(50, 5.0, 1e6) is None
