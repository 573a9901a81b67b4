"""The kernel's direct map: which 2 MiB and 1 GiB entries are split, and what unmapping costs (strategies.md 6.3, 6.8).

Unmapping one 4 KiB page of a 2 MiB entry splits it; under a 1 GiB entry two splits happen. Entries never collapse
again. A range is flushed once.
"""

# mypy: disable-error-code="no-untyped-def, no-untyped-call"

from __future__ import annotations

from tracereplay.compiled import inner
from tracereplay.kernel.constants import PAGEBLOCK_ORDER
from tracereplay.machine.counters import (
    DIRECT_MAP_SPLITS,
    TLB_FLUSHES,
)
from tracereplay.machine.layout import B_MAPPED_4K, B_WORDS, CFG_GIB_PAGES, CFG_SPLIT_GIB

BLOCKS_PER_GIB = 512
IN_GIB_SPLIT = 2
"""Bit in ``B_MAPPED_4K`` of a GiB's first pageblock: the GiB entry is split."""


@inner
def unmap_block(m, pfn, order):
    """Take a block out of the direct map: the entries it touches are split, then one flush for the range."""
    for block in range(pfn >> PAGEBLOCK_ORDER, ((pfn + (1 << order) - 1) >> PAGEBLOCK_ORDER) + 1):
        if m.pb[block * B_WORDS + B_MAPPED_4K] & 1:
            continue
        m.pb[block * B_WORDS + B_MAPPED_4K] |= 1
        m.c[DIRECT_MAP_SPLITS] += 1
        gib = block - block % BLOCKS_PER_GIB
        if m.w[CFG_GIB_PAGES] and not m.pb[gib * B_WORDS + B_MAPPED_4K] & IN_GIB_SPLIT:
            m.pb[gib * B_WORDS + B_MAPPED_4K] |= IN_GIB_SPLIT
            m.w[CFG_SPLIT_GIB] += 1
            m.c[DIRECT_MAP_SPLITS] += 1
    m.c[TLB_FLUSHES] += 1
