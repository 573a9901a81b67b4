"""Live blocks and rows of the replay loop: whatever does not call the strategy."""

# mypy: disable-error-code="no-untyped-def, no-untyped-call"

from __future__ import annotations

import numpy as np

from tracereplay.compiled import hot, inner, kernel
from tracereplay.demand.stream import ON_PATH
from tracereplay.kernel.constants import NR_PAGE_ORDERS
from tracereplay.machine.buddy import get_info, owner_of, set_info, set_owner
from tracereplay.machine.bulk import alloc_pages_bulk
from tracereplay.machine.counters import FAILURES
from tracereplay.machine.layout import (
    BULK_NONE,
    CFG_BULK,
    CFG_CPUS,
    CFG_FRAMES,
    ERROR_BAD_FREE,
    ERROR_NOT_HELD,
    ERROR_TOO_FEW,
    ERROR_TOO_MANY,
    HELD,
    INFO_ORDER,
    INFO_STATE,
    USED,
    Machine,
)
from tracereplay.machine.misuse import report_error
from tracereplay.machine.page_alloc import alloc_pages
from tracereplay.machine.page_free import free_held, free_pages
from tracereplay.replay.layout import (
    BL_FRAME,
    BL_LEFT,
    BL_ORDER,
    BL_OWNER,
    BL_PAGES,
    BL_TAG,
    BL_WORDS,
    FM_FRAME,
    FM_TARGETED,
    MORE_BLOCKS,
    MORE_ROWS,
    MORE_TABLES,
    ROW_BLOCKS,
    ROW_WORDS,
    RUNNING,
    SPARE_BLOCKS,
    TAG_FLAGS_SHIFT,
    TAG_ROW,
    X_BACKGROUND_FAILED,
    X_BLOCK_FREE,
    X_BLOCK_LIVE,
    X_BLOCK_ROOM,
    X_BLOCK_TOP,
    X_CENSORED,
    X_HELD_ELSEWHERE,
    X_HELD_FREES,
    X_HELD_MISSING,
    X_OUT,
    X_PATH_HELD,
    X_ROW_FREE,
    X_ROW_ROOM,
    X_ROW_TOP,
    X_UNSEEN_PAGES,
    X_WASTE,
    X_WASTE_PEAK,
)
from tracereplay.replay.requests import count_tagged, end_request
from tracereplay.replay.vectors import slots_full, tables_full


@hot
def charged_to(m, row):
    """The machine, charging its counters to ``row``."""
    return Machine(m.pg, m.pb, m.w, row)


@hot
def block_word(e, h, word):
    """A word of block ``h``."""
    return np.int64(e.bl[h * BL_WORDS + word])


@inner
def new_block(e, frame, order, left, owner, tag):
    """Enter a block; its number. There is room (SPARE_BLOCKS)."""
    h = e.x[X_BLOCK_FREE]
    if h >= 0:
        e.x[X_BLOCK_FREE] = block_word(e, h, BL_FRAME)
    else:
        h = e.x[X_BLOCK_TOP]
        e.x[X_BLOCK_TOP] += 1
    e.x[X_BLOCK_LIVE] += 1
    at = h * BL_WORDS
    e.bl[at + BL_FRAME] = frame
    e.bl[at + BL_ORDER] = order
    e.bl[at + BL_LEFT] = left
    e.bl[at + BL_OWNER] = owner
    e.bl[at + BL_TAG] = tag
    return h


@hot
def drop_block(e, h):
    """Forget a block."""
    e.bl[h * BL_WORDS + BL_FRAME] = e.x[X_BLOCK_FREE]
    e.bl[h * BL_WORDS + BL_TAG] = 0
    e.x[X_BLOCK_FREE] = h
    e.x[X_BLOCK_LIVE] -= 1


@hot
def waste_add(e, pages):
    """Pages held though nobody uses them."""
    e.x[X_WASTE] += pages
    e.x[X_WASTE_PEAK] = max(e.x[X_WASTE_PEAK], e.x[X_WASTE])


