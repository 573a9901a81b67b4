"""compound: Mikulas Patocka's compound pages (v6.5, commit 5054e778fcd9; strategies.md section 2).

From the largest order that fits what remains, down: ``alloc_pages(gfp | NOMEMALLOC | NORETRY | NOWARN | COMP)``; a
failure lowers the order for the rest of the request (``sticky_order``). Order 0 comes from the mempool on the
dm-crypt path, from the ordinary allocator elsewhere. On the path a failed first pass restarts under the mutex with
direct reclaim and single pages only.
"""

# mypy: disable-error-code="no-untyped-def, no-untyped-call"

from __future__ import annotations

from dataclasses import dataclass

from tracereplay.demand.stream import ON_PATH, REQUIRED
from tracereplay.kernel.gfp import GFP_COMP, GFP_DIRECT_RECLAIM, GFP_NOMEMALLOC, GFP_NORETRY, GFP_NOWARN
from tracereplay.machine import counters, ops
from tracereplay.machine.layout import POOL_ALLOCATED, POOL_QUOTA
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
    REQ_PAGES,
    Params,
    compiled,
    inlined,
    param,
)
from tracereplay.strategies.parts import CRYPT_GFP, one_block, restart_under_mutex

MAX_ORDER, STICKY_ORDER, ACCOUNT_LARGE = range(3)
QUOTA_REFUSALS = counters.slot("quota_refusals")
PERCPU_COUNTER_OPS = counters.slot("percpu_counter_ops")
LARGE_GFP = GFP_NOMEMALLOC | GFP_NORETRY | GFP_NOWARN | GFP_COMP


@dataclass(frozen=True)
class Compound(Params):
    """Parameters of the descending-order loop."""

    name = "compound"
    summary = "compound pages of descending order, then single pages"
    mimics = "crypt_alloc_buffer and crypt_free_buffer_pages, drivers/md/dm-crypt.c, v6.5 on"
    leaves_out = "the clone bio and its vecs; waiting for the reserve (such a request fails and is counted)"

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
def large_block(m, cpu, order, gfp, on_path, account):
    """One attempt at a compound page. Frame or -1; the quota may refuse without asking the allocator."""
    if on_path and account:
        ops.count(m, PERCPU_COUNTER_OPS, 1)
        if m.w[POOL_ALLOCATED] + (1 << order) > m.w[POOL_QUOTA]:
            ops.count(m, QUOTA_REFUSALS, 1)
            return -1
    frame = ops.alloc_pages(m, cpu, order, gfp | LARGE_GFP)
    if frame >= 0 and on_path and account:
        ops.count(m, PERCPU_COUNTER_OPS, 1)
        m.w[POOL_ALLOCATED] += 1 << order
    return frame


@inlined
def free_block(m, cpu, frame, order, on_path, account):
    """Give back one block: pages of order 0 on the path through the mempool."""
    if on_path and order == 0:
        ops.pool_free(m, cpu, frame)
    elif on_path and account:
        ops.quota_free(m, cpu, frame, order)
    else:
        ops.free_pages(m, cpu, frame, order)


@compiled
def one_pass(m, st, cpu, pages, gfp, cap, on_path, out):
    """The loop of ``crypt_alloc_buffer``. Number of blocks, or -1 when it failed and everything went back."""
    account = st[ACCOUNT_LARGE] != 0
    blocks = 0
    left = pages
    while left > 0:
        order = largest_order(left, cap)
        frame = -1
        while order > 0:
            frame = large_block(m, cpu, order, gfp, on_path, account)
            if frame >= 0:
                break
            order -= 1
            if st[STICKY_ORDER]:
                cap = order
        if order == 0:
            frame = ops.pool_alloc(m, cpu, gfp) if on_path else ops.alloc_pages(m, cpu, 0, gfp)
            if frame < 0:
                for k in range(blocks):
                    free_block(m, cpu, out[2 * k], out[2 * k + 1], on_path, account)
                return -1
        out[2 * blocks] = frame
        out[2 * blocks + 1] = order
        blocks += 1
        left -= 1 << order
    return blocks


def allocate(m, st, req, out):
    """Serve a request by its binary digits, high to low; one that needs contiguity gets its one block."""
    cpu, pages = req[REQ_CPU], req[REQ_PAGES]
    if req[REQ_FLAGS] & REQUIRED:
        return one_block(m, req, out)
    on_path = req[REQ_FLAGS] & ON_PATH != 0
    gfp = CRYPT_GFP if on_path else req[REQ_GFP]
    blocks = one_pass(m, st, cpu, pages, gfp, st[MAX_ORDER], on_path, out)
    if blocks < 0 and on_path:
        restart_under_mutex(m)
        blocks = one_pass(m, st, cpu, pages, gfp | GFP_DIRECT_RECLAIM, 0, on_path, out)
    if blocks < 0:
        return FAIL
    req[REQ_BLOCKS] = blocks
    return DONE


def release(m, st, block, cpu, now):
    """Free a block at its own order; single pages on the path go through the mempool."""
    on_path = block[BLOCK_FLAGS] & ON_PATH != 0 and block[BLOCK_FLAGS] & REQUIRED == 0
    free_block(m, cpu, block[BLOCK_FRAME], block[BLOCK_ORDER], on_path, st[ACCOUNT_LARGE] != 0)
