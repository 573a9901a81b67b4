# SPDX-License-Identifier: GPL-2.0-only
"""From the names that a user gives to the numbers that programs compare: devices, cgroups, sizes."""

from __future__ import annotations

import difflib
import mmap
import re
from pathlib import Path

from collectors import cgroups
from collectors.errors import CollectorError
from collectors.filters import Filters
from collectors.options import Options

SECTOR = 512
ORDERS = range(20)
"""Orders that a size limit can name."""


class FilterError(CollectorError):
    """A filter names something that this host does not have."""


def device_numbers(name: str, root: Path = Path("/")) -> list[int]:
    """Kernel dev_t of a block device and its partitions. ``name``: as under /sys/class/block, with or without
    /dev/, or MAJOR:MINOR.

    Raises FilterError with the nearest names.
    """
    blocks = root / "sys/class/block"
    numbers = re.fullmatch(r"(\d+):(\d+)", name)
    if numbers:
        return [int(numbers[1]) << 20 | int(numbers[2])]
    wanted = name.removeprefix("/dev/").replace("/", "!")
    if not (blocks / wanted / "dev").is_file():
        target = Path(name)
        if name.startswith("/dev/") and target.is_symlink():  # /dev/mapper/NAME, /dev/disk/by-id/...
            return device_numbers(f"/dev/{target.resolve().name}", root)
        known = sorted(e.parent.name for e in blocks.glob("*/size") if e.read_text().strip() != "0")
        near = difflib.get_close_matches(wanted, known, 3) or known[:8]
        raise FilterError(f"no block device {name!r} on this host", f"there are: {', '.join(near) or 'none'}")
    found = [blocks / wanted / "dev", *sorted((blocks / wanted).glob(f"{wanted}*/dev"))]
    pairs = [path.read_text().split(":") for path in found]
    return [int(major) << 20 | int(minor) for major, minor in pairs]


def end_frame(root: Path = Path("/")) -> int:
    """One more than the highest page frame of any zone, by /proc/zoneinfo. Raises FilterError when it is not
    readable."""
    try:
        text = (root / "proc/zoneinfo").read_text()
    except OSError as error:
        raise FilterError(f"/proc/zoneinfo: {error.strerror}", "filters of page events need it; run as root") from None
    end = 0
    spanned = 0
    for line in text.splitlines():
        words = line.split()
        if words[:1] == ["spanned"]:
            spanned = int(words[1])
        elif words[:1] == ["start_pfn:"]:
            end = max(end, int(words[1]) + spanned)
    return end


def _cgroup(path: str) -> tuple[int, int]:
    try:
        return cgroups.id_of(path)
    except CollectorError as error:
        raise FilterError(error.message, error.hint) from None


def filters_of(options: Options, root: Path = Path("/")) -> Filters:
    """Filters with numbers for names. Raises FilterError."""
    orders = set(options.orders)
    if options.min_bytes > mmap.PAGESIZE:
        large = {n for n in ORDERS if mmap.PAGESIZE << n >= options.min_bytes}
        orders = orders & large if orders else large
        if not orders:
            raise FilterError("no order is left by --order and --min-bytes together", "leave one of them out")
    samples = options.sheds
    bare = Filters(
        pids=options.pids,
        tgids=options.tgids,
        comms=options.comms,
        cgroups=[_cgroup(path) for path in options.cgroups],
        devices=[n for name in options.devices for n in device_numbers(name, root)],
        orders=sorted(orders),
        gfp=options.gfp,
        min_sectors=-(-options.min_bytes // SECTOR),
        samples=samples,
    )
    return bare if not bare.page else Filters(**{**bare.__dict__, "page_frames": end_frame(root)})
