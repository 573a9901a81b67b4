"""Where each piece of machine state lives: word offsets in the flat arrays of :class:`Machine`. Imports no Numba.

All state is integers in four one-dimensional arrays, so that compiled code can hold it without reference counts
(engine.md section 1) and pass it cheaply: compile time grows steeply with the number of arrays in flight. Tables have
fixed places for the largest machine (unused words cost no memory), so that an index is one multiplication:

``w[z * Z_WORDS + Z_FREE]``           a zone; zones are numbered by node, then from low to high
``w[p * P_WORDS + P_COUNT]``          a per-CPU page set, p = zone * cpus + cpu
``w[NF + (z * NR_PAGE_ORDERS + order) * NR_TYPES + mt]``  free blocks per list
``w[ZL + (node * NR_ZONE_TYPES + highest zone type) * ZL_WORDS + k]``  zonelists, ended by -1
``w[CN + cpu]``                       node of a CPU
``w[node * KS_WORDS + KS_RUNNING]``   kswapd of a node
``w[TK + cpu]``                       when its vmstat worker runs next, ns; 0: not known yet
``w[TM + id]``                        when a strategy's timer is due, ns; 0: not set
``w[CFG_CPUS]``                       constants of the run and gauges; ``w[POOL_MIN]``: a mempool and its quota
``w[DM_ABSENT + (pfn >> 6)]``         bits of pages that are not in the direct map, then its page-table pages
``w[PC + cpu]``                       a CPU's part of the quota's percpu counter
``pg[3 * node + INFO]``               list heads (``w[CFG_NODES]`` of them), then one node per frame: next, prev, info
``pb[block * B_WORDS + B_TYPE]``      a pageblock
``c[ALLOC_CALLS]``                    the counters now being charged
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from tracereplay.kernel.constants import GIB_ORDER, NR_PAGE_ORDERS, PAGEBLOCK_ORDER

I64 = npt.NDArray[np.int64]
I32 = npt.NDArray[np.int32]


class Machine(NamedTuple):
    """The simulated allocator. ``c`` is replaced by another row to charge counters elsewhere."""

    pg: I32
    pb: I32
    w: I64
    c: I64


# ---- pg: words of a node
NEXT, PREV, INFO, NODE_WORDS = 0, 1, 2, 3
# info: order in bits 0-3, migratetype in 4-6, state in 8-10, CPU of the allocation in 12-27
INFO_ORDER = 0xF
INFO_TYPE_SHIFT = 4
INFO_TYPE = 0x7
INFO_STATE = 0x700
INFO_CPU_SHIFT = 12
HELD = 0x000
"""In use since before the replay (also: not a head, not present)."""
BUDDY = 0x100
"""Head of a free block on a buddy list."""
PCP = 0x200
"""Head of a block on a per-CPU list."""
USED = 0x300
"""Head of a block handed out by the machine."""
CACHED = 0x400
"""Head of a block that a strategy keeps on a list of its own."""

# ---- pb: a pageblock
B_TYPE, B_ZONE, B_MOVABLE, B_MAP, B_WORDS = 0, 1, 2, 3, 4
"""``B_MOVABLE``: pages in use that were asked for as movable. ``B_MAP``: MAP_* bits."""
MAP_4K = 1
"""The direct map holds the pageblock in 4 KiB entries."""
MAP_1G = 2
"""On the first pageblock of a GiB: the direct map holds it in one entry of 1 GiB."""
MAP_CAPTURE = 4
"""Blocks freed in the pageblock go to CAPTURED_LIST instead (a strategy owns it)."""

# ---- limits
MAX_ZONES = 32
MAX_CPUS = 1024
MAX_NODES = 8
MAX_POOL = 1 << 16
"""Elements a mempool may have."""
NR_KERNEL_TYPES = 6
"""Migratetypes that a kernel may have, and a trace may name."""
NR_TYPES = 7
"""Migratetypes that have buddy lists (page-allocator.md 1.3), MIGRATE_UNMAPPED among them."""
UNMAPPED_PCP_LIST = 15
"""First per-CPU list of MIGRATE_UNMAPPED, behind those that kernels have: one each for orders 0 to 3 and 9."""
PCP_LISTS = 20
"""List heads reserved per (zone, CPU)."""
MAX_TIMERS = 2 * MAX_CPUS
"""Timers a strategy may have."""
STRATEGY_LISTS = 2 * MAX_CPUS
"""List heads that a strategy may use, from ``w[CFG_STRATEGY_LIST]`` on."""
CAPTURED_LIST = STRATEGY_LISTS - 1
"""List of a strategy's on which frees of a pageblock that captures them land (MAP_CAPTURE), the oldest first."""
NR_ZONE_TYPES = 4
ZONE_DMA, ZONE_DMA32, ZONE_NORMAL, ZONE_MOVABLE = range(4)
ZONE_NAMES = ("DMA", "DMA32", "Normal", "Movable")

