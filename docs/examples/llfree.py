"""llfree: every CPU takes its pages from a 2 MiB region of its own, whose free pages are bits of a field.

After LLFree (Wrenger et al., USENIX ATC 2023; strategies.md 8): an allocator that reserves regions per core and finds
pages in bit fields, without locks. This is the part of it that its abstract tells, put in front of the kernel's
allocator, which gives and takes whole regions. docs/write-a-strategy.md explains it step by step.
"""

from __future__ import annotations

from dataclasses import dataclass

from tracereplay.demand.stream import REQUIRED
from tracereplay.kernel.gfp import GFP_MOVABLE, GFP_NORETRY, GFP_NOWARN, GFP_RECLAIMABLE, GFP_ZERO
from tracereplay.machine import counters, ops
from tracereplay.strategies.contract import (
    BLOCK_FRAME,
    BLOCK_ORDER,
    DONE,
    FAIL,
    REQ_BLOCKS,
    REQ_CPU,
    REQ_FLAGS,
    REQ_GFP,
    REQ_ORDER,
    REQ_PAGES,
    Params,
    compiled,
    inlined,
    param,
)

ORDER = 9
PAGES = 1 << ORDER
ALLOC_CALLS = counters.slot("alloc_calls")
FREE_CALLS = counters.slot("free_calls")
CACHE_HITS = counters.slot("cache_hits")
CACHE_REFILLS = counters.slot("cache_refills")
ZEROED_PAGES = counters.slot("zeroed_pages")

# words of st: the parameters, then these
MAX_CPUS = 1024
KEEP, REGIONS = 0, 1
FIRST = 2  # first of the regions that no CPU has reserved and that have free pages, plus 1; 0: none
EMPTY = 3  # regions without a page in use that no CPU has reserved
OWN = 4  # one word a CPU: its region plus 1, 0 for none
TABLE = OWN + MAX_CPUS  # REGION_WORDS a region, by the number of its 2 MiB of memory

# words of a region
STATE = 0  # 0: not ours, 1: ours, 2: reserved by a CPU
FREE = 1  # free pages
NEXT, PREV = 2, 3  # neighbours among the regions that no CPU has reserved, plus 1
BITS = 4  # 16 words of 32 bits, 1 for a free page
REGION_WORDS = 20


@dataclass(frozen=True)
class LLFree(Params):
    """Parameters of the reserved regions."""

    name = "llfree"
    summary = "pages from a 2 MiB region reserved per CPU, free ones in bit fields"
    mimics = "LLFree's reserved regions, Wrenger et al., USENIX ATC 2023 (as its abstract tells it)"
    leaves_out = "the trees of counters above the regions, lock-free retries, orders 1 to 8, its policy of reserving"

    keep: int = param(
        1, unit="regions", low=0, high=1024, doc="free regions that are not given back", source="an assumption"
    )
    regions: int = param(
        1 << 17,
        unit="regions of 2 MiB",
        low=1,
        high=1 << 20,
        doc="memory that the table covers; pages beyond it come from the page allocator",
        source="256 GiB",
    )

    def state_words(self) -> int:
        """The table has a fixed place for every 2 MiB of memory."""
        return TABLE + self.regions * REGION_WORDS


def init(m, st):
    """All words are 0: no region is ours."""


@inlined
def at(region):
    """Place of a region's words."""
    return TABLE + region * REGION_WORDS


@inlined
def lowest(bits):
    """Number of the lowest bit that is set."""
    bit = bits & -bits
    n = 0
    if bit & 0xFFFF0000:
        n += 16
    if bit & 0xFF00FF00:
        n += 8
    if bit & 0xF0F0F0F0:
        n += 4
    if bit & 0xCCCCCCCC:
        n += 2
    if bit & 0xAAAAAAAA:
        n += 1
    return n


@compiled
def enlist(st, region):
    """A region that no CPU has reserved has free pages."""
    first = st[FIRST]
    st[at(region) + NEXT] = first
    st[at(region) + PREV] = 0
    if first > 0:
        st[at(first - 1) + PREV] = region + 1
    st[FIRST] = region + 1
    if st[at(region) + FREE] == PAGES:
        st[EMPTY] += 1


@compiled
def delist(st, region):
    """A region is reserved, or full, or given back."""
    after, before = st[at(region) + NEXT], st[at(region) + PREV]
    if after > 0:
        st[at(after - 1) + PREV] = before
    if before > 0:
        st[at(before - 1) + NEXT] = after
    else:
        st[FIRST] = after
    if st[at(region) + FREE] == PAGES:
        st[EMPTY] -= 1


