"""What a text tells about the kernel that wrote it: features, and from them the release whose gfp names it uses."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Features:
    """Seen in the events of a source; None where no event could show it."""

    decimal_pfn: bool | None
    """``pfn=`` without 0x: before 5.15."""
    percpu_refill: bool | None
    """``mm_page_alloc_zone_locked`` has it: 6.1 and later print it from the record."""
    ioprio: bool | None
    """Request events carry an I/O priority: after 6.1."""
    nowarn_apart_from_nowait: bool | None
    """GFP_NOWAIT stands beside __GFP_NOWARN, which is part of it since 6.7."""
    gfp_atomic_bit: bool | None
    """__GFP_ATOMIC is printed: before 6.3."""

    def facts(self) -> dict[str, bool]:
        """What is known, for the metadata."""
        named = {name: getattr(self, name) for name in self.__dataclass_fields__}
        return {name: value for name, value in named.items() if value is not None}

    def release(self) -> str | None:
        """A release whose gfp names fit, or None when nothing tells."""
        if self.decimal_pfn:
            return "5.10"
        if self.percpu_refill is False:
            return "5.15"
        if self.nowarn_apart_from_nowait or self.gfp_atomic_bit or self.ioprio is False:
            return "6.1"
        return "6.12" if self.ioprio else None


def nowarn_apart(gfp_texts: Sequence[bytes]) -> bool | None:
    """True when a text proves that GFP_NOWAIT does not contain __GFP_NOWARN; None when none does.

    The kernel prints a composite only while all its bits are set, and never a bit of it again: both names in one
    text are two different sets of bits.
    """
    both = {b"GFP_NOWAIT", b"__GFP_NOWARN"}
    return True if any(both <= set(text.split(b"|")) for text in gfp_texts) else None
