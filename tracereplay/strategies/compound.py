"""compound: Mikulas Patocka's compound pages (v6.5, commit 5054e778fcd9; strategies.md section 2).

From the largest order that fits what remains, down: ``alloc_pages(gfp | NOMEMALLOC | NORETRY | NOWARN | COMP)``; a
failure lowers the order for the rest of the request (``sticky_order``). Order 0 comes from the mempool on the
dm-crypt path, from the ordinary allocator elsewhere. On the path a failed first pass restarts under the mutex with
direct reclaim and single pages only, and sleeps on the reserve until it has all.
"""

# mypy: disable-error-code="no-untyped-def, no-untyped-call"

from __future__ import annotations

from dataclasses import dataclass

from tracereplay.demand.stream import ON_PATH, REQUIRED
from tracereplay.kernel.gfp import GFP_COMP, GFP_DIRECT_RECLAIM, GFP_NOMEMALLOC, GFP_NORETRY, GFP_NOWARN
from tracereplay.machine import ops
from tracereplay.machine.layout import POOL_GFP
from tracereplay.strategies.contract import (
    BLOCK_FLAGS,
    BLOCK_FRAME,
    BLOCK_ORDER,
    DONE,
    FAIL,
    REQ_BLOCKS,
    REQ_CPU,
    REQ_FLAGS,
    REQ_GFP,
    REQ_OWN,
    REQ_PAGES,
    REQ_STEP,
    WAIT,
    Params,
    compiled,
    inlined,
    param,
)
from tracereplay.strategies.parts import (
    FIRST_PASS,
    SECOND_PASS,
    enter_second_pass,
    in_first_pass,
    leave_second_pass,
    mutex_param,
    one_block,
    page_of_pool,
    sleep_on_pool,
    start_again,
)

MAX_ORDER, STICKY_ORDER, ACCOUNT_LARGE, RETRY_ORDER, MUTEX = range(5)
CAP, LEFT = REQ_OWN, REQ_OWN + 1
"""Words of a request: largest order still tried, pages still wanted."""
LARGE_GFP = GFP_NOMEMALLOC | GFP_NORETRY | GFP_NOWARN | GFP_COMP


@dataclass(frozen=True)
class Compound(Params):
    """Parameters of the descending-order loop."""

    name = "compound"
    summary = "compound pages of descending order, then single pages"
    mimics = "crypt_alloc_buffer and crypt_free_buffer_pages, drivers/md/dm-crypt.c, v6.5 on"
    leaves_out = "that the allocation of the clone bio and its vecs, counted by the path, can sleep too"

    max_order: int = param(
        10,
        unit="order",
        low=0,
        high=10,
        doc="largest order tried",
        source="MAX_PAGE_ORDER since v6.8; 9 in v6.5 and v6.6; 3 was Patocka's test patch of 2023-10-27",
    )
    sticky_order: bool = param(
        True, unit="flag", doc="a failed order lowers the cap for the rest of the request", source="commit 5054e778fcd9"
    )
    account_large: bool = param(
        True, unit="flag", doc="compound pages count against the path's quota", source="fix 9793c269da6c (v6.7)"
    )
    retry_order: int = param(
        0,
        unit="order",
        low=0,
        high=10,
        doc="largest order tried in the second pass, with direct reclaim",
        source="commit 5054e778fcd9: 0; others are study options",
    )
    mutex: bool = mutex_param()


def init(m, st):
    """Nothing to prepare."""


@inlined
def largest_order(pages, cap):
    """floor(log2(pages)), at most ``cap``."""
    order = 0
    while order < cap and 2 << order <= pages:
        order += 1
    return order


@compiled
def large_block(m, cpu, order, gfp, counted):
    """One attempt at a compound page. Frame or -1; the quota may refuse without asking the allocator."""
    if counted and not ops.quota_allows(m, 1 << order):
        return -1
    frame = ops.alloc_pages(m, cpu, order, gfp | LARGE_GFP)
    if frame >= 0 and counted:
        ops.quota_add(m, cpu, 1 << order)
    return frame


