"""Build a :class:`Machine` from its configuration: arrays, watermarks, per-CPU lists, initial free blocks.

Free blocks are placed at random aligned positions (seeded), each beside at least one page in use, so that the counts
per order are exactly those asked for and no two of them merge. Everything else is in use (``HELD``).
"""

# mypy: disable-error-code="no-untyped-call"

from __future__ import annotations

from itertools import pairwise

import numpy as np

from tracereplay.errors import ParameterError
from tracereplay.kernel.constants import MAX_PAGE_ORDER, MIGRATE_CMA, MIGRATE_MOVABLE, NR_PAGE_ORDERS, PAGEBLOCK_ORDER
from tracereplay.kernel.generations import GENERATIONS
from tracereplay.machine import layout as at
from tracereplay.machine.config import MachineConfig, ZoneConfig, pcp_batch
from tracereplay.machine.counters import NR_SLOTS
from tracereplay.machine.directmap_start import map_memory
from tracereplay.machine.free_start import starting_blocks
from tracereplay.machine.initial import InitialState
from tracereplay.machine.marks import watermarks_of
from tracereplay.machine.place import place_free_blocks, place_initial, place_whole_blocks


def build_machine(
    config: MachineConfig,
    initial: InitialState | None = None,
    *,
    pool_pages: int = 0,
    quota: int = at.NO_QUOTA,
    counter_batch: int = 0,
) -> at.Machine:
    """The machine in its initial state. ``pool_pages``: size of the (empty) mempool; ``quota``: pages it may have out,
    ``counter_batch``: batch of the percpu counter that says how many are, 0 for an exact one.

    ``initial``: what is free, where; without it the configuration's counts are placed at random.
    Raises ParameterError when the configuration cannot be simulated.
    """
    zones = zones_of(config)
    frames = max(z.end for z in zones) + 1023 & ~1023
    if frames > 1 << 29:
        raise ParameterError(
            "more than 2 TiB of frames", hint="simulate a machine of at most 2TiB: --machine memory=..."
        )
    _refuse_shared_pageblocks(zones)
    buddy_heads = len(zones) * NR_PAGE_ORDERS * at.NR_TYPES
    pcp_heads = len(zones) * config.cpus * at.PCP_LISTS
    nodes = buddy_heads + pcp_heads + at.STRATEGY_LISTS
    generation = GENERATIONS[config.generation]

    w = np.zeros(at.machine_words(frames >> PAGEBLOCK_ORDER), np.int64)
    w[at.CFG_NODES] = nodes
    w[at.CFG_FRAMES] = frames
    w[at.CFG_ZONES] = len(zones)
    w[at.CFG_CPUS] = config.cpus
    w[at.CFG_BLOCKS] = frames >> PAGEBLOCK_ORDER
    w[at.CFG_PCP_BASE] = buddy_heads
    w[at.CFG_STRATEGY_LIST] = buddy_heads + pcp_heads
    w[at.CFG_PCP_ORDERS] = generation.pcp_orders
    w[at.CFG_THP_LISTS] = generation.pcp_thp_lists
    w[at.CFG_PCP_RULE] = generation.pcp_rule
    w[at.CFG_FROM_FREED] = generation.drain_from_freed_list
    w[at.CFG_CHUNKED] = generation.drain_chunked
    w[at.CFG_KEEPS_TYPE] = generation.fallback_keeps_type
    w[at.CFG_CLAIM_STEAL] = generation.fallback_claim_then_steal
    w[at.CFG_BULK] = (at.BULK_FULL if generation.bulk_accounts else at.BULK_EARLY) if generation.has_bulk else 0
    w[at.CFG_DECAY] = generation.pcp_decay
    w[at.CFG_DRAIN_ALL_CHUNKED] = generation.drain_all_chunked
    set_rates(w, config)
    w[at.CFG_FREE_HIGH_ADD] = generation.fallback_claim_then_steal  # both came by 6.18
    w[at.CFG_TIMER] = w[at.CFG_TIMER_DUE] = at.NEVER
    w[at.CFG_RANDOM] = config.seed
    w[at.CFG_MERGES_RESERVED] = not generation.drain_from_freed_list  # both changed with 5.18
    w[at.CFG_SKIP_BUSY] = generation.fallback_claim_then_steal and config.nodes > 1
    w[at.POOL_MIN] = pool_pages
    w[at.POOL_QUOTA] = quota
    w[at.POOL_BATCH] = counter_batch
    w[at.CN : at.CN + config.cpus] = nodes_of_cpus(config)

    pg = np.zeros(at.NODE_WORDS * (nodes + frames), np.int32)
    heads = np.arange(nodes, dtype=np.int32)
    pg[0 : 3 * nodes : 3] = heads
    pg[1 : 3 * nodes : 3] = heads
    pb = np.zeros((frames >> PAGEBLOCK_ORDER, at.B_WORDS), np.int32)
    pb[:, at.B_TYPE] = MIGRATE_MOVABLE
    pb[:, at.B_ZONE] = -1
    pb[:, at.B_MOVABLE] = 1 << PAGEBLOCK_ORDER
    for z, zone in enumerate(zones):
        pb[zone.start >> PAGEBLOCK_ORDER : (zone.end - 1 >> PAGEBLOCK_ORDER) + 1, at.B_ZONE] = z
    machine = at.Machine(pg=pg, pb=pb.reshape(-1), w=w, c=np.zeros(NR_SLOTS, np.int64))
    w[at.CFG_REACH : at.CFG_REACH + at.NR_ZONE_TYPES] = _reached_zones(zones)
    _fill_zonelists(w, zones, config.nodes)
    set_zones(w, zones, config)
    set_pcp(w, zones, config)
    map_memory(machine, config.direct_map, [zone.end for zone in zones], config.seed)
    if initial is not None:
        w[at.CFG_UNPLACED] = place_initial(machine, initial)
        return machine
    rng = np.random.default_rng(config.seed)
    for z, zone in enumerate(zones):
        _free_cma(machine, z, zone)
        w[at.CFG_UNPLACED] += _place(machine, z, zone, config, rng)
    return machine