@compiled
def new_region(m, st, cpu, gfp):
    """A region from the page allocator, all of its pages free. Its number, or -1."""
    frame = ops.alloc_pages(m, cpu, ORDER, gfp & ~(GFP_ZERO | GFP_MOVABLE | GFP_RECLAIMABLE) | GFP_NORETRY | GFP_NOWARN)
    if frame < 0:
        return -1
    region = frame >> ORDER
    if region >= st[REGIONS]:
        ops.free_pages(m, cpu, frame, ORDER)
        return -1
    ops.count(m, CACHE_REFILLS, 1)
    ops.cut_block(m, frame, ORDER)
    ops.reserve_add(m, PAGES)
    st[at(region) + STATE] = 1
    st[at(region) + FREE] = PAGES
    for k in range(16):
        st[at(region) + BITS + k] = 0xFFFFFFFF
    return region


@compiled
def reserve(m, st, cpu, gfp):
    """Another region for a CPU whose own has no free page: one that was begun, else a new one. False: there is none."""
    own = st[OWN + cpu]
    if own > 0:
        st[at(own - 1) + STATE] = 1
        st[OWN + cpu] = 0
    region = st[FIRST] - 1
    if region >= 0:
        delist(st, region)
    else:
        region = new_region(m, st, cpu, gfp)
    if region < 0:
        return False
    st[at(region) + STATE] = 2
    st[OWN + cpu] = region + 1
    return True


@compiled
def get_page(m, st, cpu, gfp):
    """One page: of the CPU's region, else of the page allocator. Frame or -1."""
    region = st[OWN + cpu] - 1
    if region < 0 or st[at(region) + FREE] == 0:
        if not reserve(m, st, cpu, gfp):
            return ops.alloc_pages(m, cpu, 0, gfp)
        region = st[OWN + cpu] - 1
    else:
        ops.count(m, CACHE_HITS, 1)
    k = 0
    while st[at(region) + BITS + k] == 0:
        k += 1
    bit = lowest(st[at(region) + BITS + k])
    st[at(region) + BITS + k] ^= 1 << bit
    st[at(region) + FREE] -= 1
    frame = (region << ORDER) + 32 * k + bit
    ops.give_page(m, frame, cpu)
    ops.reserve_add(m, -1)
    ops.count(m, ALLOC_CALLS, 1)
    if gfp & GFP_ZERO:
        ops.count(m, ZEROED_PAGES, 1)
    return frame


@compiled
def put_page(m, st, cpu, frame):
    """One page back: its bit is set again; a region that is free and not wanted goes back to the page allocator."""
    region = frame >> ORDER
    if region >= st[REGIONS] or st[at(region) + STATE] == 0:
        ops.free_pages(m, cpu, frame, 0)
        return
    ops.count(m, FREE_CALLS, 1)
    ops.keep_page(m, frame)
    ops.reserve_add(m, 1)
    reserved = st[at(region) + STATE] == 2
    if not reserved and st[at(region) + FREE] > 0:
        delist(st, region)
    st[at(region) + BITS + (frame >> 5 & 15)] |= 1 << (frame & 31)
    st[at(region) + FREE] += 1
    if reserved:
        return
    if st[at(region) + FREE] < PAGES or st[EMPTY] < st[KEEP]:
        enlist(st, region)
        return
    st[at(region) + STATE] = 0
    ops.join_block(m, region << ORDER, ORDER, cpu)
    ops.reserve_add(m, -PAGES)
    ops.free_pages(m, cpu, region << ORDER, ORDER)


def allocate(m, st, req, out):
    """Single pages from the CPU's region; a request that needs contiguity gets its block from the page allocator."""
    cpu, gfp = req[REQ_CPU], req[REQ_GFP]
    if req[REQ_FLAGS] & REQUIRED:
        out[0] = ops.alloc_pages(m, cpu, req[REQ_ORDER], gfp)
        out[1] = req[REQ_ORDER]
        req[REQ_BLOCKS] = 1
        return DONE if out[0] >= 0 else FAIL
    pages = req[REQ_PAGES]
    for i in range(pages):
        frame = get_page(m, st, cpu, gfp)
        if frame < 0:
            for k in range(i):
                put_page(m, st, cpu, out[2 * k])
            return FAIL
        out[2 * i] = frame
        out[2 * i + 1] = 0
    req[REQ_BLOCKS] = pages
    return DONE


def release(m, st, block, cpu, now):
    """A page goes back to its region, a larger block to the page allocator."""
    if block[BLOCK_ORDER] > 0:
        ops.free_pages(m, cpu, block[BLOCK_FRAME], block[BLOCK_ORDER])
    else:
        put_page(m, st, cpu, block[BLOCK_FRAME])
