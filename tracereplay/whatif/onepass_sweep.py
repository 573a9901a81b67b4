"""Settings as lanes: their sizes as the machine has them, the sweep on two threads, what each lane counted."""

# mypy: disable-error-code="no-untyped-call"

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from tracereplay.kernel.constants import MIGRATE_PCPTYPES, PAGEBLOCK_ORDER
from tracereplay.kernel.generations import GENERATIONS, Generation
from tracereplay.machine import layout as at
from tracereplay.machine.build import pcp_sizes, zone_words
from tracereplay.machine.config import MachineConfig
from tracereplay.machine.layout import I32, I64
from tracereplay.whatif import onepass_state as ol
from tracereplay.whatif import onepass_words as ow
from tracereplay.whatif.onepass_pass import sweep
from tracereplay.whatif.onepass_steps import Steps

COUNTED = (
    "pcp_lock_acquisitions",
    "pcp_hits",
    "pcp_refills",
    "pcp_refill_pages",
    "pcp_drains",
    "pcp_drain_pages",
    "zone_lock_acquisitions",
)
"""What a sweep counts."""


MOST_HIGH = 1 << 22
"""Pages up to which the drains of fixed sizes are counted at once."""


@dataclass(frozen=True, slots=True)
class Asking:
    """How a strategy asks for the pages of a request."""

    bulk: bool
    cap: int = 0
    """Pages of a call, 0: any number."""


@dataclass(slots=True)
class Swept:
    """What a sweep found, lane by lane."""

    counters: dict[str, I64]
    """``name`` for targeted requests and ``background_name``, [lane]."""
    away: I64
    """A bound of the blocks that lists of each sort had taken from the free ones at a time beyond those that they had
    given back, [lane, zone, order code * 3 + migratetype]; and the epoch of that time."""
    epoch: I64


def lists_of(generation: Generation) -> list[int]:
    """Number of the list of each order code * 3 + migratetype (``pcp_index``); -1: blocks pass the lists by."""
    found = []
    for order in ow.LIST_ORDERS:
        for mt in range(MIGRATE_PCPTYPES):
            if order < generation.pcp_orders:
                found.append(order * MIGRATE_PCPTYPES + mt)
            elif order == PAGEBLOCK_ORDER and generation.pcp_thp_lists:
                which = (0, mt == 1, mt)[generation.pcp_thp_lists - 1]
                found.append(generation.pcp_orders * MIGRATE_PCPTYPES + int(which))
            else:
                found.append(-1)
    return found


