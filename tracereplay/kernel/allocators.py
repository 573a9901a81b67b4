"""Names of functions that are part of the allocator, or between it and tracing: the caller is behind them."""

from __future__ import annotations

import re

ALLOCATOR = re.compile(
    r"^(trace_event_raw_event_|perf_trace_|bpf_|__traceiter_|__bpf_trace_)"
    r"|^(__)?alloc_pages|^__?alloc_frozen_pages|^alloc_frozen_pages|^alloc_page(s|_)|^alloc_pages_|^__folio_alloc|^folio_alloc|^vma_alloc_folio"
    r"|^get_zeroed_page|^__get_free_page|^get_free_page|^alloc_page$|^alloc_pages_exact|^make_alloc_exact"
    r"|^mempool_alloc|^crypt_page_alloc|^mempool_kmalloc|^__rmqueue|^rmqueue|^get_page_from_freelist|^prep_new_page|^post_alloc_hook|^(__)?set_page_owner|^save_stack"
    r"|^___?slab_alloc|^__slab_alloc|^allocate_slab|^new_slab|^slab_alloc|^kmem_cache_alloc|^__kmem_cache_alloc|^__kmalloc|^kmalloc"
    r"|^__vmalloc|^vm_area_alloc_pages|^vmalloc|^__vm_area_alloc|^pcpu_"
)
"""Matches at the beginning of a function's name."""
