"""Compiled: blocks of blkparse text into columns, one call per block.

A line is ``MAJ,MIN CPU SEQUENCE SECONDS.NANOSECONDS PID ACTION RWBS`` and what the action adds (process_default,
blkparse_fmt.c)::

    C, R         SECTOR [+ NR] [(ELAPSED)] [ERROR], or of a SCSI command (CDB) [ERROR]
    Q, I, D, B   [SECTOR + NR] [(ELAPSED)] [COMM], or of a SCSI command BYTES [(CDB)] [COMM]
    M, F, G, S   [SECTOR + NR] [COMM]
    A            SECTOR + NR <- (MAJ,MIN) OLD_SECTOR
    X            SECTOR / NEW_SECTOR [COMM]
    P, U, UT, m  a task, a task and a number, a message
"""

# mypy: disable-error-code="no-untyped-def,no-untyped-call"

from __future__ import annotations

import numpy as np

from tracereplay.compiled import hot, kernel
from tracereplay.importers.blktrace_format import (
    LINE_FIELDS,
    LINE_FLAGS,
    LINE_HEADER,
    LINE_NUMBER,
    MAX_CPU,
    NO_KIND,
    NOTES,
    OP_DISCARD,
    OP_NONE,
    OP_READ,
    OP_WRITE,
    OP_WRITE_ZEROES,
    OP_ZONE,
    REQUEST,
    TA_COMPLETE,
    TA_REMAP,
    TA_SPLIT,
    TN_MESSAGE,
)
from tracereplay.importers.blktrace_state import ENDED, GAPS, LINE, NULL_WIDE, POSITION, RECORDS, REJECTS, ROWS
from tracereplay.importers.blktrace_tasks import (
    flags_seen,
    must_grow,
    named,
    reject,
    sequence_seen,
    slot_of,
    split_at,
    task_seen,
    time_seen,
)
from tracereplay.importers.ftrace_events import device
from tracereplay.importers.ftrace_header import decimal, digit, power_of_ten, unsigned
from tracereplay.importers.ftrace_vocabulary import MAX_ERROR, MAX_PID, MAX_SECONDS, NULL_ERROR
from tracereplay.importers.interning import MAX_TEXT, intern
from tracereplay.importers.words import NEWLINE, load64, low_bytes, next_blank, next_newline, skip_blanks, word
from tracereplay.trace.schema import BIO_KINDS

DONE, FULL, GROW = range(3)
ACCEPTED = -1

_MINUS, _DOT, _PLUS, _SLASH, _LESS, _OPEN, _CLOSE, _OPEN_SQUARE, _CLOSE_SQUARE = 45, 46, 43, 47, 60, 40, 41, 91, 93
_A, _C, _D, _F, _M, _N, _O, _P, _R, _S, _T, _U, _W, _Z = (ord(c) for c in "ACDFMNOPRSTUWZ")
_MESSAGE = ord("m")
_CPU_WORD, _TOTAL, _INPUT, _NULL = word("CPU"), word("Total ("), word("Input fi"), word("(null)")
_MAX_U32 = 0xFFFFFFFF
_REQUESTS = tuple(BIO_KINDS.index(k) for k in ("insert", "issue", "requeue", "complete"))
_ERRORS = tuple(BIO_KINDS.index(k) for k in ("requeue", "complete"))


@hot
def text_flags(buf, a, b):
    """Code of the flags in ``buf[a:b]``, -1 when blkparse writes no such text."""
    code = 0
    op = -1
    if buf[a] == _F:
        code = 1
        a += 1
    c, d = buf[a], buf[a + 1]
    if c == _W and d == _Z:
        op = OP_WRITE_ZEROES
        a += 2
    elif c in (_R, _W, _D, _N):
        op = OP_READ if c == _R else OP_WRITE if c == _W else OP_DISCARD if c == _D else OP_NONE
        a += 1
    elif c == _Z:  # the order is that of ZONE_OPERATIONS
        a += 2
        if d == _R and buf[a] == _A:
            op = OP_ZONE + 2
            a += 1
        elif d in (_A, _R):
            op = OP_ZONE if d == _A else OP_ZONE + 1
        elif d in (_F, _O, _C):
            op = OP_ZONE + (3 if d == _F else 4 if d == _O else 5)
    for letter, bit in ((_F, 2), (_A, 4), (_S, 8), (_M, 16)):
        if a < b and buf[a] == letter:
            code |= bit
            a += 1
    return op << 5 | code if op >= 0 and a == b else -1


