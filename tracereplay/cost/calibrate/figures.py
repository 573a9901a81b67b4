"""Which difference of which gaps is which price. One group of rounds in, one number per figure out.

Events of a tape cost time themselves, about as much as what is measured. So costs are taken as

- the *slope* over the number of pages of a stretch in which no event fires (``pop``),
- the gap from a mark to an event, less what that event adds to the whole stretch when it is attached
  (``alloc_page``, ``free_page_call``): the stretch was measured with and without it, in the same call,
- the gap between two events of a loop, less what such an event costs (``free_page``, ``refill_page``,
  ``drain_page``);
- differences between gaps with the same events (``tail_check``, ``split``, ``merge``), or with none
  (``zone_lock``).

A figure that cannot be had from the samples is NaN.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from tracereplay.cost.calibrate.ring_gaps import FEWEST, MOST_LEVELS, RingGaps, ring_gaps
from tracereplay.cost.calibrate.samples import Block, Samples, trimmed, undisturbed

SIZES = (2, 4, 8, 16, 32, 64)
PCP_LOCK_NS = 5.0
"""What the base profile assumes: no difference shows a lock that is always taken."""
ZEROED_NS = 20.0
"""More than this per tail page: the kernel zeroes what nobody asked to be zeroed (init_on_alloc)."""
_LARGE = (4, 5, 6, 7, 8, 10)
_SMALL = (2, 3, 4, 5, 6)
_STRETCH = re.compile(r"^EKKR")
_STRETCH_1 = re.compile(r"^EKAKR")
_BETWEEN = re.compile(r"^EKKKK")
_LOCKED = re.compile(r"KKZA")
_FREES = re.compile(r"RFRRX$")
_FREED = re.compile(r"RRRX$")
NAN = float("nan")


@dataclass(slots=True)
class Figures:
    """Numbers of one group of rounds, by name, and how many gaps each rests on."""

    value: dict[str, float] = field(default_factory=dict)
    count: dict[str, int] = field(default_factory=dict)

    def put(self, name: str, value: float, count: int) -> float:
        """Keep a number; it is returned."""
        self.value[name] = float(value)
        self.count[name] = int(count)
        return float(value)


class _Gaps:
    """Means of gaps of system calls of one group, with their numbers."""

    def __init__(self, samples: Samples, rounds: Sequence[int]) -> None:
        self._samples, self._rounds = samples, rounds
        self.seen = 0
        """Gaps that the last mean is of."""

    def mean(self, block: Block, pattern: re.Pattern[str], first: int, second: int, warm_up: int = 2) -> float:
        calls = self._samples.calls(self._rounds, block, warm_up)
        gaps = [g for call in calls if (g := call.gap(pattern, first, second)) is not None]
        self.seen = len(gaps)
        return undisturbed(gaps)

    def whole(self, block: Block, warm_up: int = 2) -> float:
        """Whole calls, in which nothing came from the buddy lists and nothing went there."""
        calls = self._samples.calls(self._rounds, block, warm_up)
        spans = [float(c.times[-1] - c.times[0]) for c in calls if not {"Z", "D"} & set(c.kinds)]
        self.seen = len(spans)
        return undisturbed(spans)


def line(x: Sequence[float], y: Sequence[float], weights: Sequence[float] | None = None) -> tuple[float, float]:
    """Slope and intercept of a least-squares line through the points that are there; NaN with fewer than two."""
    points = [(a, b, w) for a, b, w in zip(x, y, weights or [1.0] * len(x), strict=True) if np.isfinite(b) and w > 0]
    if len({a for a, _, _ in points}) < 2:
        return NAN, NAN
    a, b, w = (np.array(column) for column in zip(*points, strict=True))
    a0, b0 = np.average(a, weights=w), np.average(b, weights=w)
    slope = float(np.sum(w * (a - a0) * (b - b0)) / np.sum(w * (a - a0) ** 2))
    return slope, float(b0 - slope * a0)


def figures_of(samples: Samples, rounds: Sequence[int]) -> Figures:
    """All figures that the tapes of some rounds give."""
    out = Figures()
    gaps = _Gaps(samples, rounds)
    _bulk(out, gaps)
    _blocks(out, gaps)
    zeroes = out.value.get("tail_prepare", NAN) > ZEROED_NS
    out.put("kernel_zeroes", float(zeroes), 1)
    if zeroes:  # pages of every load are zeroed: take that off, and what cannot be told from it is not claimed
        for name, sign in (("pop", -1), ("alloc_page", -1), ("zone_lock", -1), ("buddy_free", 1)):
            out.value[name] += sign * out.value["zero_hot"]
        out.value["tail_prepare"] = NAN
    _rings(out, ring_gaps(samples.raw(rounds, ("ring", "crossing", 0))))
    _large_rings(out, samples, rounds)
    _sums(out)
    return out


def _bulk(out: Figures, gaps: _Gaps) -> None:
    """From splice(): pages of a bulk call, the single call, and zeroing."""
    plain = {n: gaps.mean(("splice", "plain", n), _STRETCH, 1, 2) for n in (1, *SIZES)}
    seen = gaps.seen * len(SIZES)
    pop, fixed = line(SIZES, [plain[n] for n in SIZES])
    out.put("pop", pop, seen)
    out.put("single_extra", plain[1] - fixed - pop, seen)
    with_event = gaps.mean(("splice", "pages", 1), _STRETCH_1, 1, 3)
    tracer = out.put("tracer_alloc", with_event - plain[1], gaps.seen)
    out.put("alloc_page", gaps.mean(("splice", "pages", 1), _STRETCH_1, 1, 2) - tracer, gaps.seen)
    whole, _ = line(SIZES, [gaps.whole(("splice", "plain", n)) for n in SIZES])
    out.put("free_batched", whole - pop, seen)
    added = gaps.whole(("splice", "pages", 32)) - gaps.whole(("splice", "plain", 32))
    out.put("tracer_free", added / 32, gaps.seen)
    cold = [gaps.mean(("splice", "cold", n), _STRETCH, 1, 2, 0) for n in (2, 64)]
    out.put("pop_cold", (cold[1] - cold[0]) / 62, gaps.seen * 2)
    zeroing, _ = line((2, 8, 32), [gaps.whole(("zero", "plain", n), 1) for n in (2, 8, 32)])
    out.put("zero_hot", zeroing - pop, gaps.seen * 3)


def _blocks(out: Figures, gaps: _Gaps) -> None:
    """From kvmalloc: blocks of several pages, not zeroed, hot."""
    prepare = {k: gaps.mean(("kvmalloc", "pages", k), _LOCKED, 2, 3) for k in _LARGE}
    give = {k: gaps.mean(("kvmalloc", "pages", k), _FREES, 1, 2) for k in (2, 3, *_LARGE)}
    seen = gaps.seen
    tails = [(1 << k) - 1 for k in _LARGE]
    relative = [1 / prepare[k] ** 2 for k in _LARGE]
    tail = out.put("tail_prepare", line(tails, [prepare[k] for k in _LARGE], relative)[0], seen * len(_LARGE))
    relative = [1 / give[k] ** 2 for k in _LARGE]
    check = out.put("tail_check", line(tails, [give[k] for k in _LARGE], relative)[0], seen * len(_LARGE))
    out.put("tail_check_small", (give[3] - give[2]) / 4, seen * 2)
    out.put("tail_check_large", (give[10] - give[8]) / 768, seen * 2)
    # Nothing but kmalloc and kfree marked: the whole way of a block, taken and given back.
    take = {k: gaps.mean(("kvmalloc", "plain", k), _BETWEEN, 2, 3) for k in _SMALL}
    back = {k: gaps.mean(("kvmalloc", "plain", k), _FREED, 0, 1) for k in _SMALL}
    added = gaps.mean(("kvmalloc", "pages", 3), _FREES, 0, 2) - back[3]
    out.put("free_page_call", give[3] - added - 7 * check, seen)
    # Under the zone lock rather than from the per-CPU list; of three orders, the one that was cut or joined least.
    locked = [take[k] - take[3] - ((1 << k) - 8) * tail for k in (4, 5, 6)]
    lock = out.put("zone_lock", _least(locked) + PCP_LOCK_NS + out.value["pop"], seen * 3)
    joined = [back[k] - back[3] - ((1 << k) - 8) * check for k in (4, 5, 6)]
    out.put("buddy_free", _least(joined) + PCP_LOCK_NS - lock, seen * 3)
    for mode in ("pages", "busy"):
        parts = [gaps.mean(("kvmalloc", mode, 4), _LOCKED, 1, 3), gaps.mean(("kvmalloc", mode, 4), _FREES, 1, 2)]
        out.put("zone_path_alone" if mode == "pages" else "zone_path_busy", sum(parts), gaps.seen * 2)


def _least(values: Sequence[float]) -> float:
    found = [v for v in values if np.isfinite(v)]
    return min(found) if found else NAN


def _rings(out: Figures, gaps: RingGaps) -> None:
    """From pages that crossed CPUs: refills, drains and frees, page by page."""
    alloc, free = out.value["tracer_alloc"], out.value["tracer_free"]
    names = {"ZZ": ("refill_page", "split"), "DD": ("drain_page", "merge")}
    for pair, (page, step) in names.items():
        for name, mean, levels in ((step, undisturbed, 1), (step + "_cold", trimmed, MOST_LEVELS)):
            rows = [(n, g) for n in range(levels + 1) if len(g := gaps.of(pair, n)) >= FEWEST]
            weights = [float(len(g)) for _, g in rows]
            out.put(name, line([n for n, _ in rows], [mean(g) for _, g in rows], weights)[0], int(sum(weights)))
        hot, scattered = gaps.of(pair, 0), gaps.of(pair, None)
        event = (alloc + free) / 2
        out.put(page, undisturbed(hot) - event, len(hot))
        out.put(page + "_cold", trimmed(scattered) - event, len(scattered))
    first = gaps.all("AZ")
    call = out.value["alloc_page"] - out.value["pop"]
    out.put("zone_lock_cold", trimmed(first) - alloc - call - out.value["refill_page"], len(first))
    freed = [g for n in range(MOST_LEVELS + 1) for g in gaps.of("FF", n)]
    out.put("free_page", undisturbed(freed) - free, len(freed))
    out.put("free_page_cold", trimmed(gaps.of("FF", None)) - free, len(gaps.of("FF", None)))
    lone, long = gaps.of("AA", None), [g for n in (2, 3, 4) for g in gaps.of("AA", n)]
    out.put("zero_cold", trimmed(lone) - alloc - out.value["alloc_page"], len(lone))
    out.put("zero_long", undisturbed(long) - alloc - out.value["alloc_page"], len(long))


def _large_rings(out: Figures, samples: Samples, rounds: Sequence[int]) -> None:
    """Zeroing of a large block, per page."""
    gaps = ring_gaps(samples.raw(rounds, ("ring", "pages", 10)), order=10).all("ZA")
    tail = out.value["tail_prepare"]
    out.put("zero_large", trimmed(gaps) / 1024 - (tail if np.isfinite(tail) else 0.0), len(gaps))


def _sums(out: Figures) -> None:
    """The same in the terms of Brouer's benchmark, and what is left of a call when its page is priced apart."""
    value, count = out.value, out.count
    out.put("call_fixed", value["alloc_page"] - value["single_extra"] - value["pop"], count["alloc_page"])
    single = out.put("single", value["alloc_page"] + value["free_page"], count["alloc_page"])
    out.put("bulk_page", value["pop"] + value["free_page"], count["pop"])
    out.put("free_share", value["free_page"] / single, count["free_page"])


def clock_figures_of(samples: Samples, rounds: Sequence[int]) -> Figures:
    """What the wall clock gives: whole calls, in which only differences mean something."""
    out = Figures()

    def whole(work: str, n: int) -> float:
        return undisturbed(samples.raw(rounds, (work, "clock", n))[WARM_UP_SERIES:])

    series = len(samples.raw(rounds, ("splice", "clock", 1)))
    per_page, fixed = line(SIZES, [whole("splice", n) for n in SIZES])
    out.put("bulk_page_batched", per_page, series * len(SIZES))
    out.put("single_extra", whole("splice", 1) - fixed - per_page, series)
    zeroing, _ = line((2, 4, 8, 16, 32), [whole("zero", n) for n in (2, 4, 8, 16, 32)])
    # /dev/zero's pages stay in the pipe: their free is not in the call, the batched one of the other is.
    out.put("zero_and_push", zeroing, series * 5)
    return out


WARM_UP_SERIES = 2
