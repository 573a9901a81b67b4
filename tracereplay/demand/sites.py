"""Where allocations come from, as tags of the lifetime pass: caller and stack."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from tracereplay.demand.callers import Callers
from tracereplay.demand.columns import PageBatch
from tracereplay.demand.opening import comm_numbers, gfp_names, stack_callers, task_names
from tracereplay.demand.renames import Renames, task_renames
from tracereplay.demand.state import CLASS_MASK, NO_STACK, PIDS, Array
from tracereplay.demand.tags import Numbers

if TYPE_CHECKING:
    from tracereplay.trace.reader import Trace

_STACK = 1 << 62
_MOST_NAMED = 24
"""Bits of the number of a (task name, gfp) pair within a key."""


class Sites:
    """Tags allocations by caller and stack. Callers are named as demand names them (callers.py)."""

    def __init__(self, trace: Trace) -> None:
        self.wants_stacks = trace.rows("stacks") > 0
        self._callers = Callers(gfp_names=gfp_names(trace))
        self._by_stack = stack_callers(trace, self._callers) if self.wants_stacks else np.zeros(0, np.int32)
        tasks = task_names(trace)
        named, self._numbers = comm_numbers(tasks)
        self._renames = Renames(task_renames(trace, tasks), lambda name: named.setdefault(name, len(named)))
        self._comms = list(named)
        self._named = Numbers()
        """(task name, gfp) pairs."""
        self._named_callers = np.zeros(0, np.int32)
        self._classes: dict[tuple[int, int], int] = {}
        self._sites = Numbers()
        self._labels = pa.array([], pa.string())
        self._known = 0
        self.stacks: Array = np.full(1, NO_STACK, np.uint32)
        """Stack of each tag; NO_STACK: none. There is always a first one."""
        self.callers: Array = np.zeros(1, np.int32)
        """Caller of each tag: an index into ``labels``."""

    def __call__(self, batch: PageBatch) -> Array:
        """Tags of a batch's allocations."""
        pids = batch.pid & (PIDS - 1)
        comms = np.empty(len(batch), np.int64)
        for rows, names in self._renames.pieces(batch.ts):
            self._numbers[names.pid] = names.comm
            comms[rows] = self._numbers[np.minimum(pids[rows], len(self._numbers) - 1)]
        self._renames.pass_by(batch.ts)
        comms[pids >= len(self._numbers)] = 0
        pairs = self._named.of(comms << 32 | batch.gfp, batch.kind)
        self._name()
        if not len(batch.stack):
            if self._known < len(self._named):
                self._known = len(self._named)
                self.stacks = np.full(self._known, NO_STACK, np.uint32)
                self.callers = self._named_callers
            return pairs
        stack = batch.stack.astype(np.int64)
        table = self._by_stack
        known = (stack < len(table)) & (table[np.minimum(stack, len(table) - 1)] >= 0)
        tags = self._sites.of(np.where(known, _STACK | stack, (stack + 1) << _MOST_NAMED | pairs), batch.kind)
        new = self._sites.keys[self._known :]
        if len(new):
            by_stack = new & _STACK != 0
            ids = np.where(by_stack, new & ~_STACK, (new >> _MOST_NAMED) - 1)
            named = self._named_callers[np.where(by_stack, 0, new & ((1 << _MOST_NAMED) - 1))]
            found = np.where(by_stack, table[np.where(by_stack, ids, 0)], named)
            self.stacks = np.concatenate([self.stacks[: self._known], ids.astype(np.uint32)])
            self.callers = np.concatenate([self.callers[: self._known], found.astype(np.int32)])
            self._known = len(self._sites)
        return tags

    @property
    def tags(self) -> int:
        """How many tags there are by now."""
        return len(self.stacks)

    def _name(self) -> None:
        """Callers of the pairs that are new."""
        new = self._named.keys[len(self._named_callers) :].tolist()
        if not new:
            return
        found = []
        for key in new:
            comm, gfp = key >> 32, key & 0xFFFFFFFF
            kind = (comm, gfp & CLASS_MASK)
            if kind not in self._classes:  # the first of a class names it, as in demand
                self._classes[kind] = self._callers.by_gfp(self._comms[comm], gfp)
            found.append(self._classes[kind])
        self._named_callers = np.concatenate([self._named_callers, np.array(found, np.int32)])

    @property
    def labels(self) -> pa.Array:
        """Names of the callers so far."""
        if len(self._labels) != len(self._callers):
            self._labels = pa.array(self._callers.labels, pa.string())
        return self._labels
