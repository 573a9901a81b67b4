"""Operations on a mempool and its quota through the compiled machine and through the slow one.

Rows ``(what, cpu, gfp, n, how)``; frees name live pages by their place in a list that both sides keep alike.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from tests.reference.machine_driver import differences, picture_of_compiled, picture_of_slow, slow_twin
from tests.reference.slow_crypt import Pool, Quota
from tracereplay.compiled import kernel
from tracereplay.machine import layout as at
from tracereplay.machine.build import build_machine
from tracereplay.machine.bulk import bulk_call
from tracereplay.machine.config import MachineConfig
from tracereplay.machine.mempool import (
    fill_reserve,
    pool_alloc,
    pool_alloc_again,
    pool_free,
    pool_free_bulk,
    pool_take,
    pool_take_all,
)
from tracereplay.machine.quota import quota_add, quota_allows, quota_forget

ALLOC, AGAIN, FREE, TAKE, TAKE_ALL, FREE_BULK, ADD, ALLOWS, FORGET, BULK, NR_OPS = range(11)
"""``ALLOC``, ``AGAIN``: a page, at first and after a sleep. ``FREE``: the n-th live page. ``TAKE``, ``TAKE_ALL``: from
the reserve alone, n at once. ``FREE_BULK``: the newest n live pages. ``ADD``: n to the quota's counter. ``ALLOWS``: n
more. ``FORGET``: what is out. ``BULK``: n empty slots, bits of machine/layout.py in ``how``."""
Ops = np.ndarray[Any, np.dtype[np.int64]]


@kernel
def _run(m: Any, ops: Any, live: Any, n_live: int, out: Any) -> int:
    """Do ``ops``; frames, numbers or flags go to ``out``. Returns the number of (frame, order) pairs live."""
    for i in range(ops.shape[0]):
        what, cpu, gfp, n, how = ops[i, 0], ops[i, 1], ops[i, 2], ops[i, 3], ops[i, 4]
        out[i] = 0
        if what <= AGAIN or what == TAKE:
            if what == ALLOC:
                frame = pool_alloc(m, cpu, gfp)
            elif what == AGAIN:
                frame = pool_alloc_again(m, cpu, gfp)
            else:
                frame = pool_take(m)
            out[i] = frame
            if frame >= 0:
                live[2 * n_live] = frame
                n_live += 1
        elif what == FREE and n_live > 0:
            k = n % n_live
            frame = live[2 * k]
            n_live -= 1
            live[2 * k] = live[2 * n_live]
            pool_free(m, cpu, frame)
        elif what == TAKE_ALL:
            if pool_take_all(m, n, live, n_live):
                n_live += n
                out[i] = 1
        elif what == FREE_BULK:
            n = min(n, n_live)
            n_live -= n
            pool_free_bulk(m, cpu, n, live[2 * n_live :])
        elif what == ADD:
            quota_add(m, cpu, n)
        elif what == ALLOWS:
            out[i] = 1 if quota_allows(m, n) else 0
        elif what == FORGET:
            quota_forget(m)
        elif what == BULK:
            for k in range(n):
                live[2 * (n_live + k)] = -1
            got = bulk_call(m, cpu, gfp, n, live[2 * n_live :], how)
            out[i] = got
            n_live += got
    return n_live


class CompiledPool:
    """The compiled machine with a mempool."""

    def __init__(self, machine: at.Machine, room: int = 1 << 16) -> None:
        self.machine = machine
        self._live = np.zeros(2 * room, np.int64)
        self._n = 0
        if machine.w[at.POOL_MIN]:
            fill_reserve(machine, 0, 0xCC0)

    def run(self, *rows: tuple[int, ...]) -> list[int]:
        """Do operations (short rows are filled up with 0); their results."""
        ops = np.array([(*row, *(0,) * (5 - len(row))) for row in rows], np.int64)
        out = np.zeros(len(ops), np.int64)
        self._n = _run(self.machine, ops, self._live, self._n, out)
        return out.tolist()

    @property
    def live(self) -> list[int]:
        """Frames out, in the order that FREE counts."""
        return self._live[: 2 * self._n : 2].tolist()

    @property
    def reserve(self) -> list[int]:
        """Frames in the reserve, the next to go last."""
        w = self.machine.w
        return w[at.POOL_ELEMENTS : at.POOL_ELEMENTS + int(w[at.POOL_CURRENT])].tolist()


class SlowPool:
    """The slow one."""

    def __init__(self, pool: Pool) -> None:
        self.pool = pool
        self.live: list[int] = []
        self.woken = False
        pool.refilled = self._wake
        pool.fill(0, 0xCC0)

    def _wake(self) -> None:
        self.woken = True

    def run(self, *rows: tuple[int, ...]) -> list[int]:
        """As that of the compiled pool."""
        return [self._one(*row, *(0,) * (5 - len(row))) for row in rows]

    def _one(self, what: int, cpu: int, gfp: int, n: int, how: int) -> int:
        pool = self.pool
        if what in (ALLOC, AGAIN, TAKE):
            frame = pool.pop() if what == TAKE else self._page(what, cpu, gfp)
            if frame is not None:
                self.live.append(frame)
            return -1 if frame is None else frame
        if what == FREE and self.live:
            k = n % len(self.live)
            frame, last = self.live[k], self.live.pop()
            if k < len(self.live):
                self.live[k] = last
            pool.free(cpu, frame)
        elif what == TAKE_ALL:
            pool.machine.count("mempool_lock_acquisitions")
            if len(pool.reserve) < n:
                return 0
            pool.machine.count("mempool_takes", n)
            self.live += [pool.reserve.pop() for _ in range(n)]
            return 1
        elif what == FREE_BULK:
            n = min(n, len(self.live))
            first = len(self.live) - n
            pages, self.live = self.live[first:], self.live[:first]
            pool.free_bulk(cpu, pages)
        elif what == ADD:
            pool.charge(cpu, n)
        elif what == ALLOWS:
            return int(pool.allows(n))
        elif what == FORGET:
            pool.quota.visible = 0
            pool.quota.hidden.clear()
        elif what == BULK:
            slots: list[int | None] = [None] * n
            form = "list" if how & at.AS_LIST else "callback" if how & at.AS_CALLBACK else "array"
            pool.machine.alloc_bulk(
                cpu,
                gfp,
                slots,
                form=form,
                two_pass=bool(how & at.TWO_PASS),
                wmark_adds_count=not how & at.LOW_ONLY,
                node_local_only=not how & at.ANY_NODE,
                fallback_single_page=not how & at.NO_SINGLE,
            )
            got = [frame for frame in slots if frame is not None]
            self.live += got
            return len(got)
        return 0

    def _page(self, what: int, cpu: int, gfp: int) -> int | None:
        """A page, or None where the kernel would sleep or fail."""
        work = self.pool.alloc(cpu, gfp) if what == ALLOC else self.pool.alloc_awake(cpu, gfp)
        try:
            next(work)
        except StopIteration as done:
            frame: int | None = done.value
            return frame
        return None


class PoolPair:
    """Both, from one state, fed alike."""

    def __init__(self, config: MachineConfig, *, pool_pages: int, quota: int | None, counter_batch: int) -> None:
        machine = build_machine(
            config,
            pool_pages=pool_pages,
            quota=at.NO_QUOTA if quota is None else quota,
            counter_batch=counter_batch,
        )
        twin = slow_twin(machine, config)
        self.compiled = CompiledPool(machine)
        self.slow = SlowPool(Pool(twin, pool_pages, Quota(quota, counter_batch)))

    def run(self, *rows: tuple[int, ...]) -> list[str]:
        """Do operations on both. What differs then, in words."""
        found = differences(self.compiled.run(*rows), self.slow.run(*rows), "result")
        return found or differences(self._compiled_state(), self._slow_state(), "state")

    def _compiled_state(self) -> dict[str, Any]:
        w = self.compiled.machine.w
        hidden = w[at.PC : at.PC + at.MAX_CPUS]
        return picture_of_compiled(self.compiled.machine) | {
            "live": self.compiled.live,
            "reserve": self.compiled.reserve,
            "visible": int(w[at.POOL_ALLOCATED]),
            "hidden": {cpu: int(hidden[cpu]) for cpu in np.flatnonzero(hidden).tolist()},
            "idle": (int(w[at.CFG_RESERVE]), int(w[at.CFG_RESERVE_PEAK])),
            "woken": int(w[at.CFG_WOKEN]) == at.WOKEN_POOL,
        }

    def _slow_state(self) -> dict[str, Any]:
        pool = self.slow.pool
        return picture_of_slow(pool.machine) | {
            "live": self.slow.live,
            "reserve": pool.reserve,
            "visible": pool.quota.visible,
            "hidden": {cpu: n for cpu, n in pool.quota.hidden.items() if n},
            "idle": (len(pool.reserve), pool.idle_peak),
            "woken": self.slow.woken,
        }
