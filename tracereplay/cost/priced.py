"""Prices on the entries of a result, with intervals and comparisons; on those of a stored one without a replay."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from tracereplay.cost.bootstrap import Sample
from tracereplay.cost.distribution import SHARES
from tracereplay.cost.intervals import (
    Drawn,
    Judged,
    Pricing,
    compared,
    cost_intervals,
    judged,
    percentile_intervals,
    pricing,
)
from tracereplay.cost.price import cost_block, unpriced
from tracereplay.cost.profile import Profile
from tracereplay.cost.rates import baseline_of
from tracereplay.cost.sections import priced
from tracereplay.machine.counters import NR_COUNTERS

NOT_REPRICED = ("distribution", "worst", "rates", "contention")
"""Parts of an entry that need more than the sample; a result priced anew goes without them."""


def priced_results(
    entries: Sequence[Mapping[str, Any]], samples: Sequence[Sample], p: Pricing, *, shares: Mapping[str, float] = SHARES
) -> dict[str, list[dict[str, Any]]]:
    """``results`` and ``comparison`` of a result. ``shares``: percentiles that have intervals."""
    strategies = [judged(sample, p) for sample in samples]
    against = comparisons(entries, strategies, p)
    differences = {row["label"]: row["difference_interval95"] for row in against}
    single = _profiles_of_one_price(p.profile)
    results = []
    for entry, strategy in zip(entries, strategies, strict=True):
        found = _priced_entry(entry, strategy, p, shares)
        if "sections" in entry:
            found["sections"] = _priced_sections(entry["sections"], p, single)
        if "rates" in entry:
            found["rates"] = _with_intervals(entry["rates"], found["cost"], differences.get(label_of(entry)))
        results.append(found)
    return {"results": results, "comparison": against}


def _priced_entry(
    entry: Mapping[str, Any], strategy: Judged, p: Pricing, shares: Mapping[str, float]
) -> dict[str, Any]:
    sample = strategy.sample
    nothing = np.zeros((0, NR_COUNTERS), np.int64)
    intervals = cost_intervals(strategy, p)
    cost = cost_block(
        entry["counters"],
        nothing if sample.vectors is None else sample.vectors,
        sample.counts,
        p.profile,
        pages=int(sample.pages.sum()),
        requests=int(sample.requests.sum()),
        seed=p.seed,
        worker=entry.get("worker"),
        known=intervals["interval95"],
    )
    cost |= intervals
    ends_of = percentile_intervals(strategy, p, [*shares.values()]) if shares else []
    ranks = dict(zip(shares, ends_of, strict=True))
    mean = None if strategy.request is None else strategy.request.interval(p)
    for name, ends in (("mean", mean), ("p50", ranks.get("p50")), ("p99", ranks.get("p99"))):
        cost["per_request"][f"{name}_interval95"] = None if ends is None else list(ends)
    parts = {"cost": cost, "unpriced": unpriced(entry["counters"], p.profile), "sample": sample.to_json()}
    if "distribution" in entry:
        told = {"percentile_intervals95": {k: None if ends is None else list(ends) for k, ends in ranks.items()}}
        parts["distribution"] = {**entry["distribution"], "per_request": entry["distribution"]["per_request"] | told}
    return {**entry, **parts}


def _with_intervals(
    rates: Mapping[str, Any], cost: Mapping[str, Any], difference: Sequence[float] | None
) -> dict[str, Any]:
    """Rates with the intervals of those that are the total over a time. The demand's own rate is taken as it is.

    ``difference``: interval of the difference to the baseline, per page.
    """
    found = dict(rates)
    versus = dict(rates.get("versus") or {})
    for name in ("cost_per_s", "cpu_s_per_day"):
        factor = None if rates[name] is None or not cost["per_page"] else rates[name] / cost["per_page"]
        key = f"{name}_interval95"
        found[key] = None if factor is None else [end * factor for end in cost["per_page_interval95"]]
        versus[key] = None if factor is None or difference is None else [end * factor for end in difference]
    return found | ({"versus": versus} if "versus" in rates else {})


def _profiles_of_one_price(profile: Profile) -> list[Profile]:
    """For each coefficient the profile in which it costs 1, and all others nothing."""
    free = [replace(c, value=0.0, formula=None) for c in profile.coefficients]
    return [
        replace(profile, coefficients=(*free[:i], replace(c, value=1.0), *free[i + 1 :])) for i, c in enumerate(free)
    ]


def _priced_sections(sections: Mapping[str, Any], p: Pricing, single: Sequence[Profile]) -> dict[str, Any]:
    """Sections with their prices, and intervals of these over the prices: a section is one, and no sample of any."""
    found = priced(sections, p.profile)
    parts = [priced(sections, profile) for profile in single]
    for name, section in found.items():
        for key in [key for key, value in section.items() if key.endswith("cost") and value is not None]:
            counts = np.array([part[name][key] for part in parts])
            section[f"{key}_interval95"] = list(Drawn(counts, counts[None]).interval(p))
    return found


def comparisons(entries: Sequence[Mapping[str, Any]], strategies: Sequence[Judged], p: Pricing) -> list[dict[str, Any]]:
    """Every strategy but the baseline against the baseline."""
    baseline = baseline_of(entries)
    if baseline is None:
        return []
    place = next(i for i, entry in enumerate(entries) if entry is baseline)
    return [
        compared(label_of(entry), strategy, label_of(baseline), strategies[place], p)
        for i, (entry, strategy) in enumerate(zip(entries, strategies, strict=True))
        if i != place
    ]


def label_of(entry: Mapping[str, Any]) -> str:
    """What a strategy is called in this result."""
    return str(entry.get("label") or entry["strategy"])


def compared_with(result: Mapping[str, Any], profile: Profile, label: str) -> list[dict[str, Any]]:
    """Rows like those of ``comparison``: every other strategy of a stored result against the one of that label."""
    p = pricing(profile, int(result.get("seed") or 0))
    pages = int(result["demand"].get("targeted_pages") or 0)
    strategies = {label_of(entry): judged(sample_of(entry, pages), p) for entry in result["results"]}
    return [compared(name, s, label, strategies[label], p) for name, s in strategies.items() if name != label]


def sample_of(entry: Mapping[str, Any], pages: int) -> Sample:
    """The sample of a stored entry; of one without, its totals. ``pages``: targeted pages of the demand."""
    if entry.get("sample"):
        return Sample.from_json(entry["sample"])
    counters = {name: n for name, n in entry["counters"].items() if isinstance(n, int)}
    requests = sum((entry.get("requests") or {}).get(key, 0) for key in ("served", "failed", "waiting"))
    return Sample.whole(counters, entry.get("worker") or {}, None, np.zeros(0), pages=pages, requests=requests)


def repriced(result: Mapping[str, Any], profile: Profile) -> dict[str, Any]:
    """A stored result under another profile: counters stay, prices, intervals and comparisons are new.

    Percentiles stay known where the result kept its distinct requests (cost/bootstrap.py); NOT_REPRICED is left out.
    """
    cpus = result["machine"].get("cpus")
    if cpus and any(number.name == "cpus" for number in profile.parameters):
        profile = profile.with_parameters(cpus=cpus)
    pages = int(result["demand"].get("targeted_pages") or 0)
    entries = [{k: v for k, v in entry.items() if k not in NOT_REPRICED} for entry in result["results"]]
    samples = [sample_of(entry, pages) for entry in entries]
    found = priced_results(entries, samples, pricing(profile, int(result.get("seed") or 0)))
    return {**result, "profile": profile.to_dict(), **found}
