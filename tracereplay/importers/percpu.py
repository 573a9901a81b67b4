"""Sources of several files: what blktrace writes, one file for each CPU, named ``DEVICE.blktrace.CPU``.

Any file of a device stands for all of them, so does their common prefix, and a directory for those of all devices in
it. Each may be compressed.
"""

from __future__ import annotations

import re
from pathlib import Path

from tracereplay.errors import ImportFormatError

_NAME = re.compile(r"(?P<device>.+)\.blktrace\.(?P<cpu>\d+)(?:\.(?:gz|zst|zstd|xz|bz2))?")


def device_of(path: Path) -> str | None:
    """Name of the device that a file of this kind is about."""
    match = _NAME.fullmatch(path.name)
    return match["device"] if match else None


def percpu_files(path: Path) -> list[Path]:
    """The files that a path stands for, by device and CPU; empty when it stands for itself.

    Raises ImportFormatError when two of them are of one CPU of a device (one of them a compressed copy).
    """
    if path.is_dir():
        folder, device = path, None
    else:
        match = _NAME.fullmatch(path.name)
        if match is None and path.exists():
            return []
        folder, device = path.parent, match["device"] if match else path.name.removesuffix(".blktrace")
    try:
        files = sorted(folder.iterdir())
    except OSError:  # what is wrong with it is told when it is opened
        return []
    found: dict[tuple[str, int], Path] = {}
    for file in files:
        match = _NAME.fullmatch(file.name)
        if match is None or device not in (None, match["device"]) or not file.is_file():
            continue
        key = (match["device"], int(match["cpu"]))
        if key in found:
            raise ImportFormatError(
                f"{found[key].name} and {file.name} are both of CPU {key[1]} of {key[0]}",
                hint="leave one of the two in the directory",
            )
        found[key] = file
    return [found[key] for key in sorted(found)]