def zones_of(config: MachineConfig) -> list[ZoneConfig]:
    """The zones by their numbers in a machine."""
    return sorted(config.zones, key=lambda z: (z.node, at.ZONE_NAMES.index(z.name)))


def set_rates(w: at.I64, config: MachineConfig) -> None:
    """Words of the machine's that say how much, how often or whether, and no more."""
    w[at.CFG_VMSTAT_INTERVAL] = round(config.vmstat_interval * 1e9)
    w[at.CFG_SCALE_MAX] = config.pcp_scale_max
    w[at.CFG_INIT_ON_ALLOC] = config.init_on_alloc
    w[at.CFG_PAGE_CHECKS] = _page_checks(config)
    w[at.CFG_BOOST_FACTOR] = config.watermark_boost_factor
    w[at.CFG_KSWAPD_RATE] = config.kswapd_rate
    w[at.CFG_RECLAIM_PAGES] = config.reclaim_pages
    w[at.CFG_COMPACTION_SHARE] = round(config.compaction_success * 1_000_000)


def _page_checks(config: MachineConfig) -> int:
    """When struct pages are checked: as they leave the buddy lists up to 6.2, since then only under init_on_alloc.

    Debian's kernels show it (tests/data/cost): under init_on_alloc 6.12 checks each page it hands out or takes back,
    else none; 6.1 checks always. Kernels built with CONFIG_DEBUG_VM check more and are not modelled.
    """
    if GENERATIONS[config.generation].pcp_rule < 2:
        return at.CHECK_LEAVING
    return at.CHECK_HANDED if config.init_on_alloc else at.CHECK_NONE


def notes_of(machine: at.Machine) -> tuple[str, ...]:
    """What about the initial state of a machine is not as its configuration asked for."""
    pages = int(machine.w[at.CFG_UNPLACED])
    if not pages:
        return ()
    return (f"{pages} of the pages asked for as free blocks found no place beside pages in use, and are in use",)


