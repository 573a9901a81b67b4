"""Compiled: arguments of page and block events (page-allocator.md sections 7.1 and 7.5)."""

# mypy: disable-error-code="no-untyped-def,no-untyped-call"

from __future__ import annotations

import numpy as np

from tracereplay.compiled import hot
from tracereplay.importers.ftrace_header import decimal, hexadecimal, unsigned
from tracereplay.importers.ftrace_state import (
    SEEN_DECIMAL_PFN,
    SEEN_HEX_PFN,
    SEEN_IOPRIO,
    SEEN_PERCPU_REFILL,
    SEEN_REQUEST,
    SEEN_ZONE_LOCKED,
)
from tracereplay.importers.ftrace_vocabulary import (
    BLOCK_FIELDS,
    MAX_ERROR,
    MAX_RWBS,
    MAX_SMALL,
    NULL_ERROR,
    NULL_SMALL,
    NUMBER,
    PAGE_FIELDS,
)
from tracereplay.importers.interning import MAX_TEXT, intern
from tracereplay.importers.words import NEWLINE, load64, low_bytes, next_blank, skip_blanks, word
from tracereplay.trace.schema import BIO_KINDS, PAGE_KINDS

_ALLOC, _FAILED = PAGE_KINDS.index("alloc"), PAGE_KINDS.index("alloc_failed")
_FREE, _BATCHED = PAGE_KINDS.index("free"), PAGE_KINDS.index("free_batched")
_ZONE_LOCKED, _DRAIN, _EXTFRAG = (PAGE_KINDS.index(k) for k in ("zone_locked", "drain", "extfrag"))
_SPLIT, _REMAP, _INSERT, _ISSUE = (BIO_KINDS.index(k) for k in ("split", "remap", "insert", "issue"))
_REQUEUE, _COMPLETE, _BIO_COMPLETE, _ERROR = (
    BIO_KINDS.index(k) for k in ("requeue", "complete", "bio_complete", "error")
)

_PAGE, _PFN, _ORDER = word("page="), word("pfn="), word("order=")
_MIGRATETYPE, _ATETYPE = word("migratetype="), word("atetype=")
_GFP_FLAG, _FLAGS = word("gfp_flags="), word("p_flags=")
_PERCPU, _REFILL = word("percpu_refill="), word("_refill=")
_ALLOC_OR, _OC_ORDER = word("alloc_order="), word("c_order=")
_FALLBACK, _K_ORDER, _RATETYPE = word("fallback_order="), word("k_order="), word("atetype=")
_MIGRATE, _ALLOC_MI, _MIGRATET = word("_migrate"), word("alloc_migratetype="), word("migratet")
_CHANGE_O, _NERSHIP, _W = word("change_ownership="), word("nership="), word("w")
_NIL, _NULL = word("(nil)"), word("(null)")

_EQUALS, _COMMA, _PLUS, _SLASH, _LESS, _MINUS = 61, 44, 43, 47, 60, 45
_OPEN, _CLOSE, _OPEN_SQUARE, _CLOSE_SQUARE, _ZERO, _X = 40, 41, 91, 93, 48, 120
_NO_PFN = np.uint64(2**64 - 1)

_MAX_MAJOR, _MAX_MINOR, _MAX_U32 = 0xFFF, 0xFFFFF, 0xFFFFFFFF
ACCEPTED = -1


@hot
def small(buf, i):
    """(value, problem) of an unsigned token below 255."""
    value, end = decimal(buf, i, MAX_SMALL)
    if end == i or buf[end] > 32:
        return np.uint8(0), PAGE_FIELDS
    if value > MAX_SMALL:
        return np.uint8(0), NUMBER
    return np.uint8(value), ACCEPTED


@hot
def null_pointer(buf, i):
    """Whether the token is how a kernel prints NULL: ``(null)``, ``(nil)``, or zeros with or without 0x."""
    w = load64(buf, i)
    if low_bytes(w, 5) == _NIL or low_bytes(w, 6) == _NULL:
        return True
    if buf[i] == _ZERO and buf[i + 1] == _X:
        i += 2
    start = i
    while buf[i] == _ZERO:
        i += 1
    return i > start and buf[i] <= 32


