"""What a report says about a replay, as plain data. Rendering (terminal, HTML) only formats it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tracereplay.cost.price import price, unpriced
from tracereplay.cost.priced import compared_with, label_of
from tracereplay.cost.profile import Profile
from tracereplay.cost.rates import baseline_of
from tracereplay.report.differences import Difference, Tornado, differences, tornado_of
from tracereplay.report.locks import contention_lines, contention_note, section_lines
from tracereplay.report.numbers import UNKNOWN, count, figure, in_intervals, seconds, share, size
from tracereplay.report.verdict import cautions, cheapest, selector_of, verdict

PAGES_PER_MIB = 256

Interval = tuple[float, float]


@dataclass(frozen=True, slots=True)
class Fact:
    """One line of a list of facts."""

    label: str
    value: str
    note: str = ""


@dataclass(frozen=True, slots=True)
class StrategyCost:
    """One strategy's result. Prices are in the profile's unit; ``per_page`` and the like divide by targeted pages."""

    label: str
    strategy: str
    params: Mapping[str, Any]
    per_page: float | None
    interval: Interval | None
    """95 % interval of ``per_page`` over prices and requests."""
    ratio: float | None
    """Cost / cost of the baseline; None for a free baseline."""
    ratio_interval: Interval | None
    mean: float | None
    """Per request, as the percentiles."""
    p50: float | None
    p99: float | None
    request_intervals: tuple[Interval | None, ...]
    """Of mean, p50 and p99."""
    sampling: str
    """How its requests were resampled."""
    tornado: Tornado | None
    """What moves ``per_page`` most."""
    groups: Mapping[str, float]
    """Group of primitives -> price per page."""
    primitives: Mapping[str, float]
    primitive_intervals: Mapping[str, Interval]
    assumed: float | None
    """Share of the cost that rests on coefficients marked as assumptions."""
    counters: Mapping[str, int]
    unpriced: Mapping[str, int]
    failed: float
    """Share of its requests that got nothing, or still waited at the end."""


@dataclass(frozen=True, slots=True)
class Caller:
    """One caller's requests."""

    name: str
    requests: int
    pages: int
    sizes: Mapping[int, int]
    """Pages of a request -> how many requests."""


@dataclass(frozen=True, slots=True)
class Line:
    """Rate of one thing over time, per second in each bin."""

    name: str
    values: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Chart:
    """Lines over the same bins."""

    title: str
    unit: str
    bin_s: float
    lines: tuple[Line, ...]


@dataclass(frozen=True, slots=True)
class Comparison:
    """A replay's results, ready to be written down."""

    trace: tuple[Fact, ...]
    accounting: tuple[Fact, ...]
    demand: tuple[Fact, ...]
    machine: tuple[Fact, ...]
    unit: str
    profile: Profile | None
    strategies: tuple[StrategyCost, ...]
    entries: tuple[Mapping[str, Any], ...]
    """The results themselves."""
    baseline: str | None
    differences: tuple[Difference, ...]
    """Every other strategy against the baseline."""
    callers: tuple[Caller, ...]
    charts: tuple[Chart, ...]
    """Zone-lock acquisitions over time."""
    waits: tuple[tuple[str, ...], ...]
    """What it is, then its value for each strategy; nothing where no request waited."""
    sections: tuple[tuple[str, ...], ...]
    """Likewise: the longest sections of the machine, in work units, with their prices."""
    contention: tuple[tuple[str, ...], ...]
    """Likewise: waiting at zone locks, where there is any to speak of."""
    contention_note: str
    """Else that there is none, or why it is not known."""
    verdict: tuple[str, ...]
    cautions: tuple[str, ...]
    targeted_pages: int
    trace_path: str | None
    command: str | None
    seed: int


