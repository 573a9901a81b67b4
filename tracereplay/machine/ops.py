"""Operations of the machine as strategies call them. Loads the compiled machine on first use.

``from tracereplay.machine import ops`` costs nothing until an operation is looked up, so that listing strategies and
their parameters needs no compiler.

``alloc_pages(m, cpu, order, gfp) -> frame | -1``, ``free_pages(m, cpu, frame, order)``,
``alloc_pages_bulk(m, cpu, gfp, wanted, slots) -> populated``, ``bulk_call``, the same in other forms: the page
allocator (page_alloc.py, bulk.py, page_free.py). ``alloc_pages_here`` and ``free_pages_here`` are the same inlined, for
the one place in a strategy where each page passes.
``alloc_of_type(m, cpu, order, gfp, type) -> frame | -1``: for a migratetype that no gfp asks for (page_alloc.py).
``free_to_tail(m, frame, order)``, ``capture_frees(m, frame, on)``: give back what was held back; own the frees of a
pageblock (page_free.py). ``node_of(m, frame)`` (zonelist.py).
``pool_alloc(m, cpu, gfp) -> frame | -1``, ``pool_alloc_again``, the same after a sleep, ``pool_free(m, cpu, frame)``,
``pool_fill(m, cpu, gfp)``, ``pool_push(m, frame)``, ``pool_take(m) -> frame | -1``,
``pool_take_all(m, pages, out, at) -> bool``, ``pool_free_bulk(m, cpu, pages, out)``: the mempool; its callbacks
``quota_alloc(m, cpu, order, gfp)``, ``quota_free(m, cpu, frame, order)`` (mempool.py).
``quota_read(m) -> pages``, ``quota_allows(m, pages) -> bool``, ``quota_add(m, cpu, pages)``, ``quota_forget(m)``: the
path's quota (quota.py).
``cache_put(m, list, frame, order, tail)``, ``cache_take(m, frame, order, cpu)``,
``cache_first(m, list) -> frame | -1``, ``cache_free_order(m, frame) -> order | -1``,
``cache_join(m, frame, order) -> frame``, ``cache_list(m, frame) -> list | -1``: a strategy's own lists;
``cache_own(m, frame, order)``: a block just allocated is for such a list; ``cache_lock(m)``, ``cache_unlock(m)``: its
lock, for the accounting; ``note_block(m, frame, order, note)``, ``noted(m, frame) -> note``: whose a block of at least
64 pages is (cache.py).
``stack_push(m, list, frame, tail)``, ``stack_pop(m, list, cpu) -> frame | -1``: lists of single idle pages
(page_stack.py), with ``taken_on(m, frame) -> cpu``, ``is_local(m, cpu, frame)``, ``cpus(m)``, ``time_now(m)``.
``pop_listed(m, cpu, any_type) -> frame | -1``, ``alloc_listed(m, cpu, gfp) -> frame | -1``: a page that is on the CPU's
lists already (lockless.py).
``cut_block(m, frame, order)``, ``give_page(m, frame, cpu)``, ``keep_page(m, frame)``,
``join_block(m, frame, order, cpu)``: a block that a strategy hands out in single pages, by marks of its own (cut.py).
``unmap_pages(m, cpu, frame, pages) -> pages``, ``map_pages(m, frame, pages) -> pages``, ``flush_range(m, pages)``,
``unmapped_pages(m, frame, pages) -> pages``, ``collapse_block(m, cpu, frame) -> bool``: the direct map, whose splits
take pages for page tables (directmap.py).
``zero_pages(m, pages)``, ``charge_if_accounted(m, gfp)``: what the allocator does to pages on their way out, for those
who hand out their own (page_prep.py).
``mutex_lock(m, owner) -> bool``, ``mutex_unlock(m)``: the path's mutex (mutex.py).
``set_timer(m, number, when)``, ``timer_set(m, number) -> when | 0``, ``chance(m, below) -> number``: background work in
simulated time, and chance from the machine's seed (timers.py).
``count(m, counter, n)``, ``reserve_add(m, pages)``, ``dry_spell(m, ns)``: accounting of work, of idle pages and their
time, of how long a cache was without.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

_HOMES = {
    "alloc_pages": "page_alloc",
    "alloc_pages_here": "page_alloc",
    "alloc_pages_bulk": "bulk",
    "bulk_call": "bulk",
    "free_pages": "page_free",
    "free_pages_here": "page_free",
    "alloc_of_type": "page_alloc",
    "free_to_tail": "page_free",
    "capture_frees": "page_free",
    "node_of": "zonelist",
    "pool_alloc": "mempool",
    "pool_alloc_again": "mempool",
    "pool_fill": "mempool",
    "pool_free": "mempool",
    "pool_free_bulk": "mempool",
    "pool_push": "mempool",
    "pool_take": "mempool",
    "pool_take_all": "mempool",
    "quota_add": "quota",
    "quota_alloc": "mempool",
    "quota_allows": "quota",
    "quota_forget": "quota",
    "quota_free": "mempool",
    "quota_read": "quota",
    "reserve_add": "reserve",
    "dry_spell": "reserve",
    "cache_put": "cache",
    "cache_take": "cache",
    "cache_first": "cache",
    "cache_free_order": "cache",
    "cache_join": "cache",
    "stack_push": "page_stack",
    "stack_pop": "page_stack",
    "taken_on": "page_stack",
    "is_local": "page_stack",
    "cpus": "page_stack",
    "time_now": "page_stack",
    "pop_listed": "lockless",
    "alloc_listed": "lockless",
    "cut_block": "cut",
    "give_page": "cut",
    "join_block": "cut",
    "keep_page": "cut",
    "cache_list": "cache",
    "cache_lock": "cache",
    "cache_own": "cache",
    "cache_unlock": "cache",
    "note_block": "cache",
    "noted": "cache",
    "unmap_pages": "directmap",
    "map_pages": "directmap",
    "flush_range": "directmap",
    "unmapped_pages": "directmap",
    "collapse_block": "directmap",
    "zero_pages": "page_prep",
    "charge_if_accounted": "page_prep",
    "mutex_lock": "mutex",
    "mutex_unlock": "mutex",
    "set_timer": "timers",
    "timer_set": "timers",
    "chance": "timers",
    "count": "cache",
}


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"the machine has no operation {name!r}; see the module's text for those it has")
    return getattr(import_module(f"tracereplay.machine.{home}"), name)
