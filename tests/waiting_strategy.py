"""Strategies that wait: dm-crypt's two writers in small, and one that waits for anything at random."""

# mypy: disable-error-code="no-untyped-def"

from __future__ import annotations

from dataclasses import dataclass

from tracereplay.demand.stream import REQUIRED
from tracereplay.machine import ops
from tracereplay.machine.layout import CFG_NOW, CFG_WOKEN, POOL_CURRENT, POOL_ELEMENTS, POOL_MIN, WOKEN_POOL
from tracereplay.strategies.contract import (
    BLOCK_FRAME,
    BLOCK_ORDER,
    DONE,
    FAIL,
    NEVER,
    REQ_BLOCKS,
    REQ_CPU,
    REQ_FLAGS,
    REQ_GFP,
    REQ_ID,
    REQ_ORDER,
    REQ_OWN,
    REQ_PAGES,
    REQ_STEP,
    REQ_UNTIL,
    REQ_WAIT,
    WAIT,
    WAIT_MUTEX,
    WAIT_POOL,
    WAIT_TIME,
    Params,
    compiled,
    param,
)

MODES = ("mutex", "no-mutex", "random")
MUTEX, NO_MUTEX, RANDOM = range(3)
MODE = 0
RUNS = 1
"""State: timer runs so far."""
HAD, LIMIT, LOCKED = REQ_OWN, REQ_OWN + 1, REQ_OWN + 2
"""Own words: pages had, end of the wait that is on, whether the mutex is held."""
MAX_RUNS = 60
STEPS = 14


@dataclass(frozen=True)
class Waiting(Params):
    """What it waits for."""

    name = "waiting"
    summary = "single pages of the reserve, with waits"
    mimics = "nothing"

    mode: str = param("mutex", unit="mode", choices=MODES, doc="what it waits for", source="a test")

    def state_words(self) -> int:
        """Mode and timer runs."""
        return 2


@compiled
def draw(number, step):
    """Something like chance, the same everywhere."""
    return (number * 7919 + step * 104729 + number * step * 31) % 1009


@compiled
def take(m):
    """An element of the reserve, -1 for none."""
    if m.w[POOL_CURRENT] == 0:
        return -1
    m.w[POOL_CURRENT] -= 1
    ops.reserve_add(m, -1)
    return m.w[POOL_ELEMENTS + m.w[POOL_CURRENT]]


@compiled
def put(m, cpu, frame):
    """A page into the reserve while it is short, else back."""
    if m.w[POOL_CURRENT] >= m.w[POOL_MIN]:
        ops.free_pages(m, cpu, frame, 0)
        return
    m.w[POOL_ELEMENTS + m.w[POOL_CURRENT]] = frame
    m.w[POOL_CURRENT] += 1
    ops.reserve_add(m, 1)
    m.w[CFG_WOKEN] |= WOKEN_POOL


@compiled
def keep(req, out, frame, order):
    """Append a block."""
    out[2 * req[REQ_BLOCKS]] = frame
    out[2 * req[REQ_BLOCKS] + 1] = order
    req[REQ_BLOCKS] += 1
    req[HAD] += 1 << order


@compiled
def wait(req, kind, until):
    """WAIT for ``kind``."""
    req[REQ_WAIT] = kind
    req[REQ_UNTIL] = until
    return WAIT


@compiled
def from_reserve(m, st, req, out):
    """All pages from the reserve, one writer at a time where there is a mutex."""
    if st[MODE] == MUTEX and not ops.mutex_lock(m, req[REQ_ID]):
        return wait(req, WAIT_MUTEX, NEVER)
    while req[HAD] < req[REQ_PAGES]:
        frame = take(m)
        if frame < 0:
            return wait(req, WAIT_POOL, m.w[CFG_NOW] + 5_000_000_000)
        keep(req, out, frame, 0)
    if st[MODE] == MUTEX:
        ops.mutex_unlock(m)
    return DONE


@compiled
def give_up(m, req, out):
    """Everything back."""
    for b in range(req[REQ_BLOCKS]):
        if out[2 * b + 1] == 0 and out[2 * b] % 2 == 0:
            put(m, req[REQ_CPU], out[2 * b])
        else:
            ops.free_pages(m, req[REQ_CPU], out[2 * b], out[2 * b + 1])
    if req[LOCKED]:
        ops.mutex_unlock(m)
    return FAIL