# ---- w: constants of the run and gauges
(
    CFG_NODES,  # list heads in front of the frames in pg
    CFG_FRAMES,
    CFG_ZONES,
    CFG_CPUS,
    CFG_BLOCKS,  # pageblocks in pb
    CFG_PCP_BASE,  # first pcp list head
    CFG_STRATEGY_LIST,  # first list head for the strategy
    CFG_PCP_ORDERS,
    CFG_THP_LISTS,
    CFG_PCP_RULE,
    CFG_FROM_FREED,
    CFG_CHUNKED,
    CFG_KEEPS_TYPE,
    CFG_CLAIM_STEAL,
    CFG_SCALE_MAX,  # CONFIG_PCP_BATCH_SCALE_MAX
    CFG_INIT_ON_ALLOC,
    CFG_RESERVE,  # pages a strategy or mempool keeps idle, now
    CFG_RESERVE_PEAK,
    CFG_ERROR,
    CFG_ERROR_FRAME,
    CFG_FREE_HIGH_ADD,  # 6.18: free_high needs free_count >= batch + high_min / 2
    CFG_MAP_4K,  # pageblocks that the direct map holds in 4 KiB entries
    CFG_MAP_1G,  # its entries of 1 GiB
    CFG_BULK,  # how alloc_pages_bulk goes: BULK_NONE, BULK_EARLY, BULK_FULL
    CFG_DECAY,  # the vmstat worker lowers high and drains: 0 no, 1 at once, 2 in chunks of batch
    CFG_DRAIN_ALL_CHUNKED,  # drain_all_pages lets go of the locks every batch << scale_max pages
    CFG_VMSTAT_INTERVAL,  # ns; 0: the worker never runs
    CFG_HELD_CURSOR,  # per order: how many blocks were looked at for a held one (next_held)
) = range(28)
_CFG_END = CFG_HELD_CURSOR + NR_PAGE_ORDERS
(
    CFG_NOW,  # simulated time, ns: the time of the event being replayed
    CFG_TIMER,  # simulated time at which background work is due, ns; NEVER for none
    CFG_BOOST_FACTOR,  # vm.watermark_boost_factor, ten-thousandths of HIGH
    CFG_KSWAPD_RATE,  # pages that kswapd frees in a ms; 0: what it freed is in the trace
    CFG_RECLAIM_PAGES,  # pages that one direct reclaim frees
    CFG_COMPACTION_SHARE,  # direct compactions that yield a block, in millionths
    CFG_COMPACTION_DUE,  # those owed, in millionths
    CFG_MERGES_RESERVED,  # 5.10, 5.14: free HIGHATOMIC and CMA blocks merge with any other
    CFG_SKIP_BUSY,  # 6.18: nodes whose kswapd runs are passed over at first
    CFG_UNPLACED,  # pages of the free blocks asked for that had no place at the start
    CFG_PAGE_CHECKS,  # when struct pages are checked: CHECK_NONE, CHECK_LEAVING, CHECK_HANDED
    CFG_WITHHOLD,  # list on which drained pages are left, for the twin check; 0: they go to the buddy lists
    CFG_REACH,  # for each zone type: that which a request for it gets, Normal where the machine has no such zone
) = range(_CFG_END, _CFG_END + 13)
_CFG_END = CFG_REACH + NR_ZONE_TYPES
(
    CFG_WOKEN,  # what may let waiting requests go on since the engine last looked: WOKEN_* bits
    CFG_SHRINK,  # pages that reclaim asked a strategy's shrinker for since the engine last looked; or COUNT_ONLY
    CFG_RANDOM,  # state of the generator behind chance.py, from the machine's seed
    CFG_TIMER_IDS,  # timers of the strategy that were ever set have numbers below this
    CFG_TIMER_DUE,  # when the first of them is due, ns; NEVER for none
    CFG_MUTEX_OWNER,  # request that holds the path's mutex (REQ_ID), 0 for none
    CFG_RESERVE_US,  # idle pages times the microseconds that they were idle, up to CFG_RESERVE_SINCE
    CFG_RESERVE_SINCE,  # when the number of idle pages last changed, us
    CFG_DRY_SPELLS,  # times that a strategy's cache could not serve and then had pages again
    CFG_DRY_NS,  # how long these took, together
    CFG_DRY_LONGEST,  # how long the longest took, ns
    CFG_CPU,  # CPU of the operation that is being done
    CFG_SLOT,  # number of the time slot that is open, of those in which a zone lock was taken (holds.py)
    CFG_SLOT_END,  # when it ends, ns
    CFG_PCP_OTHERS,  # times that a CPU emptied the per-CPU lists of another
) = range(_CFG_END, _CFG_END + 15)
_CFG_END = CFG_PCP_OTHERS + 1
NEVER = 1 << 62
COUNT_ONLY = -1
"""In CFG_SHRINK: a shrinker was only made to count."""
WOKEN_POOL = 1
"""An element came into the mempool's reserve."""
WOKEN_MUTEX = 2
"""The path's mutex was let go."""

