"""The targeted requests of a demand apart by caller: how many each made, and the operations of chosen callers."""

# mypy: disable-error-code="no-untyped-def, no-untyped-call"

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tracereplay.compiled import kernel
from tracereplay.demand.spool import Ops, Rows, Spool, written
from tracereplay.demand.stream import ALLOC, FIRST, FREE, OP, REQUIRED, TARGETED
from tracereplay.whatif.executors import go_on

MOST_ORDER = 10
HEAVY = 3
"""A caller with so many times the mean requests or pages of the others is heavy; found in ROUNDS."""
ROUNDS = 2
LOW_ZONES = 0x5
"""__GFP_DMA and __GFP_DMA32."""

I64 = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class Split:
    """A demand, and what its chosen callers asked for."""

    spool: Spool
    callers: int
    """Those with targeted requests."""
    totals: I64
    """Their targeted requests and pages, [2]."""
    sizes: I64
    """Those of each chosen caller, [chosen, 2]: the heavy ones, then the drawn ones."""
    heavy: int
    """Callers that are always chosen, since they hold most."""
    large: int
    """Targeted requests of all that need a block of several pages, or memory of a low zone."""
    ops: Rows
    """Operations of the chosen."""
    batches: list[list[tuple[int, int]]]
    """Of each of them the parts of ``ops``: first, number."""


def split(spool: Spool, taken: Callable[[str], bool]) -> Split:
    """Read a demand twice. ``taken``: whether a caller of that name is chosen. Raises StorageError."""
    names = spool.report.callers
    shift = len(spool.report.loads)
    sizes = np.zeros((shift + len(names), 2), np.int64)
    large = 0
    for batch in spool:
        go_on()
        ops = batch[(batch["kind"] == ALLOC) & (batch["flags"] & TARGETED != 0)]
        hard = (ops["flags"] & REQUIRED != 0) & (ops["order"] > 0) | (ops["gfp"] & LOW_ZONES != 0)
        large += int(hard.sum())
        first = ops[ops["flags"] & FIRST != 0]
        who = first["caller"] + shift
        sizes[:, 0] += np.bincount(who, minlength=len(sizes))
        np.add.at(sizes[:, 1], who, first["pages"])
    there = np.flatnonzero(sizes[:, 0])
    heavy = there[heavy_callers(sizes[there])].tolist()
    drawn = [i for i in there.tolist() if taken(names[i - shift] if i >= shift else f"load {shift - 1 - i}")]
    chosen = heavy + [i for i in drawn if i not in heavy]
    group_of = np.zeros(len(sizes) + 1, np.int32)
    group_of[chosen] = np.arange(1, len(chosen) + 1)
    rows, batches = Rows(OP), [[] for _ in chosen]  # type: ignore[var-annotated]
    owner = np.zeros(spool.info.frames, np.int32)
    with written(OP.itemsize):
        for batch in spool if chosen else ():
            go_on()
            _write(batch, shift, group_of, owner, rows, batches)
    return Split(spool, len(there), sizes.sum(axis=0), sizes[chosen], len(heavy), large, rows, batches)


def heavy_callers(sizes: I64) -> npt.NDArray[np.bool_]:
    """Which callers hold so much that a sample without them tells little, [caller]. ``sizes``: [caller, 2]."""
    heavy = np.zeros(len(sizes), np.bool_)
    for _ in range(ROUNDS):
        mean = sizes[~heavy].mean(axis=0) if not heavy.all() else np.zeros(2)
        heavy |= (sizes > HEAVY * mean).any(axis=1)
    return heavy


def _write(
    batch: Ops,
    shift: int,
    group_of: npt.NDArray[np.int32],
    owner: npt.NDArray[np.int32],
    rows: Rows,
    batches: list[list[tuple[int, int]]],
) -> None:
    """Append a batch's operations of chosen callers, caller by caller, each in its order."""
    at, group = np.empty((2, len(batch) + (1 << MOST_ORDER)), np.int32)
    found, i = [], 0
    while i < len(batch):
        i, n = route(batch, i, shift, group_of, owner, at, group)
        found.append(np.stack([at[:n], group[:n]]))
    places, groups = np.concatenate([np.zeros((2, 0), np.int32), *found], axis=1)
    order = np.argsort(groups, kind="stable")
    ends = np.searchsorted(groups[order], np.arange(1, len(batches) + 2))
    before = len(rows)
    rows.write(batch[places[order]])
    for parts, first, end in zip(batches, ends[:-1].tolist(), ends[1:].tolist(), strict=True):
        if end > first:
            parts.append((before + first, end - first))


@kernel
def route(ops, i, shift, group_of, owner, at, group):
    """From operation ``i`` on: which go to which chosen caller. Where it stopped for want of room, and how many.

    ``group_of``: of each caller, 0 of those not chosen; ``owner``: who has each key. A free goes to all whose pages it
    holds: to the others' machines these are no pages.
    """
    n = 0
    while i < len(ops) and n + (1 << MOST_ORDER) <= len(at):
        op = ops[i]
        end = np.int64(op.pfn) + (1 << np.int64(op.order))
        if op.kind == ALLOC:
            g = group_of[op.caller + shift] if op.flags & TARGETED else 0
            for key in range(op.pfn, end):
                owner[key] = g
            if g > 0:
                at[n], group[n] = i, g
                n += 1
        elif op.kind == FREE:
            last = 0
            for key in range(op.pfn, end):
                g = owner[key]
                owner[key] = 0
                if g > 0 and g != last:
                    at[n], group[n] = i, g
                    n += 1
                    last = g
        i += 1
    return i, n
