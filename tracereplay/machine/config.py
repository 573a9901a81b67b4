"""What machine to simulate: zones, CPUs, generation, per-CPU lists, initial occupancy. Imports no Numba.

The default comes from the trace's start snapshot; without one it is a stated 16 GiB, 8 CPU, 6.12 machine.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from tracereplay.errors import ParameterError, nearest
from tracereplay.kernel.constants import MAX_PAGE_ORDER, NR_PAGE_ORDERS, PAGE_SIZE
from tracereplay.kernel.generations import DEFAULT_GENERATION, GENERATIONS, PCP_LOCKS
from tracereplay.machine.directmap_start import DirectMap

DMA_END = 0x1000
DMA32_END = 0x100000
CMA_UNIT = PAGE_SIZE << MAX_PAGE_ORDER
"""Bytes: areas are aligned so that their free pages merge with no others."""
LOWMEM_RATIO = {"DMA": 256, "DMA32": 256, "Normal": 32, "Movable": 0}
ZONE_ORDER = ("DMA", "DMA32", "Normal", "Movable")


@dataclass(frozen=True, slots=True)
class Watermarks:
    """Pages; None where they are to be derived."""

    low_reserve: tuple[int, int, int, int] = (0, 0, 0, 0)
    min: int = 0
    low: int = 0
    high: int = 0
    promo: int | None = None
    """None: as far above high as high is above low (kernels before 6.1 have none)."""


@dataclass(frozen=True, slots=True)
class ZoneConfig:
    """One zone. Frames are page frame numbers, ``end`` exclusive."""

    name: str
    start: int
    end: int
    node: int = 0
    managed: int | None = None
    """Pages the allocator owns; None: all of the span."""
    watermarks: Watermarks | None = None
    """None: derived as ``__setup_per_zone_wmarks`` does."""
    free_blocks: tuple[int, ...] | None = None
    """Free blocks by order at the start (/proc/buddyinfo); None: from ``occupancy`` and ``fragmentation``."""
    free_by_type: tuple[tuple[int, ...], ...] | None = None
    """The same by migratetype and order (/proc/pagetypeinfo), types 0 to 2."""
    cma_pages: int = 0
    """Pages at the zone's end in CMA pageblocks, all free at the start beside those counted above; in whole 4 MiB."""

    @property
    def pages(self) -> int:
        """Managed pages."""
        return self.managed if self.managed is not None else self.end - self.start


@dataclass(frozen=True, slots=True)
class MachineConfig:
    """Everything that decides the machine's behaviour and initial state."""

    zones: tuple[ZoneConfig, ...]
    cpus: int
    generation: str = DEFAULT_GENERATION
    nodes: int = 1
    occupancy: float = 0.5
    """Share of managed pages in use at the start, where no snapshot says."""
    fragmentation: float = 0.0
    """Share of the free pages that lies in order-0 blocks at the start, where no snapshot says."""
    pcp_batch: int | None = None
    pcp_high: int | None = None
    """Fixed high; None: by generation from the watermarks."""
    pcp_scale_max: int = 5
    """CONFIG_PCP_BATCH_SCALE_MAX."""
    pcp_lock: str | None = None
    """What protects the per-CPU lists, of PCP_LOCKS; None: by generation. It moves no page (replay/sections.py)."""
    llc_pages_per_cpu: int = 512
    """Each CPU's slice of last-level cache, pages; above 3 x batch it sets PCPF_FREE_HIGH_BATCH."""
    vmstat_interval: float = 1.0
    """Seconds between two runs of a CPU's vmstat worker (vm.stat_interval); 0: it never runs."""
    watermark_boost_factor: int = 15000
    """vm.watermark_boost_factor, ten-thousandths of the high watermark; 0: no boost."""
    kswapd_rate: int = 0
    """Pages a ms that kswapd frees while it runs; 0: what it freed is in the trace as frees."""
    reclaim_pages: int = 0
    """Pages that one direct reclaim frees; 0 for the same reason."""
    compaction_success: float = 0.0
    """Share of direct compactions that clear a block by moving pages, 0 to 1."""
    percpu_batch: int | None = None
    """``percpu_counter_batch`` of lib/percpu_counter.c; 0: counters are exact; None: by CPUs and generation."""
    init_on_alloc: bool = False
    direct_map: DirectMap = field(default_factory=DirectMap)
    """Sizes of the direct map's entries at the start."""
    seed: int = 0
    source: str = "default"
    """Where it comes from: default, snapshot, options."""
    notes: tuple[str, ...] = field(default=())

    @property
    def pcp_protection(self) -> str:
        """What protects the per-CPU lists, of PCP_LOCKS."""
        return self.pcp_lock or GENERATIONS[self.generation].pcp_lock

    @property
    def memory_bytes(self) -> int:
        """Managed memory of all zones."""
        return sum(z.pages for z in self.zones) * PAGE_SIZE

    def describe(self) -> dict[str, Any]:
        """For results: what was simulated, in plain values."""
        return {
            "source": self.source,
            "memory_bytes": self.memory_bytes,
            "cpus": self.cpus,
            "nodes": self.nodes,
            "generation": self.generation,
            "pcp": {"batch": self.pcp_batch, "high": self.pcp_high, "scale_max": self.pcp_scale_max},
            "pcp_lock": self.pcp_protection,
            "occupancy": None if self.zones[0].free_blocks is not None else self.occupancy,
            "fragmentation": None if self.zones[0].free_blocks is not None else self.fragmentation,
            "vmstat_interval_s": self.vmstat_interval,
            "watermark_boost_factor": self.watermark_boost_factor,
            "kswapd_rate": self.kswapd_rate,
            "reclaim_pages": self.reclaim_pages,
            "compaction_success": self.compaction_success,
            "percpu_batch": percpu_batch(self),
            "init_on_alloc": self.init_on_alloc,
            "direct_map": asdict(self.direct_map),
            "seed": self.seed,
            "zones": [
                {"name": z.name, "node": z.node, "start_pfn": z.start, "end_pfn": z.end, "managed": z.pages}
                for z in self.zones
            ],
            "notes": list(self.notes),
        }

    def to_key(self) -> dict[str, Any]:
        """All fields, for cache keys and provenance."""
        return asdict(self)