def build_comparison(result: Mapping[str, Any]) -> Comparison:
    """Report data of one ``replay`` result (architecture.md section 5). What it does not hold stays unknown."""
    profile = _profile(result.get("profile"))
    demand, accounting = result["demand"], result["accounting"]
    pages = int(demand.get("targeted_pages") or 0)
    rows = list(result["results"])
    base = baseline_of(rows)
    name = None if base is None else label_of(base)
    against = result.get("comparison")
    if against is None:
        against = compared_with(result, profile, name) if profile is not None and name is not None else []
    found = differences(against)
    strategies = tuple(_strategy(row, base or row, found, profile, pages) for row in rows)
    best = cheapest(strategies)
    near = compared_with(result, profile, best.label) if profile is not None and best is not None else []
    unit = str(rows[0]["cost"].get("unit", "ns")) if rows else "ns"
    return Comparison(
        trace=_trace_facts(result["trace"]),
        accounting=_accounting_facts(accounting),
        demand=_demand_facts(demand, result),
        machine=tuple(Fact(key, value) for key, value in flatten(result["machine"])),
        unit=unit,
        profile=profile,
        strategies=strategies,
        entries=tuple(rows),
        baseline=name,
        differences=found,
        callers=tuple(_caller(row) for row in demand.get("by_caller") or ()),
        charts=_charts(rows),
        waits=_waits(rows),
        sections=section_lines(rows, unit),
        contention=contention_lines(rows),
        contention_note=contention_note(rows),
        verdict=verdict(strategies, differences(near), name, demand, pages, unit),
        cautions=cautions(result, strategies),
        targeted_pages=pages,
        trace_path=result["trace"].get("path"),
        command=result.get("command"),
        seed=int(result.get("seed") or 0),
    )


def tornadoes(data: Comparison) -> list[Tornado]:
    """Of each strategy, then of each difference; those that nothing moves are left out."""
    found = [*(s.tornado for s in data.strategies), *(d.tornado for d in data.differences)]
    return [t for t in found if t is not None and t.swings]


