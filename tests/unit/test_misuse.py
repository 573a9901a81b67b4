"""What a strategy names that the machine does not have is reported, and nothing is written outside its arrays."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from tracereplay.compiled import kernel
from tracereplay.machine import ops
from tracereplay.machine.build import build_machine
from tracereplay.machine.config import MachineConfig, ZoneConfig
from tracereplay.machine.layout import (
    CFG_ERROR,
    CFG_ERROR_FRAME,
    ERROR_NO_SUCH,
    ERROR_NOT_HELD,
    ERROR_OUTSIDE,
    STRATEGY_LISTS,
)

FRAMES = 4096
cache_put, cache_take, cache_join, cache_first = ops.cache_put, ops.cache_take, ops.cache_join, ops.cache_first
alloc_pages, unmap_pages = ops.alloc_pages, ops.unmap_pages


@kernel
def put(m: Any, frame: int, order: int, lst: int) -> None:
    cache_put(m, lst, frame, order, False)


@kernel
def take(m: Any, frame: int, order: int, _lst: int) -> None:
    cache_take(m, frame, order, 0)


@kernel
def join(m: Any, frame: int, order: int, _lst: int) -> None:
    cache_join(m, frame, order)


@kernel
def look(m: Any, _frame: int, _order: int, lst: int) -> None:
    cache_first(m, lst)


@kernel
def alloc(m: Any, cpu: int, order: int, _lst: int) -> None:
    alloc_pages(m, cpu, order, 0xCC0)


@kernel
def unmap(m: Any, frame: int, order: int, _lst: int) -> None:
    unmap_pages(m, 0, frame, 1 << order)


@pytest.mark.parametrize(
    ("call", "frame", "order", "lst", "error", "named"),
    [
        (put, -1, 0, 0, ERROR_OUTSIDE, -1),
        (put, FRAMES, 0, 0, ERROR_OUTSIDE, FRAMES),
        (put, FRAMES - 1, 1, 0, ERROR_OUTSIDE, FRAMES - 1),
        (put, 0, 11, 0, ERROR_NO_SUCH, 11),
        (put, 0, 0, STRATEGY_LISTS, ERROR_NO_SUCH, STRATEGY_LISTS),
        (take, 5, 0, 0, ERROR_NOT_HELD, 5),
        (take, 1 << 40, 0, 0, ERROR_NOT_HELD, 1 << 40),
        (join, 8, 3, 0, ERROR_NOT_HELD, 0),
        (look, 0, 0, -1, ERROR_NO_SUCH, -1),
        (alloc, 1, 0, 0, ERROR_NO_SUCH, 1),
        (alloc, 0, 11, 0, ERROR_NO_SUCH, 11),
        (alloc, 0, -1, 0, ERROR_NO_SUCH, -1),
        (unmap, FRAMES - 8, 4, 0, ERROR_OUTSIDE, FRAMES - 8),
    ],
)
def test_it_is_named(call: Callable[..., None], frame: int, order: int, lst: int, error: int, named: int) -> None:
    m = build_machine(MachineConfig(zones=(ZoneConfig("Normal", 0, FRAMES),), cpus=1))
    before = m.pg.copy()
    call(m, frame, order, lst)
    assert (m.w[CFG_ERROR], m.w[CFG_ERROR_FRAME]) == (error, named)
    assert np.array_equal(m.pg, before)
