"""What strategies cost a fleet: counters of many replays added, prices of the sum, intervals, who is cheapest where.

Hosts weigh by their pages. Each trace is priced for its own number of CPUs where the profile depends on it. Intervals
are over the prices and over the sampling, draw by draw the same for all strategies (cost/intervals.py). Sampling is one
of two:

- *hosts*: of ENOUGH_HOSTS and more, whole hosts are drawn with replacement, which is what tells how another fleet of
  such hosts would fare;
- *requests*: of fewer, each trace's slices of time are drawn by themselves (cost/bootstrap.py). Such an interval is of
  these hosts, and says nothing of others.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from tracereplay.cost.bootstrap import MIN_BLOCKS, Floats, Ints, Sample, draws_of, stretch_of
from tracereplay.cost.intervals import Pricing, judged, middle, pricing
from tracereplay.cost.profile import Profile
from tracereplay.cost.rates import baseline_of

ENOUGH_HOSTS = MIN_BLOCKS
"""Fewer hosts than this say nothing about how much others would differ."""
HOSTS, REQUESTS = "hosts", "requests"


@dataclass(slots=True)
class Share:
    """What one strategy did on one trace, as the fold keeps it."""

    sample: Sample | None
    """None once there are hosts enough to draw from."""
    counters: Ints
    """[NR_COUNTERS]"""
    own: Ints
    """The strategy's own work in it, which is no request's."""
    pages: int
    requests: int

    @classmethod
    def of(cls, sample: Sample) -> Share:
        """Of a trace's sample."""
        own = sample.worker.sum(axis=0) + sample.end
        counters = sample.counters.sum(axis=0) + own
        return cls(sample, counters, own, int(sample.pages.sum()), int(sample.requests.sum()))


@dataclass(slots=True)
class Part:
    """One trace in the fold."""

    host: str
    cpus: int
    shares: list[Share]
    """Of each strategy."""


@dataclass(slots=True)
class Entry:
    """One strategy in the fold: sums."""

    label: str
    strategy: str
    params: dict[str, Any]
    counters: Counter[str] = field(default_factory=Counter)
    requests: Counter[str] = field(default_factory=Counter)


