"""``format`` files of unmodified Debian kernels, as their tracefs shows them (tests/data/formats)."""

from __future__ import annotations

import re
from pathlib import Path

KERNELS = ("6.1", "6.12")
_DATA = Path(__file__).parent / "data" / "formats"


def real_formats(kernel: str) -> dict[str, str]:
    """event -> text of its format file."""
    found = {}
    for part in re.split(r"^== ", (_DATA / f"{kernel}.txt").read_text(), flags=re.M)[1:]:
        event, text = part.split("\n", 1)
        found[event] = text
    return found
