"""What a request may do on its way through the zones: ALLOC_* of mm/internal.h, as this machine numbers them.

Requests carry them as one integer beside their gfp mask. Imports no Numba.
"""

from __future__ import annotations

ALLOC_NOFRAGMENT = 1 << 0
"""Take no pages of other pageblocks' types."""
ALLOC_CMA = 1 << 2
"""May use CMA pages: every movable request, whose migratetype shifted by two it is."""
ALLOC_HIGHATOMIC = 1 << 3
"""May use, and afterwards reserve, HIGHATOMIC blocks. Up to 6.2 it stands for ALLOC_HARDER of an order above 0."""
ALLOC_NON_BLOCK = 1 << 4
"""Cannot wait (since 6.3)."""
ALLOC_MIN_RESERVE = 1 << 5
"""``__GFP_HIGH``: half of MIN (ALLOC_HIGH up to 6.2)."""
ALLOC_HARDER = 1 << 6
"""Another quarter of MIN (up to 6.2)."""
ALLOC_NO_WATERMARKS = 1 << 7
"""Watermarks are tested and ignored."""
ALLOC_WMARK_MIN = 1 << 8
"""The mark is MIN, not LOW."""
ALLOC_UNBOOSTED = 1 << 9
"""At order 0 a test that fails on a boosted MIN is repeated without the boost."""
ALLOC_KSWAPD = 0x800
"""Wakes kswapd: the bit of ``__GFP_KSWAPD_RECLAIM``."""
ALLOC_RESERVES = ALLOC_HIGHATOMIC | ALLOC_NON_BLOCK | ALLOC_MIN_RESERVE | ALLOC_HARDER
"""Any of those that make a watermark test more than a comparison."""
