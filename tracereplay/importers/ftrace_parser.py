"""Compiled: blocks of ftrace text into columns, one call per block.

:func:`parse` reads whole lines and returns when the block is done, an output array is full, or an interned set has
to grow; the caller drains or grows and calls again. A line is either taken as a whole or leaves no trace but its
note, so a call can always stop before a line.
"""

# mypy: disable-error-code="no-untyped-def,no-untyped-call"

from __future__ import annotations

import numpy as np

from tracereplay.compiled import hot, inner, kernel
from tracereplay.importers.ftrace_events import ACCEPTED, bio_event, page_event
from tracereplay.importers.ftrace_header import FITS, MISFIT, decimal, match_header
from tracereplay.importers.ftrace_notes import lost_somewhere, reject, seen, special
from tracereplay.importers.ftrace_stacks import close_stack, frame
from tracereplay.importers.ftrace_state import (
    BIO_BASE,
    BIOS,
    BLANKS,
    CLOSES,
    EVENTS,
    FIRST_TS,
    FRACTION,
    FRACTION_MOST,
    FRAMES,
    GRAMMAR,
    GUESTS,
    LAST_TS,
    LINE,
    MMS,
    PAGE_BASE,
    PAGES,
    PATCHES,
    POSITION,
    REJECTS,
    SPECIALS,
    STACK_DEPTH,
    STACK_DROPPED,
    STACK_KEPT,
    STACK_MODE,
    STACK_NONE,
    STACK_ROW,
    STACK_TABLE,
    STACK_USER,
    STACKS,
    STACKS_LOOSE,
    TABLE_BIO,
    TABLE_NONE,
    TABLE_PAGE,
)
from tracereplay.importers.ftrace_vocabulary import (
    BIO,
    KERNEL_STACK,
    LOOSE_STACK,
    MAX_CPU,
    MAX_DEPTH,
    MAX_EVENT,
    MM,
    NO_EVENT,
    NO_HEADER,
    NUMBER,
    OTHER,
    PAGE,
    PERF_GRAMMAR,
    TIME_FORM,
    USER_STACK,
)
from tracereplay.importers.interning import has_room, intern
from tracereplay.importers.perf_lines import (
    LOST_RECORD,
    after_guest,
    bare_name,
    match_perf_header,
    perf_frame,
    perf_record,
)
from tracereplay.importers.words import (
    NEWLINE,
    load64,
    low_bytes,
    next_blank,
    next_newline,
    skip_blanks,
    word,
)

DONE, FULL, GROW = range(3)

_TAB, _BLANK = 9, 32
_HASH, _EQUALS, _GREATER, _COLON, _LESS, _OPEN_SQUARE = 35, 61, 62, 58, 60, 91
_CPU_COLON, _CPU_BLANK, _CPUS, _VERSION = word("CPU:"), word("CPU "), word("cpus="), word("version ")
_LOST, _ATTACHIN = word("Lost "), word("Attaching")
_STACK_TR, _USER_STA = word("<stack t"), word("<user st")


@hot
def must_grow(s):
    """Whether an interned set or the store of stacks may not take one more line."""
    return not (
        has_room(s.events)
        and has_room(s.gfp)
        and has_room(s.rwbs)
        and has_room(s.task_texts)
        and has_room(s.symbols)
        and has_room(s.modules)
        and s.events.meta[0] < s.counts.size
        and s.task_texts.meta[0] < s.tasks.first.size
        and s.scalars[STACKS] < s.stacks.hashes.size
        and s.scalars[FRAMES] + MAX_DEPTH <= s.stacks.symbol.size
    )


@hot
def is_full(s):
    """Whether an output array may not take one more line."""
    k = s.scalars
    return (
        k[PAGES] >= s.page.ts_ns.size
        or k[BIOS] >= s.bio.ts_ns.size
        or k[MMS] >= s.mm.ts_ns.size
        or k[REJECTS] >= s.notes.reject_line.size
        or k[SPECIALS] >= s.notes.special_line.size
        or k[CLOSES] >= s.notes.close_line.size
        or k[PATCHES] >= s.notes.patch_row.size
    )


@hot
def sample_opens(k, table, row):
    """A sample of perf script: the frames that follow are its own."""
    k[STACK_DEPTH] = 0
    k[STACK_MODE] = STACK_KEPT if table != TABLE_NONE else STACK_DROPPED
    k[STACK_TABLE] = table
    k[STACK_ROW] = row


