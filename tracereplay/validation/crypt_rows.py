"""Rows about dm-crypt: Yang Shi's fio runs (strategies.md 4.7 and 4.8)."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache

import numpy as np

from tracereplay.cost.price import price_vectors, total
from tracereplay.cost.profile import Profile, load_profile
from tracereplay.scenarios.crypt import crypt_path
from tracereplay.validation.measure import Bench, difference, loop, priced, turns
from tracereplay.validation.verdict import Claim, Figure

BUFFER = 256
"""Pages of a 1 MiB write."""
OUTSIDE = Bench(generation="6.1", pcp_high=1024)
"""The allocator alone; lists as deep as on his machine (row 15), which 256 pages keep warm."""
INSIDE = Bench(generation="6.1", pcp_high=1024, path=crypt_path())
"""With dm-crypt's mempool, quota and callback around it."""
HOST = "80 CPUs, 128 GB, dm-crypt on a RAM disk, fio 1 MiB writes, depth 256"
GUEST = "VM, 80 vCPUs, 64 GB, dm-crypt on a RAM disk, fio 1 MiB writes, depth 64"
V2 = "Y. Shi, '[v2 PATCH 0/5] Introduce mempool pages bulk allocator and use it in dm-crypt', 2023-02-14"
RFC = "Y. Shi, the RFC of the same, cover 0/4, 2022-10-05"


@dataclass(frozen=True, slots=True)
class Run:
    """What fio reported, before and after; times in us."""

    name: str
    depth: int
    slat: tuple[float, float]
    lat: tuple[float, float]
    mib_s: tuple[float, float]
    iops: tuple[float, float]
    """The mean of fio's samples."""

    @property
    def saved(self) -> float:
        """Submission latency that went, us."""
        return self.slat[0] - self.slat[1]


YANG = Run("v2", 256, (765.71, 710.77), (196_454.90, 182_369.36), (1301, 1402), (1296.94, 1397.60))
YANG_VM = Run("RFC", 64, (2480.84, 2319.49), (158_880, 148_580), (403, 431), (402.17, 430.12))
STDEV = (19.27, 13.24)
"""Of the slat of v2, us."""
TRACED = 600 / 9853
"""Share of mempool_alloc in the function-graph trace of one write, before."""


def identities() -> list[tuple[str, float, float, float]]:
    """What ties fio's figures together, nothing simulated: (identity, computed, reported, share allowed between)."""
    rows = []
    for run in (YANG, YANG_VM):
        for when, slat, lat, mib in zip(("before", "after"), run.slat, run.lat, run.mib_s, strict=True):
            rows.append((f"{run.name} {when}: MiB/s = 1e6 / slat", 1e6 / slat, mib, 0.005))
            rows.append((f"{run.name} {when}: lat = {run.depth} x slat, us", run.depth * slat, lat, 0.003))
    return rows


@cache
def counted(strategy: str, pages: int, bench: Bench) -> dict[str, int]:
    """Counters of one buffer."""
    return loop(strategy, pages, bench)


def saved(inside: bool, bulk: str, pages: int = BUFFER) -> dict[str, int]:
    """Counters that a buffer has less of in bulk."""
    if inside:
        return difference(counted("per-page", pages, INSIDE), counted(bulk, pages, INSIDE))
    return difference(counted("per-page", pages, OUTSIDE), counted("bulk", pages, OUTSIDE))


ALONE, AROUND = "allocator alone", "with the assumed prices of mempool and quota"
WHERE = ((False, ALONE), (True, AROUND))


def latency(run: Run, bulk: str, profile: Profile) -> tuple[Figure, ...]:
    """Submission latency saved."""
    return tuple(
        priced(f"slat saved, {label}", run.saved, "us", saved(inside, bulk), profile, lambda ns: ns / 1000)
        for inside, label in WHERE
    )


def throughput(run: Run, bulk: str, profile: Profile, published: float, what: str) -> tuple[Figure, ...]:
    """Throughput gained, percent: one write after the other, each in its slat."""
    return tuple(
        priced(
            f"{what}, {label}",
            published,
            "%",
            saved(inside, bulk),
            profile,
            lambda ns: 100 * (run.slat[0] / (run.slat[0] - ns / 1000) - 1),
        )
        for inside, label in WHERE
    )


def spread(strategy: str, profile: Profile) -> float:
    """Standard deviation of the cost of a buffer among 64, ns."""
    outcome = turns(strategy, BUFFER, INSIDE, 64)
    return round(float(np.std(np.repeat(price_vectors(outcome.vectors, profile), outcome.counts))), 6)