@hot
def page_event(buf, i, kind, row, page, gfp_texts, scalars):
    """Fill a page row from the arguments at ``i``: (problem or ACCEPTED, position reached)."""
    pfn = np.uint64(0)
    has_pfn = False
    null_page = False
    order = mt = gfp = refill = alloc_order = fb_order = fb_mt = own = np.int64(-1)
    problem = ACCEPTED
    i = skip_blanks(buf, i)
    while buf[i] != NEWLINE and problem == ACCEPTED:
        w = load64(buf, i)
        value = np.uint8(0)
        if low_bytes(w, 5) == _PAGE:
            null_page = null_pointer(buf, i + 5)
        elif low_bytes(w, 4) == _PFN:
            at = i + 4
            if buf[at] == _ZERO and buf[at + 1] == _X:
                pfn, end, fits = hexadecimal(buf, at + 2)
                at += 2
                scalars[SEEN_HEX_PFN] = 1
            else:
                pfn, end, fits = unsigned(buf, at)
                scalars[SEEN_DECIMAL_PFN] = 1
            if end == at or buf[end] > 32:
                problem = PAGE_FIELDS
            elif not fits:
                problem = NUMBER
            has_pfn = True
        elif low_bytes(w, 6) == _ORDER:
            value, problem = small(buf, i + 6)
            order = np.int64(value)
        elif w == _MIGRATETYPE and load64(buf, i + 4) == _ATETYPE:
            value, problem = small(buf, i + 12)
            mt = np.int64(value)
        elif w == _GFP_FLAG and load64(buf, i + 2) == _FLAGS:
            start = i + 10
            end = next_blank(buf, start)
            if end - start > MAX_TEXT or end == start:
                problem = PAGE_FIELDS
            else:
                gfp = intern(gfp_texts, buf, start, end, 0)
            i = end
        elif w == _PERCPU and load64(buf, i + 6) == _REFILL:
            value, problem = small(buf, i + 14)
            refill = np.int64(value)
            scalars[SEEN_PERCPU_REFILL] = 1
        elif w == _ALLOC_OR and load64(buf, i + 4) == _OC_ORDER:
            value, problem = small(buf, i + 12)
            alloc_order = np.int64(value)
        elif w == _FALLBACK and load64(buf, i + 7) == _K_ORDER:
            value, problem = small(buf, i + 15)
            fb_order = np.int64(value)
        elif w == _FALLBACK and load64(buf, i + 13) == _RATETYPE and load64(buf, i + 8) == _MIGRATE:
            value, problem = small(buf, i + 21)
            fb_mt = np.int64(value)
        elif w == _ALLOC_MI and load64(buf, i + 10) == _ATETYPE and load64(buf, i + 6) == _MIGRATET:
            value, problem = small(buf, i + 18)
            mt = np.int64(value)
        elif w == _CHANGE_O and load64(buf, i + 9) == _NERSHIP and low_bytes(load64(buf, i + 8), 1) == _W:
            value, problem = small(buf, i + 17)
            own = np.int64(value)
        i = skip_blanks(buf, next_blank(buf, i))
    if problem != ACCEPTED:
        return problem, i
    if kind == _EXTFRAG:
        order = min(alloc_order, fb_order)
    if not has_pfn or (order < 0 and kind != _BATCHED):
        return PAGE_FIELDS, i
    known = True
    if kind == _ALLOC and (pfn == _NO_PFN or (null_page and pfn == np.uint64(0))):
        kind = _FAILED
        known = False
    if kind == _ZONE_LOCKED:
        scalars[SEEN_ZONE_LOCKED] = 1
    page.kind[row] = kind
    page.pfn[row] = pfn
    page.pfn_known[row] = known
    # The text of free_batched always says order=0 and extfrag has two orders of its own: neither is an order.
    page.order[row] = NULL_SMALL if kind in (_BATCHED, _EXTFRAG) else np.uint8(order)
    page.gfp[row] = gfp
    page.migratetype[row] = np.uint8(mt)
    page.percpu_refill[row] = np.uint8(refill)
    page.alloc_order[row] = np.uint8(alloc_order)
    page.fallback_order[row] = np.uint8(fb_order)
    page.fallback_migratetype[row] = np.uint8(fb_mt)
    page.change_ownership[row] = np.uint8(own)
    return ACCEPTED, i


@hot
def device(buf, i):
    """``MAJOR,MINOR`` at ``i``: (dev or -1, position after it)."""
    start = i
    major, i = decimal(buf, i, _MAX_MAJOR)
    if i == start or buf[i] != _COMMA or major > _MAX_MAJOR:
        return np.int64(-1), i
    start = i + 1
    minor, i = decimal(buf, start, _MAX_MINOR)
    if i == start or minor > _MAX_MINOR:
        return np.int64(-1), i
    return major << 20 | minor, i


