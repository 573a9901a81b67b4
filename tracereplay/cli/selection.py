"""Filters as people write them on a command line, for every verb that looks at a part of a trace."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Annotated

import typer

from tracereplay.analysis.selection import Selection
from tracereplay.cli.units import seconds
from tracereplay.errors import UsageError

TimeOption = Annotated[
    str | None, typer.Option("--time", metavar="FROM:TO", help="Since the first event: 1s:5s, 500ms:, :2m.")
]
PidOption = Annotated[list[int] | None, typer.Option("--pid", help="Thread id; repeat for several.")]
CommOption = Annotated[list[str] | None, typer.Option("--comm", metavar="GLOB", help="Task name, or a glob.")]
CgroupOption = Annotated[list[str] | None, typer.Option("--cgroup", metavar="GLOB", help="Control group, or a glob.")]
CpuOption = Annotated[list[int] | None, typer.Option("--cpu", help="CPU; repeat for several.")]
OrderOption = Annotated[list[int] | None, typer.Option("--order", help="Order of page events.")]
DeviceOption = Annotated[list[str] | None, typer.Option("--device", metavar="MAJ:MIN", help="Device of bio events.")]

_DEVICE = re.compile(r"(\d+)[:,](\d+)")


def selection(
    time: str | None = None,
    pid: Sequence[int] | None = None,
    comm: Sequence[str] | None = None,
    cgroup: Sequence[str] | None = None,
    cpu: Sequence[int] | None = None,
    order: Sequence[int] | None = None,
    device: Sequence[str] | None = None,
) -> Selection:
    """The selection that options ask for. Raises UsageError."""
    return Selection(
        time=_time(time),
        pid=tuple(pid or ()),
        comm=tuple(comm or ()),
        cgroup=tuple(cgroup or ()),
        cpu=tuple(cpu or ()),
        order=tuple(order or ()),
        device=tuple(device_number(d) for d in device or ()),
    )


def _time(text: str | None) -> tuple[int | None, int | None]:
    if text is None:
        return (None, None)
    first, colon, last = text.partition(":")
    if not colon:
        raise UsageError(f"no stretch of time: {text!r}", hint="FROM:TO since the first event, e.g. 1s:5s, 500ms:, :2m")
    low, high = (round(seconds(part, zero=True) * 1e9) if part.strip() else None for part in (first, last))
    if low is not None and high is not None and low >= high:
        raise UsageError(f"--time {text} ends before it begins", hint="FROM:TO since the first event, e.g. 1s:5s")
    return (low, high)


def device_number(text: str) -> int:
    """``major << 20 | minor`` of ``254:0``, ``254,0`` or the number itself. Raises UsageError."""
    if match := _DEVICE.fullmatch(text.strip()):
        return int(match[1]) << 20 | int(match[2])
    if text.strip().isdecimal():
        return int(text)
    raise UsageError(f"no device: {text!r}", hint="MAJOR:MINOR, e.g. 254:0; `tracereplay analyze io TRACE` lists them")