def small_write(array: Profile) -> Claim:
    """Row 9."""
    floor = 1000 * YANG.slat[0] / BUFFER
    figures = [
        priced(
            f"{bulk}, of the write", 0.0, "%", saved(True, bulk, 1), array, lambda ns: -100 * ns / floor, absolute=1.0
        )
        for bulk in ("mempool-bulk", "bulk")
    ]
    alone = total(saved(True, "mempool-bulk", 1), array)
    whole = total(counted("per-page", 1, INSIDE), array)
    return Claim(
        "9",
        "4 KiB writes under bulk: no measurable change",
        "A",
        "both machines of rows 5 and 8",
        f"{V2}; the RFC",
        tuple(figures),
        f"A call for one page goes the ordinary way: {-alone:+.1f} ns for mempool-bulk, {-100 * alone / whole:+.1f} %"
        f" of the {whole:.0f} ns that allocation and release cost, by prices that are mostly assumptions. The write is"
        f" taken to last {floor / 1000:.2f} us, 1/256 of the 1 MiB write; a real one, with its own bio, lasts longer.",
    )


def claims() -> list[Claim]:
    """All rows of this module."""
    array, listed = load_profile("brouer-2021"), load_profile("brouer-2021-list")
    v2, rfc = "mempool-bulk", "mempool-bulk:form=array"
    slat, slat_vm = latency(YANG, v2, array), latency(YANG_VM, rfc, listed)
    stdev = [spread(strategy, array) / 1000 for strategy in ("per-page", v2)]
    allocation = [
        priced(
            f"of 765.71 us, {label}",
            100 * TRACED,
            "%",
            counted("per-page", BUFFER, replace(bench, freed=False)),
            array,
            lambda ns: ns / 10 / YANG.slat[0],
        )
        for bench, label in ((OUTSIDE, ALONE), (INSIDE, AROUND))
    ]
    fitted, per_page_vm = (run.saved * 1000 / BUFFER for run in (YANG, YANG_VM))
    return [
        Claim(
            "5",
            "dm-crypt, submission latency of a 1 MiB write: 765.71 -> 710.77 us",
            "B",
            HOST,
            V2,
            slat,
            f"The micro-benchmark's prices explain {slat[0].value:.1f} of {YANG.saved:.2f} us"
            f" ({100 * slat[0].value / YANG.saved:.1f} %), with guesses for the code around the allocator"
            f" {slat[1].value:.1f}. The rest needs {fitted:.0f} ns a page measured on that machine: one equation, one"
            " unknown. That would be consistent with the figure, not a prediction of it, so no such price ships.",
        ),
        Claim(
            "6",
            "dm-crypt, bandwidth: 1301 -> 1402 MiB/s",
            "B",
            HOST,
            V2,
            throughput(YANG, v2, array, 7.76, "gain"),
            "Row 5 again: one write after the other, 1e6 / slat. Who calibrates to row 5 has this figure as well.",
        ),
        Claim(
            "7",
            "dm-crypt, spread of the submission latency: stdev 19.27 -> 13.24 us",
            "B",
            HOST,
            V2,
            (Figure("stdev saved, of the allocation", STDEV[0] - STDEV[1], "us", stdev[0] - stdev[1]),),
            f"On warm lists every buffer costs the same (stdev {stdev[0]:.2f} and {stdev[1]:.2f} us): what varied was"
            " something else, interrupts, caches or the encryption.",
        ),
        Claim(
            "8",
            "dm-crypt in a VM: slat 2480.84 -> 2319.49 us, 402.17 -> 430.12 IOPS",
            "B",
            GUEST,
            RFC,
            (*slat_vm, *throughput(YANG_VM, rfc, listed, 100 * (430.12 / 402.17 - 1), "IOPS gain")),
            f"It saved {per_page_vm:.0f} ns a page, {per_page_vm / 55.472:.0f} times what a page costs in row 1. The"
            f" {fitted:.0f} ns a page fitted to row 5 would give {YANG.saved:.1f} of {YANG_VM.saved:.1f} us, so no one"
            " price fits both. Prices of the list form, which the RFC had.",
        ),
        small_write(array),
        Claim(
            "11",
            "share of page allocation in a dm-crypt write: about 6 % (600 of 9,853 us, traced)",
            "B",
            HOST,
            f"{RFC}; the same trace in v2",
            tuple(allocation),
            "The trace multiplies what it traces (2.34 us a page), so both shares are of different things. By these"
            " prices no more than the share could be saved, where 7.2 % was: rows 5 and 11 lack the same thing.",
        ),
    ]
