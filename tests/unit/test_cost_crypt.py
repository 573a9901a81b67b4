"""What replays of dm-crypt's writes cost at fitted prices, against kernels that allocate and free such buffers.

tests/data/cost/crypt-KERNEL.csv: instructions of a buffer of n pages as dm-crypt takes it, one page at a time through
its mempool, in bulk, and as compound pages (docs/measure-a-kernel.md). No price was fitted to these rows.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tracereplay.cost.profile import load_profile
from tracereplay.cost.result import result_of
from tracereplay.machine.config import MachineConfig
from tracereplay.machine.from_trace import machine_of
from tracereplay.machine.options import machine_options
from tracereplay.replay.run import replay
from tracereplay.strategies.registry import choose
from tracereplay.trace.reader import Trace

ROOT = Path(__file__).parents[2]
STAMPS = 45
"""Instructions of a measured buffer that belong to its time stamps."""


def measured() -> Iterator[tuple[str, bool, str, int, float]]:
    """Kernel, zeroing, strategy, pages, instructions of allocation and release."""
    for path in sorted((ROOT / "tests" / "data" / "cost").glob("crypt-*.csv")):
        with path.open(newline="") as source:
            for row in csv.DictReader(source):
                if (row["buffers_held"], row["path"]) == ("1", "bio"):
                    took = float(row["alloc_mean"]) + float(row["free_mean"]) - STAMPS
                    strategy = row["strategy"].removeprefix("crypt-")
                    yield row["kernel"], row["init_on_alloc"] == "1", strategy, int(row["n_pages"]), took


def replayed(trace: str, profile: str, zeroed: bool) -> dict[str, Any]:
    source = Trace.open(ROOT / "traces" / trace)

    def machine(cpus: int) -> MachineConfig:
        return machine_options(machine_of(source, cpus), {"init_on_alloc": str(zeroed).lower()})

    done = replay(source, choose(["per-page", "bulk", "compound"], []), machine, path="dm-crypt")
    result = result_of(source, done, load_profile(profile), seed=0)
    return {entry["strategy"]: entry["cost"]["per_request"]["p50"] for entry in result["results"]}


CASES = [
    ("6.1", "dmcrypt-6.1-1M", 256),
    ("6.1", "dmcrypt-6.1-64k", 16),
    ("6.1", "dmcrypt-6.1-4k", 1),
    ("6.12", "dmcrypt-6.12-1M", 256),
    ("6.12", "dmcrypt-6.12-256k", 64),
]


@pytest.mark.parametrize("zeroed", [False, True])
@pytest.mark.parametrize(("kernel", "trace", "pages"), CASES)
def test_buffers_of_dm_crypt(kernel: str, trace: str, pages: int, zeroed: bool) -> None:
    took = {s: cost for k, z, s, n, cost in measured() if (k, z, n) == (kernel, zeroed, pages)}
    found = replayed(trace, f"linux-{kernel}", zeroed)
    assert took.keys() == found.keys()
    for strategy, cost in found.items():
        assert cost == pytest.approx(took[strategy], rel=0.1), strategy
    if pages > 1:
        for cheaper, dearer in (("bulk", "per-page"), ("compound", "bulk")):
            assert found[dearer] - found[cheaper] == pytest.approx(took[dearer] - took[cheaper], rel=0.1)