@hot
def bio_event(buf, i, kind, row, bio, rwbs_texts, scalars):
    """Fill a bio row from the arguments at ``i``: (problem or ACCEPTED, position reached)."""
    i = skip_blanks(buf, i)
    dev, i = device(buf, i)
    if dev < 0 or buf[i] > 32:
        return BLOCK_FIELDS, i
    start = skip_blanks(buf, i)
    i = next_blank(buf, start)
    if not 1 <= i - start <= MAX_RWBS:
        return BLOCK_FIELDS, i
    rwbs_start, rwbs_end = start, i
    i = skip_blanks(buf, i)
    nr_bytes = nr = old_dev = np.int64(-1)
    error = np.int64(NULL_ERROR)
    old_sector = new_sector = np.uint64(0)
    if kind in (_INSERT, _ISSUE):
        start = i
        nr_bytes, i = decimal(buf, i, _MAX_U32)
        if i == start or buf[i] > 32:
            return BLOCK_FIELDS, i
        if nr_bytes > _MAX_U32:
            return NUMBER, i
        i = skip_blanks(buf, i)
    if kind in (_INSERT, _ISSUE, _REQUEUE, _COMPLETE, _ERROR):
        if buf[i] != _OPEN:
            return BLOCK_FIELDS, i
        while buf[i] not in (_CLOSE, NEWLINE):
            i += 1
        if buf[i] != _CLOSE:
            return BLOCK_FIELDS, i
        i = skip_blanks(buf, i + 1)
    start = i
    sector, i, fits = unsigned(buf, i)
    if i == start:
        return BLOCK_FIELDS, i
    if not fits:
        return NUMBER, i
    i = skip_blanks(buf, i)
    if kind == _SPLIT:
        if buf[i] != _SLASH:
            return BLOCK_FIELDS, i
        start = skip_blanks(buf, i + 1)
        new_sector, i, fits = unsigned(buf, start)
        if i == start:
            return BLOCK_FIELDS, i
        if not fits:
            return NUMBER, i
    else:
        if buf[i] != _PLUS:
            return BLOCK_FIELDS, i
        start = skip_blanks(buf, i + 1)
        nr, i = decimal(buf, start, _MAX_U32)
        if i == start:
            return BLOCK_FIELDS, i
        if nr > _MAX_U32:
            return NUMBER, i
        i = skip_blanks(buf, i)
    if kind == _REMAP:
        if buf[i] != _LESS or buf[i + 1] != _MINUS:
            return BLOCK_FIELDS, i
        i = skip_blanks(buf, i + 2)
        if buf[i] != _OPEN:
            return BLOCK_FIELDS, i
        old_dev, i = device(buf, i + 1)
        if old_dev < 0 or buf[i] != _CLOSE:
            return BLOCK_FIELDS, i
        start = skip_blanks(buf, i + 1)
        old_sector, i, fits = unsigned(buf, start)
        if i == start or buf[i] > 32:
            return BLOCK_FIELDS, i
        if not fits:
            return NUMBER, i
    elif kind in (_INSERT, _ISSUE, _REQUEUE, _COMPLETE, _ERROR):
        scalars[SEEN_REQUEST] = 1
        if buf[i] != _OPEN_SQUARE and buf[i] != NEWLINE:
            i = skip_blanks(buf, next_blank(buf, i))
            scalars[SEEN_IOPRIO] = 1
    if kind in (_REQUEUE, _COMPLETE, _ERROR, _BIO_COMPLETE):
        if buf[i] != _OPEN_SQUARE:
            return BLOCK_FIELDS, i
        i += 1
        negative = buf[i] == _MINUS
        start = i + 1 if negative else i
        error, i = decimal(buf, start, MAX_ERROR)
        if i == start or buf[i] != _CLOSE_SQUARE:
            return BLOCK_FIELDS, i
        if error > MAX_ERROR:
            return NUMBER, i
        if negative:
            error = -error
    bio.kind[row] = kind
    bio.dev[row] = np.uint32(dev)
    bio.sector[row] = sector
    bio.nr_sectors[row] = nr
    bio.nr_bytes[row] = nr_bytes
    bio.rwbs[row] = intern(rwbs_texts, buf, rwbs_start, rwbs_end, 0)
    bio.error[row] = error
    bio.old_dev[row] = old_dev
    bio.old_sector[row] = old_sector
    bio.new_sector[row] = new_sector
    return ACCEPTED, i
