"""What of an analysis adds up over several hosts. Imports nothing heavy."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Together:
    """How the rows of several hosts become rows of their fleet; columns that are not named are null there.

    Numbers of a host's own things (CPU 0, device 254:0, cgroup ``id:1``) stand for those of that name on every host.
    """

    keys: tuple[str, ...]
    """Columns that name the thing; those that an option leaves out do not count."""
    sums: tuple[str, ...]
    """Columns that add up."""
    shares: Mapping[str, str] = field(default_factory=dict)
    """Share and the column of ``sums`` that it is of: the fleet's is that of the hosts' wholes together."""
    within: tuple[str, ...] = ()
    """Keys within each value of which shares are taken; none: of everything."""
    ratios: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    """Columns that are one sum over another."""
    means: Mapping[str, str] = field(default_factory=dict)
    """Means, each with the column of ``sums`` that says of how many."""
    most: tuple[str, ...] = ()
    """Columns that hold a maximum."""
    rank: str = ""
    """Column by which rows are best first; empty: they are in the order of the keys."""
    unless: tuple[str, ...] = ()
    """Options with which nothing adds up."""


PERCENTILES = "percentiles of hosts do not add up to those of the fleet"
MOMENTS = "times count from each trace's first event, and hosts did not begin together"
"""Why the rows of an analysis stay those of hosts."""
