"""Holds of the zone locks as the machine added them up by time slot (machine/holds.py)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from tracereplay.machine.layout import (
    CFG_SLOT,
    CFG_ZONES,
    H_LOCKS,
    H_LOCKS2,
    H_SLOTS,
    HOLD_ROWS,
    HOLD_WORDS,
    HOLDS,
    SLOT_NS,
    Z_BUSIEST_END,
    Z_WORDS,
)

if TYPE_CHECKING:
    from tracereplay.machine.layout import I64, Machine


def slot_classes(machine: Machine, z: int) -> I64:
    """Slots of zone ``z`` in which its lock was taken, those of like load and spread added up: [class, HOLD_WORDS]."""
    rows = _rows(machine, z)[:-1].copy()
    if rows[0, H_LOCKS]:  # the slot that the end of the trace left open
        rows[0, H_SLOTS] = 1
        rows[0, H_LOCKS2] = rows[0, H_LOCKS] ** 2
    return np.asarray(rows[rows[:, H_LOCKS] > 0])


def busiest_slot(machine: Machine, z: int) -> tuple[I64, int] | None:
    """The slot in which most was done under the lock of zone ``z``, and its start, ns. None: no slot closed."""
    row = _rows(machine, z)[-1].copy()
    return (row, int(machine.w[z * Z_WORDS + Z_BUSIEST_END]) - SLOT_NS) if row[H_LOCKS] else None


def forget_holds(machine: Machine) -> None:
    """Start anew: what was done so far was set-up."""
    machine.w[HOLDS : HOLDS + int(machine.w[CFG_ZONES]) * HOLD_ROWS * HOLD_WORDS] = 0
    machine.w[CFG_SLOT] += 1  # what CPUs have counted is of an earlier one


def _rows(machine: Machine, z: int) -> I64:
    first = HOLDS + z * HOLD_ROWS * HOLD_WORDS
    return machine.w[first : first + HOLD_ROWS * HOLD_WORDS].reshape(HOLD_ROWS, HOLD_WORDS)
