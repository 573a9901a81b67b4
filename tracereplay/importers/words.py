"""Eight bytes at a time: unaligned loads and byte searches for the compiled text parsers.

A buffer handed to these functions is followed by at least ``PADDING`` bytes that may be read, and every search
ends at a newline, which the caller guarantees.
"""

# mypy: disable-error-code="no-untyped-def,no-untyped-call"

from __future__ import annotations

import numpy as np

from tracereplay.compiled import hot, intrinsic

PADDING = 16

NEWLINE = 10
_ONES = np.uint64(0x0101010101010101)
_HIGH = np.uint64(0x8080808080808080)
_NEWLINES = np.uint64(0x0A0A0A0A0A0A0A0A)
_ABOVE_BLANK = np.uint64(0x2121212121212121)
_MIX = np.uint64(0x9E3779B97F4A7C15)
_MIX2 = np.uint64(0xD6E8FEB86659FD93)
_HALF = np.uint64(32)
_FULL = np.uint64(0xFFFFFFFFFFFFFFFF)


def word(text: str) -> np.uint64:
    """The first eight bytes of a text as a little-endian number; shorter texts fill with zeros."""
    return np.uint64(int.from_bytes(text.encode()[:8], "little"))


@intrinsic
def load64(typingctx, array, index):
    """``array[index:index+8]`` of a uint8 array as one little-endian number, at any alignment."""
    from llvmlite import ir  # type: ignore[import-untyped]
    from numba.core import types
    from numba.core.cgutils import create_struct_proxy

    def codegen(context, builder, signature, args):
        struct = create_struct_proxy(signature.args[0])(context, builder, args[0])
        place = builder.gep(struct.data, [args[1]])
        value = builder.load(builder.bitcast(place, ir.IntType(64).as_pointer()))
        value.align = 1
        return value

    return types.uint64(array, types.intp), codegen


@intrinsic
def trailing_zeros(typingctx, value):
    """Number of zero bits below the lowest set bit of a uint64 that is not zero."""
    from llvmlite import ir
    from numba.core import types

    def codegen(context, builder, signature, args):
        return builder.cttz(args[0], ir.Constant(ir.IntType(1), 1))

    return types.int64(types.uint64), codegen


@hot
def next_blank(buf, i):
    """First position from ``i`` on that holds a byte of at most 32 (blank, tab, control, newline)."""
    while True:
        w = load64(buf, i)
        # The lowest flagged byte is exact; bytes above it may be flagged by the borrow.
        found = (w - _ABOVE_BLANK) & ~w & _HIGH
        if found != np.uint64(0):
            return i + (trailing_zeros(found) >> 3)
        i += 8


@hot
def next_newline(buf, i):
    """First position from ``i`` on that holds a newline."""
    while True:
        w = load64(buf, i) ^ _NEWLINES
        found = (w - _ONES) & ~w & _HIGH
        if found != np.uint64(0):
            return i + (trailing_zeros(found) >> 3)
        i += 8


@hot
def skip_blanks(buf, i):
    """First position from ``i`` on that is a newline or no blank."""
    while buf[i] <= 32 and buf[i] != NEWLINE:
        i += 1
    return i


@hot
def low_bytes(w, n):
    """The lowest ``n`` (0 to 8) bytes of a word."""
    if n >= 8:
        return w
    return w & ((np.uint64(1) << np.uint64(8 * n)) - np.uint64(1))


@hot
def mix(h, w):
    """Fold one word into a 64-bit hash."""
    h = (h ^ w) * _MIX
    return h ^ (h >> _HALF)


@hot
def hash_span(buf, a, b, seed):
    """Hash of ``buf[a:b]``."""
    h = (seed ^ np.uint64(b - a)) * _MIX2
    while b - a >= 8:
        h = mix(h, load64(buf, a))
        a += 8
    if b > a:
        h = mix(h, low_bytes(load64(buf, a), b - a))
    return h


@hot
def same_span(left, a, right, b, length):
    """``left[a:a+length] == right[b:b+length]``; both are padded."""
    while length >= 8:
        if load64(left, a) != load64(right, b):
            return False
        a += 8
        b += 8
        length -= 8
    return length == 0 or low_bytes(load64(left, a) ^ load64(right, b), length) == np.uint64(0)