@compiled
def free_block(m, cpu, frame, order, on_path, account):
    """Give back one block: pages of order 0 on the path through the mempool."""
    if on_path and order == 0:
        ops.pool_free(m, cpu, frame)
    elif on_path and account:
        ops.quota_free(m, cpu, frame, order)
    else:
        ops.free_pages(m, cpu, frame, order)


@compiled
def next_block(m, st, req, gfp, on_path, out):
    """The next block of a buffer, of the largest order to be had. False: nothing to be had."""
    cpu = req[REQ_CPU]
    order = largest_order(req[LEFT], req[CAP])
    frame = -1
    while order > 0:
        frame = large_block(m, cpu, order, gfp, on_path and st[ACCOUNT_LARGE] != 0)
        if frame >= 0:
            break
        order -= 1
        if st[STICKY_ORDER]:
            req[CAP] = order
    if order == 0:
        if not on_path:
            frame = ops.alloc_pages(m, cpu, 0, gfp)
        elif req[REQ_STEP] == FIRST_PASS:
            frame = ops.pool_alloc(m, cpu, gfp)
        else:
            frame = page_of_pool(m, req)
        if frame < 0:
            return False
    out[2 * req[REQ_BLOCKS]] = frame
    out[2 * req[REQ_BLOCKS] + 1] = order
    req[REQ_BLOCKS] += 1
    req[LEFT] -= 1 << order
    return True


@inlined
def begin(req, cap):
    """A pass starts from nothing, with orders up to ``cap``."""
    req[CAP] = cap
    req[LEFT] = req[REQ_PAGES]
    req[REQ_BLOCKS] = 0


@compiled
def one_pass(m, st, req, gfp, on_path, out):
    """The loop of ``crypt_alloc_buffer``, first pass. True when all came; else all went back."""
    begin(req, st[MAX_ORDER])
    while req[LEFT] > 0:
        if not next_block(m, st, req, gfp, on_path, out):
            for k in range(req[REQ_BLOCKS]):
                free_block(m, req[REQ_CPU], out[2 * k], out[2 * k + 1], on_path, st[ACCOUNT_LARGE] != 0)
            return False
    return True


@compiled
def second_pass(m, st, req, out):
    """The same loop from where it slept, or from the start. DONE or WAIT."""
    while req[LEFT] > 0:
        if not next_block(m, st, req, m.w[POOL_GFP] | GFP_DIRECT_RECLAIM, True, out):
            return sleep_on_pool(m, req)
    leave_second_pass(m, req)
    return DONE


def allocate(m, st, req, out):
    """Serve a request by its binary digits, high to low; one that needs contiguity gets its one block."""
    if req[REQ_FLAGS] & REQUIRED:
        return one_block(m, req, out)
    if not req[REQ_FLAGS] & ON_PATH:
        return DONE if one_pass(m, st, req, req[REQ_GFP], False, out) else FAIL
    if in_first_pass(m, req):
        if one_pass(m, st, req, m.w[POOL_GFP], True, out):
            return DONE
        start_again(m, req)
        begin(req, st[RETRY_ORDER])
    elif req[REQ_STEP] == SECOND_PASS and req[LEFT] == 0:
        begin(req, st[MAX_ORDER])  # of a path that has no first
    if not enter_second_pass(m, req, st[MUTEX]):
        return WAIT
    return second_pass(m, st, req, out)


def release(m, st, block, cpu, now):
    """Free a block at its own order; single pages on the path go through the mempool."""
    on_path = block[BLOCK_FLAGS] & ON_PATH != 0 and block[BLOCK_FLAGS] & REQUIRED == 0
    free_block(m, cpu, block[BLOCK_FRAME], block[BLOCK_ORDER], on_path, st[ACCOUNT_LARGE] != 0)
