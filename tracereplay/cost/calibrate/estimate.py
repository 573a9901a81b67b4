"""From the figures of many rounds to values with ranges, and what is refused.

Every round is a small measurement of its own: another process, other objects, another CPU, half a second later. The
value is the median of the rounds. Its range has to hold what another run would find: the 99 % interval of a
bootstrap that draws stretches of neighbouring rounds (what disturbs one often lasts into the next), and no less
than a small share of the value. What is not noise, but a choice of circumstances, is added to the range afterwards:
a *systematic* part (how well the tracer's own cost is known) and *bounds* (the same primitive hot and cold).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from tracereplay.cost.calibrate.figures import Figures, clock_figures_of, figures_of
from tracereplay.cost.calibrate.samples import Samples

DRAWS = 2000
STRETCH = 3
"""Rounds that are drawn together."""
INTERVAL = (0.5, 99.5)
FEWEST_ROUNDS = 3
_SMALLEST_SHARE = 0.03
"""No range is narrower than this share of its value on either side: clocks and frequencies are not known better."""
SHARED_SHARE = 0.25
"""In a virtual machine, of a figure's value on either side: its CPUs run at the speed that neighbours and clock leave,
which half a minute does not show. Five runs on one such host, on an idle afternoon, gave 80 to 105 ns for one page."""
TRACER_NS = 4.0
"""How far the tracer's own cost in one place may be from that in another: the same program costs 74 to 80 ns here."""


@dataclass(frozen=True, slots=True)
class Rule:
    """How a claimed figure comes about."""

    name: str
    target: str
    """Coefficient or parameter of the profile."""
    unit: str
    method: str
    low: tuple[str, ...] = ()
    """Figures that the range has to reach down to, and up to."""
    high: tuple[str, ...] = ()
    systematic: float = 0.0
    """ns by which the method itself may be off, on either side: counts when a figure is refused."""
    between: float = 0.0
    """ns by which runs on one host differed beyond what their rounds show (where the kernel's objects came to lie)."""
    is_parameter: bool = False


RULES = (
    Rule("alloc_page", "alloc_page", "ns per call",
         "splice() of one page, kmalloc to mm_page_alloc, less what that event adds to the stretch; holds the entry of "
         "the bulk function and the return of kmalloc", systematic=TRACER_NS, is_parameter=True),
    Rule("single_extra", "single_extra", "ns per call",
         "splice() of one page against the line through 2 to 64 pages at one page", between=4.0, is_parameter=True),
    Rule("pop", "pop", "ns per page",
         "slope of splice() of 2 to 64 pages, between two kmalloc events: no event in it", is_parameter=True),
    Rule("free_page", "free_page", "ns per call",
         "AF_PACKET rings of order 0: mm_page_free to mm_page_free in a loop over neighbouring frames, less the event. "
         "The upper end is a free of its own (kvmalloc)", high=("free_page_call",), systematic=TRACER_NS,
         is_parameter=True),
    Rule("zone_lock", "zone_lock", "ns",
         "kvmalloc of orders 4 to 6 against order 3, kmalloc to kmalloc: under the zone lock instead of from a per-CPU "
         "list, taking the block out included. The upper end is the first block of a refill, cold",
         high=("zone_lock_cold",), between=6.0),
    Rule("buddy_free", "buddy_free", "ns",
         "kvmalloc frees of orders 4 to 6 against order 3, kfree to kfree, less the zone lock", systematic=TRACER_NS),
    Rule("split", "split", "ns",
         "refills: gaps between blocks with one split against none; hot. The upper end is all levels",
         high=("split_cold",), between=2.0),
    Rule("merge", "merge", "ns",
         "drains: gaps between pages with one merge against none; hot. The upper end is all levels",
         high=("merge_cold",), between=6.0),
    Rule("refill_page", "refill_page", "ns",
         "refills: gap between neighbouring frames without a split, less the event. The upper end is scattered frames",
         high=("refill_page_cold",), systematic=TRACER_NS),
    Rule("drain_page", "drain_page", "ns",
         "drains: gap between neighbouring frames without a merge, less the event. The upper end is scattered frames",
         high=("drain_page_cold",), systematic=TRACER_NS),
    Rule("tail_prepare", "tail_prepare", "ns",
         "kvmalloc of orders 4 to 10, slope of the gap from the buddy list to mm_page_alloc; hot", between=0.08),
    Rule("tail_check", "tail_check", "ns",
         "kvmalloc of orders 4 to 10, slope of the gap from mm_page_free to kfree",
         low=("tail_check_small", "tail_check_large"), high=("tail_check_small", "tail_check_large"), between=0.2),
    Rule("zero_hot", "zero_page", "ns",
         "slope of splice() from /dev/zero against that of empty reads. The lower end is neighbouring frames in a long "
         "row, the upper a page of its own, cold", low=("zero_long",), high=("zero_cold",), between=15.0),
)  # fmt: skip
SEEN = {
    "tracer_alloc": "what one mm_page_alloc event costs with a program on it",
    "tracer_free": "what one mm_page_free event costs with a program on it",
    "call_fixed": "a bulk call, its pages apart",
    "single": "a page allocated and freed, one by one",
    "bulk_page": "a page allocated in bulk and freed by itself",
    "free_batched": "a page freed in a batch (release_pages)",
    "free_share": "share of the free in a single page",
    "free_page_call": "a free of its own, not in a loop",
    "free_page_cold": "a free of a scattered frame",
    "pop_cold": "a page of a bulk call, caches empty",
    "refill_page_cold": "a scattered frame of a refill, splits included",
    "drain_page_cold": "a scattered frame of a drain, merges included",
    "split_cold": "a split, all levels and cold ones",
    "merge_cold": "a merge, all levels and cold ones",
    "zero_cold": "zeroing a lone page, cold",
    "zero_long": "zeroing one of many neighbouring pages",
    "zero_large": "zeroing a page of a 4 MiB block",
    "zone_lock_cold": "the zone lock at the first block of a refill",
    "zone_path_alone": "a block of order 4 allocated and freed, events included",
    "zone_path_busy": "the same while every other CPU does it too",
}
"""Figures that are shown and not claimed."""
CLOCK_RULES = (
    Rule("single_extra", "single_extra", "ns per call",
         "wall clock: splice() of one page against the line through 2 to 64 pages at one page", is_parameter=True),
)  # fmt: skip
CLOCK_SEEN = {
    "bulk_page_batched": "a page allocated in bulk and freed in a batch",
    "zero_and_push": "a page allocated in bulk, zeroed, and put into a pipe",
}


