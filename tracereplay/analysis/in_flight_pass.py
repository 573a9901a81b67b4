"""How many I/Os a device has in flight, event by event (compiled).

Each device keeps a list of what is in flight, oldest first; it is as long as the queue is deep. What ends is found by
its sectors, since block events carry no other name of a request (include/trace/events/block.h).
"""

# mypy: disable-error-code="no-untyped-def, no-untyped-call"

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from tracereplay.compiled import hot, kernel

START, RESTART, CANCEL, END_PART, END_WHOLE, NOTHING = range(6)
"""What an event does: begins an I/O; begins one, or the same again; takes it back; completes sectors; completes the
bio that has the sectors, or had them before it was advanced; nothing."""
DEVICE_COLUMNS = 2
DEPTH, SINCE = range(DEVICE_COLUMNS)
"""Of a device: I/Os in flight, time of the last change."""
ENTRY = 6
T, FIRST, AFTER, OP, LEFT, DEEP = range(ENTRY)
READ = 1
"""Bit of an operation's number: it is a read."""
"""Of an I/O in flight: start, first sector, sector behind, operation, sectors to complete, I/Os in flight with it."""
UNMATCHED, EVICTED, REISSUED, ENDED, LOST, NEXT_LOSS = range(6)
COUNTS = 6
MOST_DEPTH = 1 << 12
"""Depths from here on count as this."""


class Flight(NamedTuple):
    """I/Os in flight, and what was measured."""

    entries: npt.NDArray[np.int64]
    """ENTRY values of each of ``room`` I/Os of each device."""
    device: npt.NDArray[np.int64]
    """DEVICE_COLUMNS of each device."""
    held: npt.NDArray[np.int64]
    """ns by device and depth."""
    area: npt.NDArray[np.int64]
    """I/Os times ns by device and bin."""
    peak: npt.NDArray[np.int64]
    """Most in flight by device and bin."""
    bounds: npt.NDArray[np.int64]
    """First moment measured, first one no longer measured, width of a bin, bins, room."""
    losses: npt.NDArray[np.int64]
    """Ends of intervals in which events were lost, ascending: what is in flight then is forgotten."""
    counts: npt.NDArray[np.int64]
    out: npt.NDArray[np.int64]
    """OUT values of each I/O that ended."""


OUT = 5
OUT_DEVICE, OUT_START, OUT_END, OUT_DEPTH, OUT_OP = range(OUT)


@hot
def _until(w, d, t):
    """Account for a device's depth from its last change to ``t``."""
    low, high, width, bins = w.bounds[0], w.bounds[1], w.bounds[2], w.bounds[3]
    at = max(w.device[d * DEVICE_COLUMNS + SINCE], low)
    end = min(t, high)
    depth = w.device[d * DEVICE_COLUMNS + DEPTH]
    if end > at:
        w.held[d * MOST_DEPTH + min(depth, MOST_DEPTH - 1)] += end - at
        while at < end:
            b = (at - low) // width
            upto = min(end, low + (b + 1) * width)
            w.area[d * bins + b] += depth * (upto - at)
            w.peak[d * bins + b] = max(w.peak[d * bins + b], depth)
            at = upto
    w.device[d * DEVICE_COLUMNS + SINCE] = t


@hot
def _drop(w, d, i, n):
    """Take entry ``i`` of ``n`` out, keeping the order."""
    base = d * w.bounds[4] * ENTRY
    for at in range(base + i * ENTRY, base + (n - 1) * ENTRY):
        w.entries[at] = w.entries[at + ENTRY]
    w.device[d * DEVICE_COLUMNS + DEPTH] = n - 1


@hot
def _begin(w, d, t, first, sectors, op):
    room = w.bounds[4]
    n = w.device[d * DEVICE_COLUMNS + DEPTH]
    if n == room:
        _drop(w, d, 0, n)
        n -= 1
        w.counts[EVICTED] += 1
    at = (d * room + n) * ENTRY
    w.entries[at + T] = t
    w.entries[at + FIRST] = first
    w.entries[at + AFTER] = first + sectors
    w.entries[at + OP] = op
    w.entries[at + LEFT] = sectors
    w.entries[at + DEEP] = n
    w.device[d * DEVICE_COLUMNS + DEPTH] = n + 1


@hot
def _exact(w, d, first, sectors, op):
    """An I/O with these very sectors; -1: none. Of several reads the oldest; of several writes the newest, since the
    kernel does not write a page that is being written: the others' completions were missed."""
    base = d * w.bounds[4] * ENTRY
    found = -1
    for i in range(w.device[d * DEVICE_COLUMNS + DEPTH]):
        at = base + i * ENTRY
        if w.entries[at + FIRST] == first and w.entries[at + AFTER] == first + sectors and w.entries[at + OP] == op:
            found = i
            if op & READ:
                break
    return found


