"""Profiles fitted to instruction counts of kernels: how they predict cases that they were not fitted to."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path

from tracereplay.cost.cases import Outcome, run_cases
from tracereplay.cost.check import Checked, check_rows, summary
from tracereplay.cost.fit import Fit, fit_rows
from tracereplay.cost.price import total
from tracereplay.cost.primitives import PRIMITIVES
from tracereplay.cost.profile import load_profile, shipped_profiles
from tracereplay.cost.rows import Row, read_rows
from tracereplay.machine.counters import slot
from tracereplay.validation.measure import Bench, loop

CASES = Path(__file__).parents[2] / "tests" / "data" / "cost" / "microbenchmark.csv"
"""Cases of kernels 6.1 and 6.12: per-page, bulk and compound buffers, timed in instructions by a kernel module."""
TABLES = {"6.1": CASES, "6.12": CASES} | {k: CASES.with_name(f"measured-{k}.csv") for k in ("5.10", "7.2")}
"""Kernel -> cases that a profile is fitted to. No profile of 5.10 and 7.2 ships."""
SPLITS: tuple[tuple[str, Callable[[Row], bool]], ...] = (
    ("every second row", lambda row: row.number % 2 == 0),
    ("buffers of at most 8 pages", lambda row: row.n_pages <= 8),
    ("no zeroing", lambda row: not row.init_on_alloc),
)
"""What a profile is fitted to; it is tested on the other rows of the kernel."""
OWN: tuple[tuple[str, Callable[[Row], bool]], ...] = (
    ("memory whole", lambda row: row.fragmentation == 0 and not row.failed),
    ("memory fragmented", lambda row: row.fragmentation > 0 and not row.failed),
    ("allocations that fail", lambda row: row.failed > 0),
)
"""What the rows of measured-KERNEL.csv are told apart by; no profile is fitted to any of them."""
GENERATION = {"brouer-2021": "5.14", "linux-6.1": "6.1", "linux-6.12": "6.12"}
"""Profile -> the machine's generation that goes with it."""

Summary = dict[str, float]
"""As ``profiles check`` sums up: rows, median, 95th percentile and largest relative error, rows within 10 %."""


@cache
def predictions() -> list[tuple[str, str, str, Summary]]:
    """(kernel, fitted to, tested on, errors): the shipped profile on the rows that made it, then on others."""
    found = []
    for kernel, path in TABLES.items():
        rows = [row for row in read_rows(path) if row.kernel == kernel]
        outcomes = run_cases(rows)
        if f"linux-{kernel}" in shipped_profiles():
            profile = load_profile(f"linux-{kernel}")
            found.append((kernel, "all of them: the shipped profile", "the same", summary(check_rows(rows, profile))))
            own = check_rows(read_rows(path.with_name(f"measured-{kernel}.csv")), profile)
            for label, among in OWN:
                some = [checked for checked in own if among(checked.row)]
                found.append((kernel, "the shipped profile", f"our measurement, {label}", summary(some)))
        for label, chosen in SPLITS:
            kept = [(row, outcome) for row, outcome in zip(rows, outcomes, strict=True) if chosen(row)]
            fit = fit_rows([row for row, _ in kept], [outcome for _, outcome in kept], refits=2)
            tested = [predicted(fit, r, o) for r, o in zip(rows, outcomes, strict=True) if not chosen(r)]
            found.append((kernel, f"{label} ({len(kept)})", "the others", summary(tested)))
    return found


def predicted(fit: Fit, row: Row, outcome: Outcome) -> Checked:
    """A row priced by a fit: its own prices, rough ones for what the fitted rows do not use."""
    prices = dict(zip(fit.names, fit.values.tolist(), strict=True))
    halves = []
    for half, counters in (("alloc", outcome.alloc), ("free", outcome.free)):
        cost = prices[f"timer_{half}"]
        for primitive in PRIMITIVES:
            price = prices.get(primitive.name, primitive.rough * fit.scale)
            cost += price * sum(float(counters[slot(name)]) for name in primitive.counters)
        halves.append(cost)
    return Checked(row, outcome, *halves)


def ratios() -> list[tuple[str, str, Sequence[float]]]:
    """(profile, unit, figures): single page, page of bulk 64, their ratio; allocating 256 pages, single to bulk."""
    found: list[tuple[str, str, Sequence[float]]] = []
    for name, generation in GENERATION.items():
        profile = load_profile(name)
        single = total(loop("per-page", 1, Bench(generation)), profile)
        bulk = total(loop("bulk", 64, Bench(generation)), profile) / 64
        kept = Bench(generation, pcp_high=1024, freed=False)
        one_by_one, at_once = (total(loop(strategy, 256, kept), profile) for strategy in ("per-page", "bulk"))
        found.append((name, profile.unit, (single, bulk, bulk / single, one_by_one / at_once)))
    return found
