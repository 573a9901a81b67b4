"""``tracereplay replay``."""

from __future__ import annotations

from tracereplay.errors import TracereplayError


def run() -> None:
    """Not built yet."""
    raise TracereplayError("not built yet")
