"""Compiled: numbers, and the part of an ftrace line before the event's name (capture.md section 3.1).

``COMM-PID [(TGID)] [CPU] FLAGS SECONDS.FRACTION: `` as tracefs and ``trace-cmd report`` write it, or
``COMM-PID CPUFLAGS SECONDS.FRACTION: `` as ``trace-cmd report -l`` does. The task's name may hold anything; the
header is the first place in the line where all of it fits.
"""

# mypy: disable-error-code="no-untyped-def,no-untyped-call"

from __future__ import annotations

import numpy as np

from tracereplay.compiled import hot
from tracereplay.importers.ftrace_vocabulary import MAX_COMM, MAX_CPU, MAX_PID, MAX_SECONDS, MAX_TGID
from tracereplay.importers.words import NEWLINE, next_blank, skip_blanks

_ZERO, _NINE, _A, _F = 48, 57, 97, 102
_MINUS, _DOT, _COLON, _OPEN, _CLOSE, _OPEN_SQUARE, _CLOSE_SQUARE = 45, 46, 58, 40, 41, 91, 93
_TEN = np.uint64(10)
_U64_LAST = np.uint64((2**64 - 1) // 10)
_U64_LAST_DIGIT = np.uint64(5)
_HEX_TOP = np.uint64(0xF000000000000000)
_FOUR = np.uint64(4)

FITS = 1
MISFIT = 0
OUT_OF_RANGE = 2


@hot
def digit(buf, i):
    """Whether the byte is 0 to 9."""
    return _ZERO <= buf[i] <= _NINE


@hot
def decimal(buf, i, limit):
    """Number at ``i`` and the position after it; above ``limit`` (below 2^59) some number greater than it."""
    value = np.int64(0)
    while digit(buf, i):
        if value <= limit:
            value = value * 10 + np.int64(buf[i]) - _ZERO
        i += 1
    return value, i


@hot
def unsigned(buf, i):
    """uint64 at ``i``, the position after it, and whether it fits. No digits: the position does not move."""
    value = np.uint64(0)
    fits = True
    while digit(buf, i):
        d = np.uint64(np.int64(buf[i]) - _ZERO)
        if value > _U64_LAST or (value == _U64_LAST and d > _U64_LAST_DIGIT):
            fits = False
        value = value * _TEN + d
        i += 1
    return value, i, fits


@hot
def hexadecimal(buf, i):
    """Like :func:`unsigned` for hex digits without a prefix."""
    value = np.uint64(0)
    fits = True
    while True:
        c = np.int64(buf[i])
        lower = c | 32
        if _ZERO <= c <= _NINE:
            d = c - _ZERO
        elif _A <= lower <= _F:
            d = lower - _A + 10
        else:
            break
        if value & _HEX_TOP != np.uint64(0):
            fits = False
        value = (value << _FOUR) | np.uint64(d)
        i += 1
    return value, i, fits


@hot
def power_of_ten(n):
    """10**n for 0 <= n <= 9."""
    value = np.int64(1)
    for _ in range(n):
        value *= 10
    return value


@hot
def seconds(buf, i):
    """``SECONDS[.FRACTION]: `` at ``i``: (status, time, digits of the fraction, position of what follows).

    The time is in ns, or the bare number where it has no fraction (digits 0).
    """
    start = i
    whole, i, fits = unsigned(buf, i)
    digits = np.int64(0)
    time = np.int64(whole)
    if i == start:
        return MISFIT, time, digits, i
    fits = fits and time >= 0
    if buf[i] == _DOT:
        start = i + 1
        fraction, i = decimal(buf, start, 999_999_999)
        digits = i - start
        if digits == 0:
            return MISFIT, time, digits, i
        fits = fits and digits <= 9 and time <= MAX_SECONDS
        if fits:
            time = time * 1_000_000_000 + fraction * power_of_ten(9 - digits)
    if buf[i] != _COLON or buf[i + 1] > 32:
        return MISFIT, time, digits, i
    return FITS if fits else OUT_OF_RANGE, time, digits, skip_blanks(buf, i + 1)


@hot
def after_comm(buf, i):
    """Match from the pid on: (status, pid, tgid or -1, cpu, time, digits of its fraction, position after it).

    The time is in ns, or the bare number where it has no fraction (digits 0).
    """
    none = np.int64(-1)
    pid, i = decimal(buf, i, MAX_PID)
    if buf[i] > 32 or buf[i] == NEWLINE:
        return MISFIT, pid, none, none, none, none, i
    i = skip_blanks(buf, i)
    tgid = none
    if buf[i] == _OPEN:
        i = skip_blanks(buf, i + 1)
        start = i
        if buf[i] == _MINUS:
            while buf[i] == _MINUS:
                i += 1
        else:
            tgid, i = decimal(buf, i, MAX_TGID)
        end = skip_blanks(buf, i)
        if i == start or buf[end] != _CLOSE:
            return MISFIT, pid, none, none, none, none, i
        i = skip_blanks(buf, end + 1)
    if buf[i] == _OPEN_SQUARE:
        start = i + 1
        cpu, i = decimal(buf, start, MAX_CPU)
        if i == start or buf[i] != _CLOSE_SQUARE or buf[i + 1] > 32:
            return MISFIT, pid, none, none, none, none, i
        i = skip_blanks(buf, i + 1)
        if not digit(buf, i):
            start = i
            i = next_blank(buf, i)
            if not 3 <= i - start <= 6:
                return MISFIT, pid, none, none, none, none, i
            i = skip_blanks(buf, i)
    elif digit(buf, i):
        cpu, i = decimal(buf, i, MAX_CPU)
        start = i
        i = next_blank(buf, i)
        if not 4 <= i - start <= 6:
            return MISFIT, pid, none, none, none, none, i
        i = skip_blanks(buf, i)
    else:
        return MISFIT, pid, none, none, none, none, i
    fits, time, digits, i = seconds(buf, i)
    if fits == MISFIT:
        return MISFIT, pid, none, none, none, none, i
    status = FITS if fits == FITS and pid <= MAX_PID and tgid <= MAX_TGID and cpu <= MAX_CPU else OUT_OF_RANGE
    return status, pid, tgid, cpu, time, digits, i


@hot
def match_header(buf, start):
    """Header of the line whose first non-blank is at ``start``: as :func:`after_comm`, then the comm's end."""
    i = start
    status, pid, tgid, cpu, time, digits, after = MISFIT, 0, -1, 0, 0, 0, start
    while buf[i] != NEWLINE and i - start <= MAX_COMM:
        if buf[i] == _MINUS and digit(buf, i + 1):
            status, pid, tgid, cpu, time, digits, after = after_comm(buf, i + 1)
            if status != MISFIT:
                break
        i += 1
    return status, pid, tgid, cpu, time, digits, after, i