@inner
def other_line(buf, notes, cpus, stacks, symbols, k, first, end):
    """A line without a header: stack frame, loss, comment, preamble or garbage. ``first``: its first non-blank."""
    w = load64(buf, first)
    mode = k[STACK_MODE]
    if buf[first] == _EQUALS and buf[first + 1] == _GREATER:
        if mode == STACK_NONE:
            reject(notes, k, first, end, LOOSE_STACK)
        elif mode == STACK_KEPT and k[STACK_DEPTH] < MAX_DEPTH:
            frame(buf, skip_blanks(buf, first + 2), stacks, symbols, k)
        return
    close_stack(stacks, notes, k)
    if low_bytes(w, 4) == _CPU_COLON:
        cpu, at = decimal(buf, first + 4, MAX_CPU)
        if at > first + 4 and cpu <= MAX_CPU and buf[skip_blanks(buf, at)] == _OPEN_SQUARE:
            special(notes, cpus, k, first, end, cpu)
            return
    elif buf[first] == _HASH or low_bytes(w, 4) == _CPU_BLANK or low_bytes(w, 5) == _CPUS or w in (_VERSION, _ATTACHIN):
        special(notes, cpus, k, first, end, -1)
        return
    elif low_bytes(w, 5) == _LOST:
        lost_somewhere(notes, cpus, k, first, end)
        return
    reject(notes, k, first, end, NO_HEADER)


@hot
def open_stack(cpus, k, cpu, pid):
    """A kernel stack begins: it belongs to the last event of this CPU and task."""
    k[STACK_DEPTH] = 0
    if cpus.table[cpu] != TABLE_NONE and cpus.pid[cpu] == pid:
        k[STACK_MODE] = STACK_KEPT
        k[STACK_TABLE] = cpus.table[cpu]
        k[STACK_ROW] = cpus.row[cpu]
        cpus.table[cpu] = TABLE_NONE
    else:
        k[STACK_MODE] = STACK_DROPPED
        k[STACKS_LOOSE] += 1


@hot
def task_seen(texts, tasks, buf, start, end, pid, tgid, ts):
    """Count an event to its task."""
    task = intern(texts, buf, start, end, pid)
    if tasks.first[task] < 0:
        tasks.first[task] = ts
        tasks.last[task] = ts
    if ts > tasks.last[task]:
        tasks.last[task] = ts
    if ts < tasks.first[task]:
        tasks.first[task] = ts
    if tgid >= 0:
        tasks.tgid[task] = tgid


