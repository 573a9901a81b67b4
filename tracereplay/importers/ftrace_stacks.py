"""Compiled: the ``=> symbol (address)`` lines after an event, kept once per distinct stack."""

# mypy: disable-error-code="no-untyped-def,no-untyped-call"

from __future__ import annotations

import numpy as np

from tracereplay.compiled import hot, inner
from tracereplay.importers.ftrace_header import hexadecimal
from tracereplay.importers.ftrace_state import (
    FRAMES,
    PATCHES,
    STACK_DEPTH,
    STACK_KEPT,
    STACK_MODE,
    STACK_NONE,
    STACK_ROW,
    STACK_TABLE,
    STACKS,
)
from tracereplay.importers.interning import MAX_TEXT, intern
from tracereplay.importers.words import NEWLINE, mix, next_blank, skip_blanks

_OPEN, _CLOSE, _LESS, _GREATER, _PLUS, _SLASH, _ZERO, _X = 40, 41, 60, 62, 43, 47, 48, 120
HAS_ADDRESS, HAS_OFFSET = 1, 2
_SEED = np.uint64(0x243F6A8885A308D3)


@hot
def bare_address(buf, a, b):
    """(value, whether ``buf[a:b]`` is nothing but an address of 8 to 16 hex digits, with or without 0x)."""
    if buf[a] == _ZERO and buf[a + 1] == _X:
        a += 2
    elif b - a < 8:
        return np.uint64(0), False
    value, end, fits = hexadecimal(buf, a)
    return value, end == b and end > a and fits


@hot
def frame(buf, i, stacks, symbols, scalars):
    """Append the frame whose text starts at ``i`` to the open stack.

    Forms: ``symbol (addr)``, ``symbol``, ``symbol+0x1/0x2``, ``symbol+0x1/0x2 <addr>``, ``<addr>``, ``addr``; a
    ``[module]`` after the symbol is passed over.
    """
    n = scalars[STACK_DEPTH]
    symbol = np.int32(-1)
    address = offset = np.uint64(0)
    has = 0
    while buf[i] != NEWLINE:
        start = i
        i = next_blank(buf, i)
        stop = i
        if buf[start] in (_OPEN, _LESS) and buf[stop - 1] in (_CLOSE, _GREATER):
            value, at, fits = hexadecimal(buf, start + 1)
            if at == stop - 1 and at > start + 1 and fits:
                address = value
                has |= HAS_ADDRESS
        elif symbol < 0 and not has & HAS_ADDRESS:
            value, bare = bare_address(buf, start, stop)
            if bare:
                address = value
                has |= HAS_ADDRESS
            else:
                name_end = stop
                for at in range(start, stop - 3):
                    if buf[at] == _PLUS and buf[at + 1] == _ZERO and buf[at + 2] == _X:
                        value, last, fits = hexadecimal(buf, at + 3)
                        if fits and last > at + 3 and (last == stop or buf[last] == _SLASH):
                            offset = value
                            has |= HAS_OFFSET
                            name_end = at
                            break
                symbol = np.int32(intern(symbols, buf, start, min(name_end, start + MAX_TEXT), 0))
        i = skip_blanks(buf, i)
    stacks.cur_symbol[n] = symbol
    stacks.cur_module[n] = -1
    stacks.cur_address[n] = address
    stacks.cur_offset[n] = offset
    stacks.cur_has[n] = has
    scalars[STACK_DEPTH] = n + 1


@hot
def same_stack(stacks, number, depth):
    """Whether the open stack equals a kept one."""
    if stacks.lengths[number] != depth:
        return False
    start = stacks.starts[number]
    for d in range(depth):
        if (
            stacks.symbol[start + d] != stacks.cur_symbol[d]
            or stacks.module[start + d] != stacks.cur_module[d]
            or stacks.address[start + d] != stacks.cur_address[d]
            or stacks.offset[start + d] != stacks.cur_offset[d]
            or stacks.has[start + d] != stacks.cur_has[d]
        ):
            return False
    return True


@inner
def keep_stack(stacks, notes, scalars):
    """Number the open stack, and note which row it belongs to."""
    depth = scalars[STACK_DEPTH]
    h = _SEED ^ np.uint64(depth)
    for d in range(depth):
        h = mix(h, np.uint64(stacks.cur_symbol[d]))
        h = mix(h, stacks.cur_address[d] ^ (stacks.cur_offset[d] << np.uint64(48)) ^ np.uint64(stacks.cur_has[d]))
    mask = stacks.slots.size - 1
    at = np.int64(h) & mask
    while True:
        number = np.int64(stacks.slots[at])
        if number < 0:
            break
        if stacks.hashes[number] == h and same_stack(stacks, number, depth):
            break
        at = (at + 1) & mask
    if number < 0:
        number = scalars[STACKS]
        start = scalars[FRAMES]
        stacks.slots[at] = number
        stacks.hashes[number] = h
        stacks.starts[number] = start
        stacks.lengths[number] = depth
        for d in range(depth):  # a slice assignment would allocate
            stacks.symbol[start + d] = stacks.cur_symbol[d]
            stacks.module[start + d] = stacks.cur_module[d]
            stacks.address[start + d] = stacks.cur_address[d]
            stacks.offset[start + d] = stacks.cur_offset[d]
            stacks.has[start + d] = stacks.cur_has[d]
        scalars[STACKS] = number + 1
        scalars[FRAMES] = start + depth
    n = scalars[PATCHES]
    notes.patch_table[n] = scalars[STACK_TABLE]
    notes.patch_row[n] = scalars[STACK_ROW]
    notes.patch_stack[n] = number
    scalars[PATCHES] = n + 1


@hot
def close_stack(stacks, notes, scalars):
    """End the open stack, if one is open."""
    if scalars[STACK_MODE] == STACK_KEPT and scalars[STACK_DEPTH] > 0:
        keep_stack(stacks, notes, scalars)
    scalars[STACK_MODE] = STACK_NONE
