"""gfp masks: names, composites and text form (page-allocator.md section 1.6).

Bits 0 to 23 are stable over the kernels read (5.10 to 6.19) but for 0x200 and 0x800000. From bit 24 on the
numbering depends on version and configuration; a trace carries its own table where it is known.
"""

from __future__ import annotations

from collections.abc import Mapping

GFP_BITS: dict[str, int] = {
    "__GFP_DMA": 0x1,
    "__GFP_HIGHMEM": 0x2,
    "__GFP_DMA32": 0x4,
    "__GFP_MOVABLE": 0x8,
    "__GFP_RECLAIMABLE": 0x10,
    "__GFP_HIGH": 0x20,
    "__GFP_IO": 0x40,
    "__GFP_FS": 0x80,
    "__GFP_ZERO": 0x100,
    "__GFP_ATOMIC": 0x200,
    "__GFP_DIRECT_RECLAIM": 0x400,
    "__GFP_KSWAPD_RECLAIM": 0x800,
    "__GFP_WRITE": 0x1000,
    "__GFP_NOWARN": 0x2000,
    "__GFP_RETRY_MAYFAIL": 0x4000,
    "__GFP_NOFAIL": 0x8000,
    "__GFP_NORETRY": 0x10000,
    "__GFP_MEMALLOC": 0x20000,
    "__GFP_COMP": 0x40000,
    "__GFP_NOMEMALLOC": 0x80000,
    "__GFP_HARDWALL": 0x100000,
    "__GFP_THISNODE": 0x200000,
    "__GFP_ACCOUNT": 0x400000,
    "__GFP_ZEROTAGS": 0x800000,
}
"""Single flags whose bit is the same in every kernel read."""

GFP_MOVABLE = GFP_BITS["__GFP_MOVABLE"]
GFP_RECLAIMABLE = GFP_BITS["__GFP_RECLAIMABLE"]
GFP_HIGHMEM = GFP_BITS["__GFP_HIGHMEM"]
GFP_HIGH = GFP_BITS["__GFP_HIGH"]
GFP_IO = GFP_BITS["__GFP_IO"]
GFP_FS = GFP_BITS["__GFP_FS"]
GFP_ZERO = GFP_BITS["__GFP_ZERO"]
GFP_HARDER = GFP_BITS["__GFP_ATOMIC"]
"""Bit of its own in GFP_ATOMIC up to 6.2; unused since."""
GFP_DIRECT_RECLAIM = GFP_BITS["__GFP_DIRECT_RECLAIM"]
GFP_KSWAPD_RECLAIM = GFP_BITS["__GFP_KSWAPD_RECLAIM"]
GFP_NOWARN = GFP_BITS["__GFP_NOWARN"]
GFP_RETRY_MAYFAIL = GFP_BITS["__GFP_RETRY_MAYFAIL"]
GFP_NORETRY = GFP_BITS["__GFP_NORETRY"]
GFP_MEMALLOC = GFP_BITS["__GFP_MEMALLOC"]
GFP_COMP = GFP_BITS["__GFP_COMP"]
GFP_NOMEMALLOC = GFP_BITS["__GFP_NOMEMALLOC"]
GFP_HARDWALL = GFP_BITS["__GFP_HARDWALL"]
GFP_THISNODE = GFP_BITS["__GFP_THISNODE"]
GFP_ACCOUNT = GFP_BITS["__GFP_ACCOUNT"]

GFP_NOWAIT = 0x800
GFP_NOIO = 0xC00
GFP_NOFS = 0xC40
GFP_KERNEL = 0xCC0
GFP_ATOMIC = 0x820


def gfp_table(release: str | None) -> dict[str, int]:
    """Every name that a kernel of ``release`` ("6.1.20", None = newest) prints, composites first.

    The order is that of the kernel's own table (include/trace/events/mmflags.h), which decides how a mask is
    written; reading is an OR over names and does not depend on it.
    """
    version = _version(release)
    old_skip = 0x1000000 if (5, 14) <= version < (6, 0) else 0
    atomic = 0xA20 if version < (6, 3) else 0x820
    nowait = 0x800 if version < (6, 7) else 0x2800
    user_movable = 0x100CCA | old_skip
    composites = {
        "GFP_TRANSHUGE": 0x1C24CA | old_skip,
        "GFP_TRANSHUGE_LIGHT": 0x1C20CA | old_skip,
        "GFP_HIGHUSER_MOVABLE": user_movable,
        "GFP_HIGHUSER": 0x100CC2,
        "GFP_USER": 0x100CC0,
        "GFP_KERNEL_ACCOUNT": 0x400CC0,
        "GFP_KERNEL": 0xCC0,
        "GFP_NOFS": 0xC40,
        "GFP_ATOMIC": atomic,
        "GFP_NOIO": 0xC00,
        "GFP_NOWAIT": nowait,
        "GFP_DMA": 0x1,
        "GFP_DMA32": 0x4,
        "__GFP_RECLAIM": 0xC00,
    }
    high: dict[str, int] = {}
    if (5, 14) <= version < (6, 0):
        high = {"__GFP_SKIP_KASAN_POISON": 0x1000000, "__GFP_NOLOCKDEP": 0x2000000}
    elif (6, 0) <= version < (6, 8):
        high = {
            "__GFP_SKIP_ZERO": 0x1000000,
            "__GFP_SKIP_KASAN_UNPOISON": 0x2000000,
            "__GFP_SKIP_KASAN_POISON": 0x4000000,
        }
    elif version >= (6, 10):
        high = {"__GFP_NO_OBJ_EXT": 0x1000000}
    return {**composites, **GFP_BITS, **high}


def _version(release: str | None) -> tuple[int, int]:
    if not release:
        return (99, 0)
    parts = release.split(".")
    try:
        return int(parts[0]), int("".join(c for c in parts[1] if c.isdigit()) or 0)
    except (ValueError, IndexError):
        return (99, 0)


def parse_gfp(text: str, table: Mapping[str, int]) -> int:
    """Mask of a text such as ``GFP_KERNEL|__GFP_ZERO|0x1000000``. Raises KeyError on an unknown name."""
    if text in ("", "none"):
        return 0
    mask = 0
    for name in text.split("|"):
        mask |= int(name, 16) if name.startswith("0x") else table[name]
    return mask


def format_gfp(mask: int, table: Mapping[str, int]) -> str:
    """Text of a mask as the kernel prints it: names top-down while all their bits are still set."""
    if mask == 0:
        return "none"
    names = []
    for name, bits in table.items():
        if bits and mask & bits == bits:
            names.append(name)
            mask &= ~bits
    if mask:
        names.append(hex(mask))
    return "|".join(names)
