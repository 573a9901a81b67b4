"""A machine that runs is given other settings: those that are words of it, as a write to a sysctl is in a kernel.

What it did so far stays as it is: what lies on per-CPU lists, what is free, in which blocks. It takes a while until a
machine behaves as if it had been so from the start.
"""

from __future__ import annotations

import numpy as np

from tracereplay.machine import layout as at
from tracereplay.machine.build import set_pcp, set_rates, set_zones, zones_of
from tracereplay.machine.config import MachineConfig, percpu_batch

RETUNABLE = (
    *("pcp.batch", "pcp.high", "pcp.scale_max", "pcp_lock", "llc_pages_per_cpu"),
    *("min_free_kbytes", "watermark_scale_factor", "watermark_boost_factor"),
    *("vmstat_interval", "kswapd_rate", "reclaim_pages", "compaction_success", "percpu_batch", "init_on_alloc"),
)
"""Keys of a machine that can change while it runs. Kernels let most of them: vm.percpu_pagelist_high_fraction
(``pageset_update``), vm.min_free_kbytes and vm.watermark_scale_factor (``setup_per_zone_wmarks``), vm.stat_interval."""


def retune(machine: at.Machine, config: MachineConfig) -> None:
    """Give a machine the settings of ``config``, which differs from its own in RETUNABLE keys only."""
    w = machine.w
    interval = int(w[at.CFG_VMSTAT_INTERVAL])
    set_rates(w, config)
    if w[at.CFG_VMSTAT_INTERVAL] != interval:
        w[at.TK : at.TK + config.cpus] = 0
    if w[at.POOL_QUOTA] < at.NO_QUOTA:
        w[at.POOL_BATCH] = percpu_batch(config)
    zones = zones_of(config)
    set_zones(w, zones, config)
    sets = w[at.P_COUNT : at.P_COUNT + len(zones) * config.cpus * at.P_WORDS].reshape(-1, at.P_WORDS)
    high, low, top, batch = (
        sets[:, word - at.P_COUNT] for word in (at.P_HIGH, at.P_HIGH_MIN, at.P_HIGH_MAX, at.P_BATCH)
    )
    before = sets.copy()
    set_pcp(w, zones, config)
    tuned = before[:, at.P_HIGH - at.P_COUNT]
    same = (before[:, at.P_HIGH_MIN - at.P_COUNT] == low) & (before[:, at.P_HIGH_MAX - at.P_COUNT] == top)
    high[:] = np.where(same, tuned, np.clip(tuned, low, top))
    for word in (at.P_ALLOC_FACTOR, at.P_FREE_FACTOR):
        np.minimum(sets[:, word - at.P_COUNT], config.pcp_scale_max, out=sets[:, word - at.P_COUNT])
    assert (batch > 0).all()
