"""bulk: ``alloc_pages_bulk`` (Mel Gorman, v5.13; strategies.md section 3).

A call takes order-0 pages of one zone of the local node from the per-CPU list under one pcp lock; a zone qualifies when
it stays above LOW plus the number asked. Partial results are normal: the loop goes on while a call brings something
(as ``svc_alloc_arg`` and btrfs do); under pressure a call yields one page of the ordinary path.

On the dm-crypt path the pages that bulk does not bring come from the mempool one by one, and frees go page by page
through it; the quota is tested once for a call (as in Yang Shi's series). Restart and waits are those of ``per-page``.
"""

# mypy: disable-error-code="no-untyped-def, no-untyped-call"

from __future__ import annotations

from dataclasses import dataclass

from tracereplay.demand.stream import ON_PATH, REQUIRED
from tracereplay.kernel.gfp import GFP_DIRECT_RECLAIM
from tracereplay.machine import ops
from tracereplay.machine.layout import ANY_NODE, AS_CALLBACK, AS_LIST, LOW_ONLY, NO_SINGLE, POOL_GFP, TWO_PASS
from tracereplay.strategies.contract import (
    DONE,
    FAIL,
    REQ_BLOCKS,
    REQ_CPU,
    REQ_FLAGS,
    REQ_GFP,
    REQ_PAGES,
    REQ_STEP,
    WAIT,
    Params,
    compiled,
    param,
)
from tracereplay.strategies.parts import (
    SECOND_PASS,
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

FORM, BATCH_CAP, TWO_PASSES, ADDS_COUNT, NODE_LOCAL, SINGLE, MUTEX, HOW = range(8)
"""Words of the state: the parameters, and the bits of a call that they make."""


@dataclass(frozen=True)
class Bulk(Params):
    """Parameters of the bulk allocator and its caller."""

    name = "bulk"
    summary = "alloc_pages_bulk: many order-0 pages under one pcp lock"
    mimics = "__alloc_pages_bulk, mm/page_alloc.c, v5.14 on"
    leaves_out = "page_owner, cpusets, memory policies, a busy pcp lock"

    form: str = param(
        "array",
        unit="form",
        choices=("array", "list", "callback"),
        doc="how pages are handed over: into the empty slots of an array, on a list, to a callback under the pcp lock",
        source="array: all kernels since 5.14; list: until it was removed by 6.14; callback: Yang Shi, 2023-02-14",
    )
    batch_cap: int = param(
        0,
        unit="pages a call, 0 = no cap",
        low=0,
        high=16384,
        doc="largest number of pages asked in one call",
        source="vmalloc caps at 100 (vm_area_alloc_pages), page_pool asks 64; the raw interface has no cap",
    )
    two_pass: bool = param(
        False,
        unit="flag",
        doc="pages are prepared in a second pass, after the pcp lock was let go",
        source="v3 to v5 of the series of March 2021 ('Prep new pages with IRQs enabled'); dropped in v6",
    )
    wmark_adds_count: bool = param(
        True,
        unit="flag",
        doc="a zone must stay above LOW plus all pages asked; false: above LOW",
        source="__alloc_pages_bulk; false is a study option",
    )
    node_local_only: bool = param(
        True,
        unit="flag",
        doc="batches come from the preferred zone's node; false: from any node of the zonelist",
        source="__alloc_pages_bulk; false is a study option",
    )
    fallback_single_page: bool = param(
        True,
        unit="flag",
        doc="a call that gets no batch takes one page the ordinary way; false: it returns what it has",
        source="__alloc_pages_bulk; false is a study option",
    )
    mutex: bool = mutex_param()


def init(m, st):
    """The bits of a call."""
    how = AS_LIST if st[FORM] == 1 else AS_CALLBACK if st[FORM] == 2 else 0
    how |= TWO_PASS if st[TWO_PASSES] else 0
    how |= 0 if st[ADDS_COUNT] else LOW_ONLY
    how |= 0 if st[NODE_LOCAL] else ANY_NODE
    st[HOW] = how | (0 if st[SINGLE] else NO_SINGLE)


@compiled
def pages_by_bulk(m, st, cpu, gfp, wanted, on_path, out):
    """Bulk calls, each for at most ``batch_cap`` pages, while they bring something. Returns pages there.

    The array form asks for the whole array again after a partial result, the others for what is missing.
    """
    for i in range(wanted):
        out[2 * i] = -1
    have = 0
    start = 0
    while have < wanted:
        end = wanted if st[BATCH_CAP] == 0 else min(wanted, start + st[BATCH_CAP])
        first = start if st[FORM] == 0 else have
        if on_path and not ops.quota_allows(m, 1):
            break
        came = first + ops.bulk_call(m, cpu, gfp, end - first, out[2 * first :], st[HOW])
        if came == have:
            break
        if on_path:
            ops.quota_add(m, cpu, came - have)
        have = came
        if have == end:
            start = end
    return have


@compiled
def first_pass(m, st, cpu, pages, out):
    """The first pass on the path: bulk, then the mempool. True when all came; else all went back."""
    have = pages_by_bulk(m, st, cpu, m.w[POOL_GFP], pages, True, out)
    while have < pages:
        frame = ops.pool_alloc(m, cpu, m.w[POOL_GFP])
        if frame < 0:
            all_to_pool(m, cpu, have, out)
            return False
        out[2 * have] = frame
        out[2 * have + 1] = 0
        have += 1
    return True


@compiled
def on_the_path(m, st, req, out):
    """dm-crypt with a bulk call in front of its loop."""
    if in_first_pass(m, req):
        if first_pass(m, st, req[REQ_CPU], req[REQ_PAGES], out):
            req[REQ_BLOCKS] = req[REQ_PAGES]
            return DONE
        start_again(m, req)
    if not enter_second_pass(m, req, st[MUTEX]):
        return WAIT
    if req[REQ_STEP] == SECOND_PASS:
        gfp = m.w[POOL_GFP] & ~GFP_DIRECT_RECLAIM
        req[REQ_BLOCKS] = pages_by_bulk(m, st, req[REQ_CPU], gfp, req[REQ_PAGES], True, out)
    return rest_from_pool(m, req, out)


def allocate(m, st, req, out):
    """Serve a request in bulk; one that needs contiguity gets its one block."""
    cpu, pages = req[REQ_CPU], req[REQ_PAGES]
    if req[REQ_FLAGS] & REQUIRED:
        return one_block(m, req, out)
    if req[REQ_FLAGS] & ON_PATH:
        return on_the_path(m, st, req, out)
    have = pages_by_bulk(m, st, cpu, req[REQ_GFP], pages, False, out)
    if have < pages:
        all_back(m, cpu, have, out)
        return FAIL
    req[REQ_BLOCKS] = pages
    return DONE


def release(m, st, block, cpu, now):
    """Free a page, or through the mempool on the path: there is no bulk free of equal rank."""
    free_page(m, block, cpu)