def flatten(value: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """Nested settings as ``a.b`` -> text, in their own order; rows of a list go by their names."""
    rows: list[tuple[str, str]] = []
    for key, item in value.items():
        label = prefix + key
        if isinstance(item, Mapping):
            rows += flatten(item, f"{label}.")
        elif isinstance(item, list | tuple) and item and all(isinstance(row, Mapping) for row in item):
            for i, row in enumerate(item):
                rows += flatten(row, f"{label}.{i}.")
        elif isinstance(item, list | tuple):
            rows.append((label, ", ".join(map(_value, item)) or UNKNOWN))
        elif key.endswith("_bytes") and isinstance(item, int):
            rows.append((label.removesuffix("_bytes"), size(item // 4096)))
        else:
            rows.append((label, _value(item)))
    return rows


def _value(item: Any) -> str:
    if item is None:
        return UNKNOWN
    if isinstance(item, bool):
        return "yes" if item else "no"
    if isinstance(item, int):
        return count(item)
    return figure(item) if isinstance(item, float) else str(item)


def _profile(data: Any) -> Profile | None:
    return Profile.from_dict(data) if isinstance(data, Mapping) and "coefficients" in data else None


def _strategy(
    row: Mapping[str, Any],
    baseline: Mapping[str, Any],
    against: Sequence[Difference],
    profile: Profile | None,
    pages: int,
) -> StrategyCost:
    cost = row["cost"]
    counters = {name: n for name, n in row["counters"].items() if isinstance(n, int)}
    total, base = cost["total"], baseline["cost"]["total"]
    label = label_of(row)
    groups: dict[str, float] = {}
    assumed: float | None = None
    if profile is not None:
        by_primitive = price(counters, profile)
        assumed = sum(by_primitive[c.name] for c in profile.coefficients if c.evidence == "assumption")
        assumed = assumed / sum(by_primitive.values()) if sum(by_primitive.values()) else None
        for c in profile.coefficients:
            groups[c.group] = groups.get(c.group, 0.0) + cost["by_primitive"].get(c.name, 0.0)
    swings = cost.get("tornado")
    return StrategyCost(
        label=label,
        strategy=str(row["strategy"]),
        params=row.get("params") or {},
        per_page=cost.get("per_page"),
        interval=_ends(cost.get("interval95"), pages) if pages else None,
        ratio=total / base if base else None,
        ratio_interval=next((d.ratio_interval for d in against if d.label == label), None),
        mean=cost["per_request"].get("mean"),
        p50=cost["per_request"].get("p50"),
        p99=cost["per_request"].get("p99"),
        request_intervals=tuple(
            _ends(cost["per_request"].get(f"{name}_interval95")) for name in ("mean", "p50", "p99")
        ),
        sampling=str((cost.get("sampling") or {}).get("note", "")),
        tornado=tornado_of(label, cost["per_page"], swings) if swings else None,
        groups={group: value / pages for group, value in groups.items()} if pages else {},
        primitives={name: value / pages for name, value in cost["by_primitive"].items()} if pages else {},
        primitive_intervals={
            name: (ends[0] / pages, ends[1] / pages)
            for name, ends in (cost.get("by_primitive_interval95") or {}).items()
        },
        assumed=assumed,
        counters=counters,
        unpriced=unpriced(counters, profile) if profile is not None else {},
        failed=_failed_share(row.get("requests") or {}),
    )


def _ends(interval: Sequence[float] | None, divisor: float = 1.0) -> Interval | None:
    return None if interval is None else (interval[0] / divisor, interval[1] / divisor)


def _failed_share(requests: Mapping[str, int]) -> float:
    lost = requests.get("failed", 0) + requests.get("waiting", 0)
    return lost / max(lost + requests.get("served", 0), 1)


def _caller(row: Mapping[str, Any]) -> Caller:
    sizes = {int(pages): int(n) for pages, n in (row.get("sizes") or {}).items()}
    return Caller(str(row["caller"]), int(row["requests"]), int(row["pages"]), dict(sorted(sizes.items())))


def _trace_facts(trace: Mapping[str, Any]) -> tuple[Fact, ...]:
    source = trace.get("source")
    kind = source.get("kind") if isinstance(source, Mapping) else source
    events = trace.get("events")
    if isinstance(events, Mapping):
        events = ", ".join(f"{name} {count(n)}" for name, n in events.items())
    elif isinstance(events, int):
        events = count(events)
    complete = trace.get("complete")
    return (
        Fact("trace", str(trace.get("path") or UNKNOWN), f"id {str(trace['id'])[:12]}" if trace.get("id") else ""),
        Fact("source", str(kind or UNKNOWN)),
        Fact("host", str(trace.get("host") or UNKNOWN), f"kernel {trace.get('kernel') or UNKNOWN}"),
        Fact(
            "duration", seconds(trace.get("duration_ns")), "" if complete in (True, None) else "capture did not finish"
        ),
        Fact("events", str(events or UNKNOWN)),
        *(Fact("completeness", str(told["line"])) for told in [trace.get("completeness")] if told),
    )


def _accounting_facts(a: Mapping[str, Any]) -> tuple[Fact, ...]:
    frees = a.get("frees")
    lost, intervals = a.get("lost"), a.get("loss_intervals")
    matched_note = f"{share(a.get('matched'), frees)} of the frees" if frees else ""
    snapshots = a.get("snapshots") or {}
    facts = [
        Fact("page events", count(a.get("events"))),
        Fact("allocations", count(a.get("allocations"))),
        Fact("failed", count(a.get("failed")), "allocations that the kernel refused"),
        Fact("frees", count(frees)),
        Fact("matched", count(a.get("matched")), matched_note or "frees whose allocation was seen"),
        Fact("unmatched frees", count(a.get("unmatched_frees")), "frees whose allocation was not seen"),
        Fact("left-censored", count(a.get("left_censored")), "of them: allocated before the trace began"),
        Fact("unseen frees", count(a.get("unseen_frees")), "of them: prove an allocation that made no event"),
        Fact("after a loss", count(a.get("lost_frees")), "of them: the allocation may be among the lost events"),
        Fact("reused", count(a.get("reused")), "frames allocated again without a free in between"),
        Fact("right-censored", count(a.get("right_censored")), "blocks still held when the trace ended"),
        Fact("malformed", count(a.get("malformed"))),
        Fact("lost", UNKNOWN if lost is None else count(lost), in_intervals(intervals)),
        Fact("vmstat", count(snapshots.get("pgalloc_delta")), "pages allocated by the kernel's own count"),
        Fact("difference", count(snapshots.get("difference")), "of them neither traced nor inferred"),
        _unseen_fact(a.get("unseen") or {}),
    ]
    optional = {"failed", "reused", "malformed", "after a loss", "unseen frees"}
    return tuple(
        f for f in facts if f.label == "lost" or not (f.value == UNKNOWN or (f.value == "0" and f.label in optional))
    )


def _unseen_fact(estimate: Mapping[str, Any]) -> Fact:
    """What vmstat counted beyond the events."""
    if estimate.get("unseen_pages") is None:
        reason = str(estimate.get("reason", ""))
        return Fact("unseen by vmstat", "not known" if reason else UNKNOWN, reason)
    note = f"pages allocated without an event, give or take {count(estimate.get('noise_pages'))}"
    return Fact("unseen by vmstat", count(estimate["unseen_pages"]), note)


def _demand_facts(demand: Mapping[str, Any], result: Mapping[str, Any]) -> tuple[Fact, ...]:
    pages, targeted = demand.get("pages"), demand.get("targeted_pages")
    target = selector_of(demand)
    bios = demand.get("bios") or {}
    copies = (demand.get("copies") or {}).get("copies")
    told = f", in {copies} copies" if copies else ""
    if (rate := demand.get("rate") or 1) != 1:
        told += f", at {rate:g} times the recorded rate"
    if most := demand.get("request_pages"):
        told += f", targeted ones of {count(most)} pages at most"
    facts = [
        Fact("requests", count(demand.get("requests")), f"{count(pages)} pages{told}"),
        Fact("targeted", count(targeted), f"pages, {share(targeted, pages)}; --target {target}"),
        Fact("unseen", count(demand.get("unseen_pages")), "pages allocated without an event, inferred; never targeted"),
    ]
    if bios.get("requests"):
        note = f"of {count(bios.get('writes'))} writes found again as requests of the same sizes"
        facts.append(Fact("bios", count(bios.get("matched")), note))
    if path := result.get("path"):
        facts.append(Fact("path", str(path.get("name") if isinstance(path, Mapping) else path)))
    return tuple(facts)


def _charts(rows: Sequence[Mapping[str, Any]]) -> tuple[Chart, ...]:
    lines = []
    bin_s = 0.0
    for row in rows:
        series = row.get("series") or {}
        values = series.get("targeted", {}).get("zone_lock_acquisitions")
        if values and series.get("bin_ns"):
            bin_s = series["bin_ns"] / 1e9
            lines.append(Line(label_of(row), tuple(n / bin_s for n in values)))
    return (Chart("Zone-lock acquisitions of targeted requests", "per second", bin_s, tuple(lines)),) if lines else ()


def _waits(rows: Sequence[Mapping[str, Any]]) -> tuple[tuple[str, ...], ...]:
    waits = [row.get("waits") or {} for row in rows]
    if not any(w.get("requests") for w in waits):
        return ()
    through = [w.get("requests", 0) - w.get("waiting_at_end", 0) for w in waits]
    lines = [
        ("requests that waited", *(count(w.get("requests")) for w in waits)),
        ("mean wait", *(seconds(w["total_ns"] // n) if n else UNKNOWN for w, n in zip(waits, through, strict=True))),
        ("longest wait", *(seconds(w["longest_ns"]) if n else UNKNOWN for w, n in zip(waits, through, strict=True))),
        ("waiting at the end", *(count(w.get("waiting_at_end")) for w in waits)),
        ("deadlocked", *(count(w.get("deadlocked")) for w in waits)),
    ]
    return tuple(lines)