# ---- w: zones
Z_WORDS = 32
_Z = 96
assert _CFG_END <= _Z
(
    Z_START,
    Z_END,
    Z_MANAGED,
    Z_FREE,
    Z_MIN,
    Z_LOW,
    Z_HIGH,
    Z_BOOST,
    Z_NODE,
    Z_TYPE,
    Z_BELOW_HIGH,
    Z_RECLAIM_ACTIVE,  # kswapd works on the zone: pcp lists are kept short
    Z_NOFRAGMENT,  # ALLOC_NOFRAGMENT where requests that prefer this zone carry it, else 0
    Z_LOCKS,
    Z_LONGEST,  # longest zone-lock hold, in work units: blocks moved + splits + merges
    Z_WORK,  # work units of the current hold
    Z_RESERVE,  # lowmem_reserve for requests up to zone type 0..3
) = range(_Z, _Z + 17)
(
    Z_SET_ASIDE,  # pages in HIGHATOMIC blocks as accounted (nr_reserved_highatomic) and in CMA blocks, together
    Z_HIGHATOMIC,  # the former
    Z_CMA,  # the latter
    Z_PROMO,  # where memory tiering stops promoting; kept, not used
    Z_SKIP,  # kswapd runs on the zone's node, and such nodes are passed over at first (CFG_SKIP_BUSY)
    Z_BOOST_SEEN,  # boost when kswapd started, which it takes off when done
    Z_RECLAIM_CURSOR,  # how many frames of the zone were looked at for a page to reclaim
    Z_COMPACT_CURSOR,  # the same, for a block to clear
    Z_BUSIEST,  # load of the zone lock's busiest slot (holds.py)
    Z_BUSIEST_END,  # when that slot ended, ns
) = range(Z_RESERVE + NR_ZONE_TYPES, Z_RESERVE + NR_ZONE_TYPES + 10)
assert Z_BUSIEST_END < _Z + Z_WORDS