def default_zones(memory_bytes: int, nodes: int = 1) -> tuple[ZoneConfig, ...]:
    """Zones of a flat x86-64 machine: DMA below 16 MiB, DMA32 below 4 GiB, Normal above; nodes share Normal evenly."""
    frames = memory_bytes // PAGE_SIZE
    zones = [ZoneConfig("DMA", 1, min(DMA_END, frames))]
    if frames > DMA_END:
        zones.append(ZoneConfig("DMA32", DMA_END, min(DMA32_END, frames)))
    if frames > DMA32_END:
        share = (frames - DMA32_END) // nodes & ~1023
        zones += [
            ZoneConfig("Normal", DMA32_END + n * share, DMA32_END + (n + 1) * share if n < nodes - 1 else frames, n)
            for n in range(nodes)
        ]
    return tuple(zones)


SYNTHETIC_KSWAPD_RATE = 256
"""Pages a ms (1 GiB/s) that kswapd frees under demand that nobody recorded; an assumption."""
DEFAULT_MEMORY = 16 << 30
DEFAULT_CPUS = 8


def default_machine(cpus: int = DEFAULT_CPUS, generation: str = DEFAULT_GENERATION) -> MachineConfig:
    """The stated machine for traces that say nothing of theirs: 16 GiB, 8 CPUs, 6.12."""
    return MachineConfig(zones=default_zones(DEFAULT_MEMORY), cpus=cpus, generation=generation)


