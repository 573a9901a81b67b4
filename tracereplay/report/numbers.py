"""How numbers are written in reports: three significant digits, thin units, a dash for what is not known."""

from __future__ import annotations

UNKNOWN = "-"


def count(n: int | None) -> str:
    """``1,234,567``."""
    return UNKNOWN if n is None else f"{n:,}"


def share(part: float | None, whole: float | None) -> str:
    """``67.9 %``; anything that is not nothing shows as such, and not everything never shows as 100 %."""
    if part is None or not whole:
        return UNKNOWN
    percent = 100 * part / whole
    if 0 < percent < 0.1:
        return "< 0.1 %"
    if 99.9 < percent < 100:
        return "> 99.9 %"
    return f"{percent:.1f} %" if percent != round(percent) else f"{percent:.0f} %"


def figure(x: float | None) -> str:
    """Three significant digits, thousands separated: ``0.573``, ``31.2``, ``1,230``."""
    if x is None:
        return UNKNOWN
    if x == 0:
        return "0"
    if abs(x) >= 99.95:
        return f"{x:,.0f}"
    if abs(x) >= 9.995:
        return f"{x:.1f}"
    if abs(x) >= 0.9995:
        return f"{x:.2f}"
    return f"{x:.3f}" if abs(x) >= 0.001 else f"{x:.1e}"


def span(ends: tuple[float, float] | None) -> str:
    """``29.9 - 31.8``."""
    return UNKNOWN if ends is None else f"{figure(ends[0])} - {figure(ends[1])}"


def seconds(nanoseconds: float | None) -> str:
    """A duration with the unit that suits it: ``10.0 s``, ``870 us``."""
    if nanoseconds is None:
        return UNKNOWN
    for unit, size in (("s", 1e9), ("ms", 1e6), ("us", 1e3)):
        if abs(nanoseconds) >= size:
            return f"{figure(nanoseconds / size)} {unit}"
    return f"{figure(nanoseconds)} ns"


def size(pages: int) -> str:
    """Pages of 4 KiB as bytes: ``4 KiB``, ``1 MiB``, ``1.5 MiB``."""
    kib = 4 * pages
    for unit, factor in (("GiB", 1 << 20), ("MiB", 1 << 10)):
        if kib >= factor:
            return f"{kib / factor:.1f} {unit}" if kib % factor else f"{kib // factor} {unit}"
    return f"{kib} KiB"


def size_bytes(n: int) -> str:
    """Bytes in the unit that suits them: ``0``, ``1 MiB``, ``3.4 MiB``."""
    for unit, factor in (("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)):
        if n >= factor:
            return f"{n / factor:.1f} {unit}" if n % factor else f"{n // factor} {unit}"
    return f"{n} B" if n else "0"


def in_intervals(n: int | None) -> str:
    """``in 1 interval``, ``in 3 intervals``; nothing for none."""
    return f"in {count(n)} interval{'s' if n != 1 else ''}" if n else ""