@dataclass(frozen=True, slots=True)
class Estimate:
    """A figure over all rounds."""

    name: str
    value: float
    low: float
    high: float
    rounds: int
    count: int
    """Gaps behind it."""


@dataclass(frozen=True, slots=True)
class Claim:
    """A figure that goes into the profile, or the reason why it does not."""

    rule: Rule
    estimate: Estimate | None
    refused: str = ""


@dataclass(frozen=True, slots=True)
class Calibration:
    """What was found on this host."""

    samples: Samples
    claims: tuple[Claim, ...]
    seen: tuple[tuple[Estimate, str], ...]
    """Figures that are shown and not claimed, with what they are."""

    @property
    def claimed(self) -> dict[str, Estimate]:
        """Coefficient or parameter -> figure."""
        return {c.rule.target: c.estimate for c in self.claims if c.estimate is not None and not c.refused}

    @property
    def refused(self) -> dict[str, str]:
        """Coefficient or parameter -> why it stays as it is in the base profile."""
        return {c.rule.target: c.refused for c in self.claims if c.refused}


def estimate(name: str, values: Sequence[float], counts: Sequence[int], seed: int = 0) -> Estimate | None:
    """Median and range of a figure over rounds; None where fewer than three rounds give it."""
    kept = [(v, n) for v, n in zip(values, counts, strict=True) if math.isfinite(v)]
    if len(kept) < FEWEST_ROUNDS:
        return None
    found = np.array([v for v, _ in kept])
    middle = float(np.median(found))
    stretch = min(STRETCH, max(1, len(found) // 3))
    starts = np.random.default_rng(seed).integers(0, len(found), (DRAWS, -(-len(found) // stretch)))
    drawn = (starts[:, :, None] + np.arange(stretch)).reshape(DRAWS, -1)[:, : len(found)] % len(found)
    low, high = np.percentile(np.median(found[drawn], axis=1), INTERVAL)
    least = _SMALLEST_SHARE * abs(middle)
    return Estimate(
        name,
        middle,
        min(float(low), middle - least),
        max(float(high), middle + least),
        len(kept),
        sum(n for _, n in kept),
    )


def claim(rule: Rule, found: Mapping[str, Estimate | None], lacking: str = "", drift: float = 0.0) -> Claim:
    """A figure with its whole range, or the reason for refusing it.

    ``drift``: share by which the speed of the whole host may differ from run to run.
    """
    one = found.get(rule.name)
    if one is None:
        return Claim(rule, None, lacking or "its path was not seen often enough: no samples in three rounds")
    if one.value <= 0:
        return Claim(rule, one, f"{one.value:.1f} {rule.unit} is not a price: noise is larger than it")
    low, high = one.low - rule.systematic, one.high + rule.systematic
    if high - low > one.value:
        return Claim(rule, one, f"its range of {low:.1f} to {high:.1f} is wider than its value of {one.value:.1f}")
    low, high = (low - rule.between) * (1 - drift), (high + rule.between) * (1 + drift)
    low = min([low, *(e.value - rule.between for n in rule.low if (e := found.get(n)) is not None and e.value > 0)])
    high = max([high, *(e.value for n in rule.high if (e := found.get(n)) is not None)])
    return Claim(rule, Estimate(one.name, one.value, max(0.0, low), high, one.rounds, one.count))


_TOGETHER = ("alloc_page", "single_extra", "pop", "free_page")
"""Parameters whose formulas only mean something together."""


def calibrate(samples: Samples) -> Calibration:
    """Estimates and refusals of one run."""
    of = figures_of if samples.ebpf else clock_figures_of
    rounds: list[Figures] = [of(samples, (r,)) for r in samples.rounds]
    names = rounds[0].value if rounds else {}
    found = {n: estimate(n, [r.value[n] for r in rounds], [r.count[n] for r in rounds]) for n in names}
    drift = SHARED_SHARE if samples.host.get("hypervisor") else 0.0
    if samples.ebpf:
        claims = [claim(rule, found, _lacking(samples, rule.name), drift) for rule in RULES]
        claims = _all_or_none(claims, found)
    else:
        why = f"needs eBPF ({samples.why})"
        claims = [claim(rule, found, samples.refused.get("splice", ""), drift) for rule in CLOCK_RULES]
        known = {c.rule.name for c in claims}
        claims += [Claim(rule, None, why) for rule in RULES if rule.name not in known]
    texts = SEEN if samples.ebpf else CLOCK_SEEN
    seen = tuple((e, text) for n, text in texts.items() if (e := found.get(n)) is not None)
    return Calibration(samples, tuple(claims), seen)


_LOADS = {
    "alloc_page": ("splice",),
    "single_extra": ("splice",),
    "pop": ("splice",),
    "free_page": ("ring", "splice"),
    "zone_lock": ("kvmalloc", "splice"),
    "buddy_free": ("kvmalloc", "splice"),
    "tail_prepare": ("kvmalloc",),
    "tail_check": ("kvmalloc",),
    "split": ("ring",),
    "merge": ("ring",),
    "refill_page": ("ring", "splice"),
    "drain_page": ("ring", "splice"),
    "zero_hot": ("zero", "splice"),
}


def _lacking(samples: Samples, name: str) -> str:
    """Why a figure has no samples at all, where the host said so."""
    for load in (*_LOADS[name], "round"):
        if load in samples.refused:
            what = "the measurement failed" if load == "round" else "this host refuses its system call"
            return f"{what}: {samples.refused[load]}"
    if "ring" in _LOADS[name] and samples.host.get("cpus", 1) < 2:
        return "needs two CPUs: pages freed on another one than they were allocated on"
    return ""


def _all_or_none(claims: list[Claim], found: Mapping[str, Estimate | None]) -> list[Claim]:
    """Parameters that formulas use together are claimed together, and only where no part of a call comes out
    negative."""
    missing = [c.rule.name for c in claims if c.rule.name in _TOGETHER and c.refused]
    reason = f"of no use without {', '.join(missing)}" if missing else ""
    fixed = found.get("call_fixed")
    if not reason and fixed is not None and fixed.value <= 5.0:
        reason = f"a bulk call without its pages would cost {fixed.value:.1f} ns, less than its lock"
    if not reason:
        return claims
    return [
        Claim(c.rule, c.estimate, c.refused or reason) if c.rule.name in _TOGETHER else c for c in claims
    ]  # fmt: skip
