"""Demand made by hand: requests and frees as the demand stream has them (demand/stream.py), for trying a strategy.

::

    demand = Demand()
    buffer = demand.request(256, cpu=1)
    demand.wait(1_000_000)
    demand.free(buffer, cpu=0)
    batch = demand.batch()
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tracereplay.demand.stream import (
    ALLOC,
    BATCH,
    FIRST,
    FREE,
    MAX_REQUEST_PAGES,
    ON_PATH,
    OP,
    REQUIRED,
    TARGETED,
)
from tracereplay.kernel.constants import MAX_PAGE_ORDER
from tracereplay.kernel.gfp import GFP_KERNEL


@dataclass(frozen=True, slots=True)
class Made:
    """A request that was made: the keys of its extents."""

    keys: tuple[int, ...]
    orders: tuple[int, ...]

    @property
    def pages(self) -> list[int]:
        """Key of each page."""
        return [key + i for key, order in zip(self.keys, self.orders, strict=True) for i in range(1 << order)]


class Demand:
    """A demand stream under construction: each call happens at ``now``, nanoseconds."""

    def __init__(self) -> None:
        self.now = 0
        self._next = 0
        self._records: list[tuple[int, ...]] = []

    @property
    def frames(self) -> int:
        """Keys used so far, and one more at least: what an engine wants to know."""
        return self._next + 1

    def wait(self, ns: int) -> None:
        """Let time pass."""
        self.now += ns

    def request(
        self,
        pages: int,
        *,
        cpu: int = 0,
        gfp: int = GFP_KERNEL,
        required: bool = False,
        on_path: bool = False,
        targeted: bool = True,
        orders: Sequence[int] | None = None,
    ) -> Made:
        """Ask for pages: single ones, or (``required``) one block, or extents of ``orders``.

        Without ``targeted`` it is background, which the machine serves whatever the strategy. Raises ValueError when
        the request is none: no pages, too many, or a block that has no order.
        """
        if orders is None:
            order = max(pages - 1, 0).bit_length()
            orders = [order] if required else [0] * pages
        if sum(1 << o for o in orders) != pages or not 0 < pages <= MAX_REQUEST_PAGES or max(orders) > MAX_PAGE_ORDER:
            raise ValueError(f"no request has {pages} pages in extents of orders {list(orders)[:8]}")
        flags = (TARGETED | BATCH if targeted else 0) | (REQUIRED if required else 0) | (ON_PATH if on_path else 0)
        keys = []
        for i, order in enumerate(orders):
            key = -(-self._next >> order) << order
            self._next = key + (1 << order)
            keys.append(key)
            first = FIRST if i == 0 else 0
            self._add(ALLOC, key, order, cpu=cpu, gfp=gfp, pages=0 if i else pages, flags=flags | first)
        return Made(tuple(keys), tuple(orders))

    def free(self, made: Made, *, cpu: int = 0, single: bool = True, shuffle: int | None = None) -> None:
        """Give all pages of a request back: page by page (in an order of seed ``shuffle``), or extent by extent."""
        if not single:
            for key, order in zip(made.keys, made.orders, strict=True):
                self._add(FREE, key, order, cpu=cpu)
            return
        pages = made.pages
        if shuffle is not None:
            random.Random(shuffle).shuffle(pages)
        for key in pages:
            self._add(FREE, key, 0, cpu=cpu)

    def tick(self, ns: int, times: int, *, cpus: int = 1) -> None:
        """Let time pass in steps; at each of them every CPU does something else (one page of the background)."""
        for _ in range(times):
            self.wait(ns)
            for cpu in range(cpus):
                self.free(self.request(1, cpu=cpu, targeted=False), cpu=cpu)

    def batch(self) -> np.ndarray[Any, Any]:
        """What was asked since the last call, as records of the demand stream."""
        records, self._records = self._records, []
        return np.array(records, OP)

    def _add(self, kind: int, key: int, order: int, *, cpu: int, gfp: int = 0, pages: int = 0, flags: int = 0) -> None:
        self._records.append((self.now, key, gfp, pages, 0, cpu, flags, kind, order, 0, 0))
