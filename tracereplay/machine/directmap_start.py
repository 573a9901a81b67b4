"""The direct map at the start: how much of it is in 1 GiB, 2 MiB and 4 KiB entries, and where. Imports no Numba.

/proc/meminfo says how much (DirectMap4k, DirectMap2M, DirectMap1G), nothing says where. The rule: 1 GiB entries at
GiBs chosen at random (seed) among those that are memory throughout; split 2 MiB units at the ragged ends of zones, then
at random places outside the 1 GiB entries. Memory that the direct map covers and no zone does is left out, as are
splits of less than 2 MiB in all.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tracereplay.kernel.constants import GIB_ORDER, PAGEBLOCK_ORDER
from tracereplay.machine import layout as at

BLOCKS_PER_GIB = 1 << GIB_ORDER - PAGEBLOCK_ORDER
KIB_PER_BLOCK = 4 << PAGEBLOCK_ORDER
KIB_PER_GIB = 4 << GIB_ORDER
_STREAM = 0x646D6170
"""Keeps these choices apart from those of free blocks under one seed."""


@dataclass(frozen=True, slots=True)
class DirectMap:
    """Entries of the direct map at the start."""

    share_1g: float = 0.0
    """Share of the whole GiBs that is mapped by entries of 1 GiB."""
    share_4k: float = 0.0
    """Share of the 2 MiB units outside them that is split into 4 KiB entries."""
    recorded_kib: tuple[int, int] | None = None
    """DirectMap4k and DirectMap1G of a snapshot, in KiB; takes the place of the shares."""

    def counts(self, gibs: int, blocks: int) -> tuple[int, int]:
        """(1 GiB entries, split 2 MiB units) of a machine with so many whole GiBs and pageblocks."""
        if self.recorded_kib is None:
            entries = round(self.share_1g * gibs)
            return entries, round(self.share_4k * (blocks - entries * BLOCKS_PER_GIB))
        split, whole = self.recorded_kib
        entries = min(whole // KIB_PER_GIB, gibs)
        return entries, min(split // KIB_PER_BLOCK, blocks - entries * BLOCKS_PER_GIB)


def map_memory(machine: at.Machine, wanted: DirectMap, ends: Sequence[int], seed: int) -> None:
    """Set up the direct map of a machine whose pageblocks have their zones. ``ends``: where its zones end, frames."""
    pb = machine.pb.reshape(-1, at.B_WORDS)
    present = pb[:, at.B_ZONE] >= 0
    whole = np.flatnonzero(
        present[: len(pb) // BLOCKS_PER_GIB * BLOCKS_PER_GIB].reshape(-1, BLOCKS_PER_GIB).all(axis=1)
    )
    entries, splits = wanted.counts(len(whole), int(present.sum()))
    rng = np.random.default_rng([seed, _STREAM])
    chosen = rng.permutation(whole)[:entries]
    pb[chosen * BLOCKS_PER_GIB, at.B_MAP] |= at.MAP_1G
    small = present.copy()
    for gib in chosen:
        small[gib * BLOCKS_PER_GIB : (gib + 1) * BLOCKS_PER_GIB] = False
    ragged = [
        end >> PAGEBLOCK_ORDER for end in ends if end & (1 << PAGEBLOCK_ORDER) - 1 and small[end >> PAGEBLOCK_ORDER]
    ]
    small[ragged] = False
    places = np.concatenate([np.array(ragged, np.int64), rng.permutation(np.flatnonzero(small))])[:splits]
    pb[places, at.B_MAP] |= at.MAP_4K
    machine.w[at.CFG_MAP_1G] = entries
    machine.w[at.CFG_MAP_4K] = splits


def direct_map_kib(machine: at.Machine) -> dict[str, int]:
    """What the direct map is made of now, in KiB, under the names of /proc/meminfo."""
    blocks = int((machine.pb.reshape(-1, at.B_WORDS)[:, at.B_ZONE] >= 0).sum())
    split = int(machine.w[at.CFG_MAP_4K]) * KIB_PER_BLOCK
    whole = int(machine.w[at.CFG_MAP_1G]) * KIB_PER_GIB
    return {"DirectMap4k": split, "DirectMap2M": blocks * KIB_PER_BLOCK - split - whole, "DirectMap1G": whole}
