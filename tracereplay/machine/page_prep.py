"""Zeroing and memory cgroups: what the page allocator does to pages on their way out, counted in one place.

Mimics ``post_alloc_hook`` (zeroing where ``__GFP_ZERO`` or init_on_alloc ask for it) and ``__memcg_kmem_charge_page``
(one charge a block of an accounted request). Caches that hand out pages themselves do the same through ops.py.
"""

# mypy: disable-error-code="no-untyped-def, no-untyped-call"

from __future__ import annotations

from tracereplay.compiled import hot
from tracereplay.kernel.gfp import GFP_ACCOUNT, GFP_ZERO
from tracereplay.machine.counters import MEMCG_CHARGES, ZEROED_PAGES
from tracereplay.machine.layout import CFG_INIT_ON_ALLOC


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
def charge_if_accounted(m, gfp):
    """Charge a block to the caller's memory cgroup where the request is accounted."""
    if gfp & GFP_ACCOUNT:
        m.c[MEMCG_CHARGES] += 1
