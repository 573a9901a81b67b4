"""Calibration: prices of a made-up host come back, noise is refused, what is written is a profile."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from tests.calibration_samples import Host
from tracereplay.cost.calibrate.estimate import Calibration, Estimate, Rule, calibrate, claim, estimate
from tracereplay.cost.calibrate.figures import figures_of, line
from tracereplay.cost.calibrate.ring_gaps import ring_gaps
from tracereplay.cost.calibrate.samples import read_samples, trimmed, undisturbed
from tracereplay.cost.calibrate.write import BASE, profile_text, to_json
from tracereplay.cost.price import price
from tracereplay.cost.profile import Profile, load_profile
from tracereplay.errors import CalibrationError


@pytest.fixture(scope="module")
def found() -> Calibration:
    return calibrate(read_samples(Host().lines()))


def written(calibration: Calibration, path: Path) -> Profile:
    path.write_text(profile_text(calibration, load_profile(BASE), "here"))
    return load_profile(path)


# ---------------------------------------------------------------- samples
def test_lines_that_are_no_calibration() -> None:
    lines = Host().lines(1)
    with pytest.raises(CalibrationError, match="line 2 is none"):
        read_samples([lines[0], "{nonsense"])
    with pytest.raises(CalibrationError, match="line 1 is none of a calibration: no hello"):
        read_samples(lines[1:])
    with pytest.raises(CalibrationError, match="broke off"):
        read_samples(lines[:-1])
    with pytest.raises(CalibrationError, match="broke off"):
        read_samples([])
    with pytest.raises(CalibrationError, match="512 MiB are needed"):
        read_samples([lines[0], '{"type":"done","rounds":0,"seconds":0,"error":"512 MiB are needed"}'])


def test_means() -> None:
    assert undisturbed([10.0] * 6 + [500.0] * 4) == 10.0
    assert trimmed([0.0, 10.0, 10.0, 10.0, 500.0]) == 10.0
    assert undisturbed([7.0]) == trimmed([7.0]) == 7.0
    # a clock that counts in steps of 10 ns: the mean sees what the median cannot
    assert 12.0 < undisturbed([10.0] * 60 + [20.0] * 40) < 20.0 or undisturbed([10.0, 20.0] * 50) > 10.0


def test_line() -> None:
    assert line([1, 2, 3], [5.0, 7.0, 9.0]) == pytest.approx((2.0, 3.0))
    slope, _ = line([1, 2, 3], [5.0, 7.0, 1000.0], [1.0, 1.0, 1e-9])
    assert slope == pytest.approx(2.0, abs=0.01)
    assert line([1, 2], [5.0, float("nan")])[0] != line([1, 2], [5.0, float("nan")])[0]  # NaN


# ---------------------------------------------------------------- figures
def test_prices_come_back(found: Calibration) -> None:
    host, claimed = Host(), found.claimed
    true = {
        "alloc_page": host.alloc, "single_extra": host.extra, "pop": host.pop, "free_page": host.free,
        "zone_lock": host.lock, "split": host.split, "merge": host.merge, "refill_page": host.refill,
        "drain_page": host.drain, "tail_prepare": host.tail_prepare, "tail_check": host.tail_check,
        "zero_page": host.zero, "buddy_free": host.buddy_free,
    }  # fmt: skip
    assert found.refused == {}
    for name, value in true.items():
        # what others add is never negative, so means lie a little low; the clock counts whole nanoseconds
        assert claimed[name].value == pytest.approx(value, rel=0.07, abs=4.0), name
        assert claimed[name].low <= value <= claimed[name].high, name
    seen = {e.name: e.value for e, _ in found.seen}
    assert seen["tracer_alloc"] == pytest.approx(76.0, abs=4.0)
    assert seen["zone_path_busy"] == pytest.approx(seen["zone_path_alone"], rel=0.05)


def test_a_kernel_that_zeroes_unasked() -> None:
    found = calibrate(read_samples(Host(zeroes=True, noise=0.005).lines(6)))
    assert found.claimed["pop"].value == pytest.approx(16.0, abs=4.0)
    assert found.claimed["zero_page"].value == pytest.approx(120.0, rel=0.05)
    assert "tail_prepare" in found.refused
    assert "zone_lock" in found.refused or found.claimed["zone_lock"].value == pytest.approx(40.0, abs=25.0)


def test_levels_follow_from_addresses() -> None:
    pages = [8, 9, 10, 11, 40, 41]
    tape = {"k": "ZZZZZZ", "o": "000000", "t": [0, 10, 30, 40, 90, 100], "p": pages}
    gaps = ring_gaps([tape])
    assert gaps.of("ZZ", 0) == [10.0, 10.0, 10.0]
    assert gaps.of("ZZ", 1) == [20.0]
    assert gaps.of("ZZ", None) == [50.0]
    drained = ring_gaps([{**tape, "k": "DDDDDD"}])
    assert drained.of("DD", 1) == [10.0, 10.0]  # frames 9 and 41: each merges with the one before
    assert drained.of("DD", 0) == [20.0]
    assert drained.of("DD", 2) == [10.0]  # frame 11 merges with 10, then with 8 and 9
    assert ring_gaps([tape], order=3).all("ZZ") == []


def test_a_run_that_does_not_reach_back_tells_nothing() -> None:
    tape = {"k": "ZZZ", "o": "000", "t": [0, 10, 20], "p": [11, 12, 13]}
    gaps = ring_gaps([tape])
    assert not gaps.of("ZZ", 2)  # frame 12 splits two levels only if 8 to 11 left the same block
    assert gaps.of("ZZ", None) == [10.0]


# ---------------------------------------------------------------- estimates
def test_a_range_holds_what_other_runs_find() -> None:
    hosts = [Host(drift=0.03) for _ in range(5)]
    for seed, host in enumerate(hosts):
        host.rng.seed(seed)
    runs = [calibrate(read_samples(host.lines(9))) for host in hosts]
    pairs = [
        one.low <= other.claimed[name].value <= one.high
        for run in runs
        for name, one in run.claimed.items()
        for other in runs
        if name in other.claimed
    ]
    assert len(pairs) > 200
    assert sum(pairs) / len(pairs) > 0.95


RULE = Rule("x", "x", "ns", "by hand")


def test_what_noise_hides_is_refused() -> None:
    def verdict(values: list[float], rule: Rule = RULE) -> str:
        return claim(rule, {"x": estimate("x", values, [1] * len(values))}).refused

    assert verdict([10.0, 10.1, 9.9, 10.0]) == ""
    assert "is not a price" in verdict([-3.0, -2.0, -4.0])
    assert "wider than its value" in verdict([10.0, 1.0, 30.0, 12.0, 2.0])
    assert "not seen often enough" in verdict([10.0, float("nan"), 10.0])
    systematic = Rule("x", "x", "ns", "by hand", systematic=6.0)
    assert "wider than its value" in verdict([10.0] * 5, systematic)
    between = Rule("x", "x", "ns", "by hand", between=6.0)
    assert verdict([10.0] * 5, between) == ""


def test_bounds_widen_a_range_that_was_accepted() -> None:
    rule = Rule("x", "x", "ns", "by hand", low=("hot",), high=("cold", "never_seen"))
    found: dict[str, Estimate | None] = {
        "x": estimate("x", [10.0] * 5, [1] * 5),
        "hot": estimate("hot", [6.0] * 5, [1] * 5),
        "cold": estimate("cold", [90.0] * 5, [1] * 5),
    }
    one = claim(rule, found).estimate
    assert one is not None
    assert (one.value, one.low, one.high) == (10.0, 6.0, 90.0)
    assert one.count == 5


def test_a_noisy_host_claims_little_and_says_why() -> None:
    found = calibrate(read_samples(Host(noise=0.6, drift=0.5).lines(6)))
    assert len(found.claimed) < 13
    assert found.refused
    for reason in found.refused.values():
        assert re.search(r"wider than its value|not a price|of no use without|not seen|less than its lock", reason)
    # parts of one call are claimed together or not at all
    together = {"alloc_page", "single_extra", "pop", "free_page"}
    assert together <= set(found.claimed) or not together & set(found.claimed)


@pytest.mark.parametrize(
    ("without", "lost"),
    [
        (("ring",), {"split", "merge", "refill_page", "drain_page", "free_page", "pop"}),
        (("kvmalloc",), {"tail_prepare", "tail_check", "zone_lock", "buddy_free"}),
        (("splice", "zero"), {"alloc_page", "pop", "single_extra", "zero_page", "zone_lock"}),
    ],
)
def test_a_host_that_refuses_a_system_call(without: tuple[str, ...], lost: set[str], tmp_path: Path) -> None:
    found = calibrate(read_samples(Host().lines(4, without=without)))
    assert lost <= set(found.refused)
    assert any("is forbidden" in reason for reason in found.refused.values())
    assert written(found, tmp_path / "p.toml").name == "here"


def test_one_cpu(tmp_path: Path) -> None:
    found = calibrate(read_samples(Host(cpus=1).lines(4)))
    assert "needs two CPUs" in found.refused["split"]
    assert "tail_check" in found.claimed
    written(found, tmp_path / "p.toml")


def test_without_ebpf(tmp_path: Path) -> None:
    found = calibrate(read_samples(Host().clock_lines("bpf() is refused: EPERM")))
    assert set(found.claimed) == {"single_extra"}
    assert found.claimed["single_extra"].value == pytest.approx(17.0, rel=0.15)
    assert "needs eBPF (bpf() is refused: EPERM)" in found.refused["pop"]
    assert len(found.refused) == 12
    profile = written(found, tmp_path / "p.toml")
    prices = {c.name: c for c in profile.coefficients}
    assert prices["single_call"].value == pytest.approx(17.0, rel=0.15)
    assert prices["pcp_pop"].formula == {c.name: c for c in load_profile(BASE).coefficients}["pcp_pop"].formula


# ---------------------------------------------------------------- the profile
def test_sums_that_were_measured_stay_whole(found: Calibration, tmp_path: Path) -> None:
    profile = written(found, tmp_path / "p.toml")
    claimed = found.claimed
    single = {"alloc_calls": 1, "watermark_checks": 1, "pcp_lock_acquisitions": 1, "pcp_hits": 1}
    assert sum(price(single, profile).values()) == pytest.approx(claimed["alloc_page"].value, rel=0.001)
    bulk = {"bulk_calls": 1, "watermark_checks": 1, "pcp_lock_acquisitions": 1, "pcp_hits": 64}
    fixed = claimed["alloc_page"].value - claimed["single_extra"].value - claimed["pop"].value
    assert sum(price(bulk, profile).values()) == pytest.approx(fixed + 64 * claimed["pop"].value + 0.911, rel=0.001)
    free = {"free_calls": 1, "pcp_lock_acquisitions": 1}
    assert sum(price(free, profile).values()) == pytest.approx(claimed["free_page"].value, rel=0.001)


def test_what_is_inherited_says_so(found: Calibration, tmp_path: Path) -> None:
    profile = written(found, tmp_path / "p.toml")
    base = load_profile(BASE)
    evidence = {c.name: c.evidence for c in profile.coefficients}
    assert evidence["split"] == "measured"
    assert evidence["pcp_pop"] == "derived"
    assert evidence["fallback"] == "assumption"
    assert [c.name for c in profile.coefficients] == [c.name for c in base.coefficients]
    assert {c.name: c.counters for c in profile.coefficients} == {c.name: c.counters for c in base.coefficients}
    text = (tmp_path / "p.toml").read_text()
    inherited = re.search(r"# Inherited from brouer-2021: (.*)\.\n", text)
    assert inherited is not None
    assert "fallback" in inherited[1].split(", ")
    assert "split" not in inherited[1].split(", ")
    source = {p.name: p.source for p in profile.parameters}["split_measured"]
    for word in ("tracereplay calibrate", "2026-11-21", "Test CPU 3000", "6.18.1", "virtual machine", "refills"):
        assert word in source


def test_words_of_a_host_cannot_break_the_file(tmp_path: Path) -> None:
    lines = Host().lines(3)
    hello = json.loads(lines[0])
    hello["host"]["cpu"] = 'A "quoted" \\ CPU\n[coefficient.x]'
    found = calibrate(read_samples([json.dumps(hello), *lines[1:]]))
    assert 'A "quoted" \\ CPU' in written(found, tmp_path / "p.toml").machine


def test_json(found: Calibration) -> None:
    document = json.loads(json.dumps(to_json(found), allow_nan=False))
    assert document["schema"] == 1
    assert document["rounds"] == 8
    assert document["claimed"]["pop"]["n"] > 100
    assert document["claimed"]["pop"]["low"] <= document["claimed"]["pop"]["value"]
    assert document["refused"] == {}
    assert document["host"]["cpu"] == "Test CPU 3000"


def test_figures_of_nothing_are_nan() -> None:
    figures = figures_of(read_samples([json.dumps(Host().hello()), *Host().lines(1)[-1:]]), ())
    assert all(v != v for name, v in figures.value.items() if name != "kernel_zeroes")
