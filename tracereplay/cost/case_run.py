"""Go through a measured case on the machine: allocate buffers, release them, count both (compiled)."""

# mypy: disable-error-code="no-untyped-def, no-untyped-call"

from __future__ import annotations

from tracereplay.compiled import inner, kernel
from tracereplay.kernel.gfp import GFP_COMP, GFP_NOMEMALLOC, GFP_NORETRY, GFP_NOWARN
from tracereplay.machine.background import run_background
from tracereplay.machine.bulk import alloc_pages_bulk
from tracereplay.machine.counters import KSWAPD_WAKES, NR_SLOTS
from tracereplay.machine.layout import CFG_NOW, CFG_ZONES, Z_RECLAIM_ACTIVE, Z_WORDS
from tracereplay.machine.page_alloc import alloc_pages
from tracereplay.machine.page_free import free_pages

PER_PAGE, BULK, ONE_BLOCK, BLOCKS = range(4)
"""Strategies of cost/rows.py, in its order."""
LARGE_GFP = GFP_COMP | GFP_NOMEMALLOC | GFP_NORETRY | GFP_NOWARN
OUT_FAILED, OUT_BUFFERS, OUT_WORDS = 0, 1, 2
ROUND_NS = 4_000_000
"""Simulated time in which a woken kswapd does its work and goes back to sleep."""
SHORT_ROUND = 4
"""Buffers held; with fewer a round is over before a woken kswapd (or kcompactd) has slept again, and the next three
rounds do not wake it. After a round that got nothing it always has. Both as in the rows for 6.1 and 6.12, where a wake
shows as 2,100 instructions more; no rule for it is known."""
AWAKE_ROUNDS = 3


@inner
def alloc_buffer(m, how, pages, order, gfp, slots):
    """Allocate one buffer into ``slots`` (frame, order pairs); blocks got, or -1 when it failed and all went back."""
    blocks = 0
    if how == BULK:
        for i in range(pages):
            slots[2 * i] = -1
        while blocks < pages:
            came = alloc_pages_bulk(m, 0, gfp, pages, slots)
            if came <= blocks:
                slots[2 * blocks] = alloc_pages(m, 0, 0, gfp)
                slots[2 * blocks + 1] = 0
                if slots[2 * blocks] < 0:
                    return give_up(m, slots, blocks)
                came = blocks + 1
            blocks = came
        return blocks
    left = pages
    while left > 0:
        while order > 0 and 1 << order > left:
            order -= 1
        pfn = alloc_pages(m, 0, order, gfp | LARGE_GFP if order > 0 else gfp)
        if pfn < 0:
            if how != BLOCKS or order == 0:
                return give_up(m, slots, blocks)
            order -= 1
            continue
        slots[2 * blocks] = pfn
        slots[2 * blocks + 1] = order
        blocks += 1
        left -= 1 << order
    return blocks


@inner
def give_up(m, slots, blocks):
    """Free what a failed buffer had; -1."""
    free_buffer(m, slots, blocks)
    return -1


@inner
def free_buffer(m, slots, blocks):
    """Free the blocks of a buffer in the order in which they came."""
    for i in range(blocks):
        free_pages(m, 0, slots[2 * i], slots[2 * i + 1])


@kernel
def run_case(m, how, pages, order, gfp, held, warm_up, rounds, slots, blocks, alloc, free, out):
    """``rounds`` times: allocate ``held`` buffers of ``pages``, free them in the same order; ``warm_up`` rounds before.

    ``slots[held * 2 * pages]``, ``blocks[held]``: room for buffers. ``alloc[NR_SLOTS]``, ``free[NR_SLOTS]``: counters
    of the two halves, summed; ``out``: OUT_*.
    """
    awake = 0
    for k in range(warm_up + rounds):
        if awake == 0:
            m.w[CFG_NOW] += ROUND_NS
            run_background(m)
        for i in range(NR_SLOTS):
            m.c[i] = 0
        failed = 0
        for b in range(held):
            blocks[b] = alloc_buffer(m, how, pages, order, gfp, slots[2 * pages * b : 2 * pages * (b + 1)])
            if blocks[b] < 0:
                failed += 1
                blocks[b] = 0
        if k >= warm_up:
            out[OUT_FAILED] += failed
            out[OUT_BUFFERS] += held
            for i in range(NR_SLOTS):
                alloc[i] += m.c[i]
        awake = max(awake - 1, 0)
        if m.c[KSWAPD_WAKES] > 0 and failed < held and held < SHORT_ROUND:
            awake = AWAKE_ROUNDS
        for z in range(m.w[CFG_ZONES]):  # one CPU: kswapd gets it between rounds
            m.w[z * Z_WORDS + Z_RECLAIM_ACTIVE] = 0
        for i in range(NR_SLOTS):
            m.c[i] = 0
        for b in range(held):
            free_buffer(m, slots[2 * pages * b : 2 * pages * (b + 1)], blocks[b])
        if k >= warm_up:
            for i in range(NR_SLOTS):
                free[i] += m.c[i]