def _refuse_shared_pageblocks(zones: list[ZoneConfig]) -> None:
    """A pageblock here belongs to one zone."""
    by_start = sorted(zones, key=lambda z: z.start)
    for low, high in pairwise(by_start):
        if high.start >> PAGEBLOCK_ORDER <= low.end - 1 >> PAGEBLOCK_ORDER:
            raise ParameterError(
                f"zones {low.name} of node {low.node} and {high.name} of node {high.node} share the pageblock of frame "
                f"{high.start:#x}",
                hint="such a host is not simulated as it is; give a machine of your own: --machine memory=...",
            )


def cma_range(zone: ZoneConfig) -> tuple[int, int]:
    """First frame and end of a zone's CMA area: the last whole blocks of the largest order. Raises ParameterError."""
    end = zone.end >> MAX_PAGE_ORDER << MAX_PAGE_ORDER
    start = end - zone.cma_pages
    if zone.cma_pages and (zone.cma_pages % (1 << MAX_PAGE_ORDER) or start < zone.start):
        raise ParameterError(
            f"zone {zone.name} cannot hold {zone.cma_pages} pages of CMA", hint="whole 4MiB within the zone"
        )
    return start, end


def _free_cma(machine: at.Machine, z: int, zone: ZoneConfig) -> None:
    """The zone's CMA pageblocks, free."""
    start, end = cma_range(zone)
    blocks = machine.pb.reshape(-1, at.B_WORDS)[start >> PAGEBLOCK_ORDER : end >> PAGEBLOCK_ORDER]
    if not zone.cma_pages:
        return
    blocks[:, at.B_TYPE] = MIGRATE_CMA
    for word in (at.Z_CMA, at.Z_SET_ASIDE):
        machine.w[z * at.Z_WORDS + word] += zone.cma_pages
    place_whole_blocks(machine, z, start, end, MIGRATE_CMA)


def charged_to(machine: at.Machine, row: at.I64) -> at.Machine:
    """The same machine, charging its counters to another row."""
    return machine._replace(c=row)


def nodes_of_cpus(config: MachineConfig) -> at.I64:
    """Node of each CPU."""
    return np.arange(config.cpus, dtype=np.int64) * config.nodes // config.cpus


def _fill_zonelists(w: at.I64, zones: list[ZoneConfig], nodes: int) -> None:
    for node in range(nodes):
        for top, reach in enumerate(_reached_zones(zones)):
            order = [
                z
                for distance in range(nodes)
                for z in sorted(range(len(zones)), key=lambda i: -at.ZONE_NAMES.index(zones[i].name))
                if zones[z].node == (node + distance) % nodes and at.ZONE_NAMES.index(zones[z].name) <= reach
            ]
            row = at.ZL + (node * at.NR_ZONE_TYPES + top) * at.ZL_WORDS
            w[row : row + at.ZL_WORDS] = -1
            chosen = order or [0]  # a machine of nothing but Movable
            w[row : row + len(chosen)] = chosen


def _reached_zones(zones: list[ZoneConfig]) -> list[int]:
    """Highest zone type that a request for each type reaches: Normal where the machine has no DMA or DMA32 zone."""
    names = {zone.name for zone in zones}
    normal = at.ZONE_NORMAL
    return [t if t >= normal or at.ZONE_NAMES[t] in names else normal for t in range(at.NR_ZONE_TYPES)]