@compiled
def end_of_wait(m, req, long):
    """When a wait that begins now, or began before, ends: never if ``long``."""
    if req[LIMIT] == 0:
        req[LIMIT] = NEVER if long else m.w[CFG_NOW] + 1 + draw(req[REQ_ID], 77) * 20
    return req[LIMIT]


@compiled
def at_random(m, st, req, out):
    """Steps by draw: wait for time, take the mutex, let it go, take from the reserve, from the machine, fail."""
    while req[HAD] < req[REQ_PAGES]:
        d = draw(req[REQ_ID], req[REQ_STEP]) if req[REQ_STEP] < STEPS else 9
        what = d % 10
        long = d % 7 < 5
        if what == 0:
            if req[LIMIT] == 0 or m.w[CFG_NOW] < req[LIMIT]:
                return wait(req, WAIT_TIME, end_of_wait(m, req, False))
        elif what == 1 and not req[LOCKED]:
            if ops.mutex_lock(m, req[REQ_ID]):
                req[LOCKED] = 1
            elif m.w[CFG_NOW] < end_of_wait(m, req, long):
                return wait(req, WAIT_MUTEX, req[LIMIT])
        elif what == 2 and req[LOCKED]:
            ops.mutex_unlock(m)
            req[LOCKED] = 0
        elif what <= 5:
            frame = take(m)
            if frame >= 0:
                keep(req, out, frame, 0)
            elif m.w[CFG_NOW] < end_of_wait(m, req, long):
                return wait(req, WAIT_POOL, req[LIMIT])
        elif d == 666:
            return give_up(m, req, out)
        else:
            order = 1 if what == 6 else 0
            frame = ops.alloc_pages(m, req[REQ_CPU], order, req[REQ_GFP])
            if frame < 0:
                return give_up(m, req, out)
            keep(req, out, frame, order)
        if what == 7:
            ops.set_timer(m, d % 3, m.w[CFG_NOW] + d * 10)
        req[REQ_STEP] += 1
        req[LIMIT] = 0
    if req[LOCKED]:
        ops.mutex_unlock(m)
    return DONE


def init(m, st):
    """A timer soon."""
    if st[MODE] == RANDOM:
        ops.set_timer(m, 1, m.w[CFG_NOW] + 700)


def allocate(m, st, req, out):
    """One block where contiguity is needed, else what the mode says."""
    if req[REQ_FLAGS] & REQUIRED:
        out[0] = ops.alloc_pages(m, req[REQ_CPU], req[REQ_ORDER], req[REQ_GFP])
        out[1] = req[REQ_ORDER]
        req[REQ_BLOCKS] = 1
        return DONE if out[0] >= 0 else FAIL
    if st[MODE] == RANDOM:
        return at_random(m, st, req, out)
    return from_reserve(m, st, req, out)


def release(m, st, block, cpu, now):
    """Into the reserve; at random: even frames only, and an odd one sets a timer."""
    frame, order = block[BLOCK_FRAME], block[BLOCK_ORDER]
    if order == 0 and (st[MODE] != RANDOM or frame % 2 == 0):
        put(m, cpu, frame)
        return
    ops.free_pages(m, cpu, frame, order)
    if st[MODE] == RANDOM and frame % 16 == 1:
        ops.set_timer(m, 2, now + frame % 900)


def timer(m, st, number, now):
    """A page into the reserve; the first timer comes back."""
    st[RUNS] += 1
    if m.w[POOL_CURRENT] < m.w[POOL_MIN]:
        frame = ops.alloc_pages(m, 0, 0, 0x800)
        if frame >= 0:
            put(m, 0, frame)
    if number == 1 and st[RUNS] < MAX_RUNS:
        ops.set_timer(m, 1, now + 1500)


def shrink(m, st, pages):
    """Half of the reserve, at most what is asked."""
    for _ in range(min(pages, m.w[POOL_CURRENT] // 2)):
        ops.free_pages(m, 0, take(m), 0)


def finish(m, st):
    """The odd pages of the reserve's end go back."""
    if st[MODE] == RANDOM and m.w[POOL_CURRENT] > 0:
        ops.free_pages(m, 0, take(m), 0)
