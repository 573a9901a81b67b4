"""Block layers of a trace: which devices there are, which of them are dm-crypt's, which one a path uses.

Bio remap and split show one I/O several times (page-allocator.md 7.5), so a path takes one layer and names it.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tracereplay.errors import UsageError
from tracereplay.kernel.constants import dev_text

if TYPE_CHECKING:
    from tracereplay.trace.reader import Trace


@dataclass(slots=True)
class Layers:
    """Devices that WRITE bios were queued to, and the remaps between them."""

    writes: dict[int, int] = field(default_factory=dict)
    """WRITE bios with data queued, by device."""
    sectors: dict[int, int] = field(default_factory=dict)
    longest: dict[int, int] = field(default_factory=dict)
    """Sectors of the largest WRITE bio, by device."""
    below: dict[int, set[int]] = field(default_factory=dict)
    """Device -> devices that its WRITEs were remapped to."""
    crypt: set[int] = field(default_factory=set)
    """Devices whose WRITEs are remapped by dm-crypt's own threads."""

    def beneath(self, device: int) -> set[int]:
        """A device and every device below it."""
        found: set[int] = set()
        todo = [device]
        while todo:
            d = todo.pop()
            if d not in found:
                found.add(d)
                todo += self.below.get(d, ())
        return found

    def lowest(self) -> int | None:
        """The lowest device with WRITEs queued to it; of several, the one with most sectors."""
        leaves = [d for d in self.writes if not self.below.get(d)]
        candidates = leaves or list(self.writes)
        return max(candidates, key=lambda d: (self.sectors[d], -d)) if candidates else None

    def device(self, wanted: str | None) -> int | None:
        """The device that a path uses: ``MAJOR,MINOR`` (or ``MAJOR:MINOR``), else the lowest.

        Raises UsageError for a name that is none or a device without WRITE bios.
        """
        if wanted is None:
            return self.lowest()
        known = ", ".join(dev_text(d) for d in sorted(self.writes)) or "none"
        try:
            major, minor = (int(p) for p in wanted.replace(":", ",").split(","))
        except ValueError:
            raise UsageError(f"{wanted!r} is no device", hint=f"MAJOR,MINOR; with WRITE bios: {known}") from None
        number = major << 20 | minor
        if number not in self.writes:
            raise UsageError(f"no WRITE bio was queued to {wanted}", hint=f"devices with WRITE bios: {known}")
        return number


def find_layers(trace: Trace, comms: dict[int, str]) -> Layers:
    """Read the layers of a trace from its bio events (one streaming pass over a few columns)."""
    import polars as pl

    layers = Layers()
    if not trace.rows("bio_events"):
        return layers
    bios = trace.bio_events.filter(pl.col("op").cast(pl.String).str.starts_with("W"))
    queued = bios.filter((pl.col("kind") == "queue") & (pl.col("nr_sectors") > 0))
    by_device = queued.group_by("dev").agg(
        pl.len().alias("n"), pl.col("nr_sectors").cast(pl.Int64).sum().alias("s"), pl.col("nr_sectors").max().alias("m")
    )
    for dev, n, s, m in by_device.collect(engine="streaming").iter_rows():
        if dev is not None:
            layers.writes[dev], layers.sectors[dev], layers.longest[dev] = n, s, m
    remaps = (
        bios.filter((pl.col("kind") == "remap") & pl.col("old_dev").is_not_null())
        .group_by("dev", "old_dev", "pid")
        .agg(pl.len().alias("n"))
        .collect(engine="streaming")
    )
    queuers = queued.group_by("dev").agg(pl.col("pid").unique()).collect(engine="streaming")
    pids_of = {dev: set(pids) for dev, pids in queuers.iter_rows()}
    own: dict[int, int] = defaultdict(int)
    total: dict[int, int] = defaultdict(int)
    for dev, old, pid, n in remaps.iter_rows():
        layers.below.setdefault(old, set()).add(dev)
        total[old] += n
        comm = comms.get(pid, "")
        if comm.startswith("dmcrypt_write") or (
            pid not in pids_of.get(old, set()) and (not comm or comm.startswith("kworker"))
        ):
            own[old] += n
    layers.crypt = {d for d in total if own[d] * 2 > total[d]}
    if not total:
        _without_remaps(layers, pids_of, comms)
    return layers


def _without_remaps(layers: Layers, pids_of: dict[int, set[int]], comms: dict[int, str]) -> None:
    """Remaps were not recorded: a device that dm-crypt's writer threads queue to lies below one that they do not."""
    writers = {p for pids in pids_of.values() for p in pids if comms.get(p, "").startswith("dmcrypt_write")}
    lower = {d for d, pids in pids_of.items() if pids & writers}
    for upper in set(layers.writes) - lower:
        for d in lower:
            if layers.sectors[d] and layers.sectors[upper] == layers.sectors[d]:
                layers.below.setdefault(upper, set()).add(d)
                layers.crypt.add(upper)
