"""I/Os as accesses to blocks of one size: what caches and working sets are made of."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import polars as pl

from tracereplay.analysis.bio_stage import MAX_SECTOR, SECTOR, WRITES, Stage, contiguous
from tracereplay.analysis.block_table import DEVICE_SHIFT
from tracereplay.errors import UsageError

I64 = npt.NDArray[np.int64]
MOST_DEVICES = 1 << 15


@dataclass(frozen=True, slots=True)
class Accesses:
    """A batch of I/Os, each of which accesses its blocks in ascending order."""

    first: I64
    """Key of the first block: its number, and in the bits above that of the device."""
    count: I64
    device: I64
    """Index into the stage's devices."""
    ts_ns: I64
    write: npt.NDArray[np.bool_]


def block_accesses(stage: Stage, op: str, block: int) -> Iterator[Accesses]:
    """The stage's I/Os as accesses to blocks of ``block`` bytes, streamed. A block touched in part is accessed.

    Raises UsageError for more devices than can be told apart.
    """
    sectors = block // SECTOR
    devices = np.array(stage.devices, np.int64)
    if len(devices) > MOST_DEVICES:
        raise UsageError(
            f"{len(devices):,} devices, {MOST_DEVICES:,} can be told apart", hint="choose some with --device"
        )
    fits = (1 << DEVICE_SHIFT) * sectors  # blocks of one sector would leave no room for the device
    for frame in stage.batches(["ts_ns"], op):
        if fits < MAX_SECTOR:
            frame = frame.filter(pl.col("sector") + pl.col("nr_sectors") <= fits)
        sector = contiguous(frame["sector"])
        number = np.searchsorted(devices, contiguous(frame["dev"]))
        first = sector // sectors
        last = (sector + contiguous(frame["nr_sectors"]) - 1) // sectors
        yield Accesses(
            first | (number << DEVICE_SHIFT),
            last - first + 1,
            number,
            contiguous(frame["ts_ns"]),
            frame["op"].cast(pl.String).is_in(WRITES).to_numpy(),
        )
