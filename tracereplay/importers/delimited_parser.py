"""Compiled: lines of delimited fields into columns of integers, for any table of numbers and short texts.

One function for all formats: what the columns hold comes in as an array. Fields are separated by a comma or by
blanks; blanks around a field do not count. Texts become numbers of an interned set, keyed by their column. A line is
taken as a whole or leaves no trace but its note, so a call can always stop before a line.
"""

# mypy: disable-error-code="no-untyped-def,no-untyped-call"

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from tracereplay.compiled import hot, inner, kernel
from tracereplay.importers.interning import COUNT, MAX_TEXT, USED, intern
from tracereplay.importers.words import NEWLINE, PADDING, load64, next_newline, skip_blanks, trailing_zeros

SKIP, INTEGER, SECONDS, HEX, TEXT = range(5)
"""Kinds of columns: anything; decimal digits; seconds with decimals, as nanoseconds; hex digits; a name."""
MISSING = -1
"""Value of a column that the line ends before."""

DONE, FULL, GROW = range(3)
POSITION, LINE, ROWS, REJECTS = range(4)
ACCEPTED, NUMBER, RANGE, QUOTED, TEXT_LENGTH, FEW, MANY = range(7)
REASONS = {
    NUMBER: "a field is no number of its column",
    RANGE: "a number is too large",
    QUOTED: "a field is quoted",
    TEXT_LENGTH: "a name is empty or longer than 256 bytes",
    FEW: "fields are missing",
    MANY: "there are more fields than columns",
}
LONGEST_TEXT = 256
MOST_COLUMNS = 16

_ZERO, _NINE, _QUOTE, _DOT, _COMMA, _HASH, _BLANK = 48, 57, 34, 46, 44, 35, 32
_LAST = (2**63 - 1) // 10
_LAST_DIGIT = 7
_SAFE_DIGITS = 18
_ZEROS = np.uint64(0x3030303030303030)
_ABOVE_NINE = np.uint64(0x7676767676767676)
_HIGH = np.uint64(0x8080808080808080)
_LOW_HALF, _TENS = np.uint64(0x0F0F0F0F0F0F0F0F), np.uint64(10 * 256 + 1)
_PAIRS, _HUNDREDS = np.uint64(0x00FF00FF00FF00FF), np.uint64(100 * 65536 + 1)
_FOURS, _TEN_THOUSANDS = np.uint64(0x0000FFFF0000FFFF), np.uint64(10**4 * 2**32 + 1)
_POWERS = np.array([10**n for n in range(9)], np.int64)
_MOST_SECONDS = 9_000_000_000
_BILLION = 10**9


class Lines(NamedTuple):
    """Where lines of interest are, as the parser notes them."""

    line: npt.NDArray[np.int64]
    start: npt.NDArray[np.int64]
    reason: npt.NDArray[np.int64]


@hot
def _integer(buf, i):
    """Number at ``i``, the position after it, and a problem. No digits: the position does not move.

    Eight digits at a time: the bytes of a word become pairs, fours and the whole by three multiplications.
    """
    value = np.int64(0)
    start = i
    while True:
        w = load64(buf, i) ^ _ZEROS
        other = ((w + _ABOVE_NINE) | w) & _HIGH
        n = np.int64(8) if other == np.uint64(0) else trailing_zeros(other) >> 3
        if n == 0:
            break
        w <<= np.uint64(64 - 8 * n)
        w = ((w & _LOW_HALF) * _TENS) >> np.uint64(8)
        w = ((w & _PAIRS) * _HUNDREDS) >> np.uint64(16)
        w = ((w & _FOURS) * _TEN_THOUSANDS) >> np.uint64(32)
        value = value * _POWERS[n] + np.int64(w)
        i += n
        if n < 8:
            break
    if i - start > _SAFE_DIGITS:
        return _long_integer(buf, start, i)
    return value, i, ACCEPTED


@inner
def _long_integer(buf, i, end):
    """The same for a number that may not fit."""
    value = np.int64(0)
    problem = ACCEPTED
    while i < end:
        d = np.int64(buf[i]) - _ZERO
        if value > _LAST or (value == _LAST and d > _LAST_DIGIT):
            problem = RANGE
        value = value * 10 + d
        i += 1
    return value, i, problem


