"""dm-crypt's buffers as kernels 6.1 and 6.12 take them, counted in instructions: row 24, of which nobody published any.

Measured in this project (docs/measure-a-kernel.md): a buffer allocated and freed as dm-crypt does, page by page
through its mempool, in bulk, and as compound pages. No price was fitted to these rows: those of calls, lists and blocks
are fits to other cases, without a path; those of mempool, quota and callback come from primitives timed alone.
"""

from __future__ import annotations

import csv
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from tracereplay.cost.profile import load_profile
from tracereplay.scenarios.crypt import crypt_path
from tracereplay.validation.instructions import CASES
from tracereplay.validation.measure import Bench, loop, priced
from tracereplay.validation.verdict import Claim, Figure

KERNELS = ("6.1", "6.12")
STRATEGIES = ("per-page", "bulk", "compound")
STAMPS = 45
"""Instructions of a measured buffer that belong to its time stamps."""
TOLERANCE = 0.10


@dataclass(frozen=True, slots=True)
class Buffer:
    """A measured case."""

    kernel: str
    zeroed: bool
    pages: int
    strategy: str
    took: float
    """Instructions of allocation and release."""
    free_blocks: tuple[int, ...]
    """Of the guest before it, by order."""

    @property
    def figure(self) -> Figure:
        """It beside the simulator's."""
        bench = Bench(
            self.kernel,
            pcp_high=1024,
            path=crypt_path(),
            init_on_alloc=self.zeroed,
            free_blocks=self.free_blocks,
        )
        label = f"{self.kernel}, {self.strategy}, {self.pages} pages{', zeroed' if self.zeroed else ''}"
        counters = loop(self.strategy, self.pages, bench)
        return priced(label, self.took, "", counters, load_profile(f"linux-{self.kernel}"))


def measured(directory: Path = CASES.parent) -> list[Buffer]:
    """The cases of one buffer at a time."""
    found = []
    for kernel in KERNELS:
        with (directory / f"crypt-{kernel}.csv").open(newline="") as source:
            for row in csv.DictReader(source):
                if (row["buffers_held"], row["path"]) != ("1", "bio"):
                    continue
                found.append(
                    Buffer(
                        row["kernel"],
                        row["init_on_alloc"] == "1",
                        int(row["n_pages"]),
                        row["strategy"].removeprefix("crypt-"),
                        float(row["alloc_mean"]) + float(row["free_mean"]) - STAMPS,
                        tuple(map(int, row["free_blocks"].split())),
                    )
                )
    return found


@cache
def figures() -> dict[tuple[str, bool, int], dict[str, Figure]]:
    """(kernel, zeroed, pages) -> strategy -> figure."""
    found: dict[tuple[str, bool, int], dict[str, Figure]] = {}
    for buffer in measured():
        found.setdefault((buffer.kernel, buffer.zeroed, buffer.pages), {})[buffer.strategy] = buffer.figure
    return found


def saved() -> tuple[Figure, ...]:
    """What bulk and compound save of the buffers of more than a page that the loop allocates."""
    found = []
    for (kernel, zeroed, pages), case in figures().items():
        loop_ = case["per-page"]
        for strategy in STRATEGIES[1:] if pages > 1 else ():
            label = f"{strategy}, {pages} pages, {kernel}{', zeroed' if zeroed else ''}"
            other = case[strategy]
            found.append(Figure(label, loop_.published - other.published, "", loop_.value - other.value))
    return tuple(found)


def claims() -> list[Claim]:
    """Row 24."""
    machine = "Debian's kernels 6.1 and 6.12 in an emulator that counts instructions, one CPU"
    source = "tests/data/cost/crypt-6.1.csv and crypt-6.12.csv; how: docs/measure-a-kernel.md"
    each = tuple(f for case in figures().values() for f in case.values())
    close = sum(f.within(TOLERANCE) for f in each)
    return [
        Claim(
            "24",
            "compound pages in dm-crypt: nobody published a number. Instructions saved by bulk and by compound",
            "A",
            machine,
            source,
            saved(),
            "Measured in this project. No price was fitted to these buffers: those of calls, lists and blocks are fits"
            " to cases without dm-crypt, those of mempool and quota come from primitives timed alone. Instructions, not"
            " time: what cache misses add is in no figure here.",
            TOLERANCE,
        ),
        Claim(
            "24a",
            "the same, instructions of a buffer by each strategy",
            "A",
            machine,
            source,
            each,
            f"{close} of {len(each)} are within 10 %. Small compound buffers are few instructions, and one split more"
            " or less is a tenth of them: the guest's free blocks are given by order, not by migratetype.",
            TOLERANCE,
        ),
    ]
