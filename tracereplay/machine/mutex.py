"""The path's mutex: dm-crypt's ``bio_alloc_lock``, held by the one request that may sleep on an exhausted reserve.

Who finds it taken waits (``WAIT``, ``WAIT_MUTEX``); requests get it in the order in which they asked, as the kernel
hands a contended mutex over (kernel/locking/mutex.c, MUTEX_FLAG_HANDOFF).
"""

# mypy: disable-error-code="no-untyped-def, no-untyped-call"

from __future__ import annotations

from tracereplay.compiled import inner
from tracereplay.machine.counters import MUTEX_ACQUISITIONS
from tracereplay.machine.layout import CFG_MUTEX_OWNER, CFG_WOKEN, WOKEN_MUTEX


@inner
def mutex_lock(m, owner):
    """Take the mutex for request ``owner`` (its REQ_ID, from 1). False when another holds it; twice is fine."""
    if m.w[CFG_MUTEX_OWNER] == owner:
        return True
    if m.w[CFG_MUTEX_OWNER] != 0:
        return False
    m.w[CFG_MUTEX_OWNER] = owner
    m.c[MUTEX_ACQUISITIONS] += 1
    return True


@inner
def mutex_unlock(m):
    """Let the mutex go; whoever waits for it is called again."""
    m.w[CFG_MUTEX_OWNER] = 0
    m.w[CFG_WOKEN] |= WOKEN_MUTEX
