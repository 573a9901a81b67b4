"""The bios of a device as a fio iolog, version 3: the same requests, at the same times, on a real disk.

``TIME FILE ACTION OFFSET LENGTH`` a line: microseconds since the first request, bytes (``iolog.c`` of fio:
``read_iolog``, ``log_io_u``). A trace tells one I/O on each layer of a device stack; only the devices asked for are
written.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, BinaryIO

import polars as pl

from tracereplay.errors import EmptyTraceError, UsageError

if TYPE_CHECKING:
    from tracereplay.analysis.view import View

HEADER = b"fio version 3 iolog\n"
SECTOR = 512
_LISTED = 8
_NAME = re.compile(r"[!-9;-~]{1,255}")
"""fio reads a name with ``%256s`` and takes ``:`` in one for several names."""


@dataclass(slots=True)
class Iolog:
    """What was written."""

    devices: list[str]
    requests: dict[str, int] = field(default_factory=dict)
    """By action: read, write, trim, sync."""
    left_out: dict[str, int] = field(default_factory=dict)
    """By operation: what fio has no action for, and requests of no length."""
    seconds: float = 0.0
    kind: str = "queue"
    """The events that were taken for requests."""


def write_iolog(view: View, out: BinaryIO, *, file: str | None = None) -> Iolog:
    """Write the bios that a view keeps. ``file``: the file or disk named in it; else a name for each device.

    Raises EmptyTraceError without bios, UsageError when several devices have some and none is chosen, or for a name
    that an iolog cannot hold.
    """
    if file is not None and not _NAME.fullmatch(file):
        raise UsageError(f"an iolog cannot hold the name {file!r}", hint="no blanks and no colons, at most 255 bytes")
    devices, kind = _devices(view)
    names = {dev: file or f"device-{dev >> 20}-{dev & 0xFFFFF}" for dev in devices}
    done = Iolog([view.device_name(dev) for dev in devices], kind=kind)
    out.write(HEADER)
    for name in dict.fromkeys(names.values()):
        out.write(f"0 {name} add\n0 {name} open\n".encode())
    first = last = 0
    for rows in _requests(view, kind, devices, names).collect_batches(engine="streaming", maintain_order=True):
        if not done.requests and not done.left_out and len(rows):
            first = rows["ts_ns"][0]
        last = rows["ts_ns"][-1] if len(rows) else last
        for operation, n in rows.filter(pl.col("action").is_null())["op"].fill_null("unknown").value_counts().rows():
            done.left_out[operation] = done.left_out.get(operation, 0) + n
        rows = rows.drop_nulls("action")
        for action, n in rows["action"].value_counts().rows():
            done.requests[action] = done.requests.get(action, 0) + n
        lines = rows.select((pl.col("ts_ns") - first) // 1000, "file", "action", "offset", "length")
        out.write(lines.write_csv(include_header=False, separator=" ", quote_style="never").encode())
    for name in dict.fromkeys(names.values()):
        out.write(f"{(last - first) // 1000} {name} close\n".encode())
    done.seconds = (last - first) / 1e9
    if not done.requests:
        raise EmptyTraceError(
            f"fio can replay no bio of {', '.join(done.devices)}: operations are {', '.join(done.left_out)}",
            hint="choose another --device or --time",
        )
    return done


def _devices(view: View) -> tuple[list[int], str]:
    """Devices to write, and which events stand for their requests: bios, or requests where no bios were recorded."""
    kinds = pl.col("kind").cast(pl.String)
    counts = (
        view.events("bio_events")
        .filter(kinds.is_in(["queue", "issue"]))
        .group_by("dev", kinds.alias("kind"))
        .len()
        .collect(engine="streaming")
    )
    for kind in ("queue", "issue"):
        found = counts.filter(pl.col("kind") == kind, pl.col("dev").is_not_null()).sort("len", descending=True)
        if not len(found):
            continue
        if len(found) > 1 and not view.selection.device:
            listed = [f"{view.device_name(dev)} ({n:,})" for dev, _, n in found.head(_LISTED).rows()]
            busiest = found["dev"][0]
            more = f" and {len(found) - _LISTED:,} more" if len(found) > _LISTED else ""
            raise UsageError(
                f"the trace has bios of {len(found):,} devices: {', '.join(listed)}{more}",
                hint=f"choose with --device {busiest >> 20}:{busiest & 0xFFFFF}; devices on top of others tell one I/O "
                "again on each layer",
            )
        return found["dev"].sort().to_list(), kind
    what = "that the filters keep " if view.selection.used else ""
    raise EmptyTraceError(
        f"the trace has no bios {what}to replay", hint="record them with: tracereplay capture --events bio"
    )


def _requests(view: View, kind: str, devices: list[int], names: dict[int, str]) -> pl.LazyFrame:
    """``ts_ns file action offset length op``; the action is null for what fio cannot do."""
    op, length = pl.col("op").cast(pl.String), pl.col("nr_sectors").fill_null(0).cast(pl.Int64) * SECTOR
    sized = length > 0
    flush = (op == "F") | ((op == "W") & ~sized & pl.col("flags").cast(pl.String).str.starts_with("F"))
    action = (
        pl.when(flush).then(pl.lit("sync"))
        .when(sized & (op == "R")).then(pl.lit("read"))
        .when(sized & (op == "W")).then(pl.lit("write"))
        .when(sized & op.is_in(["D", "DE"])).then(pl.lit("trim"))
    )  # fmt: skip
    name = pl.col("dev").replace_strict(list(names), list(names.values()), return_dtype=pl.String)
    return (
        view.events("bio_events")
        .filter(pl.col("kind").cast(pl.String) == kind, pl.col("dev").is_in(devices))
        .select(
            "ts_ns",
            name.alias("file"),
            action.alias("action"),
            pl.when(flush).then(0).otherwise(pl.col("sector").fill_null(0).cast(pl.Int64) * SECTOR).alias("offset"),
            pl.when(flush).then(0).otherwise(length).alias("length"),
            op.alias("op"),
        )
    )
