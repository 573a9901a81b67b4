"""Compiled: what ``perf script`` writes before an event's name, and its call-chain lines.

``[VM:N VCPU:N ]COMM PID[/TID] [CPU] SECONDS.FRACTION: `` (``perf_sample__fprintf_start``, tools/perf/builtin-script.c).
The task's name may hold blanks; the header is the first place in the line where all of it fits. A call chain follows
its event, a frame a line: ``ADDRESS SYMBOL[+0xOFFSET] (DSO)`` or ``... (inlined)`` (``sample__fprintf_callchain``,
tools/perf/util/evsel_fprintf.c).
"""

# mypy: disable-error-code="no-untyped-def,no-untyped-call"

from __future__ import annotations

import numpy as np

from tracereplay.compiled import hot, inner
from tracereplay.importers.ftrace_header import FITS, MISFIT, OUT_OF_RANGE, decimal, digit, hexadecimal, seconds
from tracereplay.importers.ftrace_stacks import HAS_ADDRESS, HAS_OFFSET
from tracereplay.importers.ftrace_state import STACK_DEPTH, STACK_KEPT, STACK_MODE, USER_FRAMES
from tracereplay.importers.ftrace_vocabulary import MAX_COMM, MAX_CPU, MAX_DEPTH, MAX_PID, MAX_TGID
from tracereplay.importers.interning import MAX_TEXT, intern
from tracereplay.importers.words import NEWLINE, load64, low_bytes, next_blank, next_newline, skip_blanks, word

_MINUS, _SLASH, _COLON, _OPEN, _CLOSE, _OPEN_SQUARE, _CLOSE_SQUARE = 45, 47, 58, 40, 41, 91, 93
_PLUS, _ZERO, _X = 43, 48, 120
_VM, _VCPU, _KERNEL, _UNKNOWN, _INLINED = (
    word("VM:"),
    word("VCPU:"),
    word("[kernel"),
    word("[unknown"),
    word("(inlined"),
)
_PERF_REC, _ORD_LOST = word("PERF_REC"), word("ORD_LOST")
_KERNEL_HALF = np.uint64(1 << 63)
_UNKNOWN_BYTES = 9
LOST_RECORD = 2
MAX_MODIFIERS = 10
"""Length of the modifiers looked for after an event's name, colon included."""


@hot
def after_guest(buf, i):
    """Position after ``VM:N`` and ``VCPU:N``, where the line begins with them; they mark samples of a guest."""
    if low_bytes(load64(buf, i), 3) != _VM:
        return i
    start = i
    _number, at = decimal(buf, skip_blanks(buf, i + 3), MAX_PID)
    i = skip_blanks(buf, at)
    if i == at or not digit(buf, at - 1):
        return start
    if low_bytes(load64(buf, i), 5) == _VCPU:
        _number, i = decimal(buf, skip_blanks(buf, i + 5), MAX_PID)
        i = skip_blanks(buf, i)
    return i


@hot
def after_perf_comm(buf, i):
    """Match from the pid on: as ``ftrace_header.after_comm``. A pid of -1 is 2^32-1, as the kernel's u32."""
    none = np.int64(-1)
    negative = buf[i] == _MINUS
    pid, i = decimal(buf, i + 1 if negative else i, MAX_PID)
    tgid = none
    if buf[i] == _SLASH:
        tgid = none if negative else pid
        i += 1
        negative = buf[i] == _MINUS
        start = i + 1 if negative else i
        pid, i = decimal(buf, start, MAX_PID)
        if i == start:
            return MISFIT, pid, none, none, none, none, i
    if negative:
        pid = np.int64(MAX_PID)
    start = i
    i = skip_blanks(buf, i)
    if i == start or buf[i] != _OPEN_SQUARE:
        return MISFIT, pid, none, none, none, none, i
    start = i + 1
    cpu, i = decimal(buf, start, MAX_CPU)
    if i == start or buf[i] != _CLOSE_SQUARE or buf[i + 1] > 32:
        return MISFIT, pid, none, none, none, none, i
    fits, time, digits, i = seconds(buf, skip_blanks(buf, i + 1))
    if fits == MISFIT:
        return MISFIT, pid, none, none, none, none, i
    status = FITS if fits == FITS and pid <= MAX_PID and tgid <= MAX_TGID and cpu <= MAX_CPU else OUT_OF_RANGE
    return status, pid, tgid, cpu, time, digits, i


