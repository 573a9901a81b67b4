"""Compiled: notes for the Python side beside the rows: refused lines, comments, losses and their ends."""

# mypy: disable-error-code="no-untyped-def,no-untyped-call"

from __future__ import annotations

import numpy as np

from tracereplay.compiled import hot, inner
from tracereplay.importers.ftrace_state import ANY_CPU, CLOSES, LINE, REJECTS, SPECIALS, TABLE_NONE


@inner
def reject(notes, k, start, end, reason):
    """Note a refused line."""
    n = k[REJECTS]
    notes.reject_line[n] = k[LINE]
    notes.reject_start[n] = start
    notes.reject_length[n] = end - start
    notes.reject_reason[n] = reason
    k[REJECTS] = n + 1


@hot
def special(notes, cpus, k, start, end, cpu):
    """Note a comment, loss or preamble line for the Python side."""
    n = k[SPECIALS]
    notes.special_line[n] = k[LINE]
    notes.special_start[n] = start
    notes.special_length[n] = end - start
    notes.special_cpu[n] = cpu
    notes.special_t0[n] = cpus.ts[cpu] if cpu >= 0 else -1
    k[SPECIALS] = n + 1
    if cpu >= 0:
        cpus.waits[cpu] = 1


@hot
def lost_somewhere(notes, cpus, k, start, end):
    """Note a line about losses on a CPU that it does not name: they are between the events before and after it of
    all CPUs."""
    oldest = np.int64(-1)
    for cpu in range(cpus.first.size):
        if cpus.first[cpu] >= 0:
            cpus.waits[cpu] = 1
            if oldest < 0 or cpus.ts[cpu] < oldest:
                oldest = cpus.ts[cpu]
    special(notes, cpus, k, start, end, -1)
    notes.special_cpu[k[SPECIALS] - 1] = ANY_CPU
    notes.special_t0[k[SPECIALS] - 1] = oldest


@hot
def seen(cpus, notes, k, cpu, ts, pid):
    """An event of a CPU: its time closes the loss intervals that wait for it."""
    if cpus.waits[cpu]:
        n = k[CLOSES]
        notes.close_line[n] = k[LINE]
        notes.close_cpu[n] = cpu
        notes.close_ts[n] = ts
        k[CLOSES] = n + 1
        cpus.waits[cpu] = 0
    if cpus.first[cpu] < 0:
        cpus.first[cpu] = ts
        cpus.first_line[cpu] = k[LINE]
    cpus.ts[cpu] = ts
    cpus.table[cpu] = TABLE_NONE
    cpus.pid[cpu] = pid
