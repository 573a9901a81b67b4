"""What the case study replays: traces by request size, and states of memory to start from.

A level of fragmentation is what a real kernel was brought to for ``traces/dmcrypt-6.12-frag3``: all free memory is
taken as single pages and given back, but for the last page of every 2^f. What is free then lies in blocks of orders 0
to f-1, one of each in 2^f pages.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

from tracereplay.kernel.constants import NR_PAGE_ORDERS
from tracereplay.machine.config import MachineConfig, ZoneConfig

STRATEGIES = ("per-page", "bulk", "mempool-bulk", "compound", "compound-3=compound:max_order=3")
SEEDS = (0, 1, 2)
"""Seeds of placement; the first is that of the plots."""
LEVELS = (None, 8, 7, 6, 5, 4, 3, 2, 1, 0)
"""Largest order of free blocks at the start; None: as the trace's snapshot says."""
ZEROED = (None, 3, 0)
"""Levels that are replayed with ``init_on_alloc`` as well, all for requests of 1 MiB."""
SHALLOW = 252
"""Pages that a per-CPU list may hold, where it is short: the least that kernels since 5.14 allow."""
SURVIVORS = (1, 2, 4, 8, 16)
"""Blocks of the request's order that are left where all else is single pages."""
MOVABLE = 6000
"""Free movable pages with which the page faults of the fragmented guest need no fallback to unmovable blocks."""
WRITERS = (1, 4, 16, 32)
"""Copies of a trace that run beside each other."""
PRESSED = (2560, 3584, 4096)
"""Free pages above the LOW watermark at the start of runs under pressure; fio takes most of them before it writes."""


@dataclass(frozen=True, slots=True)
class Source:
    """A trace of one request size."""

    trace: str
    kernel: str
    kib: int
    """KiB of a request."""

    @property
    def order(self) -> int:
        """Order of a block that holds a request."""
        return (self.kib // 4).bit_length() - 1


SOURCES = (
    Source("dmcrypt-6.1-4k", "6.1", 4),
    Source("dmcrypt-6.1-64k", "6.1", 64),
    Source("dmcrypt-6.1-128k", "6.1", 128),
    Source("dmcrypt-6.1-1M", "6.1", 1024),
    Source("dmcrypt-6.12-4k", "6.12", 4),
    Source("dmcrypt-6.12-128k", "6.12", 128),
    Source("dmcrypt-6.12-256k", "6.12", 256),
    Source("dmcrypt-6.12-1M", "6.12", 1024),
)
LARGE = tuple(s for s in SOURCES if s.kib == 1024)
FRAGMENTED = Source("dmcrypt-6.12-frag3", "6.12", 128)
"""The guest whose memory was fragmented before it was recorded."""


@dataclass(frozen=True, slots=True)
class Case:
    """One replay: all strategies on one state of memory."""

    source: Source
    largest: int | None = None
    """Of LEVELS."""
    survivors: int = 0
    """Blocks of the request's order besides."""
    spare: int | None = None
    """Free pages above LOW; None: as many as the snapshot has, less those that the procedure keeps."""
    movable: int = 0
    """Free single pages in movable pageblocks besides."""
    pcp_high: int | None = None
    copies: int = 1
    """Of the whole trace, beside each other on so many times the CPUs."""
    zeroed: bool = False
    seed: int = 0

    def key(self) -> dict[str, str | int | bool]:
        """What identifies the case in the stored counters: the trace, and what differs from the defaults."""
        plain = Case(self.source)
        different = {
            f.name: getattr(self, f.name) for f in fields(self) if getattr(self, f.name) != getattr(plain, f.name)
        }
        return {"trace": self.source.trace, **different}


def all_cases() -> list[Case]:
    """Every replay of the study."""
    return [
        *(Case(s, k) for s in SOURCES for k in LEVELS),
        *(Case(s, k, zeroed=True) for s in SOURCES for k in (LEVELS if s in LARGE else ZEROED)),
        *(Case(s, k, seed=seed) for s in LARGE for k in (None, 3, 1, 0) for seed in SEEDS[1:]),
        *(Case(s, 0, survivors=n, seed=seed) for s in LARGE for n in SURVIVORS for seed in SEEDS),
        *(Case(LARGE[0], k, spare=n) for k in (None, 3, 0) for n in PRESSED),
        *(Case(s, k, pcp_high=SHALLOW) for s in LARGE for k in (None, 3, 0)),
        *(Case(s, k, copies=n) for s in LARGE for k in (None, 3, 0) for n in WRITERS[1:]),
        *(Case(FRAGMENTED, k, seed=seed) for k in (None, 2) for seed in SEEDS),
        *(Case(FRAGMENTED, movable=MOVABLE, seed=seed) for seed in SEEDS),
    ]


def machine_for(case: Case, recorded: MachineConfig) -> MachineConfig:
    """The recorded host in the state of memory that a case names."""
    config = replace(recorded, init_on_alloc=case.zeroed, seed=case.seed, pcp_high=case.pcp_high)
    if case.largest is None and case.spare is None and not case.movable:
        return config
    return replace(config, zones=tuple(with_blocks(z, case, config) for z in config.zones))


def with_blocks(zone: ZoneConfig, case: Case, config: MachineConfig) -> ZoneConfig:
    """The zone with its free blocks as the procedure leaves them.

    Half of the groups are of unmovable pageblocks and half of movable ones, so that no request needs a fallback to
    another type; blocks that survived are unmovable, in the largest zone. Under pressure the largest zone has LOW and
    the spare pages, smaller ones as much as requests for the largest may not touch.
    """
    assert zone.free_blocks is not None
    assert zone.watermarks is not None
    largest = zone.pages == max(z.pages for z in config.zones)
    if case.movable:
        return with_movable(zone, case.movable) if largest else zone
    top = 10 if case.largest is None else case.largest
    pages = sum(n << order for order, n in enumerate(zone.free_blocks)) * ((2 << top) - 1) >> (top + 1)
    if case.spare is not None:
        pages = zone.watermarks.low + (case.spare if largest else zone.watermarks.low_reserve[2])
    groups = pages // ((2 << top) - 1)
    half = [groups // 2 if order <= top else 0 for order in range(NR_PAGE_ORDERS)]
    unmovable = list(half)
    unmovable[0] += pages - 2 * (groups // 2) * ((2 << top) - 1)
    unmovable[case.source.order] += case.survivors if largest else 0
    return replace(
        zone,
        free_blocks=tuple(a + b for a, b in zip(half, unmovable, strict=True)),
        free_by_type=(tuple(unmovable), tuple(half), (0,) * NR_PAGE_ORDERS),
    )


def with_movable(zone: ZoneConfig, pages: int) -> ZoneConfig:
    """The zone with more free movable single pages."""
    assert zone.free_blocks is not None
    assert zone.free_by_type is not None
    unmovable, movable, reclaimable = zone.free_by_type
    return replace(
        zone,
        free_blocks=(zone.free_blocks[0] + pages, *zone.free_blocks[1:]),
        free_by_type=(unmovable, (movable[0] + pages, *movable[1:]), reclaimable),
    )
