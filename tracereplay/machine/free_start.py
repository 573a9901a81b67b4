"""How many free blocks of which order and migratetype a zone starts with. Imports no Numba.

The procedure by which options change it, zone by zone, its CMA area apart:

1. *How many pages are free:* ``occupancy`` says it where it is given; else as many as the snapshot counts (of a zone
   that gives part of itself to CMA, the same share of the rest); without a snapshot, half.
2. *Of which types:* in the shares in which the snapshot counts them; without one, movable.
3. *In blocks of which order:* with ``fragmentation``, that share of each type's free pages in order-0 blocks, the rest
   in the largest blocks. Else as the snapshot counts them, each order's share kept; without one, the largest blocks.
4. ``largest_free_order``: blocks above it are cut into blocks of that order.
5. *Room:* a block lies beside a page in use, else it would be part of a larger one. Where too few pages are in use for
   that, fewer are free (noted); where ``occupancy`` fixes their number, some lie in the largest blocks in place of the
   recorded ones, and with ``fragmentation`` or ``largest_free_order`` that is refused.

Where they lie is drawn by seed (``build.py``).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from tracereplay.errors import ParameterError
from tracereplay.kernel.constants import MAX_PAGE_ORDER, MIGRATE_MOVABLE, MIGRATE_PCPTYPES, NR_PAGE_ORDERS

if TYPE_CHECKING:
    from tracereplay.machine.config import MachineConfig, ZoneConfig

Blocks = list[list[int]]
"""Free blocks by (migratetype, order)."""


@dataclass(frozen=True, slots=True)
class Asked:
    """What options ask of free memory at the start; None: nothing."""

    occupancy: float | None = None
    """Share of the managed pages that is in use."""
    fragmentation: float | None = None
    """Share of the free pages that lies in order-0 blocks."""
    largest_free_order: int | None = None
    """No free block is larger."""


_NOTHING = Asked()


def starting_blocks(zone: ZoneConfig, config: MachineConfig) -> Blocks:
    """Free blocks that a zone starts with, beside its CMA area."""
    return _cut(zone, config, _NOTHING, _free_pages(zone, config, _NOTHING))


def recorded_blocks(zone: ZoneConfig) -> Blocks | None:
    """Free blocks that a snapshot counts, by type: pagetypeinfo's as far as buddyinfo has them, the others movable."""
    if zone.free_blocks is None:
        return None
    left = [*zone.free_blocks[:NR_PAGE_ORDERS], *[0] * (NR_PAGE_ORDERS - len(zone.free_blocks))]
    made = [[0] * NR_PAGE_ORDERS for _ in range(MIGRATE_PCPTYPES)]
    for mt, row in enumerate((zone.free_by_type or ())[:MIGRATE_PCPTYPES]):
        for order, n in enumerate(row[:NR_PAGE_ORDERS]):
            made[mt][order] = min(n, left[order])
            left[order] -= made[mt][order]
    for order, n in enumerate(left):
        made[MIGRATE_MOVABLE][order] += n
    return made


def pages_in(row: list[int]) -> int:
    """Pages of blocks by order."""
    return sum(n << order for order, n in enumerate(row))


def largest_blocks(pages: int) -> list[int]:
    """So many pages in the largest blocks, by order."""
    top = MAX_PAGE_ORDER
    return [pages >> order & 1 for order in range(top)] + [pages >> top]


def _free_pages(zone: ZoneConfig, config: MachineConfig, asked: Asked) -> int:
    recorded = recorded_blocks(zone)
    if asked.occupancy is None and recorded is not None:
        return sum(map(pages_in, recorded))
    occupancy = config.occupancy if asked.occupancy is None else asked.occupancy
    return int((zone.pages - zone.cma_pages) * (1 - occupancy))


def _cut(zone: ZoneConfig, config: MachineConfig, asked: Asked, free: int) -> Blocks:
    """So many free pages as blocks: steps 2 to 4."""
    recorded = recorded_blocks(zone)
    fragmentation = asked.fragmentation
    if fragmentation is None and recorded is None:
        fragmentation = config.fragmentation
    made = []
    for mt, pages in enumerate(_by_type(free, recorded)):
        if fragmentation is None:
            row = _scaled(recorded[mt] if recorded else [], pages)
        else:
            singles = int(pages * fragmentation)
            row = largest_blocks(pages - singles)
            row[0] += singles
        made.append(_capped(row, asked.largest_free_order))
    return made