@hot
def event_line(buf, s, start, first):
    """A line with a header, or not: position of a known end of its arguments, or -1 when it was no event line."""
    k = s.scalars
    perf = k[GRAMMAR] == PERF_GRAMMAR
    if perf:
        task = after_guest(buf, first)
        guest = task > first
        first = task
        status, pid, tgid, cpu, ts, digits, i, comm_end = match_perf_header(buf, first)
    else:
        guest = False
        status, pid, tgid, cpu, ts, digits, i, comm_end = match_header(buf, first)
    if status == MISFIT:
        return np.int64(-1)
    close_stack(s.stacks, s.notes, k)
    if perf:
        k[STACK_MODE] = STACK_DROPPED  # until the event is accepted
    end = np.int64(0)
    if status != FITS:
        reject(s.notes, k, start, next_newline(buf, i), NUMBER)
        return i
    if k[FRACTION] < 0:
        k[FRACTION] = digits
    elif (k[FRACTION] == 0) != (digits == 0):
        reject(s.notes, k, start, next_newline(buf, i), TIME_FORM)
        return i
    end = next_blank(buf, i)
    action = np.int64(OTHER)
    name = np.int64(-1)
    if buf[i] == _LESS and not perf:
        w = load64(buf, i)
        action = np.int64(KERNEL_STACK if w == _STACK_TR else USER_STACK if w == _USER_STA else OTHER)
    elif buf[end - 1] == _COLON and 1 < end - i <= MAX_EVENT:
        name = intern(s.events, buf, i, bare_name(buf, i, end - 1) if perf else end - 1, 0)
        if name < s.actions.size:
            action = np.int64(s.actions[name])
    elif perf and perf_record(buf, i) > 0:
        if perf_record(buf, i) == LOST_RECORD:
            special(s.notes, s.cpus, k, i, next_newline(buf, i), cpu)
            return i
        name = intern(s.events, buf, i, min(end, i + MAX_EVENT), 0)
    if perf and action >= KERNEL_STACK:
        action = np.int64(OTHER)
    if action == OTHER and name < 0:
        reject(s.notes, k, start, next_newline(buf, end), NO_EVENT)
        return end
    problem = ACCEPTED
    table = np.int64(TABLE_NONE)
    row = np.int64(0)
    i = end
    if PAGE <= action < BIO:
        n = k[PAGES]
        problem, i = page_event(buf, end, action - PAGE, n, s.page, s.gfp, k)
        if problem == ACCEPTED:
            s.page.ts_ns[n] = ts
            s.page.cpu[n] = cpu
            s.page.pid[n] = pid
            k[PAGES] = n + 1
            table, row = np.int64(TABLE_PAGE), k[PAGE_BASE] + n
    elif BIO <= action < MM:
        n = k[BIOS]
        problem, i = bio_event(buf, end, action - BIO, n, s.bio, s.rwbs, k)
        if problem == ACCEPTED:
            s.bio.ts_ns[n] = ts
            s.bio.cpu[n] = cpu
            s.bio.pid[n] = pid
            k[BIOS] = n + 1
            table, row = np.int64(TABLE_BIO), k[BIO_BASE] + n
    elif MM <= action < KERNEL_STACK:
        n = k[MMS]
        i = skip_blanks(buf, end)
        s.mm.ts_ns[n] = ts
        s.mm.cpu[n] = cpu
        s.mm.kind[n] = action - MM
        s.mm.pid[n] = pid
        s.mm.start[n] = i
        i = next_newline(buf, i)
        s.mm.length[n] = i - s.mm.start[n]
        k[MMS] = n + 1
    if problem != ACCEPTED:
        reject(s.notes, k, start, next_newline(buf, i), problem)
        return i
    if digits > k[FRACTION_MOST]:
        k[FRACTION_MOST] = digits
    if name >= 0:
        s.counts[name] += 1
    if action == KERNEL_STACK:
        open_stack(s.cpus, k, cpu, pid)
        return i
    if action == USER_STACK:
        k[STACK_MODE] = STACK_USER
        return i
    seen(s.cpus, s.notes, k, cpu, ts, pid)
    if perf:
        sample_opens(k, table, row)
        if guest:
            k[GUESTS] += 1
    s.cpus.table[cpu] = table
    s.cpus.row[cpu] = row
    task_seen(s.task_texts, s.tasks, buf, first, comm_end, pid, tgid, ts)
    k[EVENTS] += 1
    if k[FIRST_TS] < 0 or ts < k[FIRST_TS]:
        k[FIRST_TS] = ts
    if ts > k[LAST_TS]:
        k[LAST_TS] = ts
    return i


@kernel
def parse(buf, end, s):
    """Read lines from ``scalars[POSITION]`` on up to ``end``, which follows a newline: DONE, FULL or GROW.

    The buffer has PADDING bytes after ``end``.
    """
    k = s.scalars
    pos = k[POSITION]
    code = DONE
    while pos < end:
        if is_full(s):
            code = FULL
            break
        if must_grow(s):
            code = GROW
            break
        first = skip_blanks(buf, pos)
        if buf[first] == NEWLINE:
            k[BLANKS] += 1
            pos = first + 1
        else:
            at = np.int64(-1)
            in_sample = k[STACK_MODE] != STACK_NONE and k[GRAMMAR] == PERF_GRAMMAR
            if in_sample and buf[pos] == _TAB:
                at = perf_frame(buf, first, s.stacks, s.symbols, s.modules, k)
            # A comment starts in the first column; behind blanks a '#' may begin a task's name.
            if at < 0 and buf[pos] != _HASH:
                at = event_line(buf, s, pos, first)
            if at < 0 and in_sample and buf[pos] <= _BLANK:  # a frame whose tab became blanks
                at = perf_frame(buf, first, s.stacks, s.symbols, s.modules, k)
            eol = next_newline(buf, first if at < 0 else at)
            if at < 0:
                other_line(buf, s.notes, s.cpus, s.stacks, s.symbols, k, first, eol)
            pos = eol + 1
        k[LINE] += 1
    k[POSITION] = pos
    return code


@kernel
def finish(s):
    """Close a stack that is still open at the end of the source."""
    close_stack(s.stacks, s.notes, s.scalars)