@hot
def next_page(ops, i, extents, x, key, left, pages):
    """Move on by ``pages`` of extent ``x``: (extent, key of its next page, its pages that are left)."""
    if left > pages:
        return x, key + pages, left - pages
    x += 1
    if x == extents:
        return x, key, left
    return x, np.int64(ops[i + x].pfn), 1 << np.int64(ops[i + x].order)


@hot
def holds(m, frame, order):
    """Whether a block that a strategy gives is one in use."""
    if frame < 0 or frame >= m.w[CFG_FRAMES]:
        return False
    return get_info(m, frame) & (INFO_STATE | INFO_ORDER) == USED | order


@inner
def map_blocks(m, e, ops, i, extents, blocks, owner, tag):
    """Enter the ``blocks`` found at X_OUT as the pages of the ``extents`` operations from ``i`` on, in page order."""
    x = np.int64(0)
    key = np.int64(ops[i].pfn)
    left = 1 << np.int64(ops[i].order)
    for b in range(blocks):
        frame, order = e.x[X_OUT + 2 * b], e.x[X_OUT + 2 * b + 1]
        if not holds(m, frame, order):
            report_error(m, ERROR_NOT_HELD, frame)
            return
        if x == extents:
            report_error(m, ERROR_TOO_MANY, frame)
            return
        size = 1 << order
        if left >= size and x < extents and (order == 0 or ops[i + x].order == order):
            set_owner(m, frame, owner, tag)
            e.fm[key] = (frame + 1) | FM_TARGETED
            x, key, left = next_page(ops, i, extents, x, key, left, size)
            continue
        h = new_block(e, frame, order, 0, owner, tag)
        mapped = 0
        while mapped < size and x < extents:
            e.fm[key] = -h - 1
            mapped += 1
            x, key, left = next_page(ops, i, extents, x, key, left, 1)
        e.bl[h * BL_WORDS + BL_LEFT] = mapped
        e.bl[h * BL_WORDS + BL_PAGES] = mapped
        waste_add(e, size - mapped)
    if x < extents:
        report_error(m, ERROR_TOO_FEW, e.x[X_OUT])


@inner
def serve_unseen(m, e, ops, i, extents):
    """Pages that the bulk allocator handed out unseen: taken in bulk, charged to the background.

    Page by page where the machine's generation has no bulk allocator: then some other was recorded.
    """
    pages = np.int64(ops[i].pages)
    cpu = np.int64(ops[i].cpu) % m.w[CFG_CPUS]
    slots = e.x[X_OUT : X_OUT + 2 * pages]
    e.x[X_UNSEEN_PAGES] += pages
    for p in range(pages):
        slots[2 * p] = -1
    have = 0
    if m.w[CFG_BULK] == BULK_NONE:
        while have < pages:
            slots[2 * have] = alloc_pages(m, cpu, 0, np.int64(ops[i].gfp))
            if slots[2 * have] < 0:
                break
            have += 1
    while have < pages and m.w[CFG_BULK] != BULK_NONE:
        got = alloc_pages_bulk(m, cpu, np.int64(ops[i].gfp), pages, slots)
        if got == have:
            break
        have = got
    p = 0
    for x in range(extents):
        for k in range(1 << np.int64(ops[i + x].order)):
            if slots[2 * p] >= 0:
                e.fm[ops[i + x].pfn + k] = slots[2 * p] + 1
            else:
                m.c[FAILURES] += 1
                e.x[X_BACKGROUND_FAILED] += 1
            p += 1


@hot
def order_at(m, v):
    """Order of the block that a positive entry of the frame map heads."""
    return get_info(m, (v & FM_FRAME) - 1) & INFO_ORDER


@hot
def still_held(m, frame):
    """Whether a frame of the frame map heads a block in use. Reported when not: only a strategy can have freed it."""
    if get_info(m, frame) & INFO_STATE == USED:
        return True
    report_error(m, ERROR_BAD_FREE, frame)
    return False


@inner
def containing_extent(m, e, key):
    """Key of the block's head that covers a page which has no entry of its own; -1 when none does."""
    for o in range(1, NR_PAGE_ORDERS):
        head = key & ~((1 << o) - 1)
        if head != key and e.fm[head] > 0 and order_at(m, np.int64(e.fm[head])) >= o:
            return head
    return -1


