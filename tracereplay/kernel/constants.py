"""Numbers that name things in the page allocator (page-allocator.md section 1)."""

from __future__ import annotations

PAGE_SIZE = 4096
SECTOR_SIZE = 512
"""Block tracepoints count sectors of 512 bytes whatever the device (include/trace/events/block.h)."""

MAX_PAGE_ORDER = 10
"""Largest order, inclusive (``MAX_PAGE_ORDER`` since 6.8; ``MAX_ORDER`` - 1 up to 6.3)."""
NR_PAGE_ORDERS = MAX_PAGE_ORDER + 1
PAGEBLOCK_ORDER = 9
GIB_ORDER = 18
"""Pages of an entry of 1 GiB in the direct map."""
PAGE_ALLOC_COSTLY_ORDER = 3

NO_PFN = 2**64 - 1
"""What the binary record of ``mm_page_alloc`` carries for a failed allocation."""

# enum migratetype: the first three are on pcp lists; 4 and 5 depend on CONFIG_CMA (section 1.3).
MIGRATE_UNMOVABLE = 0
MIGRATE_MOVABLE = 1
MIGRATE_RECLAIMABLE = 2
MIGRATE_PCPTYPES = 3
MIGRATE_HIGHATOMIC = 3
MIGRATE_CMA = 4
"""With CONFIG_CMA; without, 4 is Isolate."""
MIGRATE_UNMAPPED = 6
"""No kernel's: the type of an RFC of 2022 (strategies.md 6.5), behind those of all kernels."""
MIGRATETYPE_NAMES = ("Unmovable", "Movable", "Reclaimable", "HighAtomic", "CMA", "Isolate")


def migratetype_of_gfp(gfp: int) -> int:
    """Migratetype that a gfp mask asks for (``gfp_migratetype``, include/linux/gfp.h)."""
    return (gfp & 0x18) >> 3 if (gfp & 0x18) != 0x18 else MIGRATE_UNMOVABLE


def dev_text(dev: int) -> str:
    """``major,minor`` of a kernel dev_t as the tracepoints carry it (20 minor bits)."""
    return f"{dev >> 20},{dev & 0xFFFFF}"


def dev_number(major: int, minor: int) -> int:
    """Kernel dev_t of a major and a minor number."""
    return major << 20 | minor
