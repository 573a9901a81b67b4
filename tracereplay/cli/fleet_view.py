"""What every verb of several traces says of them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from tracereplay.cli.console import note, warn
from tracereplay.errors import FleetError

if TYPE_CHECKING:
    from tracereplay.trace.fleet import Failure, Fleet, Member

STRICT = "leave it out, or do without --strict"


def fleet_of(arguments: Sequence[str], *, strict: bool) -> Fleet:
    """The fleet that arguments name; with ``strict`` what cannot be used ends it. Raises FleetError."""
    from tracereplay.trace.fleet import traces_of

    fleet = traces_of(arguments)
    if strict and fleet.failures:
        first = fleet.failures[0]
        raise FleetError(f"{first.location}: {first.error}", hint=STRICT)
    return fleet


def warn_of(failures: Iterable[Failure]) -> None:
    """Say which traces an answer is without."""
    for failure in failures:
        warn(f"left out: {failure.location}: {failure.error}")


def remark(members: Sequence[Member], failures: Sequence[Failure]) -> None:
    """Say how many traces an answer is of, and how complete they are."""
    from tracereplay.trace.completeness import completeness

    hosts = len({m.host for m in members})
    out = f", {len(failures)} left out" if failures else ""
    note(f"fleet: {len(members)} traces of {hosts} hosts{out}")
    lacking = 0
    for member in members:
        found = completeness(member.open())
        if not found.whole:
            lacking += 1
            note(f"{member.location}: {found.line()}")
    note(f"completeness: {len(members) - lacking} of {len(members)} traces are whole")
