"""Zeroing, checks and memory cgroups: what the page allocator does to pages on their way out, counted in one place.

Mimics ``post_alloc_hook`` (zeroing where ``__GFP_ZERO`` or init_on_alloc ask for it), ``check_new_pages`` and
``__memcg_kmem_charge_page`` (one charge a block of an accounted request). Caches that hand out pages themselves do the
same through ops.py.
"""

# mypy: disable-error-code="no-untyped-def, no-untyped-call"

from __future__ import annotations

from tracereplay.compiled import hot
from tracereplay.kernel.gfp import GFP_ACCOUNT, GFP_ZERO
from tracereplay.machine.counters import FREED_PAGES_CHECKED, MEMCG_CHARGES, NEW_PAGES_CHECKED, ZEROED_PAGES
from tracereplay.machine.layout import CFG_INIT_ON_ALLOC, CFG_PAGE_CHECKS, CHECK_HANDED, CHECK_LEAVING


@hot
def zero_pages(m, pages):
    """Clear so many pages."""
    m.c[ZEROED_PAGES] += pages


@hot
def zero_if_asked(m, order, gfp):
    """Clear a block that leaves the allocator, where the request or init_on_alloc wants it."""
    if gfp & GFP_ZERO or m.w[CFG_INIT_ON_ALLOC]:
        zero_pages(m, 1 << order)


@hot
def check_leaving(m, pages):
    """``check_new_pages`` where it is done as blocks leave the buddy lists (``check_pcp_refill``, ``rmqueue``)."""
    if m.w[CFG_PAGE_CHECKS] == CHECK_LEAVING:
        m.c[NEW_PAGES_CHECKED] += pages


@hot
def check_handed(m, pages):
    """``check_new_pages`` where it is done as blocks are handed out."""
    if m.w[CFG_PAGE_CHECKS] == CHECK_HANDED:
        m.c[NEW_PAGES_CHECKED] += pages


@hot
def check_freed(m, pages):
    """``free_page_is_bad`` where a kernel can leave it out; that of older kernels is part of every free."""
    if m.w[CFG_PAGE_CHECKS] == CHECK_HANDED:
        m.c[FREED_PAGES_CHECKED] += pages


@hot
def charge_if_accounted(m, gfp):
    """Charge a block to the caller's memory cgroup where the request is accounted."""
    if gfp & GFP_ACCOUNT:
        m.c[MEMCG_CHARGES] += 1