def set_zones(w: at.I64, zones: list[ZoneConfig], config: MachineConfig) -> None:
    """What a zone is, and its watermarks."""
    marks_of = {id(z): marks for z, marks in zip(config.zones, watermarks_of(config), strict=True)}
    for z, zone in enumerate(zones):
        marks = marks_of[id(zone)]
        at_zone = z * at.Z_WORDS
        for offset, value in (
            (at.Z_START, zone.start),
            (at.Z_END, zone.end),
            (at.Z_MANAGED, zone.pages),
            (at.Z_MIN, marks.min),
            (at.Z_LOW, marks.low),
            (at.Z_HIGH, marks.high),
            (at.Z_PROMO, marks.high + (marks.high - marks.low) if marks.promo is None else marks.promo),
            (at.Z_NODE, zone.node),
            (at.Z_TYPE, at.ZONE_NAMES.index(zone.name)),
            (
                at.Z_NOFRAGMENT,
                zone.name == "Normal" and any(o.name == "DMA32" and o.node == zone.node for o in zones),
            ),
        ):
            w[at_zone + offset] = value
        reserve = [marks.low_reserve[reach] for reach in _reached_zones(zones)]
        w[at_zone + at.Z_RESERVE : at_zone + at.Z_RESERVE + 4] = reserve


def set_pcp(w: at.I64, zones: list[ZoneConfig], config: MachineConfig) -> None:
    """Batch and high of each per-CPU page set."""
    for z, zone in enumerate(zones):
        batch, low, top = pcp_sizes(config, zone, int(w[z * at.Z_WORDS + at.Z_LOW]))
        for p in range(z * config.cpus, (z + 1) * config.cpus):
            w[p * at.P_WORDS + at.P_BATCH] = batch
            w[p * at.P_WORDS + at.P_HIGH] = low
            w[p * at.P_WORDS + at.P_HIGH_MIN] = low
            w[p * at.P_WORDS + at.P_HIGH_MAX] = top
            w[p * at.P_WORDS + at.P_FREE_HIGH_BATCH] = config.llc_pages_per_cpu > 3 * batch


def pcp_sizes(config: MachineConfig, zone: ZoneConfig, low_mark: int) -> tuple[int, int, int]:
    """Batch, high_min and high_max of a zone's page sets; ``low_mark`` is its LOW watermark."""
    rule = GENERATIONS[config.generation].pcp_rule
    local = int(np.count_nonzero(nodes_of_cpus(config) == zone.node)) or config.cpus
    batch = config.pcp_batch or pcp_batch(zone.pages)
    low = max(low_mark // local, 4 * batch)
    top = max(zone.pages // 8 // local, 4 * batch)
    if config.pcp_high is not None:
        low = top = config.pcp_high
    elif rule == 0:
        low = top = 6 * batch
    elif rule == 1:
        top = low
    return batch, low, top


def zone_words(config: MachineConfig) -> tuple[list[ZoneConfig], at.I64]:
    """Zones in the machine's order, and ``w`` with nothing but their words filled."""
    zones = zones_of(config)
    w = np.zeros(at.MACHINE_WORDS, np.int64)
    set_zones(w, zones, config)
    return zones, w


def _place(machine: at.Machine, z: int, zone: ZoneConfig, config: MachineConfig, rng: np.random.Generator) -> int:
    """Place a zone's free blocks outside its CMA area. Pages that found no place."""
    top = 1 << (NR_PAGE_ORDERS - 1)
    first, last = -(-zone.start // top) * top, zone.end // top * top
    if first < last:
        regions = rng.permutation(np.arange(first, last - zone.cma_pages, top, dtype=np.int64))
        edges = _aligned_blocks(zone.start, first) + _aligned_blocks(last, zone.end)
    else:
        regions = np.empty(0, np.int64)
        edges = _aligned_blocks(zone.start, zone.end)
    spare = np.array(edges, np.int64).reshape(-1, 2)
    stack = np.empty((NR_PAGE_ORDERS, (zone.end - zone.start) // 2 + 64), np.int32)
    return int(place_free_blocks(machine, z, np.array(starting_blocks(zone, config), np.int64), regions, spare, stack))


def _aligned_blocks(start: int, end: int) -> list[tuple[int, int]]:
    """(frame, order) of the largest aligned blocks that make up a range."""
    blocks = []
    while start < end:
        order = min((start & -start).bit_length() - 1 if start else NR_PAGE_ORDERS - 1, NR_PAGE_ORDERS - 1)
        while start + (1 << order) > end:
            order -= 1
        blocks.append((start, order))
        start += 1 << order
    return blocks
