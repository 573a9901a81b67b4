"""per-page: one page at a time, as dm-crypt did before 6.5 and as most of the kernel does.

Without a path: n times ``alloc_page`` with the recorded gfp; what was had is given back when one fails.

On the dm-crypt path (``crypt_alloc_buffer``, v4.0 to v6.4, strategies.md section 1.3): a first pass of n times
``mempool_alloc`` with GFP_NOWAIT; when one fails, all pages go back and the whole buffer is tried again under the
mutex with direct reclaim allowed, where it sleeps on the reserve until it has all. Pages are freed one by one through
``mempool_free``.
"""

# mypy: disable-error-code="no-untyped-def, no-untyped-call"

from __future__ import annotations

from dataclasses import dataclass

from tracereplay.demand.stream import ON_PATH, REQUIRED
from tracereplay.machine import ops
from tracereplay.machine.layout import POOL_GFP
from tracereplay.strategies.contract import (
    DONE,
    FAIL,
    REQ_BLOCKS,
    REQ_CPU,
    REQ_FLAGS,
    REQ_GFP,
    REQ_PAGES,
    WAIT,
    Params,
    compiled,
)
from tracereplay.strategies.parts import (
    all_back,
    all_to_pool,
    enter_second_pass,
    free_page,
    in_first_pass,
    mutex_param,
    one_block,
    rest_from_pool,
    start_again,
)

MUTEX = 0


@dataclass(frozen=True)
class PerPage(Params):
    """Parameters of the baseline."""

    name = "per-page"
    summary = "one page at a time; dm-crypt's loop before 6.5 on its path"
    mimics = "crypt_alloc_buffer and crypt_free_buffer_pages, drivers/md/dm-crypt.c, v4.0 to v6.4"
    leaves_out = "that the allocation of the clone bio and its vecs, counted by the path, can sleep too"

    mutex: bool = mutex_param()


def init(m, st):
    """Nothing to prepare: the path's reserve is filled by the engine."""


@compiled
def first_pass(m, cpu, pages, out):
    """n times ``mempool_alloc`` without reclaim. True when all came; else all went back."""
    for i in range(pages):
        frame = ops.pool_alloc(m, cpu, m.w[POOL_GFP])
        if frame < 0:
            all_to_pool(m, cpu, i, out)
            return False
        out[2 * i] = frame
        out[2 * i + 1] = 0
    return True


def allocate(m, st, req, out):
    """Serve a request page by page."""
    cpu, pages = req[REQ_CPU], req[REQ_PAGES]
    if req[REQ_FLAGS] & REQUIRED:
        return one_block(m, req, out)
    if req[REQ_FLAGS] & ON_PATH:
        if in_first_pass(m, req):
            if first_pass(m, cpu, pages, out):
                req[REQ_BLOCKS] = pages
                return DONE
            start_again(m, req)
        if not enter_second_pass(m, req, st[MUTEX]):
            return WAIT
        return rest_from_pool(m, req, out)
    for i in range(pages):
        frame = ops.alloc_pages_here(m, cpu, 0, req[REQ_GFP])
        if frame < 0:
            all_back(m, cpu, i, out)
            return FAIL
        out[2 * i] = frame
        out[2 * i + 1] = 0
    req[REQ_BLOCKS] = pages
    return DONE


def release(m, st, block, cpu, now):
    """Free a page, or through the mempool on the path."""
    free_page(m, block, cpu)