@inner
def _seconds(buf, i):
    """Seconds with an optional fraction, in nanoseconds; digits beyond those are cut off."""
    value, at, problem = _integer(buf, i)
    digits = at - i
    if value > _MOST_SECONDS or value < 0:
        problem = RANGE
        value = np.int64(0)
    fraction, unit = np.int64(0), np.int64(_BILLION)
    if buf[at] == _DOT:
        at += 1
        while _ZERO <= buf[at] <= _NINE:
            if unit > 1:
                unit //= 10
                fraction += (np.int64(buf[at]) - _ZERO) * unit
            at += 1
            digits += 1
    return value * _BILLION + fraction, at if digits else i, problem


@inner
def _hexadecimal(buf, i):
    value = np.int64(0)
    problem = ACCEPTED
    while True:
        c = np.int64(buf[i]) | _BLANK
        if _ZERO <= buf[i] <= _NINE:
            d = c - _ZERO
        elif 97 <= c <= 102:
            d = c - 87
        else:
            return value, i, problem
        if value >= 1 << 59:
            problem = RANGE
        value = (value << 4) | d
        i += 1


@hot
def _field_end(buf, i, separator):
    """First position from ``i`` on that ends a field, and where its text ends (blanks before it do not count)."""
    end = i
    while buf[i] != separator and buf[i] != NEWLINE:
        if buf[i] > _BLANK:
            end = i + 1
        elif separator == _BLANK:
            break
        i += 1
    return i, end


@inner
def _line(buf, first, kinds, separator, least, row, values, texts):
    """Fields from ``first`` on into a row: a problem, and a position at or before the line's end."""
    i = first
    for c in range(kinds.size):
        i = skip_blanks(buf, i)
        if buf[i] == NEWLINE:
            if c < least:
                return FEW, i
            for rest in range(c, kinds.size):
                values[rest, row] = MISSING
            return ACCEPTED, i
        if buf[i] == _QUOTE:
            return QUOTED, i
        kind = kinds[c]
        value, at, problem = np.int64(0), i, ACCEPTED
        if kind == INTEGER:
            value, at, problem = _integer(buf, i)
        elif kind == SECONDS:
            value, at, problem = _seconds(buf, i)
        elif kind == HEX:
            value, at, problem = _hexadecimal(buf, i)
        else:
            at, end = _field_end(buf, i, separator)
            if kind == TEXT:
                if end == i or end - i > LONGEST_TEXT:
                    return TEXT_LENGTH, i
                value = intern(texts, buf, i, end, c)
        if at == i and kind != SKIP:
            return NUMBER, i
        if problem != ACCEPTED:
            return problem, i
        values[c, row] = value
        i = skip_blanks(buf, at)
        if separator == _COMMA:
            if buf[i] == _COMMA:
                i += 1
            elif buf[i] != NEWLINE:
                return NUMBER, i
        elif i == at and buf[i] != NEWLINE:
            return NUMBER, i
    i = skip_blanks(buf, i)
    return (ACCEPTED if buf[i] == NEWLINE else MANY), i


@kernel
def parse(buf, end, kinds, separator, least, extra, values, lines, rejects, texts, k):
    """Read lines from ``k[POSITION]`` on up to ``end``, which follows a newline: DONE, FULL or GROW.

    ``kinds``: one per column; ``least``: columns that a line has at the least; ``extra``: more are ignored.
    ``values``: column by row. The buffer has PADDING bytes after ``end``.
    """
    pos = k[POSITION]
    code = DONE
    while pos < end:
        if k[ROWS] >= lines.line.size or k[REJECTS] >= rejects.line.size:
            code = FULL
            break
        if (
            texts.meta[COUNT] + MOST_COLUMNS > texts.hashes.size
            or texts.meta[USED] + MOST_COLUMNS * LONGEST_TEXT + MAX_TEXT + PADDING > texts.arena.size
        ):
            code = GROW
            break
        first = skip_blanks(buf, pos)
        if buf[first] == NEWLINE or buf[first] == _HASH:
            pos = next_newline(buf, first) + 1
            k[LINE] += 1
            continue
        row = k[ROWS]
        problem, at = _line(buf, first, kinds, separator, least, row, values, texts)
        if problem == MANY and extra:
            problem = ACCEPTED
        if problem == ACCEPTED:
            lines.line[row] = k[LINE]
            lines.start[row] = pos
            k[ROWS] = row + 1
        else:
            n = k[REJECTS]
            rejects.line[n] = k[LINE]
            rejects.start[n] = pos
            rejects.reason[n] = problem
            k[REJECTS] = n + 1
        pos = next_newline(buf, at) + 1
        k[LINE] += 1
    k[POSITION] = pos
    return code