@hot
def _owner(w, d, first, sectors, op):
    """The oldest I/O that ends where these sectors end, or holds them; -1: none. ``bio_advance`` moves its start."""
    base = d * w.bounds[4] * ENTRY
    holds = -1
    for i in range(w.device[d * DEVICE_COLUMNS + DEPTH]):
        at = base + i * ENTRY
        if w.entries[at + OP] == op and w.entries[at + FIRST] <= first:
            if w.entries[at + AFTER] == first + sectors:
                return i
            if holds < 0 and first + sectors < w.entries[at + AFTER]:
                holds = i
    return holds


@hot
def _end(w, d, i, t, full):
    """I/O ``i`` of a device has ended; one more row of ``out``."""
    at = (d * w.bounds[4] + i) * ENTRY
    o = full * OUT
    w.out[o + OUT_DEVICE] = d
    w.out[o + OUT_START] = w.entries[at + T]
    w.out[o + OUT_END] = t
    w.out[o + OUT_DEPTH] = w.entries[at + DEEP]
    w.out[o + OUT_OP] = w.entries[at + OP]
    w.counts[ENDED] += 1
    _drop(w, d, i, w.device[d * DEVICE_COLUMNS + DEPTH])


@kernel
def follow(w, what, device, ts, sector, sectors, op, start):
    """Take events from row ``start`` on until they end or ``out`` might not hold what the next one ends.

    Returns the next row and the rows of ``out``.
    """
    rows = 0
    room = w.bounds[4]
    most = w.out.size // OUT - room
    for i in range(start, ts.size):
        if rows > most:
            return i, rows
        t = ts[i]
        while w.counts[NEXT_LOSS] < w.losses.size and w.losses[w.counts[NEXT_LOSS]] <= t:
            for d in range(w.device.size // DEVICE_COLUMNS):
                _until(w, d, w.losses[w.counts[NEXT_LOSS]])
                w.counts[LOST] += w.device[d * DEVICE_COLUMNS + DEPTH]
                w.device[d * DEVICE_COLUMNS + DEPTH] = 0
            w.counts[NEXT_LOSS] += 1
        do = what[i]
        if do == NOTHING:
            continue
        d, first, n, operation = device[i], sector[i], sectors[i], op[i]
        _until(w, d, t)
        found = -1 if do == START else _exact(w, d, first, n, operation)
        if do in (START, RESTART):
            if found >= 0:  # given to the driver again: it was requeued, and that event was not recorded
                w.entries[(d * room + found) * ENTRY + T] = t
                w.counts[REISSUED] += 1
            else:
                _begin(w, d, t, first, n, operation)
        elif do == CANCEL:
            if found >= 0:
                _drop(w, d, found, w.device[d * DEVICE_COLUMNS + DEPTH])
        else:
            if do == END_WHOLE and found < 0:
                found = _owner(w, d, first, n, operation)
            if found >= 0:
                _end(w, d, found, t, rows)
                rows += 1
            elif do == END_PART and n > 0:
                # some of a request's sectors, or several bios in one request; in which order, see _exact
                budget = n
                step = 1 if operation & READ else -1
                k = 0 if operation & READ else w.device[d * DEVICE_COLUMNS + DEPTH] - 1
                while 0 <= k < w.device[d * DEVICE_COLUMNS + DEPTH] and budget > 0:
                    at = (d * room + k) * ENTRY
                    common = min(w.entries[at + AFTER], first + n) - max(w.entries[at + FIRST], first)
                    if w.entries[at + OP] == operation and common > 0:
                        taken = min(common, budget, w.entries[at + LEFT])
                        budget -= taken
                        w.entries[at + LEFT] -= taken
                        if w.entries[at + LEFT] == 0:
                            _end(w, d, k, t, rows)
                            rows += 1
                            k -= step == 1  # the next newer one has moved here
                    k += step
                w.counts[UNMATCHED] += budget == n
            else:
                w.counts[UNMATCHED] += n > 0 or do == END_WHOLE
        depth = w.device[d * DEVICE_COLUMNS + DEPTH]
        if w.bounds[0] <= t < w.bounds[1]:
            b = (t - w.bounds[0]) // w.bounds[2]
            w.peak[d * w.bounds[3] + b] = max(w.peak[d * w.bounds[3] + b], depth)
    return ts.size, rows


@kernel
def finish(w):
    """Account for all depths until the end; I/Os still in flight."""
    left = 0
    for d in range(w.device.size // DEVICE_COLUMNS):
        _until(w, d, w.bounds[1])
        left += w.device[d * DEVICE_COLUMNS + DEPTH]
    return left