class FleetCost:
    """Results of replays, added up one after the other. Of each trace it keeps its sums by strategy; of fewer than
    ENOUGH_HOSTS hosts also their slices."""

    def __init__(self, profile: Profile, seed: int) -> None:
        self._profile, self._seed = profile, seed
        self._by_cpus = any(p.name == "cpus" for p in profile.parameters)
        self.parts: list[Part] = []
        self.entries: list[Entry] = []
        self._pricings: dict[int, Pricing] = {}

    def add(self, host: str, cpus: int, entries: Sequence[Mapping[str, Any]]) -> None:
        """A trace's replay. ``entries``: as in ``results``, of the same strategies each time, each with its ``label``,
        ``counters`` and ``sample`` (a :class:`Sample`, or its JSON)."""
        if not self.entries:
            self.entries = [Entry(e["label"], e["strategy"], dict(e.get("params") or {})) for e in entries]
        for sums, entry in zip(self.entries, entries, strict=True):
            sums.counters.update({n: v for n, v in entry["counters"].items() if v is not None})
            sums.requests.update(entry.get("requests") or {})
        made = [e["sample"] if isinstance(e["sample"], Sample) else Sample.from_json(e["sample"]) for e in entries]
        self.parts.append(Part(host, cpus, [Share.of(sample) for sample in made]))
        if len(self.hosts) >= ENOUGH_HOSTS:
            for part in self.parts:
                for share in part.shares:
                    share.sample = None

    @property
    def hosts(self) -> list[str]:
        """Names of the hosts, each once."""
        return list(dict.fromkeys(part.host for part in self.parts))

    def pricing(self, cpus: int) -> Pricing:
        """Draws of the prices for a number of CPUs."""
        key = cpus if self._by_cpus else 0
        if key not in self._pricings:
            profile = self._profile.with_parameters(cpus=cpus) if self._by_cpus else self._profile
            self._pricings[key] = pricing(profile, self._seed)
        return self._pricings[key]

    # ------------------------------------------------------------ the answer
    def to_json(self) -> dict[str, Any]:
        """``hosts`` (cost of a page by strategy), ``sampling``, ``baseline`` and ``results`` by strategy."""
        base = baseline_of([{"label": e.label, "strategy": e.strategy} for e in self.entries])
        place = next((i for i, e in enumerate(self.entries) if base and e.label == base["label"]), 0)
        drawn = [self._drawn(i) for i in range(len(self.entries))]
        by_host = self.by_host()
        hosts = [
            {
                "host": name,
                "pages": pages[0] if pages else 0,
                "per_page": dict(zip((e.label for e in self.entries), costs, strict=True)),
                "ratio": {e.label: _over(c, costs[place]) for e, c in zip(self.entries, costs, strict=True)},
            }
            for name, (pages, costs) in by_host.items()
        ]
        judged_by_sampling = all(d.judged for d in drawn)
        return {
            "unit": self._profile.unit,
            "baseline": self.entries[place].label if self.entries else None,
            "sampling": self._sampling(judged_by_sampling),
            "hosts": hosts,
            "results": [
                self._result(i, drawn[i], drawn[place], place == i, [costs for _, costs in by_host.values()])
                for i in range(len(self.entries))
            ],
        }

    def by_host(self) -> dict[str, tuple[list[int], list[float | None]]]:
        """Pages, and the cost of a page, of each strategy on each host."""
        found: dict[str, tuple[list[int], list[float]]] = {}
        for part in self.parts:
            p = self.pricing(part.cpus)
            n = len(part.shares)
            pages, costs = found.setdefault(part.host, ([0] * n, [0.0] * n))
            for i, share in enumerate(part.shares):
                pages[i] += share.pages
                costs[i] += float(share.counters @ p.matrix @ p.values)
        return {host: (pages, [_over(c, n) for c, n in zip(costs, pages, strict=True)])
                for host, (pages, costs) in found.items()}  # fmt: skip

    def _result(
        self, i: int, drawn: _Drawn, base: _Drawn, is_base: bool, hosts: Sequence[Sequence[float | None]]
    ) -> dict[str, Any]:
        entry, pages = self.entries[i], sum(part.shares[i].pages for part in self.parts)
        requests = sum(part.shares[i].requests for part in self.parts)
        by_primitive: Counter[str] = Counter()
        own = 0.0
        for part in self.parts:
            p, share = self.pricing(part.cpus), part.shares[i]
            by_primitive.update(dict(zip((c.name for c in p.profile.coefficients),
                                         (share.counters @ p.matrix * p.values).tolist(), strict=True)))  # fmt: skip
            own += float(share.own @ p.matrix @ p.values)
        total = sum(by_primitive.values())
        both = middle(drawn.both, drawn.value)
        found: dict[str, Any] = {
            "label": entry.label,
            "strategy": entry.strategy,
            "params": entry.params,
            "counters": dict(entry.counters),
            "requests": dict(entry.requests),
            "cost": {
                "unit": self._profile.unit,
                "total": total,
                "per_page": _over(total, pages),
                "per_request": {"mean": _over(total - own, requests)},
                "interval95": [end * pages for end in both],
                "per_page_interval95": list(both) if pages else None,
                "per_page_interval95_prices": list(middle(drawn.prices, drawn.value)) if pages else None,
                "per_page_interval95_sampling": (
                    list(middle(drawn.sampling, drawn.value)) if drawn.judged and pages else None
                ),
                "by_primitive": dict(by_primitive),
            },
            "cheapest_hosts": sum(_is_least(costs, i) for costs in hosts),
        }
        if is_base or not base.value:
            return found | {"ratio": 1.0 if is_base and base.value else None, "ratio_interval95": None, "beyond": False}
        paid = base.both > 0
        ends = middle(drawn.both[paid] / base.both[paid], drawn.value / base.value)
        apart = middle(drawn.both - base.both, drawn.value - base.value)
        return found | {
            "ratio": drawn.value / base.value,
            "ratio_interval95": list(ends),
            "beyond": apart[0] > 0 or apart[1] < 0,
        }

    def _sampling(self, is_judged: bool) -> dict[str, Any]:
        n = len(self.hosts)
        over = HOSTS if n >= ENOUGH_HOSTS else REQUESTS
        if over == HOSTS:
            note = f"{n:,} hosts, drawn with replacement: intervals are of a fleet of such hosts"
        else:
            few = f"{n} host{'s' if n != 1 else ''}, too few to draw from: requests are drawn within each trace; "
            note = few + "intervals are of these hosts only" + ("" if is_judged else ", and of some the prices alone")
        return {"over": over, "judged": is_judged, "hosts": n, "traces": len(self.parts), "note": note}

    # ------------------------------------------------------------ draws
    def draws(self, i: int) -> Floats | None:
        """Cost of a page of a strategy in each draw, [draw]; None without pages."""
        return self._drawn(i).both if any(part.shares[i].pages for part in self.parts) else None

    def _drawn(self, i: int) -> _Drawn:
        return self._over_hosts(i) if len(self.hosts) >= ENOUGH_HOSTS else self._within(i)

    def _within(self, i: int) -> _Drawn:
        """Each trace's requests drawn by themselves; the numbers of pages stay."""
        pages = sum(part.shares[i].pages for part in self.parts)
        found = _Drawn.nothing()
        for k, part in enumerate(self.parts):
            sample = part.shares[i].sample
            assert sample is not None
            p = self.pricing(part.cpus)
            drawn = judged(sample, replace(p, seed=p.seed + k))  # traces are drawn independently, prices together
            if drawn.page is None:
                continue
            part_of = part.shares[i].pages / pages
            found = found.plus(
                drawn.page.value(p) * part_of,
                (drawn.page.draws * p.prices).sum(axis=1) * part_of,
                (drawn.page.counts * p.prices).sum(axis=1) * part_of,
                (drawn.page.draws * p.values).sum(axis=1) * part_of,
                drawn.resampling.judged,
            )
        return found

    def _over_hosts(self, i: int) -> _Drawn:
        """Whole hosts drawn with replacement: cost over pages in each draw."""
        place = {host: k for k, host in enumerate(self.hosts)}
        pages = np.zeros(len(place))
        amounts: dict[int, Floats] = {}
        for part in self.parts:
            share, p = part.shares[i], self.pricing(part.cpus)
            rows = amounts.setdefault(part.cpus if self._by_cpus else 0, np.zeros((len(place), len(p.values))))
            rows[place[part.host]] += share.counters @ p.matrix
            pages[place[part.host]] += share.pages
        if not pages.sum():
            return _Drawn.nothing()
        found = _Drawn.nothing()
        for cpus, rows in amounts.items():
            p = self.pricing(cpus)
            times, stretch = draws_of(self._seed, len(place), 1, len(p.prices)), stretch_of(len(place))
            whole = rows.sum(axis=0) / pages.sum()
            draws = (times @ rows) / np.maximum(times @ pages, 1)[:, None]
            draws = np.maximum(whole + stretch * (draws - whole), 0.0)
            found = found.plus(
                float(whole @ p.values),
                (draws * p.prices).sum(axis=1),
                (whole * p.prices).sum(axis=1),
                (draws * p.values).sum(axis=1),
                True,
            )
        return found


@dataclass(frozen=True, slots=True)
class _Drawn:
    """Cost of a page of the fleet."""

    value: float
    both: Floats
    """[draw]"""
    prices: Floats
    sampling: Floats
    judged: bool

    @classmethod
    def nothing(cls) -> _Drawn:
        zero = np.zeros(1)
        return cls(0.0, zero, zero, zero, True)

    def plus(self, value: float, both: Floats, prices: Floats, sampling: Floats, is_judged: bool) -> _Drawn:
        return _Drawn(
            self.value + value,
            self.both + both,
            self.prices + prices,
            self.sampling + sampling,
            self.judged and is_judged,
        )


def _over(part: float | None, whole: float | None) -> float | None:
    return part / whole if part is not None and whole else None


def _is_least(costs: Sequence[float | None], i: int) -> bool:
    known = [c for c in costs if c is not None]
    return costs[i] is not None and costs[i] == min(known)
