"""Watermarks of each zone: recorded ones, or as ``__setup_per_zone_wmarks`` computes them. Imports no Numba."""

from __future__ import annotations

import math
from dataclasses import replace

from tracereplay.kernel.constants import PAGE_SIZE
from tracereplay.kernel.generations import GENERATIONS
from tracereplay.machine.config import ZONE_ORDER, MachineConfig, Watermarks, ZoneConfig

LOWMEM_RATIO = {"DMA": 256, "DMA32": 256, "Normal": 32, "Movable": 0}
SCALE_FACTOR = 10
"""vm.watermark_scale_factor where nothing sets it."""


def watermarks_of(config: MachineConfig) -> list[Watermarks]:
    """Of each zone, in the configuration's order: what was recorded, with the sysctls that the configuration sets."""
    derived = derived_watermarks(config)
    return [
        mark if zone.watermarks is None else _set_anew(zone, zone.watermarks, mark, config)
        for zone, mark in zip(config.zones, derived, strict=True)
    ]


def _set_anew(zone: ZoneConfig, recorded: Watermarks, derived: Watermarks, config: MachineConfig) -> Watermarks:
    """Recorded watermarks after a write to one or both sysctls; the other keeps the value that they show."""
    if config.min_free_kbytes is None and config.watermark_scale_factor is None:
        return recorded
    least, gap = derived.min, derived.low - derived.min
    was = recorded.low - recorded.min
    if config.min_free_kbytes is None:
        least = recorded.min
        gap = max(least // 4, zone.pages * (config.watermark_scale_factor or 0) // 10000)
    elif config.watermark_scale_factor is None and was > recorded.min // 4:  # then the host's factor decided it
        gap = max(gap, was)
    return replace(recorded, min=least, low=least + gap, high=least + 2 * gap, promo=None)


def derived_watermarks(config: MachineConfig) -> list[Watermarks]:
    """Watermarks and lowmem reserves per zone as ``__setup_per_zone_wmarks`` computes them (page-allocator.md 4.5).

    A value for ``min_free_kbytes`` is one written to the sysctl after the boot: khugepaged does not raise it.
    """
    since_6_3 = GENERATIONS[config.generation].pcp_rule == 2  # before, ZONE_MOVABLE was a zone like others here
    lowmem = sum(z.pages for z in config.zones if z.name != "Movable" or not since_6_3)
    min_kbytes = config.min_free_kbytes
    if min_kbytes is None:
        min_kbytes = max(128, min(262144, math.isqrt(16 * lowmem * PAGE_SIZE // 1024)))
        zones = sum(z.name != "Movable" and z.pages > 0 for z in config.zones)
        thp = 512 * zones * 11 * PAGE_SIZE // 1024  # khugepaged's floor, at most 5 % of low memory
        min_kbytes = max(min_kbytes, min(thp, lowmem * PAGE_SIZE // 1024 // 20))
    pages_min = min_kbytes * 1024 // PAGE_SIZE
    factor = SCALE_FACTOR if config.watermark_scale_factor is None else config.watermark_scale_factor
    marks = []
    for i, zone in enumerate(config.zones):
        mark = pages_min * zone.pages // lowmem
        gap = max(mark // 4, zone.pages * factor // 10000)
        if zone.name == "Movable" and since_6_3:
            mark = max(32, min(128, zone.pages // 1024))
        reserve = [0, 0, 0, 0]
        ratio = LOWMEM_RATIO[zone.name]
        for top in range(ZONE_ORDER.index(zone.name) + 1, 4):
            above = sum(
                z.pages for j, z in enumerate(config.zones) if j != i and z.node == zone.node and _between(zone, z, top)
            )
            populated = any(z.name == ZONE_ORDER[top] and z.node == zone.node for z in config.zones)
            reserve[top] = above // ratio if ratio and populated else 0
        for top in range(1, 4):  # a request may reach up to a type this node does not have
            reserve[top] = max(reserve[top], reserve[top - 1])
        marks.append(Watermarks((reserve[0], reserve[1], reserve[2], reserve[3]), mark, mark + gap, mark + 2 * gap))
    return marks


def _between(low: ZoneConfig, other: ZoneConfig, top: int) -> bool:
    return ZONE_ORDER.index(low.name) < ZONE_ORDER.index(other.name) <= top