def pcp_batch(managed: int) -> int:
    """``zone_batchsize``: pages a refill or drain moves at least (page-allocator.md 3.3)."""
    batch = max(min(managed >> 10, (1 << 20) // PAGE_SIZE) // 4, 1)
    return max((1 << (batch + batch // 2).bit_length() - 1) - 1, 1)


def percpu_batch(config: MachineConfig) -> int:
    """Batch of a percpu counter (``compute_batch_value``): 32, or twice the CPUs. 0 on 5.10: there dm-crypt compares
    exactly, and nothing here that reads one without summing.
    """
    if config.percpu_batch is not None:
        return config.percpu_batch
    return 0 if config.generation == "5.10" else max(32, 2 * config.cpus)


def derived_watermarks(config: MachineConfig) -> list[Watermarks]:
    """Watermarks and lowmem reserves per zone as ``__setup_per_zone_wmarks`` computes them (section 4.5)."""
    since_6_3 = GENERATIONS[config.generation].pcp_rule == 2  # before, ZONE_MOVABLE was a zone like others here
    lowmem = sum(z.pages for z in config.zones if z.name != "Movable" or not since_6_3)
    min_kbytes = max(128, min(262144, math.isqrt(16 * lowmem * PAGE_SIZE // 1024)))
    zones = sum(z.name != "Movable" and z.pages > 0 for z in config.zones)
    thp = 512 * zones * 11 * PAGE_SIZE // 1024  # khugepaged's floor, at most 5 % of low memory
    min_kbytes = max(min_kbytes, min(thp, lowmem * PAGE_SIZE // 1024 // 20))
    pages_min = min_kbytes * 1024 // PAGE_SIZE
    marks = []
    for i, zone in enumerate(config.zones):
        mark = pages_min * zone.pages // lowmem
        gap = max(mark // 4, zone.pages * 10 // 10000)
        if zone.name == "Movable" and since_6_3:
            mark = max(32, min(128, zone.pages // 1024))
        reserve = [0, 0, 0, 0]
        ratio = LOWMEM_RATIO[zone.name]
        for top in range(ZONE_ORDER.index(zone.name) + 1, 4):
            above = sum(
                z.pages for j, z in enumerate(config.zones) if j != i and z.node == zone.node and _between(zone, z, top)
            )
            populated = any(z.name == ZONE_ORDER[top] and z.node == zone.node for z in config.zones)
            reserve[top] = above // ratio if ratio and populated else 0
        for top in range(1, 4):  # a request may reach up to a type this node does not have
            reserve[top] = max(reserve[top], reserve[top - 1])
        marks.append(Watermarks((reserve[0], reserve[1], reserve[2], reserve[3]), mark, mark + gap, mark + 2 * gap))
    return marks


def _between(low: ZoneConfig, other: ZoneConfig, top: int) -> bool:
    return ZONE_ORDER.index(low.name) < ZONE_ORDER.index(other.name) <= top


# ---------------------------------------------------------------- --machine KEY=VALUE
def parse_size(text: str) -> int:
    """Bytes of ``16GiB``, ``512MiB``, ``4096``. Raises ValueError."""
    units = {"kib": 1 << 10, "mib": 1 << 20, "gib": 1 << 30, "tib": 1 << 40, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30}
    lowered = text.strip().lower()
    for unit, factor in units.items():
        if lowered.endswith(unit):
            return int(float(lowered.removesuffix(unit)) * factor)
    return int(lowered)


def _share(text: str) -> float:
    value = float(text)
    if not 0 <= value < 1:
        raise ValueError("a share from 0 to below 1")
    return value


def _full_share(text: str) -> float:
    value = float(text)
    if not 0 <= value <= 1:
        raise ValueError("a share from 0 to 1")
    return value


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise ValueError("a whole number above 0")
    return value


def _not_negative(text: str) -> int:
    value = int(text)
    if value < 0:
        raise ValueError("a whole number from 0")
    return value


def _flag(text: str) -> bool:
    if text.lower() in ("1", "true", "yes", "on"):
        return True
    if text.lower() in ("0", "false", "no", "off"):
        return False
    raise ValueError("true or false")


KEYS: dict[str, str] = {
    "memory": "size, e.g. 16GiB",
    "cpus": "1 to 1024",
    "nodes": "1 to 8",
    "generation": ", ".join(GENERATIONS),
    "occupancy": "share of pages in use at the start, 0 to below 1",
    "fragmentation": "share of free pages in order-0 blocks at the start, 0 to below 1",
    "pcp.batch": "pages",
    "pcp.high": "pages, fixed",
    "pcp.scale_max": "0 to 6",
    "pcp_lock": f"one of {', '.join(PCP_LOCKS)}",
    "vmstat_interval": "seconds, 0 for never",
    "watermark_boost_factor": "ten-thousandths of the high watermark, 0 for no boost",
    "kswapd_rate": "pages a ms that kswapd frees while it runs",
    "reclaim_pages": "pages that one direct reclaim frees",
    "compaction_success": "share of direct compactions that yield a block, 0 to 1",
    "cma": "size in whole 4MiB, at the end of the largest zone, e.g. 64MiB",
    "percpu_batch": "batch of percpu counters, such as that behind dm-crypt's quota; 0 for exact ones",
    "init_on_alloc": "true or false",
    "direct_map.1g": "share of whole GiBs that the direct map holds in 1 GiB entries, 0 to 1",
    "direct_map.4k": "share of the other 2 MiB units that it holds in 4 KiB entries, 0 to 1",
    "seed": "whole number",
}
"""Keys of ``--machine`` and what they take."""


def with_option(config: MachineConfig, key: str, text: str) -> MachineConfig:
    """The machine with one ``--machine KEY=VALUE`` applied. Raises ParameterError naming the key and what it takes."""
    if key not in KEYS:
        guess = nearest(key, KEYS)
        listing = f"machine keys: {', '.join(KEYS)}"
        raise ParameterError(f"no machine key {key!r}", hint=f"did you mean {guess!r}? {listing}" if guess else listing)
    try:
        return _apply(config, key, text)
    except (ValueError, KeyError) as error:
        raise ParameterError(f"machine key {key!r} cannot be {text!r}", hint=f"it takes {KEYS[key]}") from error


def _apply(config: MachineConfig, key: str, text: str) -> MachineConfig:
    match key:
        case "memory":
            size = parse_size(text)
            if size < 64 << 20:
                raise ValueError("at least 64MiB")
            zones = default_zones(size, config.nodes)
            return replace(config, zones=zones, direct_map=DirectMap(), source="options")
        case "nodes":
            nodes = _positive(text)
            if nodes > 8:
                raise ValueError("at most 8")
            end = max(z.end for z in config.zones)
            return replace(config, nodes=nodes, zones=default_zones(end * PAGE_SIZE, nodes), source="options")
        case "cpus":
            cpus = _positive(text)
            if cpus > 1024:
                raise ValueError("at most 1024")
            return replace(config, cpus=cpus)
        case "generation":
            return replace(config, generation=GENERATIONS[text].name)
        case "occupancy":
            return _forget_blocks(replace(config, occupancy=_share(text)))
        case "fragmentation":
            return _forget_blocks(replace(config, fragmentation=_share(text)))
        case "pcp.batch":
            return replace(config, pcp_batch=_positive(text))
        case "pcp.high":
            return replace(config, pcp_high=_positive(text))
        case "pcp.scale_max":
            scale = int(text)
            if not 0 <= scale <= 6:
                raise ValueError("0 to 6")
            return replace(config, pcp_scale_max=scale)
        case "pcp_lock":
            if text not in PCP_LOCKS:
                raise ValueError(text)
            return replace(config, pcp_lock=text)
        case "vmstat_interval":
            interval = float(text)
            if not 0 <= interval <= 86400:
                raise ValueError("0 to a day")
            return replace(config, vmstat_interval=interval)
        case "watermark_boost_factor":
            return replace(config, watermark_boost_factor=_not_negative(text))
        case "kswapd_rate":
            return replace(config, kswapd_rate=_not_negative(text))
        case "reclaim_pages":
            return replace(config, reclaim_pages=_not_negative(text))
        case "compaction_success":
            return replace(config, compaction_success=_full_share(text))
        case "direct_map.1g":
            return replace(config, direct_map=replace(config.direct_map, share_1g=_full_share(text), recorded_kib=None))
        case "direct_map.4k":
            return replace(config, direct_map=replace(config.direct_map, share_4k=_full_share(text), recorded_kib=None))
        case "cma":
            return _with_cma(config, parse_size(text))
        case "percpu_batch":
            return replace(config, percpu_batch=_not_negative(text))
        case "init_on_alloc":
            return replace(config, init_on_alloc=_flag(text))
        case _:
            return replace(config, seed=int(text))


def _with_cma(config: MachineConfig, size: int) -> MachineConfig:
    """A CMA area at the end of the largest zone, whose occupancy then counts for the rest."""
    largest = max(config.zones, key=lambda z: z.pages)
    if size < 0 or size % CMA_UNIT or size // PAGE_SIZE > largest.pages // 2:
        raise ValueError("whole 4MiB, at most half of the largest zone")
    chosen = replace(largest, cma_pages=size // PAGE_SIZE)
    return _forget_blocks(replace(config, zones=tuple(chosen if z is largest else z for z in config.zones)))


def _forget_blocks(config: MachineConfig) -> MachineConfig:
    """Occupancy and fragmentation replace what a snapshot said of free blocks."""
    return replace(config, zones=tuple(replace(z, free_blocks=None, free_by_type=None) for z in config.zones))


def machine_options(config: MachineConfig, options: Mapping[str, str]) -> MachineConfig:
    """Apply several ``--machine`` options; memory and nodes first, since they rebuild the zones."""
    for key in sorted(options, key=lambda k: (k != "nodes", k != "memory")):
        config = with_option(config, key, options[key])
    return config


def free_pages_of(zone: ZoneConfig) -> int | None:
    """Free pages that a zone's block counts add up to, or None."""
    if zone.free_blocks is None:
        return None
    return sum(n << order for order, n in enumerate(zone.free_blocks[:NR_PAGE_ORDERS]))
