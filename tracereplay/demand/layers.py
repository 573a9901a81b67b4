"""Block layers of a trace: which devices there are, which of them are dm-crypt's, which one a path uses.

Bio remap and split show one I/O several times (page-allocator.md 7.5), so a path takes one layer and names it. A
partition is no layer: its bios are its disk's, whether the kernel queues them under the disk's number (5.10) or under
the partition's own, with sectors of the disk (6.12).
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tracereplay.errors import UsageError
from tracereplay.kernel.constants import dev_text

if TYPE_CHECKING:
    import polars as pl

    from tracereplay.trace.reader import Trace

_SAMPLE = 1 << 16
"""Bios and requests that are compared to find the disk of a partition."""


@dataclass(slots=True)
class Layers:
    """Devices that WRITE bios were queued to, and the remaps between them."""

    writes: dict[int, int] = field(default_factory=dict)
    """WRITE bios with data queued, by device (partitions under their own number where the kernel does so)."""
    sectors: dict[int, int] = field(default_factory=dict)
    longest: dict[int, int] = field(default_factory=dict)
    """Sectors of the largest WRITE bio, by device."""
    below: dict[int, set[int]] = field(default_factory=dict)
    """Whole device -> whole devices that its WRITEs were remapped to."""
    crypt: set[int] = field(default_factory=set)
    """Devices whose WRITEs are remapped by dm-crypt's own threads."""
    disk_of: dict[int, int] = field(default_factory=dict)
    """Partition -> its whole device."""
    bio_completes: dict[int, int] = field(default_factory=dict)
    """WRITE completions by bio, by device."""
    completes: dict[int, int] = field(default_factory=dict)
    """WRITE completions by request, by device."""
    remapped: bool = False
    """Remaps were recorded."""
    encrypted: dict[int, int] = field(default_factory=dict)
    """WRITE bios with data that dm-crypt sent to a device."""

    def whole(self, device: int) -> int:
        """A device itself, or the disk of a partition."""
        return self.disk_of.get(device, device)

    def members(self, device: int) -> list[int]:
        """A whole device and its partitions, as far as WRITE bios name them."""
        return sorted({device, *(p for p, disk in self.disk_of.items() if disk == device)})

    def devices(self) -> dict[int, int]:
        """WRITE bios by whole device."""
        found: dict[int, int] = defaultdict(int)
        for device, n in self.writes.items():
            found[self.whole(device)] += n
        return dict(found)

    def size(self, device: int) -> int:
        """Sectors of the WRITE bios of a whole device."""
        return sum(self.sectors.get(d, 0) for d in self.members(device))

    def plain(self, device: int) -> int:
        """WRITE bios of a whole device that dm-crypt has not encrypted."""
        members = self.members(device)
        return max(sum(self.writes.get(d, 0) for d in members) - sum(self.encrypted.get(d, 0) for d in members), 0)

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

    def lowest(self, *, plain: bool = False) -> int | None:
        """The lowest whole device with WRITEs queued to it; of several, the one with most sectors.

        ``plain``: only of those that get WRITEs that dm-crypt has not encrypted.
        """
        devices = [d for d in self.devices() if not plain or self.plain(d)]
        leaves = [d for d in devices if not self.below.get(d)]
        candidates = leaves or devices
        return max(candidates, key=lambda d: (self.size(d), -d)) if candidates else None

    def device(self, wanted: str) -> int:
        """The whole device ``MAJOR,MINOR`` (or ``MAJOR:MINOR``).

        Raises UsageError for a name that is none, a partition, or a device without WRITE bios.
        """
        number = device_number(wanted)
        known = ", ".join(dev_text(d) for d in sorted(self.devices())) or "none"
        if number is None:
            raise UsageError(f"{wanted!r} is no device", hint=f"MAJOR,MINOR; with WRITE bios: {known}")
        if number in self.disk_of:
            disk = dev_text(self.disk_of[number])
            raise UsageError(f"{wanted} is a partition of {disk}", hint=f"--device {disk} takes its bios too")
        if number not in self.devices():
            raise UsageError(f"no WRITE bio was queued to {wanted}", hint=f"devices with WRITE bios: {known}")
        return number


def device_number(text: str) -> int | None:
    """``MAJOR,MINOR`` or ``MAJOR:MINOR`` as tracepoints give it; None for anything else."""
    major, _, minor = text.replace(":", ",").partition(",")
    try:
        return int(major) << 20 | int(minor)
    except ValueError:
        return None