@inner
def spread_extent(m, e, head):
    """Give every page of a block an entry of its own, since it comes back in pieces.

    A background block is cut into single pages in the machine as well (``split_page``).
    """
    v = np.int64(e.fm[head])
    order = order_at(m, v)
    frame = (v & FM_FRAME) - 1
    if not still_held(m, frame):
        return
    if v >= FM_TARGETED:
        owner, tag = owner_of(m, frame)
        h = new_block(e, frame, order, 1 << order, owner, tag)
        e.bl[h * BL_WORDS + BL_PAGES] = 1 << order
        for k in range(1 << order):
            e.fm[head + k] = -h - 1
        return
    info = get_info(m, frame) & ~INFO_ORDER
    for k in range(1 << order):
        set_info(m, frame + k, info)
        e.fm[head + k] = frame + k + 1


@inner
def free_run(m, e, key, order, cpu):
    """Free pages of a split background block that go back together and lie together: as one block. True if so."""
    frame = np.int64(e.fm[key]) - 1
    if frame < 0 or frame & ((1 << order) - 1):
        return False
    info = get_info(m, frame)
    for k in range(1 << order):
        if e.fm[key + k] != frame + k + 1 or get_info(m, frame + k) != info or info & INFO_ORDER != 0:
            return False
    for k in range(1 << order):
        e.fm[key + k] = 0
        set_info(m, frame + k, HELD)
    set_info(m, frame, info | order)
    free_pages(m, cpu, frame, order)
    return True


@inner
def free_initial(m, e, op, cpu):
    """A page that was in use before the trace began."""
    e.x[X_HELD_FREES] += 1
    frame = free_held(m, cpu, np.int64(op.pfn), np.int64(op.order))
    if frame < 0:
        e.x[X_HELD_MISSING] += 1
    elif frame != op.pfn:
        e.x[X_HELD_ELSEWHERE] += 1


@hot
def block_room(e):
    """Whether any request's blocks fit."""
    return e.x[X_BLOCK_LIVE] + SPARE_BLOCKS <= e.x[X_BLOCK_ROOM]


@inner
def lacking(e):
    """What must grow before the next targeted or unseen request: a reason, or RUNNING."""
    if not block_room(e):
        return MORE_BLOCKS
    if e.x[X_ROW_FREE] < 0 and e.x[X_ROW_TOP] >= e.x[X_ROW_ROOM]:
        return MORE_ROWS
    return MORE_TABLES if tables_full(e.x) or slots_full(e.t, e.x) else RUNNING


@kernel
def end_live(e, m, i):
    """The end of the trace: requests still live count with what they cost so far.

    Looks at rows, blocks and keys from place ``i`` on; returns where it stopped because a table must grow, or -1.
    """
    rows, blocks, keys = e.x[X_ROW_TOP], e.x[X_BLOCK_TOP], e.fm.shape[0]
    while i < rows + blocks + keys:
        if tables_full(e.x):
            return i
        owner, tag, pages = np.int64(0), np.int64(0), np.int64(0)
        if i < rows:
            if e.rows[i * ROW_WORDS + ROW_BLOCKS] > 0:
                e.x[X_CENSORED] += 1
                end_request(e, i)
        elif i < rows + blocks:
            owner, tag = block_word(e, i - rows, BL_OWNER), block_word(e, i - rows, BL_TAG)
            pages = block_word(e, i - rows, BL_PAGES)
        elif e.fm[i - rows - blocks] >= FM_TARGETED:
            frame = (np.int64(e.fm[i - rows - blocks]) & FM_FRAME) - 1
            if still_held(m, frame):
                owner, tag = owner_of(m, frame)
                pages = 1 << order_at(m, np.int64(e.fm[i - rows - blocks]))
        if tag >> TAG_FLAGS_SHIFT & ON_PATH:
            e.x[X_PATH_HELD] += 1
        if tag != 0 and not tag & TAG_ROW:
            e.x[X_CENSORED] += 1
            count_tagged(e, owner, tag, pages)
        i += 1
    return -1
