"""Sizes, durations and bins of analyses' options. Imports nothing heavy."""

from __future__ import annotations

import re

from tracereplay.errors import UsageError
from tracereplay.trace.sizes import bytes_of

_TIMES = {"ns": 1, "us": 10**3, "ms": 10**6, "s": 10**9, "m": 60 * 10**9, "h": 3600 * 10**9}
_TIME = re.compile(r"(\d+(?:\.\d+)?)(ns|us|ms|s|m|h)")
_STEPS = (1, 2, 5)
AUTO = "auto"


def size_of(option: str, text: str, *, unit: int = 512) -> int:
    """Bytes of ``4K``, ``1MiB``. Raises UsageError for what is no size, and for no positive multiple of ``unit``."""
    size = bytes_of(text) or 0
    if size <= 0 or size % unit:
        raise UsageError(f"{option}={text}: no size", hint=f"a multiple of {unit} bytes, for example 4K, 64K, 1M")
    return size


def duration_of(option: str, text: str) -> int:
    """Nanoseconds of ``500ns``, ``10us``, ``100ms``, ``2s``, ``5m``, ``1h``. Raises UsageError for anything else."""
    match = _TIME.fullmatch(text.strip())
    found = int(float(match[1]) * _TIMES[match[2]]) if match else 0
    if found <= 0:
        raise UsageError(f"{option}={text}: no duration", hint="for example 500us, 100ms, 10s, 1m, 1h")
    return found


def time_bin(text: str, span_ns: int, *, bins: int, most: int = 1_000_000, series: int = 1) -> int:
    """Width of a time bin in ns: what ``text`` says, or with ``auto`` the least of 1, 2, 5, 10 .. ns that cuts
    ``span_ns`` into at most ``bins``.

    Raises UsageError when there would be more than ``most`` bins in ``series`` series together.
    """
    if text != AUTO:
        width = duration_of("bin", text)
        if span_ns // width * series > most:
            each = f" for each of {series:,} devices" if series > 1 else ""
            raise UsageError(
                f"bin={text} cuts {span_ns / 1e9:.3g} s into {span_ns // width:,} bins{each}, {most:,} are allowed",
                hint="choose a longer bin, or a stretch with --time",
            )
        return width
    return round_up(-(-span_ns // bins))


def round_up(least: int) -> int:
    """The first of 1, 2, 5, 10, 20, 50 .. that is not below ``least``."""
    power = 1
    while True:
        for step in _STEPS:
            if step * power >= least:
                return step * power
        power *= 10
