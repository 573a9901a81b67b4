"""The study's ratios beside what real kernels took for the same buffers (tests/data/cost), in instructions."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

from tracereplay.casestudy.cases import LARGE, SOURCES, Case, Source
from tracereplay.casestudy.findings import bullets, spread
from tracereplay.casestudy.study import Study
from tracereplay.casestudy.tables import RIVALS, source_name, table
from tracereplay.cost.price import total
from tracereplay.cost.profile import Profile, load_profile
from tracereplay.report.numbers import count, figure

ROWS = Path(__file__).parents[2] / "tests" / "data" / "cost"
STAMPS = 45
"""Instructions of a measured buffer that are its time stamps."""
PATH_GROUPS = ("mempool and quota", "bio")
"""Prices of dm-crypt's path, which the measurements in fragmented memory do without."""
HELD = "16"
"""Buffers held at a time in fragmented memory: fewer would live on the larger blocks that the procedure leaves."""

Measured = Mapping[str, str]
Pair = tuple[Mapping[str, float], Mapping[str, float]]
"""Instructions by strategy: the kernel's and the study's."""


def measured(name: str) -> Iterator[Measured]:
    """Rows of a measurement."""
    with (ROWS / name).open(newline="") as source:
        yield from csv.DictReader(source)


def instructions(row: Measured) -> float:
    """Allocation and release of a buffer."""
    return float(row["alloc_mean"]) + float(row["free_mean"]) - STAMPS


def pages(source: Source) -> int:
    """Of a request."""
    return source.kib // 4


def whole(source: Source, zeroed: bool) -> dict[str, float]:
    """Buffers as dm-crypt takes them, memory not fragmented, one at a time: instructions by strategy."""
    return {
        row["strategy"].removeprefix("crypt-"): instructions(row)
        for row in measured(f"crypt-{source.kernel}.csv")
        if (int(row["n_pages"]), row["buffers_held"], row["path"]) == (pages(source), "1", "bio")
        and row["init_on_alloc"] == str(int(zeroed))
    }


def cut(source: Source, largest: int) -> tuple[dict[str, float], str] | None:
    """Buffers of the bare allocator in memory without blocks above an order, and the blocks that compound got.

    None where nobody measured it, or where larger blocks that remained served a quarter of the pages or more.
    """
    found: dict[str, float] = {}
    blocks: dict[int, int] = {}
    for row in measured(f"measured-{source.kernel}.csv"):
        where = (row["fragmentation"], row["buffers_held"], row["init_on_alloc"], int(row["n_pages"]))
        if where == (str(largest + 1), HELD, "0", pages(source)) and row["strategy"] in RIVALS:
            found[row["strategy"]] = instructions(row)
            blocks |= {int(k): int(n) for k, n in (pair.split(":") for pair in row["orders"].split())}
    larger = sum(n << k for k, n in blocks.items() if k > largest)
    if found.keys() != set(RIVALS) or larger * 4 >= sum(n << k for k, n in blocks.items()):
        return None
    return found, ", ".join(f"{n:,} x {k}" for k, n in sorted(blocks.items()))


def simulated(study: Study, case: Case, profile: Profile) -> dict[str, float]:
    """The study's cost of a request by strategy."""
    rows = {x: study.row(case, x) for x in RIVALS}
    return {x: total(row["counters"], profile) / row["requests"] for x, row in rows.items()}


def without_path(profile: Profile) -> Profile:
    """The profile with the mempool, the quota and the bio for nothing."""
    free = tuple(replace(c, value=0.0) if c.group in PATH_GROUPS else c for c in profile.coefficients)
    return replace(profile, coefficients=free)


def beside(study: Study, source: Source, zeroed: bool = False) -> Pair:
    """A request as dm-crypt takes it: measured and simulated."""
    prices = load_profile(f"linux-{source.kernel}")
    return whole(source, zeroed), simulated(study, Case(source, zeroed=zeroed), prices)


def beside_cut(study: Study, source: Source, largest: int) -> tuple[Pair, str] | None:
    """The same without dm-crypt's path, in fragmented memory, with the blocks that compound got in the kernel."""
    took = cut(source, largest)
    if took is None:
        return None
    prices = without_path(load_profile(f"linux-{source.kernel}"))
    return (took[0], simulated(study, Case(source, largest), prices)), took[1]


def ratio(costs: Mapping[str, float]) -> float:
    """Compound over bulk."""
    return costs["compound"] / costs["bulk"]


HEAD = (
    "request, kernel", "compound: kernel", "here", "bulk: kernel", "here", "compound / bulk: kernel", "here",
)  # fmt: skip


def _cells(pair: Pair) -> list[str]:
    """Compound, bulk and their ratio, measured and simulated."""
    return [count(round(side[x])) for x in RIVALS for side in pair] + [figure(ratio(side)) for side in pair]


def as_measured(study: Study) -> str:
    """Memory as it was: each buffer measured and simulated."""
    rows = [
        [f"{source_name(s)}, zeroing {'on' if zeroed else 'off'}", *_cells(beside(study, s, zeroed))]
        for s in SOURCES
        for zeroed in (False, True)
    ]
    return table(HEAD, rows)


def as_measured_fragmented(study: Study) -> str:
    """Levels 2 and 0, without dm-crypt's path."""
    rows = []
    for s in SOURCES:
        for largest in (2, 0):
            found = beside_cut(study, s, largest)
            if found is not None:
                rows.append([f"{source_name(s)}, level {largest}", *_cells(found[0]), found[1]])
    return table([*HEAD, "blocks x order, kernel"], rows)


def in_short(study: Study) -> str:
    """How the ratios compare."""
    pairs = [beside(study, s) for s in SOURCES if s.kib > 4]
    kernel, here = (spread([ratio(side) for side in sides]) for sides in zip(*pairs, strict=True))
    said = [
        "Measured in the kernels themselves, in instructions, on memory that is not fragmented: compound pages cost"
        f" {kernel} of what bulk costs, and {here} here at those kernels' prices."
    ]
    for s in LARGE:
        for largest in (2, 0):
            found = beside_cut(study, s, largest)
            if found is not None:
                took, ours = (figure(ratio(side)) for side in found[0])
                said.append(
                    f"{source_name(s)}, largest free order {largest}, the bare allocator: {took} and {ours} here."
                )
    return bullets(said)
