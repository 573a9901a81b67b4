"""What machine to simulate: zones, CPUs, generation, per-CPU lists, initial occupancy. Imports no Numba.

The default comes from the trace's start snapshot; without one it is a stated 16 GiB, 8 CPU, 6.12 machine.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

from tracereplay.kernel.constants import PAGE_SIZE
from tracereplay.kernel.generations import DEFAULT_GENERATION, GENERATIONS
from tracereplay.machine.directmap_start import DirectMap
from tracereplay.machine.free_start import describe_start

DMA_END = 0x1000
DMA32_END = 0x100000
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
    """Share of managed pages in use at the start, in zones without ``free_blocks``."""
    fragmentation: float = 0.0
    """Share of the free pages that lies in order-0 blocks at the start, in zones without ``free_blocks``."""
    free_start: str | None = None
    """How options counted free blocks anew (``free_start.py``); None: they did not."""
    min_free_kbytes: int | None = None
    """vm.min_free_kbytes; None: as the recorded watermarks have it, else the kernel's own."""
    watermark_scale_factor: int | None = None
    """vm.watermark_scale_factor, ten-thousandths of a zone; None: as recorded, else 10."""
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
    def starts_as_recorded(self) -> bool:
        """Whether free memory starts as a snapshot counts it."""
        return self.source == "snapshot" and not self.free_start and all(z.free_blocks for z in self.zones)

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
            **describe_start(self),
            "min_free_kbytes": self.min_free_kbytes,
            "watermark_scale_factor": self.watermark_scale_factor,
            "llc_pages_per_cpu": self.llc_pages_per_cpu,
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