def find_layers(trace: Trace, comms: dict[int, str]) -> Layers:
    """Read the layers of a trace from its bio events (a few streaming passes over a few columns)."""
    import polars as pl

    layers = Layers()
    if not trace.rows("bio_events"):
        return layers
    bios = trace.bio_events.filter(pl.col("op").cast(pl.String).str.starts_with("W") & (pl.col("nr_sectors") > 0))
    queued = bios.filter(pl.col("kind") == "queue")
    sectors = pl.col("nr_sectors").cast(pl.Int64)
    for dev, kind, n, s, m in (
        bios.filter(pl.col("kind").is_in(["queue", "complete", "bio_complete"]))
        .group_by("dev", pl.col("kind").cast(pl.String))
        .agg(pl.len().alias("n"), sectors.sum().alias("s"), sectors.max().alias("m"))
        .collect(engine="streaming")
        .iter_rows()
    ):
        if dev is None:
            continue
        if kind == "queue":
            layers.writes[dev], layers.sectors[dev], layers.longest[dev] = n, s, m
        else:
            (layers.completes if kind == "complete" else layers.bio_completes)[dev] = n
    queuers = queued.group_by("dev").agg(pl.col("pid").unique()).collect(engine="streaming")
    pids_of = {dev: set(pids) for dev, pids in queuers.iter_rows()}
    remaps = (
        bios.filter((pl.col("kind") == "remap") & pl.col("old_dev").is_not_null())
        .group_by("dev", "old_dev", "pid")
        .agg(pl.len().alias("n"))
        .collect(engine="streaming")
        .rows()
    )
    layers.remapped = bool(remaps)
    _partitions(
        layers, bios, {old for dev, old, _, _ in remaps if dev != old}, {old for d, old, _, _ in remaps if d == old}
    )
    _stack(layers, remaps, pids_of, comms)
    if not layers.remapped:
        _without_remaps(layers, pids_of, comms)
    return layers


def _stack(
    layers: Layers, remaps: list[tuple[int, int, int, int]], pids_of: dict[int, set[int]], comms: dict[int, str]
) -> None:
    """What lies below what, and what of it is dm-crypt's."""
    own: dict[int, int] = defaultdict(int)
    total: dict[int, int] = defaultdict(int)
    for device, old_device, pid, n in remaps:
        dev, old = layers.whole(device), layers.whole(old_device)
        if dev == old:
            continue
        layers.below.setdefault(old, set()).add(dev)
        total[old] += n
        comm = comms.get(pid, "")
        if comm.startswith("dmcrypt_write") or (
            pid not in pids_of.get(old, set()) and (not comm or comm.startswith("kworker"))
        ):
            own[old] += n
    layers.crypt = {d for d in total.keys() & layers.writes.keys() if own[d] * 2 > total[d]}
    reached = {d for c in layers.crypt for d in layers.beneath(c)} - layers.crypt
    for dev, old, _, n in remaps:
        if dev != old and layers.whole(dev) in reached and layers.whole(old) in layers.crypt | reached:
            layers.encrypted[dev] = layers.encrypted.get(dev, 0) + n


def _partitions(layers: Layers, bios: pl.LazyFrame, remapped: set[int], onto_themselves: set[int]) -> None:
    """Find partitions: of newer kernels, bios carry the partition's number and requests the disk's.

    A partition's remap names it twice. Where remaps were not recorded, a device that no request and no completed bio
    names is a partition if requests of another device begin at its bios' sectors.
    """
    import polars as pl

    requests = (
        bios.filter(pl.col("kind").is_in(["issue", "insert", "complete"]))
        .group_by("dev")
        .agg(pl.len())
        .collect(engine="streaming")
    )
    disks = {d for d, _ in requests.iter_rows() if d is not None}
    unserved = {d for d in layers.writes if d not in disks and d not in layers.bio_completes and d not in remapped}
    layers.disk_of.update(disks_of(bios, (onto_themselves | unserved) & layers.writes.keys()))


def disks_of(bios: pl.LazyFrame, partitions: set[int]) -> dict[int, int]:
    """The disk of each device that may be a partition: the one whose requests begin at its bios' sectors, if any."""
    import polars as pl

    disk_of = {}
    for part in sorted(partitions):
        starts = bios.filter((pl.col("kind") == "queue") & (pl.col("dev") == part)).select("sector").head(_SAMPLE)
        found = (
            bios.filter(pl.col("kind").is_in(["issue", "insert", "complete"]) & (pl.col("dev") != part))
            .join(starts.unique(), on="sector", how="semi")
            .group_by("dev")
            .agg(pl.col("sector").n_unique().alias("n"))
            .collect(engine="streaming")
            .rows()
        )
        if found:
            disk_of[part] = max(found, key=lambda f: (f[1], -f[0]))[0]
    return disk_of


def _without_remaps(layers: Layers, pids_of: dict[int, set[int]], comms: dict[int, str]) -> None:
    """Remaps were not recorded: a device that dm-crypt's writer threads queue to lies below one that they do not."""
    writers = {p for pids in pids_of.values() for p in pids if comms.get(p, "").startswith("dmcrypt_write")}
    lower = {d for d, pids in pids_of.items() if pids & writers}
    for upper in set(layers.writes) - lower:
        for d in lower:
            if layers.sectors[d] and layers.sectors[upper] == layers.sectors[d]:
                layers.below.setdefault(upper, set()).add(d)
                layers.crypt.add(upper)
                layers.encrypted[d] = layers.writes[d]
