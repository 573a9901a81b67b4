"""Which analyses there are. Imports nothing heavy: `tracereplay analyze --list` is instant."""

from __future__ import annotations

from importlib import import_module

from tracereplay.analysis.analysis import Analysis
from tracereplay.errors import UsageError, nearest

MODULES: tuple[str, ...] = (
    # page events
    "page_counts",
    "page_callers",
    "page_tasks",
    "page_lists",
    # lifetimes
    "lifetimes",
    "live",
    # bios
    "ios",
    "bio_pages",
    "bio_streams",
    "bio_places",
    "bio_order",
    "bio_blocks",
    "bio_depth",
    # memory
    "fragmentation",
    "stalls",
)
"""Modules of this package that hold ``ANALYSES``, in the order in which they are listed."""


def analyses() -> dict[str, Analysis]:
    """Every analysis by name, in the order of lists."""
    return {a.name: a for name in MODULES for a in import_module(f"tracereplay.analysis.{name}").ANALYSES}


def analysis_named(name: str) -> Analysis:
    """The analysis of a name. Raises UsageError with the nearest one."""
    known = analyses()
    if name not in known:
        guess = nearest(name, known)
        raise UsageError(
            f"no analysis {name!r}",
            hint=(f"did you mean {guess!r}? " if guess else "") + "tracereplay analyze --list shows all",
        )
    return known[name]
