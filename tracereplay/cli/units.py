"""Durations, sizes and masks as people write them on a command line."""

from __future__ import annotations

import re

from tracereplay.errors import UsageError
from tracereplay.trace.sizes import bytes_of

_TIMES = {"ns": 1e-9, "us": 1e-6, "ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}
_TIME = re.compile(r"(\d+(?:\.\d+)?)(ns|us|ms|s|m|h)?")


def seconds(text: str, *, zero: bool = False) -> float:
    """Seconds of ``500ms``, ``10s``, ``2m``, ``1.5h`` or a plain number.

    Raises UsageError for anything else, and for nothing at all unless ``zero``.
    """
    match = _TIME.fullmatch(text.strip())
    if match is None or (float(match[1]) == 0 and not zero):
        raise UsageError(f"no duration: {text!r}", hint="for example 500ms, 10s, 2m, 1h")
    return float(match[1]) * _TIMES[match[2] or "s"]


def size(text: str) -> int:
    """Bytes of ``4096``, ``64K``, ``256MiB``, ``1.5G``: powers of 1024. Raises UsageError for anything else."""
    found = bytes_of(text)
    if found is None:
        raise UsageError(f"no size: {text!r}", hint="for example 4096, 64K, 256MiB, 10G")
    return found


def mask(text: str) -> int:
    """A bit mask in decimal, or in hex with 0x. Raises UsageError for anything else."""
    try:
        return int(text, 0)
    except ValueError:
        raise UsageError(
            f"no mask: {text!r}", hint="a number such as 0x100; metadata.gfp_flags of a trace names the bits"
        ) from None
