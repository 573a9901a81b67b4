"""A strategy by itself on a machine: requests, releases, other users' allocations and shrinker scans, one by one."""

from __future__ import annotations

from typing import Any

import numpy as np

from tracereplay.compiled import kernel
from tracereplay.machine import layout as at
from tracereplay.machine.build import build_machine
from tracereplay.machine.config import MachineConfig
from tracereplay.machine.page_alloc import alloc_pages
from tracereplay.machine.page_free import free_pages
from tracereplay.replay.calls import put_addresses
from tracereplay.replay.layout import X_ALLOCATE, X_INIT, X_RELEASE, X_REQ, X_SHRINK
from tracereplay.replay.serve import call_allocate, call_init, call_release, call_shrink
from tracereplay.strategies.contract import (
    BLOCK_FLAGS,
    BLOCK_FRAME,
    BLOCK_ORDER,
    BLOCK_WORDS,
    DONE,
    REQ_BLOCKS,
    REQ_CALLER,
    REQ_CPU,
    REQ_FLAGS,
    REQ_GFP,
    REQ_ORDER,
    REQ_PAGES,
    REQ_WORDS,
)
from tracereplay.strategies.registry import load_strategy

INIT, TAKE, GIVE, SHRINK, OTHER, OTHER_FREE = range(6)


@kernel
def run(m: Any, st: Any, x: Any, req: Any, block: Any, out: Any, what: int, a: int, b: int) -> int:
    """One operation. TAKE: number of blocks or -1. OTHER: a frame or -1."""
    if what == INIT:
        call_init(x[X_INIT], (m, st))
    elif what == TAKE:
        req[REQ_BLOCKS] = 0
        done = call_allocate(x[X_ALLOCATE], (m, st, req, out)) == DONE
        return np.int64(req[REQ_BLOCKS] if done else -1)
    elif what == GIVE:
        call_release(x[X_RELEASE], (m, st, block, a, b))
    elif what == SHRINK:
        call_shrink(x[X_SHRINK], (m, st, a))
    elif what == OTHER:
        return np.int64(alloc_pages(m, a, b, req[REQ_GFP]))
    elif what == OTHER_FREE:
        free_pages(m, 0, a, b)
    return np.int64(0)


class Driven:
    """A strategy on a machine of its own."""

    def __init__(self, name: str, config: MachineConfig, **params: str) -> None:
        chosen = load_strategy(name).from_text(params)
        self._x = np.zeros(X_REQ, np.int64)
        put_addresses(type(chosen), self._x)
        self.machine = build_machine(config)
        self.state = np.zeros(chosen.state_words(), np.int64)
        packed = chosen.pack()
        self.state[: len(packed)] = packed
        self._req = np.zeros(REQ_WORDS, np.int64)
        self._block = np.zeros(BLOCK_WORDS, np.int64)
        self._out = np.zeros(1 << 15, np.int64)
        self._run(INIT, 0, 0)

    def _run(self, what: int, a: int, b: int) -> int:
        found = run(self.machine, self.state, self._x, self._req, self._block, self._out, what, a, b)
        assert self.machine.w[at.CFG_ERROR] == 0
        return int(found)

    def take(
        self, pages: int = 1, *, order: int = 0, flags: int = 0, cpu: int = 0, gfp: int = 0xCC0, caller: int = 0
    ) -> list[tuple[int, int]] | None:
        """Blocks of a request; None when it failed."""
        for place, value in (
            (REQ_PAGES, pages),
            (REQ_ORDER, order),
            (REQ_FLAGS, flags),
            (REQ_CPU, cpu),
            (REQ_GFP, gfp),
            (REQ_CALLER, caller),
        ):
            self._req[place] = value
        blocks = self._run(TAKE, 0, 0)
        return None if blocks < 0 else [(int(f), int(o)) for f, o in self._out[: 2 * blocks].reshape(-1, 2)]

    def give(self, frame: int, order: int, cpu: int = 0) -> None:
        """Release a block."""
        self._block[BLOCK_FRAME], self._block[BLOCK_ORDER], self._block[BLOCK_FLAGS] = frame, order, 0
        self._run(GIVE, cpu, 0)

    def shrink(self, pages: int) -> None:
        """A shrinker's scan."""
        self._run(SHRINK, pages, 0)

    def other(self, order: int, cpu: int = 0, gfp: int = 0xCC0) -> int:
        """Somebody else's block, from the allocator."""
        self._req[REQ_GFP] = gfp
        return self._run(OTHER, cpu, order)

    def other_free(self, frame: int, order: int) -> None:
        """Somebody else frees a block."""
        self._run(OTHER_FREE, frame, order)