@hot
def last_close(buf, i, end):
    """Position of the last ``]`` in ``buf[i:end]``, or -1."""
    end -= 1
    while end >= i and buf[end] != _CLOSE_SQUARE:
        end -= 1
    return end if end >= i else np.int64(-1)


@hot
def letters(buf, a, b, acts):
    """Number of the action printed as ``buf[a:b]``, or -1. ``acts``: by first letter - 'A', then those of two."""
    c = np.int64(buf[a])
    if not _A <= c <= _Z:
        return np.int64(-1)
    if b - a == 1:
        return np.int64(acts[c - _A])
    if b - a == 2:
        d = np.int64(buf[a + 1])
        if c == _U and d == _T:
            return np.int64(acts[26])
        if c == _Z and d in (_P, _U, _M):
            return np.int64(acts[27 if d == _P else 28 if d == _U else 29])
    return np.int64(-1)


@hot
def sequence_of(buf, s, act, dev, cpu, number, ts, k):
    """Follow the numbers of a device and CPU, whose remaps some kernels print under another device."""
    q = s.sequences
    if act == TA_REMAP:
        at = slot_of(q.key, np.int64(dev) << 16 | np.int64(cpu))
        if q.key[at] == -1 or ((number - q.number[at]) & _MAX_U32) != 1:
            s.unplaced[cpu] += 1
            return
    before = k[GAPS]
    sequence_seen(s, dev, cpu, number, ts, 0)
    if k[GAPS] > before:
        placed = min(s.unplaced[cpu], s.notes.gap_n[before])
        s.unplaced[cpu] -= placed
        s.notes.gap_n[before] -= placed
        if s.notes.gap_n[before] == 0:
            k[GAPS] = before