@hot
def match_perf_header(buf, start):
    """Header of the line whose task name begins at ``start``: as ``ftrace_header.match_header``.

    A number between the header and the event's name, the sample's period, is passed over.
    """
    i = start
    status, pid, tgid, cpu, time, digits, after = MISFIT, 0, -1, 0, 0, 0, start
    while buf[i] != NEWLINE and i - start <= MAX_COMM:
        at = i
        if buf[i] <= 32:
            at = skip_blanks(buf, i)
        elif i > start:
            i += 1
            continue
        if digit(buf, at) or (buf[at] == _MINUS and digit(buf, at + 1)):
            status, pid, tgid, cpu, time, digits, after = after_perf_comm(buf, at)
            if status != MISFIT:
                break
        i = at if at > i else i + 1
    if status != MISFIT and digit(buf, after):
        end = next_blank(buf, after)
        _value, at = decimal(buf, after, MAX_PID)
        if at == end:
            after = skip_blanks(buf, end)
    return status, pid, tgid, cpu, time, digits, after, i


@hot
def bare_name(buf, start, end):
    """End of ``system:event`` in ``buf[start:end]``, which may go on with ``:modifiers``."""
    for i in range(max(start, end - MAX_MODIFIERS), end):
        if buf[i] == _COLON:
            for at in range(start, i):
                if buf[at] == _COLON:
                    return i
    return end


@hot
def perf_record(buf, i):
    """Whether a record that is no sample is told at ``i``: 0 no, 1 yes, LOST_RECORD for one that tells of losses.

    PERF_RECORD_LOST_SAMPLES is none: perf record adds it at the end, and sums the same losses up by event.
    """
    if load64(buf, i) != _PERF_REC:
        return 0
    return LOST_RECORD if load64(buf, i + 8) == _ORD_LOST and buf[i + 16] <= 32 else 1


@inner
def perf_frame(buf, first, stacks, symbols, modules, scalars):
    """Take the frame line whose first non-blank is at ``first``: its end, or -1 when it is no frame.

    Frames in user space are passed over: the addresses of every process differ, and so would every stack.
    """
    address, i, fits = hexadecimal(buf, first)
    if i == first or buf[i] > 32 or not fits:
        return np.int64(-1)
    end = next_newline(buf, i)
    n = scalars[STACK_DEPTH]
    if scalars[STACK_MODE] != STACK_KEPT or n >= MAX_DEPTH:
        return end
    last = end
    while buf[last - 1] <= 32 and last > i:
        last -= 1
    start = skip_blanks(buf, i)
    dso = -1
    before = -1
    for at in range(start, last):
        if buf[at] == _OPEN and buf[at - 1] <= 32:
            before = dso
            dso = at
    if before >= 0 and buf[last - 1] == _CLOSE and buf[last - 2] == _CLOSE:
        dso = before  # "(/memfd:x (deleted))"
    stop = last if dso < 0 else dso
    while stop > start and buf[stop - 1] <= 32:
        stop -= 1
    in_kernel = dso >= 0 and low_bytes(load64(buf, dso + 1), 7) == _KERNEL
    if not in_kernel and address & _KERNEL_HALF == np.uint64(0):
        scalars[USER_FRAMES] = 1
        return end
    symbol = np.int32(-1)
    offset = np.uint64(0)
    has = HAS_ADDRESS
    if stop > start and not (stop - start == _UNKNOWN_BYTES and load64(buf, start) == _UNKNOWN):
        name_end = stop
        for at in range(max(start, stop - 19), stop - 3):
            if buf[at] == _PLUS and buf[at + 1] == _ZERO and buf[at + 2] == _X:
                value, after, fits = hexadecimal(buf, at + 3)
                if fits and after == stop and after > at + 3:
                    offset = value
                    has |= HAS_OFFSET
                    name_end = at
                    break
        symbol = np.int32(intern(symbols, buf, start, min(name_end, start + MAX_TEXT), 0))
    module = np.int32(-1)
    if dso >= 0 and not in_kernel and last - dso > 2 and load64(buf, dso) != _INLINED:
        module = np.int32(intern(modules, buf, dso + 1, min(last - 1, dso + MAX_TEXT), 0))
    stacks.cur_symbol[n] = symbol
    stacks.cur_module[n] = module
    stacks.cur_address[n] = address
    stacks.cur_offset[n] = offset
    stacks.cur_has[n] = has
    scalars[STACK_DEPTH] = n + 1
    return end
