"""State of a one-pass sweep: where each word of a lane lies, what a lane counts, what a generation says.

A page set's state lies in blocks of LANES settings, rows of LANES 32-bit words each. Imports no Numba.
"""

from __future__ import annotations

LANES = 32
"""Settings in a block: as many as are worth one look whether any of them refills or drains."""
(
    R_TOTAL,  # pages on all lists
    R_HIGH,
    R_FREED,  # free_factor, or free_count since 6.7
    R_ALLOC,  # alloc_factor
    R_BEFORE,  # R_FREED before the step
    R_LEFT,  # frees of the step that are not done yet
    R_LOW,  # high_min
    R_TOP,  # high_max
    R_BATCH,
    R_CAP,  # batch << scale_max
    R_SCALE,
    R_NEED,  # free_count at which a second free of order 1 to 3 drains
    R_KEEPS,  # PCPF_FREE_HIGH_BATCH
    R_TIMES,  # refills or drains of the step
    R_TAKEN,  # and their pages
    R_HAVE,  # R_LISTS and R_AWAY of the list of the step
    R_GONE,
    R_LISTS,  # blocks on each list, then R_AWAY, then R_MOST
) = range(18)
ROOM = 15
"""Lists of a page set at most."""
R_AWAY = R_LISTS + ROOM
"""Blocks that a list's refills took from the buddy lists less those that its drains gave back."""
R_MOST = R_AWAY + ROOM
"""The most of them since the epoch began."""
ROWS = R_MOST + ROOM
# ---- what a lane counts, for each class
N_REFILLS, N_REFILL_PAGES, N_DRAINS, N_DRAIN_PAGES, N_HOLDS, N_LOCKS, LANE_COUNTERS = range(7)
"""N_HOLDS: zone-lock holds of drains. N_LOCKS: pcp locks beyond one for each call."""
# ---- what is the same for all lanes, for each class
M_ALLOCS, M_LOCKS, M_BUDDY, MUTUAL_COUNTERS = range(4)
"""Blocks taken off lists; pcp locks of calls; blocks past the lists."""
# ---- the generation and how the strategy asks
(
    G_RULE,
    G_FROM_FREED,
    G_CHUNKED,
    G_DECAY,
    G_LISTS,  # lists of a page set
    G_BULK,  # the strategy asks in bulk
    G_CAP,  # pages of one of its calls; 0: any number
    G_UNSEEN,  # there is a bulk call
    G_ACCOUNTS,  # which hands accounted requests to the ordinary way
    G_STEADY,  # sizes are fixed and ordinary, see drains_of_fixed
    G_INDEX,  # list -> its number, or -1 where its order has none
) = range(11)
G_ORDERS = G_INDEX + ROOM
"""Number of a list -> its order."""
G_WORDS = G_ORDERS + ROOM
