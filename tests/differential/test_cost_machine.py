"""What the machine counts, at Brouer's prices, is what Brouer measured: pages that never leave the per-CPU list."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tracereplay.compiled import kernel
from tracereplay.cost.price import total
from tracereplay.cost.profile import load_profile
from tracereplay.kernel.generations import GENERATIONS
from tracereplay.machine.build import build_machine
from tracereplay.machine.bulk import alloc_pages_bulk
from tracereplay.machine.config import MachineConfig, ZoneConfig
from tracereplay.machine.counters import COUNTERS
from tracereplay.machine.layout import Machine
from tracereplay.machine.page_alloc import alloc_pages
from tracereplay.machine.page_free import free_pages

GFP_KERNEL = 0xCC0
WARM_UP = 200
LARGEST = 128
WITH_BULK = [name for name, g in GENERATIONS.items() if g.has_bulk]


@kernel
def single(m: Machine, out: Any, n: int) -> None:
    """Allocate n pages one at a time, then free them."""
    for i in range(n):
        out[i] = alloc_pages(m, 0, 0, GFP_KERNEL)
    for i in range(n):
        free_pages(m, 0, out[i], 0)


@kernel
def bulk(m: Machine, out: Any, n: int) -> int:
    """The same by one bulk call; how many came."""
    for i in range(n):
        out[2 * i] = -1
    got = int(alloc_pages_bulk(m, 0, GFP_KERNEL, n, out))
    for i in range(got):
        free_pages(m, 0, out[2 * i], 0)
    return got


@pytest.fixture(params=GENERATIONS)
def machine(request: pytest.FixtureRequest) -> Machine:
    """A GiB with a per-CPU list filled beyond what the tests take from it."""
    zone = ZoneConfig("Normal", 0, 1 << 18, managed=1 << 18)
    built = build_machine(MachineConfig(zones=(zone,), cpus=1, generation=request.param, pcp_high=1000))
    single(built, np.zeros(WARM_UP, np.int64), WARM_UP)
    return built


def counted(machine: Machine) -> dict[str, int]:
    counters = dict(zip(COUNTERS, machine.c.tolist(), strict=False))
    machine.c[:] = 0
    return counters


def test_single_pages(machine: Machine) -> None:
    machine.c[:] = 0
    single(machine, np.zeros(LARGEST, np.int64), LARGEST)
    assert total(counted(machine), load_profile()) == pytest.approx(55.472 * LARGEST)


@pytest.mark.parametrize("machine", WITH_BULK, indirect=True)
@pytest.mark.parametrize("n", [1, 2, 4, 64, LARGEST])
def test_bulk(machine: Machine, n: int) -> None:
    machine.c[:] = 0
    assert bulk(machine, np.zeros(2 * n, np.int64), n) == n
    expected = 56.383 if n == 1 else 30.80 * n + 19.05
    assert total(counted(machine), load_profile()) == pytest.approx(expected)


@pytest.mark.parametrize("machine", WITH_BULK, indirect=True)
def test_bulk_list_form(machine: Machine) -> None:
    machine.c[:] = 0
    assert bulk(machine, np.zeros(128, np.int64), 64) == 64
    assert total(counted(machine), load_profile("brouer-2021-list")) == pytest.approx(37.32 * 64 + 10.65)
