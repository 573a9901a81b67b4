"""The kernel's direct map: entries of 1 GiB, 2 MiB and 4 KiB, pages not in it, TLB flushes (strategies.md 6.8).

Mimics ``set_direct_map_invalid_noflush``, ``set_direct_map_default_noflush`` and ``split_large_page`` of
arch/x86/mm/pat/set_memory.c and ``flush_tlb_kernel_range`` of arch/x86/mm/tlb.c. A page is taken out by itself: the
first one of a 2 MiB entry splits it into 512, and its 1 GiB entry before that. Each split takes a page for the new page
table, ``alloc_pages(GFP_KERNEL, 0)``, from the machine; where there is none the page stays mapped. The tables of splits
from before the start are pages in use like any other; which is not known.

``tlb_flushes`` counts flushes of ranges. The ``flush_tlb_all`` within each split belongs to ``direct_map_splits``.
Who is interrupted is every CPU of the machine. Not modelled: the kernel text's own mapping of low memory (its alias is
changed as well), permissions other than present, ``cpa_lock``, entries that the kernel keeps whole for static
protections.
"""

# mypy: disable-error-code="no-untyped-def, no-untyped-call"

from __future__ import annotations

import numpy as np

from tracereplay.compiled import entry, hot, inner
from tracereplay.kernel.constants import GIB_ORDER, PAGEBLOCK_ORDER
from tracereplay.kernel.gfp import GFP_KERNEL
from tracereplay.machine.counters import (
    DIRECT_MAP_COLLAPSES,
    DIRECT_MAP_REMAPS,
    DIRECT_MAP_SPLITS,
    DIRECT_MAP_TABLES,
    DIRECT_MAP_UNMAPS,
    TLB_FLUSHES,
    TLB_FULL_FLUSHES,
)
from tracereplay.machine.layout import (
    B_MAP,
    B_WORDS,
    CFG_BLOCKS,
    CFG_MAP_1G,
    CFG_MAP_4K,
    DM_ABSENT,
    DM_ABSENT_WORDS,
    DM_TABLES,
    MAP_1G,
    MAP_4K,
    Machine,
)
from tracereplay.machine.misuse import has_pages
from tracereplay.machine.page_alloc import alloc_pages
from tracereplay.machine.page_free import free_pages

FLUSH_CEILING = 33
"""Pages of a range above which x86 flushes all (``tlb_single_page_flush_ceiling``)."""


@hot
def table_at(m, number):
    """Place in ``w`` of a page table's frame: ``number`` is a pageblock's, or CFG_BLOCKS + that of a GiB."""
    return DM_ABSENT + m.w[CFG_BLOCKS] * DM_ABSENT_WORDS + number


@inner
def take_table(m, cpu, number):
    """A page for a new page table (``split_large_page``). False: there is none."""
    frame = alloc_pages(m, cpu, 0, GFP_KERNEL)
    if frame < 0:
        return False
    m.w[table_at(m, number)] = frame + 1
    m.w[DM_TABLES] += 1
    m.c[DIRECT_MAP_TABLES] += 1
    m.c[DIRECT_MAP_SPLITS] += 1
    return True


@inner
def split_to_4k(m, cpu, pfn):
    """Split what maps a page down to 4 KiB entries. False: no memory for a page table."""
    block = pfn >> PAGEBLOCK_ORDER
    if m.pb[block * B_WORDS + B_MAP] & MAP_4K:
        return True
    gib = pfn >> GIB_ORDER
    first = (gib << GIB_ORDER - PAGEBLOCK_ORDER) * B_WORDS + B_MAP
    if m.pb[first] & MAP_1G:
        if not take_table(m, cpu, m.w[CFG_BLOCKS] + gib):
            return False
        m.pb[first] &= ~MAP_1G
        m.w[CFG_MAP_1G] -= 1
    if not take_table(m, cpu, block):
        return False
    m.pb[block * B_WORDS + B_MAP] |= MAP_4K
    m.w[CFG_MAP_4K] += 1
    return True


@hot
def is_unmapped(m, pfn):
    """Whether a page is out of the direct map."""
    return (m.w[DM_ABSENT + (pfn >> 6)] >> (pfn & 63)) & 1 != 0


@entry(Machine, int, int, int)
def unmap_pages(m, cpu, pfn, pages):
    """Take pages out of the direct map, one by one, without a flush. How many are out: fewer where a split failed.

    It stops there. Pages that are out already stay so.
    """
    if not has_pages(m, pfn, pages):
        return 0
    for i in range(pages):
        page = pfn + i
        if is_unmapped(m, page):
            continue
        if not split_to_4k(m, cpu, page):
            return i
        m.w[DM_ABSENT + (page >> 6)] |= np.int64(1) << (page & 63)
        m.c[DIRECT_MAP_UNMAPS] += 1
    return pages


@entry(Machine, int, int)
def map_pages(m, pfn, pages):
    """Put pages back into the direct map; no flush is needed. How many were out."""
    done = 0
    if not has_pages(m, pfn, pages):
        return done
    for page in range(pfn, pfn + pages):
        if is_unmapped(m, page):
            m.w[DM_ABSENT + (page >> 6)] &= ~(np.int64(1) << (page & 63))
            done += 1
    m.c[DIRECT_MAP_REMAPS] += done
    return done


@inner
def unmapped_pages(m, pfn, pages):
    """How many of so many pages are out of the direct map."""
    found = 0
    for page in range(pfn, pfn + pages):
        if is_unmapped(m, page):
            found += 1
    return found


@inner
def flush_range(m, pages):
    """One ``flush_tlb_kernel_range`` over so many pages."""
    m.c[TLB_FLUSHES] += 1
    if pages > FLUSH_CEILING:
        m.c[TLB_FULL_FLUSHES] += 1


@entry(Machine, int, int)
def collapse_block(m, cpu, pfn):
    """Make the 512 entries of a page's 2 MiB one again where all its pages are mapped, with a flush. Whether it did.

    The page table goes back to the allocator where a split of this replay took it. 1 GiB entries stay split.
    """
    block = pfn >> PAGEBLOCK_ORDER
    if not m.pb[block * B_WORDS + B_MAP] & MAP_4K:
        return False
    for word in range(block * DM_ABSENT_WORDS, (block + 1) * DM_ABSENT_WORDS):
        if m.w[DM_ABSENT + word] != 0:
            return False
    m.pb[block * B_WORDS + B_MAP] &= ~MAP_4K
    m.w[CFG_MAP_4K] -= 1
    m.c[DIRECT_MAP_COLLAPSES] += 1
    flush_range(m, 1 << PAGEBLOCK_ORDER)
    table = m.w[table_at(m, block)]
    if table > 0:
        m.w[table_at(m, block)] = 0
        m.w[DM_TABLES] -= 1
        free_pages(m, cpu, table - 1, 0)
    return True
