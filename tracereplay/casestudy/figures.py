"""Charts of the case study from a study and its profiles: file name and SVG text."""

from __future__ import annotations

import math
from collections.abc import Sequence

from tracereplay.casestudy.cases import LARGE, LEVELS, SOURCES, Case, Source
from tracereplay.casestudy.charts import Chart, Line, Panel, svg
from tracereplay.casestudy.study import Cost, Study
from tracereplay.casestudy.tables import LABELS, RIVALS, request_name
from tracereplay.cost.profile import Profile

KERNELS = ("6.1", "6.12")
TICKS = ["host" if k is None else str(k) for k in LEVELS]
BY_LEVEL = "largest order of the free blocks at the start (host: as recorded)"
Point = tuple[float, float, float]


def point(cost: Cost, scale: float = 1.0, band: bool = True) -> Point:
    """A figure with its interval, as charts take it."""
    value = cost.value * scale
    return (value, cost.low * scale, cost.high * scale) if band else (value, value, value)


def costs(study: Study, cases: Sequence[Case], profile: Profile) -> list[Line]:
    """A line for each strategy; those that the page compares have their intervals."""
    return [Line(x, [point(study.per_mib(case, x, profile), 1e-3, x in RIVALS) for case in cases]) for x in LABELS]


def of(kernel: str) -> list[Source]:
    """Sources of a kernel."""
    return [s for s in SOURCES if s.kernel == kernel]


def by_level(study: Study, profile: Profile) -> Chart:
    """Cost of 1 MiB requests by fragmentation."""
    panels = [
        Panel(
            f"Linux {s.kernel}",
            TICKS,
            costs(study, [Case(s, k) for k in LEVELS], profile),
        )
        for s in LARGE
    ]
    return Chart("Requests of 1 MiB", BY_LEVEL, "us per MiB", panels)


def by_size(study: Study, profile: Profile) -> Chart:
    """Cost by request size, memory as recorded."""
    panels = [
        Panel(
            f"Linux {kernel}",
            [str(s.kib) for s in of(kernel)],
            costs(study, [Case(s) for s in of(kernel)], profile),
            [math.log2(s.kib) for s in of(kernel)],
        )
        for kernel in KERNELS
    ]
    return Chart("Memory as recorded", "size of a request, KiB", "us per MiB", panels)


def ratios(study: Study, profile: Profile) -> Chart:
    """Compound over bulk by fragmentation, a line for each size."""
    panels = [
        Panel(
            f"Linux {kernel}",
            TICKS,
            [
                Line(request_name(s), [point(study.ratio(Case(s, k), *RIVALS, profile)) for k in LEVELS])
                for s in of(kernel)
                if s.kib > 4
            ],
        )
        for kernel in KERNELS
    ]
    names = [request_name(s) for s in sorted(SOURCES, key=lambda s: s.kib) if s.kib > 4]
    title = "Compound against bulk; below 1 compound costs less"
    return Chart(title, BY_LEVEL, "compound / bulk", panels, even=1.0, legend=list(dict.fromkeys(names)))


def zeroing(study: Study, profile: Profile) -> Chart:
    """Compound over bulk with and without zeroing, 1 MiB requests."""
    panels = [
        Panel(
            f"Linux {s.kernel}, 1 MiB",
            TICKS,
            [
                Line(name, [point(study.ratio(Case(s, k, zeroed=on), *RIVALS, profile)) for k in LEVELS])
                for name, on in (("pages not zeroed", False), ("init_on_alloc", True))
            ],
        )
        for s in LARGE
    ]
    return Chart("The same where pages are zeroed", BY_LEVEL, "compound / bulk", panels, even=1.0)


def by_profile(study: Study, profiles: Sequence[Profile]) -> Chart:
    """Compound over bulk under each profile, 1 MiB requests."""
    panels = [
        Panel(
            f"Linux {s.kernel}, 1 MiB",
            TICKS,
            [Line(p.name, [point(study.ratio(Case(s, k), *RIVALS, p)) for k in LEVELS]) for p in profiles],
        )
        for s in LARGE
    ]
    return Chart("The same counters under other prices", BY_LEVEL, "compound / bulk", panels, even=1.0)


def pictures(study: Study, profile: Profile, profiles: Sequence[Profile]) -> dict[str, str]:
    """Every chart by its file name."""
    charts = {
        "by-level": by_level(study, profile),
        "by-size": by_size(study, profile),
        "ratios": ratios(study, profile),
        "zeroing": zeroing(study, profile),
        "by-profile": by_profile(study, profiles),
    }
    return {f"{name}.svg": svg(chart) for name, chart in charts.items()}
