"""A strategy that misbehaves in the way its parameter names; otherwise it serves single pages."""

# mypy: disable-error-code="no-untyped-def"

from __future__ import annotations

from dataclasses import dataclass

from tracereplay.machine import ops
from tracereplay.machine.layout import CFG_NOW
from tracereplay.strategies.contract import (
    BLOCK_FRAME,
    BLOCK_ORDER,
    DONE,
    FAIL,
    NEVER,
    REQ_BLOCKS,
    REQ_CPU,
    REQ_GFP,
    REQ_ID,
    REQ_PAGES,
    REQ_UNTIL,
    REQ_WAIT,
    WAIT,
    WAIT_MUTEX,
    WAIT_POOL,
    WAIT_TIME,
    Params,
    param,
)

FAULTS = ("none", "foreign", "outside", "twice", "wrong-order", "too-few", "nothing", "same-frame")
FAULTS += ("too-many", "invented", "beyond", "rounds-up")
FAULTS += ("waits-unknown", "waits-past", "waits-free-mutex", "keeps-mutex", "waits-with-foreign", "times-over")
NONE, FOREIGN, OUTSIDE, TWICE, WRONG_ORDER, TOO_FEW, NOTHING, SAME_FRAME = range(8)
TOO_MANY, INVENTED, BEYOND, ROUNDS_UP = range(8, 12)
WAITS_UNKNOWN, WAITS_PAST, WAITS_FREE_MUTEX, KEEPS_MUTEX, WAITS_WITH_FOREIGN, TIMES_OVER = range(12, 18)


@dataclass(frozen=True)
class Faulty(Params):
    """What goes wrong."""

    name = "faulty"
    summary = "single pages, with a fault"
    mimics = "nothing"

    fault: str = param("none", unit="fault", choices=FAULTS, doc="what goes wrong", source="a test")


def init(m, st):
    """Nothing to prepare."""


def allocate(m, st, req, out):
    """Single pages; ROUNDS_UP (no fault): one block that holds them."""
    pages = req[REQ_PAGES]
    if st[0] in (WAITS_UNKNOWN, WAITS_PAST, WAITS_FREE_MUTEX, WAITS_WITH_FOREIGN):
        req[REQ_WAIT] = 9 if st[0] == WAITS_UNKNOWN else WAIT_TIME if st[0] == WAITS_PAST else WAIT_MUTEX
        req[REQ_UNTIL] = m.w[CFG_NOW] if st[0] == WAITS_PAST else NEVER
        if st[0] == WAITS_WITH_FOREIGN:
            req[REQ_WAIT] = WAIT_POOL
            req[REQ_BLOCKS] = 1
            out[0] = 0
            out[1] = 0
        return WAIT
    if st[0] == KEEPS_MUTEX:
        ops.mutex_lock(m, req[REQ_ID])
    if st[0] == TIMES_OVER:
        ops.set_timer(m, 0, 0)
    if st[0] == ROUNDS_UP:
        order = 0
        while 1 << order < pages:
            order += 1
        out[0] = ops.alloc_pages(m, req[REQ_CPU], order, req[REQ_GFP])
        out[1] = order
        req[REQ_BLOCKS] = 1
        return DONE if out[0] >= 0 else FAIL
    for i in range(pages):
        frame = ops.alloc_pages(m, req[REQ_CPU], 0, req[REQ_GFP])
        if frame < 0:
            return FAIL
        out[2 * i] = frame
        out[2 * i + 1] = 0
    if st[0] == SAME_FRAME:
        out[2 * (pages - 1)] = out[0]
    req[REQ_BLOCKS] = pages
    if st[0] == TOO_FEW:
        req[REQ_BLOCKS] = pages - 1
    if st[0] == NOTHING:
        req[REQ_BLOCKS] = 0
    if st[0] == TOO_MANY:
        out[2 * pages] = ops.alloc_pages(m, req[REQ_CPU], 0, req[REQ_GFP])
        out[2 * pages + 1] = 0
        req[REQ_BLOCKS] = pages + 1
    if st[0] == INVENTED:
        out[1] = 3
    if st[0] == BEYOND:
        out[0] = 1 << 40
    return DONE


def release(m, st, block, cpu, now):
    """Free the page, or what the fault says."""
    frame = block[BLOCK_FRAME]
    if st[0] == FOREIGN:
        frame += 1
    elif st[0] == OUTSIDE:
        frame = 1 << 28
    ops.free_pages(m, cpu, frame, 1 if st[0] == WRONG_ORDER else block[BLOCK_ORDER])
    if st[0] == TWICE:
        ops.free_pages(m, cpu, frame, 0)


def timer(m, st, number, now):
    """Once more, at once."""
    ops.set_timer(m, number, now)