@hot
def event_line(buf, s, acts, i, end):
    """Take the line whose first non-blank is at ``i`` and whose newline is at ``end``: a problem or ACCEPTED."""
    k, r = s.scalars, s.rows
    dev, i = device(buf, i)
    if dev < 0 or buf[i] > 32:
        return LINE_HEADER
    start = skip_blanks(buf, i)
    cpu, i = decimal(buf, start, MAX_CPU)
    if i == start or buf[i] > 32:
        return LINE_HEADER
    i = skip_blanks(buf, i)
    negative = buf[i] == _MINUS
    start = i + 1 if negative else i
    number, i = decimal(buf, start, _MAX_U32)
    if i == start or buf[i] > 32:
        return LINE_HEADER
    number = (-number if negative else number) & _MAX_U32  # printed as a signed number
    start = skip_blanks(buf, i)
    seconds, i = decimal(buf, start, MAX_SECONDS)
    if i == start or buf[i] != _DOT:
        return LINE_HEADER
    start = i + 1
    fraction, i = decimal(buf, start, 999_999_999)
    digits = i - start
    if not 1 <= digits <= 9 or buf[i] > 32:
        return LINE_HEADER
    start = skip_blanks(buf, i)
    pid, i = decimal(buf, start, MAX_PID)
    if i == start or buf[i] > 32:
        return LINE_HEADER
    start = skip_blanks(buf, i)
    i = next_blank(buf, start)
    if cpu > MAX_CPU or pid > MAX_PID or seconds > MAX_SECONDS:
        return LINE_NUMBER
    if i == start + 1 and buf[start] == _MESSAGE:
        s.counts[NOTES + TN_MESSAGE] += 1
        return ACCEPTED
    act = letters(buf, start, i, acts)
    if act < 0:
        return LINE_HEADER
    ts = seconds * 1_000_000_000 + fraction * power_of_ten(9 - digits)
    start = skip_blanks(buf, i)
    i = next_blank(buf, start)
    kind = np.int64(s.kinds[act])
    code = text_flags(buf, start, i) if i > start else -1
    if code < 0:
        return LINE_FLAGS
    i = skip_blanks(buf, i)

    n = k[ROWS]
    sector = old_sector = np.uint64(0)
    nr = nr_bytes = np.int64(0)
    old_dev = new_sector = np.int64(NULL_WIDE)
    error = np.int64(NULL_ERROR)
    comm_start = comm_end = np.int64(0)
    fits = True
    if kind != NO_KIND:
        if digit(buf, i):
            sector, i, fits = unsigned(buf, i)
            i = skip_blanks(buf, i)
            if buf[i] == _PLUS:
                start = skip_blanks(buf, i + 1)
                nr, i = decimal(buf, start, _MAX_U32)
                if i == start:
                    return LINE_FIELDS
                nr_bytes = nr << 9
                i = skip_blanks(buf, i)
            elif act == TA_SPLIT and buf[i] == _SLASH:
                start = skip_blanks(buf, i + 1)
                new_sector, i = decimal(buf, start, 1 << 58)
                if i == start:
                    return LINE_FIELDS
                new_sector = split_at(np.int64(sector), new_sector)
                i = skip_blanks(buf, i)
            elif kind not in _ERRORS:  # a SCSI command's bytes, and no sector
                nr_bytes = np.int64(sector)
                nr = nr_bytes >> 9
                sector = np.uint64(0)
        if act == TA_SPLIT and new_sector < 0:
            return LINE_FIELDS
        if act == TA_REMAP:
            if buf[i] != _LESS or buf[i + 1] != _MINUS:
                return LINE_FIELDS
            i = skip_blanks(buf, i + 2)
            if buf[i] != _OPEN:
                return LINE_FIELDS
            old_dev, i = device(buf, i + 1)
            if old_dev < 0 or buf[i] != _CLOSE:
                return LINE_FIELDS
            start = skip_blanks(buf, i + 1)
            old_sector, i, whole = unsigned(buf, start)
            if i == start or buf[i] > 32:
                return LINE_FIELDS
            fits = fits and whole
        else:
            if buf[i] == _OPEN:  # time since an earlier action, or a SCSI command
                while buf[i] not in (_CLOSE, NEWLINE):
                    i += 1
                if buf[i] != _CLOSE:
                    return LINE_FIELDS
                i = skip_blanks(buf, i + 1)
            if buf[i] != _OPEN_SQUARE:
                return LINE_FIELDS
            if kind in _ERRORS:
                negative = buf[i + 1] == _MINUS
                start = i + 2 if negative else i + 1
                error, i = decimal(buf, start, MAX_ERROR)
                if i == start or buf[i] != _CLOSE_SQUARE:
                    return LINE_FIELDS
                fits = fits and error <= MAX_ERROR
                # blkparse prints the kernel's 16 bits, with or without their sign.
                error = -error if negative else error - 0x10000 if 0x8000 <= error <= 0xFFFF else error
            else:
                comm_start = i + 1
                comm_end = last_close(buf, comm_start, end)
                if comm_end < 0 or comm_end - comm_start > MAX_TEXT:
                    return LINE_FIELDS
        if not fits or nr > _MAX_U32 or not 0 <= nr_bytes <= _MAX_U32:
            return LINE_NUMBER
        r.ts_ns[n] = ts
        r.cpu[n] = cpu
        r.kind[n] = kind
        r.dev[n] = dev
        r.sector[n] = sector
        r.nr_sectors[n] = nr
        r.nr_bytes[n] = nr_bytes if kind in _REQUESTS else np.int64(NULL_WIDE)
        r.flags[n] = flags_seen(s, code)
        r.pid[n] = pid
        r.error[n] = error
        r.old_dev[n] = old_dev
        r.old_sector[n] = old_sector
        r.new_sector[n] = new_sector
        k[ROWS] = n + 1
        if comm_end > comm_start and low_bytes(load64(buf, comm_start), 6) != _NULL:
            named(s, pid, cpu, np.int32(intern(s.comms, buf, comm_start, comm_end, 0)))
        task_seen(s, pid, cpu, ts, np.uint64(0))
    time_seen(s, ts)
    sequence_of(buf, s, act, dev, cpu, number, ts, k)
    s.counts[act + (REQUEST if act == TA_COMPLETE else 0)] += 1
    k[RECORDS] += 1
    return ACCEPTED


@kernel
def parse(buf, end, s, acts):
    """Read lines from ``scalars[POSITION]`` on up to ``end``, which follows a newline: DONE, FULL or GROW.

    The buffer has PADDING bytes after ``end``. What follows the events is a summary, which is passed over.
    """
    k = s.scalars
    pos = k[POSITION]
    code = DONE
    while pos < end and k[ENDED] == 0:
        if k[ROWS] >= s.rows.ts_ns.size or k[REJECTS] >= s.notes.reject_at.size or k[GAPS] >= s.notes.gap_n.size:
            code = FULL
            break
        if must_grow(s):
            code = GROW
            break
        eol = next_newline(buf, pos)
        first = skip_blanks(buf, pos)
        w = load64(buf, first)
        if low_bytes(w, 3) == _CPU_WORD or low_bytes(w, 7) == _TOTAL:
            k[ENDED] = 1
        elif buf[first] != NEWLINE and w != _INPUT:
            problem = event_line(buf, s, acts, first, eol)
            if problem != ACCEPTED:
                reject(s.notes, k, 0, k[LINE], eol - first, first, problem)
        pos = eol + 1
        k[LINE] += 1
    k[POSITION] = pos
    return code
