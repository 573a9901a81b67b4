"""bulk: ``alloc_pages_bulk`` (Mel Gorman, v5.13; strategies.md section 3).

A call takes order-0 pages of one zone of the local node from the per-CPU list under one pcp lock; a zone qualifies when
it stays above LOW plus the number asked. Partial results are normal: the loop goes on while a call brings something
(as ``svc_alloc_arg`` and btrfs do); under pressure a call yields one page of the ordinary path.

On the dm-crypt path the pages that bulk does not bring come from the mempool one by one, and frees go page by page
through it; the quota is tested once for the whole call (as in Yang Shi's series).
"""

# mypy: disable-error-code="no-untyped-def, no-untyped-call"

from __future__ import annotations

from dataclasses import dataclass

from tracereplay.demand.stream import ON_PATH, REQUIRED
from tracereplay.kernel.gfp import GFP_DIRECT_RECLAIM
from tracereplay.machine import counters, ops
from tracereplay.machine.layout import POOL_ALLOCATED, POOL_QUOTA
from tracereplay.strategies.contract import (
    DONE,
    FAIL,
    REQ_BLOCKS,
    REQ_CPU,
    REQ_FLAGS,
    REQ_GFP,
    REQ_PAGES,
    Params,
    compiled,
    param,
)
from tracereplay.strategies.parts import CRYPT_GFP, free_page, one_block, restart_under_mutex

BATCH_CAP = 0
QUOTA_REFUSALS = counters.slot("quota_refusals")
PERCPU_COUNTER_OPS = counters.slot("percpu_counter_ops")


@dataclass(frozen=True)
class Bulk(Params):
    """Parameters of the bulk allocator's caller."""

    name = "bulk"
    summary = "alloc_pages_bulk: many order-0 pages under one pcp lock"
    mimics = "__alloc_pages_bulk, mm/page_alloc.c, v5.14 on (array form, one pass of preparation)"
    leaves_out = "list and callback forms, two-pass preparation, page_owner, cpusets"

    batch_cap: int = param(
        0,
        unit="pages a call, 0 = no cap",
        low=0,
        high=16384,
        doc="largest number of pages asked in one call",
        source="vmalloc caps at 100 (vm_area_alloc_pages), page_pool asks 64; the raw interface has no cap",
    )


def init(m, st):
    """Nothing to prepare."""


@compiled
def bulk_pages(m, cpu, gfp, wanted, cap, out):
    """Bulk calls, each for at most ``cap`` pages, until all are there or a call brings nothing. Returns pages there."""
    for i in range(wanted):
        out[2 * i] = -1
    start = 0
    while start < wanted:
        chunk = wanted - start if cap == 0 else min(wanted - start, cap)
        have = 0
        while have < chunk:
            got = ops.alloc_pages_bulk(m, cpu, gfp, chunk, out[2 * start :])
            if got == have:
                return start + have
            have = got
        start += chunk
    return wanted


@compiled
def give_back(m, cpu, out, pages):
    """Undo a partial result."""
    for k in range(pages):
        ops.free_pages(m, cpu, out[2 * k], 0)


@compiled
def crypt_pass(m, cpu, pages, gfp, cap, out):
    """One pass on the path: bulk, then the mempool for what is missing. True when all came; else all went back."""
    have = 0
    ops.count(m, PERCPU_COUNTER_OPS, 1)
    if m.w[POOL_ALLOCATED] < m.w[POOL_QUOTA]:
        have = bulk_pages(m, cpu, gfp & ~GFP_DIRECT_RECLAIM, pages, cap, out)
        m.w[POOL_ALLOCATED] += have
        ops.count(m, PERCPU_COUNTER_OPS, 1)
    else:
        ops.count(m, QUOTA_REFUSALS, 1)
    while have < pages:
        frame = ops.pool_alloc(m, cpu, gfp)
        if frame < 0:
            for k in range(have):
                ops.pool_free(m, cpu, out[2 * k])
            return False
        out[2 * have] = frame
        out[2 * have + 1] = 0
        have += 1
    return True


def allocate(m, st, req, out):
    """Serve a request in bulk; one that needs contiguity gets its one block."""
    cpu, pages, gfp = req[REQ_CPU], req[REQ_PAGES], req[REQ_GFP]
    if req[REQ_FLAGS] & REQUIRED:
        return one_block(m, req, out)
    if req[REQ_FLAGS] & ON_PATH:
        if not crypt_pass(m, cpu, pages, CRYPT_GFP, st[BATCH_CAP], out):
            restart_under_mutex(m)
            if not crypt_pass(m, cpu, pages, CRYPT_GFP | GFP_DIRECT_RECLAIM, st[BATCH_CAP], out):
                return FAIL
    else:
        have = bulk_pages(m, cpu, gfp, pages, st[BATCH_CAP], out)
        if have < pages:
            give_back(m, cpu, out, have)
            return FAIL
    req[REQ_BLOCKS] = pages
    return DONE


def release(m, st, block, cpu, now):
    """Free a page, or through the mempool on the path: there is no bulk free of equal rank."""
    free_page(m, block, cpu)
