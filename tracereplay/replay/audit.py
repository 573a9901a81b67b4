"""Does it add up: every page that the machine gave out is live, or in a declared reserve, and nobody else's.

A strategy that gives a page twice, keeps pages that it does not declare, or declares what it does not have, breaks
this; so counters of a strategy that was not written here are not believed before it holds.
"""

from __future__ import annotations

import numpy as np

from tracereplay.machine import layout as at
from tracereplay.machine.layout import I64, Machine
from tracereplay.replay import layout as loop
from tracereplay.replay.layout import Loop


def pages_in_use(machine: Machine) -> tuple[int, int]:
    """Pages of blocks in use, and of blocks that a strategy keeps on lists or in marks of its own."""
    first = int(machine.w[at.CFG_NODES])
    info = machine.pg[at.NODE_WORDS * first + at.INFO :: at.NODE_WORDS]
    sizes = 1 << (info & at.INFO_ORDER).astype(np.int64)
    state = info & at.INFO_STATE
    return int(sizes[state == at.USED].sum()), int(sizes[state == at.CACHED].sum())


def live_blocks(machine: Machine, arrays: Loop) -> tuple[I64, I64]:
    """First frames and orders of all blocks that the demand holds, each as often as it was given."""
    whole = arrays.fm[arrays.fm > 0].astype(np.int64)
    frames = (whole & loop.FM_FRAME) - 1
    info = machine.pg[at.NODE_WORDS * (int(machine.w[at.CFG_NODES]) + frames) + at.INFO]
    parts = arrays.bl[: int(arrays.x[loop.X_BLOCK_TOP]) * loop.BL_WORDS].reshape(-1, loop.BL_WORDS)
    tags = parts[:, loop.BL_TAG]
    parked = (tags & loop.TAG_ROW != 0) & (tags & loop.TAG_PARKED != 0)
    parts = parts[(tags != 0) & ~parked]
    return (
        np.concatenate([frames, parts[:, loop.BL_FRAME].astype(np.int64)]),
        np.concatenate([info & at.INFO_ORDER, parts[:, loop.BL_ORDER]]).astype(np.int64),
    )


def surplus(machine: Machine, arrays: Loop) -> int:
    """Pages taken from the machine that are neither live nor declared as reserve; negative when there are too few."""
    _, orders = live_blocks(machine, arrays)
    declared = int(machine.w[at.CFG_RESERVE]) + int(machine.w[at.DM_TABLES])  # page tables of the direct map
    return sum(pages_in_use(machine)) - int((1 << orders).sum()) - declared


def problem(machine: Machine, arrays: Loop) -> str | None:
    """What does not add up, in words; None when all does."""
    frames, _ = live_blocks(machine, arrays)
    if len(np.unique(frames)) != len(frames):
        seen, counts = np.unique(frames, return_counts=True)
        return f"gave frame {int(seen[counts > 1][0]):#x} to two requests"
    pages = surplus(machine, arrays) - int(arrays.x[loop.X_WAITING_PAGES])
    if pages > 0 and not arrays.x[loop.X_PARKED]:  # what these hold is not seen before the end
        return f"keeps {pages} pages that are neither in use nor declared as reserve (ops.reserve_add)"
    if pages < 0:
        return f"declares or gave {-pages} pages more than it has from the machine"
    return None