# ---- w: per-CPU page sets
P_WORDS = 16
_P = _Z + MAX_ZONES * Z_WORDS
(
    P_COUNT,
    P_BATCH,
    P_HIGH,
    P_HIGH_MIN,
    P_HIGH_MAX,
    P_ALLOC_FACTOR,
    P_FREE_FACTOR,
    P_FREE_COUNT,
    P_PREV_HIGH_ORDER,
    P_FREE_HIGH_BATCH,
    P_LOCKS,
    P_LONGEST,
    P_EXPIRE,  # ticks until the lists of a remote zone are drained (pcp->expire)
    P_LOCKS_AT_TICK,  # P_LOCKS when the vmstat worker last looked
    P_UNLISTED,  # pages that count, though on no list: the twin check does not know which they are
    P_SLOT,  # how often the CPU took the zone lock in a slot, and above SLOT_SHIFT that slot's number
) = range(_P, _P + 16)

# ---- w: the other tables
NF = _P + MAX_ZONES * MAX_CPUS * P_WORDS
ZL = NF + MAX_ZONES * NR_PAGE_ORDERS * NR_TYPES
ZL_WORDS = MAX_ZONES + 1
CN = ZL + MAX_NODES * NR_ZONE_TYPES * ZL_WORDS
TK = CN + MAX_CPUS
# ---- w: kswapd of a node
KS_WORDS = 8
_KS = TK + MAX_CPUS
KS_RUNNING, KS_TOP, KS_SINCE, KS_GOAL, KS_DONE, KS_HOPELESS = range(_KS, _KS + 6)
"""Whether it runs, the highest zone type it balances, up to when it has worked (ns), pages it is to reclaim even where
the node is balanced, pages it has gone through, whether it found nothing to free."""

TM = _KS + MAX_NODES * KS_WORDS
"""``w[TM + id]``: when a strategy's timer is due, ns; 0: not set."""
_POOL = TM + MAX_TIMERS
(
    POOL_MIN,  # elements wanted in the reserve
    POOL_CURRENT,  # elements there
    POOL_QUOTA,  # pages the quota allows; NO_QUOTA: there is none
    POOL_ALLOCATED,  # the percpu counter of those out, as a reader sees it
    POOL_BATCH,  # how far a CPU's part of it may grow before it is folded in
    POOL_GFP,  # gfp of the path's requests
    POOL_ELEMENTS,  # first element
) = range(_POOL, _POOL + 7)
PC = POOL_ELEMENTS + MAX_POOL
"""``w[PC + cpu]``: what a CPU has added to that counter and not folded in yet."""
SECTION_PARTS = (
    "refills",
    "blocks_refilled",
    "splits",
    "fallbacks",
    "block_moves",
    "unlinked",
    "prepared",
    "zeroed",
)
"""Work under a pcp lock: zone-lock holds, blocks they moved, split or took from other types, pageblocks they moved;
blocks taken off the list, pages prepared, and zeroed while they were."""
SECTION_WORDS = 1 + len(SECTION_PARTS)
SECTION_REFILL = PC + MAX_CPUS
"""The longest refill: ``w[SECTION_REFILL]`` its work units, then its parts."""
SECTION_BULK = SECTION_REFILL + SECTION_WORDS
"""The longest section of a bulk call, refills included, likewise."""
SECTION_DRAIN = SECTION_BULK + SECTION_WORDS
"""Pages of the longest drain under one hold."""
SECTION_WORK = 0
# ---- w: holds of the zone locks by time slot (holds.py)
SLOT_NS = 100_000
SLOT_SHIFT = 32
(
    H_SLOTS,  # slots summed up here
    H_LOCKS,  # acquisitions
    H_LOCKS2,  # their square, slot by slot
    H_SAME,  # the sum of the squares of each CPU's acquisitions, slot by slot
    H_WORK,  # work units under the lock (Z_WORK)
    H_WORK2,  # their square, hold by hold
    H_REFILL_BLOCKS,
    H_REFILL_PAGES,
    H_DRAIN_BLOCKS,
    H_DRAIN_PAGES,
    H_ALLOCS,  # blocks that left the buddy lists past the per-CPU lists
    H_FREES,  # and that came back there
    H_SPLITS,
    H_MERGES,
    H_FALLBACKS,  # blocks taken from another type
    H_MOVES,  # pageblocks likewise
) = range(16)
HOLD_WORDS = 16
LOAD_CLASSES = 64
"""Half octaves of a slot's load: SLOT_LOCK_LOAD for an acquisition, 1 for a unit of work."""
SLOT_LOCK_LOAD = 8
SPREAD_CLASSES = 8
"""Octaves of the number of CPUs that a slot's acquisitions come from, the first for one CPU alone."""
HOLD_ROWS = LOAD_CLASSES * SPREAD_CLASSES + 2
"""Rows of a zone: the open slot, the classes of closed ones, the busiest slot."""
HOLDS = SECTION_DRAIN + 1
"""``w[HOLDS + (zone * HOLD_ROWS + row) * HOLD_WORDS + H_LOCKS]``."""
MACHINE_WORDS = HOLDS + MAX_ZONES * HOLD_ROWS * HOLD_WORDS
NO_QUOTA = 1 << 62