def sweep_lanes(steps: Steps, configs: Sequence[MachineConfig], asking: Asking) -> Swept:
    """Take the steps through settings of one generation.

    ``configs``: machines that differ in the sizes of their per-CPU lists alone.
    """
    generation = GENERATIONS[configs[0].generation]
    lanes = -(-len(configs) // ol.LANES) * ol.LANES
    index = lists_of(generation)
    g = _words_of(generation, asking, index)
    state = _initial(steps, configs, lanes, index)
    threads = max(1, min(os.cpu_count() or 1, lanes // ol.LANES, 8))
    edges = [lanes // ol.LANES * t // threads for t in range(threads + 1)]
    prev = [np.zeros(state.shape[0], np.int64) for _ in range(threads)]
    mutual = [np.zeros(ow.CLASSES * ol.MUTUAL_COUNTERS, np.int64) for _ in range(threads)]
    acc = np.zeros(ow.CLASSES * ol.LANE_COUNTERS * lanes, np.int64)
    flat = state.reshape(-1)
    g[ol.G_STEADY] = _are_steady(generation, state)
    cpus = steps.facts.cpus
    peaks = np.zeros(state.shape[0] // cpus * ol.ROOM * lanes, np.int64)
    epochs = np.zeros_like(peaks)
    with ThreadPoolExecutor(threads) as pool:
        for words, segments in steps.chunks():
            jobs = [
                pool.submit(
                    sweep,
                    words,
                    segments,
                    flat,
                    prev[t],
                    acc,
                    mutual[t],
                    peaks,
                    epochs,
                    g,
                    cpus,
                    edges[t],
                    edges[t + 1],
                    lanes,
                )
                for t in range(threads)
            ]
            for job in jobs:
                job.result()
    n = len(configs)
    return Swept(
        _counters(steps, acc, mutual[0], n),
        _by_list(peaks, lanes, index)[:n],
        _by_list(epochs, lanes, index)[:n],
    )


def _words_of(generation: Generation, asking: Asking, index: list[int]) -> I64:
    g = np.zeros(ol.G_WORDS, np.int64)
    g[ol.G_RULE] = generation.pcp_rule
    g[ol.G_FROM_FREED] = generation.drain_from_freed_list
    g[ol.G_CHUNKED] = generation.drain_chunked
    g[ol.G_DECAY] = generation.pcp_decay
    g[ol.G_LISTS] = max(index) + 1
    g[ol.G_BULK] = asking.bulk
    g[ol.G_CAP] = asking.cap
    g[ol.G_UNSEEN] = generation.has_bulk
    g[ol.G_ACCOUNTS] = generation.bulk_accounts
    g[ol.G_INDEX : ol.G_INDEX + len(index)] = index
    for k, i in enumerate(index):
        if i >= 0:
            g[ol.G_ORDERS + i] = ow.LIST_ORDERS[k // MIGRATE_PCPTYPES]
    return g


def _initial(steps: Steps, configs: Sequence[MachineConfig], lanes: int, index: list[int]) -> I32:
    """State of all page sets, [page set, block of lanes, row, lane]; lanes beyond the settings repeat the last one."""
    zones, w = zone_words(configs[0])
    cpus = steps.facts.cpus
    generation = GENERATIONS[configs[0].generation]
    blocks = lanes // ol.LANES
    state = np.zeros((len(zones) * cpus, blocks, ol.ROWS, ol.LANES), np.int32)
    start = np.array(steps.facts.start, np.int64).reshape(len(zones), cpus, -1)
    for z, zone in enumerate(zones):
        rows = np.zeros((ol.R_LISTS, lanes), np.int64)
        for lane in range(lanes):
            config = configs[min(lane, len(configs) - 1)]
            batch, low, top = pcp_sizes(config, zone, int(w[z * at.Z_WORDS + at.Z_LOW]))
            rows[ol.R_HIGH, lane] = rows[ol.R_LOW, lane] = low
            rows[ol.R_TOP, lane] = top
            rows[ol.R_BATCH, lane] = batch
            rows[ol.R_CAP, lane] = batch << config.pcp_scale_max
            rows[ol.R_SCALE, lane] = config.pcp_scale_max
            added = low // 2 if generation.fallback_claim_then_steal else 0  # CFG_FREE_HIGH_ADD
            rows[ol.R_NEED, lane] = batch + added
            rows[ol.R_KEEPS, lane] = config.llc_pages_per_cpu > 3 * batch
        mine = state.reshape(len(zones), cpus, blocks, ol.ROWS, ol.LANES)[z]
        mine[:, :, : ol.R_LISTS] = rows.reshape(ol.R_LISTS, blocks, ol.LANES).transpose(1, 0, 2)
        for k, i in enumerate(index):
            if i >= 0:
                order = ow.LIST_ORDERS[k // MIGRATE_PCPTYPES]
                mine[:, :, ol.R_TOTAL] += (start[z, :, k] << order)[:, None, None].astype(np.int32)
                mine[:, :, ol.R_LISTS + i] += start[z, :, k][:, None, None].astype(np.int32)
    return state


def _are_steady(generation: Generation, state: I32) -> bool:
    """Whether the sizes of all lanes are fixed, and as ``drains_of_fixed`` wants them."""
    high, low, top, batch = (state[:, :, row] for row in (ol.R_HIGH, ol.R_LOW, ol.R_TOP, ol.R_BATCH))
    fixed = generation.pcp_rule < 2 or bool((low == top).all())
    return fixed and not generation.drain_chunked and bool(((batch > 0) & (batch < high) & (high <= MOST_HIGH)).all())


def _counters(steps: Steps, acc: I64, mutual: I64, settings: int) -> dict[str, I64]:
    by_block = acc.reshape(ow.CLASSES, -1, ol.LANE_COUNTERS, ol.LANES).transpose(0, 2, 1, 3)
    found = by_block.reshape(ow.CLASSES, ol.LANE_COUNTERS, -1)[:, :, :settings]
    shared = mutual.reshape(ow.CLASSES, ol.MUTUAL_COUNTERS)
    counters: dict[str, I64] = {}
    for prefix, whose in (("", ow.TARGETED), ("background_", ow.BACKGROUND)):
        n, m = found[whose], shared[whose]
        past = m[ol.M_BUDDY] + steps.facts.buddy[whose]
        values = (
            m[ol.M_LOCKS] + n[ol.N_LOCKS],
            m[ol.M_ALLOCS] - n[ol.N_REFILLS],
            n[ol.N_REFILLS],
            n[ol.N_REFILL_PAGES],
            n[ol.N_DRAINS],
            n[ol.N_DRAIN_PAGES],
            past + n[ol.N_REFILLS] + n[ol.N_HOLDS],
        )
        counters |= {prefix + name: value for name, value in zip(COUNTED, values, strict=True)}
    return counters


def _by_list(values: I64, lanes: int, index: list[int]) -> I64:
    """Values of [zone, list, lane] as [lane, zone, order code * 3 + migratetype]."""
    by_lane = values.reshape(-1, ol.ROOM, lanes).transpose(2, 0, 1)
    return np.where(np.array(index) >= 0, by_lane[:, :, index], 0)
