"""The allocation entry: ``__alloc_pages`` of mm/page_alloc.c (page-allocator.md 4.1).

The preferred zone is tried here, inlined; the rest of the zonelist is in freelist.py, what follows below LOW in
slow_path.py.
"""

# mypy: disable-error-code="no-untyped-def, no-untyped-call"

from __future__ import annotations

from tracereplay.compiled import entry, hot
from tracereplay.kernel.constants import MIGRATE_MOVABLE
from tracereplay.kernel.gfp import GFP_COMP
from tracereplay.machine.alloc_flags import ALLOC_KSWAPD
from tracereplay.machine.buddy import note_movable, set_info
from tracereplay.machine.counters import (
    ALLOC_CALLS,
    COMPOUND_PREPS,
    FAILED_ATTEMPTS,
    FAILED_ATTEMPTS_BY_ORDER,
    PAGES_ALLOCATED,
    PAGES_ALLOCATED_BY_ORDER,
    TAIL_PAGES_PREPARED,
)
from tracereplay.machine.freelist import get_page, rmqueue_zone, zone_passes
from tracereplay.machine.layout import (
    INFO_CPU_SHIFT,
    INFO_TYPE_SHIFT,
    USED,
    Z_NOFRAGMENT,
    Z_SKIP,
    Z_WORDS,
    Machine,
)
from tracereplay.machine.misuse import has_cpu, has_order
from tracereplay.machine.page_prep import charge_if_accounted, check_handed, zero_if_asked
from tracereplay.machine.slow_path import slow_path
from tracereplay.machine.zonelist import highest_zone, migratetype, zonelist


@hot
def prepare(m, cpu, pfn, order, gfp, mt):
    """What ``prep_new_page`` does to a block that is handed out: state, zeroing, compound heads; and its accounting."""
    set_info(m, pfn, USED | (cpu << INFO_CPU_SHIFT) | (mt << INFO_TYPE_SHIFT) | order)
    if mt == MIGRATE_MOVABLE:
        note_movable(m, pfn, order, 1)
    m.c[PAGES_ALLOCATED] += 1 << order
    m.c[PAGES_ALLOCATED_BY_ORDER + order] += 1 << order
    check_handed(m, 1 << order)
    zero_if_asked(m, order, gfp)
    if order > 0 and gfp & GFP_COMP:
        m.c[COMPOUND_PREPS] += 1
        m.c[TAIL_PAGES_PREPARED] += (1 << order) - 1
    charge_if_accounted(m, gfp)


@hot
def alloc_pages_here(m, cpu, order, gfp):
    """``alloc_pages``, inlined: for the one place where every event passes."""
    m.c[ALLOC_CALLS] += 1
    mt = migratetype(gfp)
    top = highest_zone(gfp)
    z = m.w[zonelist(m, cpu, gfp)]
    flags = m.w[z * Z_WORDS + Z_NOFRAGMENT] | gfp & ALLOC_KSWAPD | (mt & MIGRATE_MOVABLE) << 2
    pfn = -1
    if m.w[z * Z_WORDS + Z_SKIP] == 0 and zone_passes(m, z, order, top, flags):
        pfn = rmqueue_zone(m, z, cpu, order, mt, flags)
    if pfn < 0:
        pfn = alloc_pages_elsewhere(m, cpu, order, gfp, mt, flags, 0 if m.w[z * Z_WORDS + Z_SKIP] else 1)
    if pfn >= 0:
        prepare(m, cpu, pfn, order, gfp, mt)
    return pfn


@entry(Machine, int, int, int)
def alloc_pages(m, cpu, order, gfp):
    """Allocate a block of ``order`` (``__alloc_pages``). First frame, or -1 when it failed."""
    if not has_order(m, order) or not has_cpu(m, cpu):
        return -1
    return alloc_pages_here(m, cpu, order, gfp)


@entry(Machine, int, int, int, int)
def alloc_of_type(m, cpu, order, gfp, mt):
    """``alloc_pages`` for a migratetype that no gfp flag asks for: MIGRATE_UNMAPPED. First frame or -1."""
    m.c[ALLOC_CALLS] += 1
    z = m.w[zonelist(m, cpu, gfp)]
    pfn = alloc_pages_elsewhere(m, cpu, order, gfp, mt, m.w[z * Z_WORDS + Z_NOFRAGMENT] | gfp & ALLOC_KSWAPD, 0)
    if pfn >= 0:
        prepare(m, cpu, pfn, order, gfp, mt)
    return pfn


@entry(Machine, int, int, int, int, int, int)
def alloc_pages_elsewhere(m, cpu, order, gfp, mt, flags, first):
    """What follows when the preferred zone gave nothing: the zonelist from place ``first`` on, then the slow path."""
    pfn = get_page(m, cpu, order, gfp, mt, flags, first)
    if pfn < 0:
        pfn = slow_path(m, cpu, order, gfp, mt)
    if pfn < 0:
        m.c[FAILED_ATTEMPTS] += 1
        m.c[FAILED_ATTEMPTS_BY_ORDER + order] += 1
    return pfn