# ---- how bulk_call goes (bits; 0: the array form of alloc_pages_bulk)
AS_LIST = 1
"""Pages are linked into a list; there are no filled slots."""
AS_CALLBACK = 2
"""Each page is handed to a callback; there are no filled slots."""
TWO_PASS = 4
"""Pages are prepared after the pcp lock was let go."""
LOW_ONLY = 8
"""The mark is LOW, not LOW plus what is asked for."""
ANY_NODE = 16
"""Zones of other nodes serve batches too."""
NO_SINGLE = 32
"""Where a batch brings nothing, no page comes the ordinary way."""

# ---- w: the direct map, behind all else, since its size depends on that of memory
_DM = MACHINE_WORDS
(
    DM_TABLES,  # page-table pages that its splits took and that are in use
    CACHE_WORK,  # work units of the current hold of a strategy's own lock
    CACHE_LONGEST,  # longest such hold
    DM_UNMAPPED_TYPE,  # pageblocks may become MIGRATE_UNMAPPED, which has per-CPU lists
) = range(_DM, _DM + 4)
DM_ABSENT = _DM + 16
DM_ABSENT_WORDS = (1 << PAGEBLOCK_ORDER) // 64
"""Words of bits for a pageblock. Behind them, for each pageblock and then for each GiB, the frame + 1 of the page table
that a split of its entry took; 0: none is known."""


def machine_words(blocks: int) -> int:
    """Words of ``w`` for a machine of so many pageblocks."""
    return notes_from(blocks) + blocks * DM_ABSENT_WORDS


def notes_from(blocks: int) -> int:
    """First of the words, one for 64 pages, in which a strategy may note whose they are; behind the page tables."""
    return DM_ABSENT + blocks * (DM_ABSENT_WORDS + 1) + (blocks >> GIB_ORDER - PAGEBLOCK_ORDER) + 1


# ---- w[CFG_PAGE_CHECKS]
CHECK_NONE, CHECK_LEAVING, CHECK_HANDED = range(3)
"""Struct pages are checked never, as blocks leave the buddy lists, or as they are handed out and come back."""

# ---- w[CFG_BULK]
BULK_NONE, BULK_EARLY, BULK_FULL = range(3)
"""No such call (5.10), that of 5.14, that of 5.15 and later (section 5.2)."""

# ---- w[CFG_ERROR]
ERROR_NONE = 0
ERROR_BAD_FREE = 1
"""A block was freed that is not in use with that order."""
ERROR_OUTSIDE = 2
"""A frame outside every zone."""
ERROR_TOO_FEW = 3
"""A strategy said DONE with fewer pages than asked."""
ERROR_NOT_HELD = 4
"""A strategy gave a block that is not in use with that order."""
ERROR_TOO_MANY = 5
"""A strategy gave more blocks than the request has pages."""
ERROR_NO_BULK = 6
"""``alloc_pages_bulk`` in a generation that has none."""
ERROR_BAD_WAIT = 7
"""A request waits for nothing that there is: not WAIT_*, a time that has passed, a mutex that is free or its own."""
ERROR_MAY_NOT_WAIT = 8
"""A request that needs contiguity waits."""
ERROR_MUTEX_KEPT = 9
"""A request ended with the mutex held."""
ERROR_NO_PROGRESS = 10
"""Waiting requests or timers are called over and over at one simulated time."""
ERROR_NO_SUCH = 11
"""An order, CPU or list that the machine does not have."""
