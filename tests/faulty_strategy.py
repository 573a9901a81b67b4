"""A strategy that misbehaves in the way its parameter names; otherwise it serves single pages."""

# mypy: disable-error-code="no-untyped-def"

from __future__ import annotations

from dataclasses import dataclass

from tracereplay.machine import ops
from tracereplay.strategies.contract import (
    BLOCK_FRAME,
    BLOCK_ORDER,
    DONE,
    FAIL,
    REQ_BLOCKS,
    REQ_CPU,
    REQ_GFP,
    REQ_PAGES,
    Params,
    param,
)

FAULTS = ("none", "foreign", "outside", "twice", "wrong-order", "too-few", "nothing", "same-frame")
FAULTS += ("too-many", "invented", "beyond", "rounds-up")
NONE, FOREIGN, OUTSIDE, TWICE, WRONG_ORDER, TOO_FEW, NOTHING, SAME_FRAME = range(8)
TOO_MANY, INVENTED, BEYOND, ROUNDS_UP = range(8, 12)


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
