"""A quota on pages, kept by a percpu counter (strategies.md section 1.4).

Mimics ``n_allocated_pages`` of drivers/md/dm-crypt.c on lib/percpu_counter.c: each CPU adds to a part of its own, and
folds it into the sum that readers see when it has grown to the counter's batch. ``percpu_counter_read_positive`` looks
at that sum alone, so that it is wrong by up to (batch - 1) x CPUs either way. A batch of 0 makes each addition visible
at once: what the exact comparison of kernels before 5.11 decides by. Where there is no quota nothing is counted.
"""

# mypy: disable-error-code="no-untyped-def, no-untyped-call"

from __future__ import annotations

from tracereplay.compiled import inner
from tracereplay.machine.counters import PERCPU_COUNTER_OPS, QUOTA_REFUSALS
from tracereplay.machine.layout import CFG_CPUS, NO_QUOTA, PC, POOL_ALLOCATED, POOL_BATCH, POOL_QUOTA


@inner
def quota_read(m):
    """Pages out as a reader sees them, at least 0 (``percpu_counter_read_positive``)."""
    m.c[PERCPU_COUNTER_OPS] += 1
    return max(m.w[POOL_ALLOCATED], 0)


@inner
def quota_allows(m, pages):
    """Whether ``pages`` more stay within the quota, by what a reader sees. A refusal is counted."""
    if m.w[POOL_QUOTA] >= NO_QUOTA:
        return True
    if quota_read(m) + pages > m.w[POOL_QUOTA]:
        m.c[QUOTA_REFUSALS] += 1
        return False
    return True


@inner
def quota_add(m, cpu, pages):
    """``pages`` more are out (fewer when negative): ``percpu_counter_add``, called on ``cpu``."""
    if m.w[POOL_QUOTA] >= NO_QUOTA:
        return
    m.c[PERCPU_COUNTER_OPS] += 1
    mine = m.w[PC + cpu] + pages
    if abs(mine) >= m.w[POOL_BATCH]:
        m.w[POOL_ALLOCATED] += mine
        mine = 0
    m.w[PC + cpu] = mine


@inner
def quota_forget(m):
    """Count from 0 again: what is out now is charged to nobody (``percpu_counter_set``)."""
    m.w[POOL_ALLOCATED] = 0
    for cpu in range(m.w[CFG_CPUS]):
        m.w[PC + cpu] = 0