def _by_type(free: int, recorded: Blocks | None) -> list[int]:
    """Pages of each type: in the recorded shares, what is left over movable."""
    known = [pages_in(row) for row in recorded] if recorded else []
    made = [free * pages // sum(known) for pages in known] if any(known) else [0] * MIGRATE_PCPTYPES
    made[MIGRATE_MOVABLE] += free - sum(made)
    return made


def _scaled(row: list[int], pages: int) -> list[int]:
    """Blocks by order in the shares of ``row``, of so many pages in all; what is left over in the largest blocks."""
    known = pages_in(row)
    made = [n * pages // known for n in row] if known else [0] * NR_PAGE_ORDERS
    return [n + more for n, more in zip(made, largest_blocks(pages - pages_in(made)), strict=True)]


def _capped(row: list[int], largest: int | None) -> list[int]:
    """Blocks by order, those above the largest cut."""
    top = MAX_PAGE_ORDER if largest is None else largest
    cut = sum(n << order - top for order, n in enumerate(row) if order > top)
    return [0 if order > top else n + (cut if order == top else 0) for order, n in enumerate(row)]


# ---------------------------------------------------------------- what options make of it
def restarted(config: MachineConfig, asked: Asked) -> MachineConfig:
    """The machine with its free blocks counted anew, where anything is asked of them. Raises ParameterError."""
    shrunk = any(zone.cma_pages and zone.free_blocks is not None for zone in config.zones)
    if asked == _NOTHING and not shrunk:
        return config
    zones, given_up = [], 0
    for zone in map(_without_cma, config.zones):
        free = _free_pages(zone, config, asked)
        blocks = _placeable(zone, config, asked, free)
        given_up += free - sum(map(pages_in, blocks))
        zones.append(_with_blocks(zone, blocks))
    notes = config.notes
    if given_up:
        notes += (
            f"{given_up} free pages are in use at the start: blocks so small each need a page in use beside them",
        )
    return replace(config, zones=tuple(zones), free_start=_procedure(config, asked), notes=notes)


def _placeable(zone: ZoneConfig, config: MachineConfig, asked: Asked, free: int) -> Blocks:
    """Step 5: blocks for which there is room."""
    blocks = _cut(zone, config, asked, free)
    room, needed = zone.pages - zone.cma_pages, sum(map(_room_for, blocks))
    if needed <= room:
        return blocks
    if asked.occupancy is None:
        return _cut(zone, config, asked, free * room // needed)
    if asked.fragmentation is None and asked.largest_free_order is None:  # what they need grows with their share
        kept = free * (room - free) // (needed - free)
        blocks = _cut(zone, config, asked, kept)
        blocks[MIGRATE_MOVABLE] = [
            n + more for n, more in zip(blocks[MIGRATE_MOVABLE], largest_blocks(free - kept), strict=True)
        ]
        return blocks
    raise ParameterError(
        f"with occupancy={asked.occupancy:g} too few pages are in use to keep blocks so small apart: {free} pages of "
        f"zone {zone.name} are to be free in small blocks, and {room - free} in use",
        hint=f"occupancy={1 - free / needed:.3f} or more, less fragmentation, or no occupancy=: as many as fit",
    )


def _room_for(row: list[int]) -> int:
    """Pages of memory that free blocks of a type need with those in use that keep them from merging.

    A block below the largest order takes one half of a block twice its size; the other half is for smaller ones.
    """
    needed, above = 0, 0
    for order in range(MAX_PAGE_ORDER, -1, -1):
        pages = row[order] << order
        needed = max(needed, above + pages * (1 if order == MAX_PAGE_ORDER else 2))
        above += pages
    return needed


def _with_blocks(zone: ZoneConfig, blocks: Blocks) -> ZoneConfig:
    by_order = tuple(map(sum, zip(*blocks, strict=True)))
    return replace(zone, free_blocks=by_order, free_by_type=tuple(map(tuple, blocks)))


def _without_cma(zone: ZoneConfig) -> ZoneConfig:
    """The zone with recorded free blocks for what CMA leaves of it: the same share of it is free."""
    recorded = recorded_blocks(zone)
    if recorded is None or not zone.cma_pages:
        return zone
    room = zone.pages - zone.cma_pages
    return _with_blocks(zone, [_scaled(row, pages_in(row) * room // zone.pages) for row in recorded])


def _procedure(config: MachineConfig, asked: Asked) -> str:
    """What decided how many pages are free, and what cut them."""
    recorded = all(zone.free_blocks is not None for zone in config.zones)
    pages = "recorded free pages" if recorded else "half in use"
    if asked.occupancy is not None:
        pages = "occupancy"
    cut = "recorded shares by order" if recorded else "largest blocks"
    if asked.fragmentation is not None:
        cut = "fragmentation"
    if asked.largest_free_order is not None:
        cut += f", none above order {asked.largest_free_order}"
    return f"{pages}; {cut}"


def describe_start(config: MachineConfig) -> dict[str, Any]:
    """What a machine starts with, and by which procedure: effective figures over all zones, CMA areas among them."""
    rows = [row for zone in config.zones for row in starting_blocks(zone, config)]
    by_order = [sum(row[order] for row in rows) for order in range(NR_PAGE_ORDERS)]
    by_order[MAX_PAGE_ORDER] += sum(zone.cma_pages for zone in config.zones) >> MAX_PAGE_ORDER
    free, pages = pages_in(by_order), sum(zone.pages for zone in config.zones)
    recorded = all(zone.free_blocks is not None for zone in config.zones)
    return {
        "free_start": config.free_start or ("as counted" if recorded else "as stated"),
        "occupancy": round(1 - free / pages, 6) if pages else None,
        "fragmentation": round(by_order[0] / free, 6) if free else None,
        "largest_free_order": max((order for order, n in enumerate(by_order) if n), default=None),
    }
