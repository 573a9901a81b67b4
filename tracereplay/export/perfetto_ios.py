"""Tracks of a timeline: a slice for each I/O on each device."""

from __future__ import annotations

from collections.abc import Iterator
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

import polars as pl

from tracereplay.export.perfetto import BINS, DEVICES, Events, Timeline, arguments, text

if TYPE_CHECKING:
    from tracereplay.analysis.view import View

_DEVICES_PLACE = 2
_NAMES = {"R": "read", "W": "write", "D": "discard", "DE": "secure discard", "F": "flush"}
"""Viewers put slices of one name on one track."""


def write_ios(view: View, events: Events, done: Timeline) -> None:
    """A slice for each I/O on each device, from queued to complete; within it how long it waited, and was served."""
    from tracereplay.analysis.io import io_table

    if not view.trace.rows("bio_events"):
        return
    tracks: dict[int, int] = {}
    ios = 0
    for batch in io_table(view.trace):
        rows = _kept(view, pl.DataFrame(batch))
        for disk in rows["disk"].unique().sort().to_list():
            if disk not in tracks:
                tracks[disk] = DEVICES + len(tracks)
                events.name_process(tracks[disk], f"block device {view.device_name(disk)}", _DEVICES_PLACE)
        ios += len(rows)
        events.write(_slices(rows, events, tracks))
    done.counts["I/Os"] = ios
    done.counts["counter values of I/Os in flight"] = events.write(_depths(view, events, tracks))
    if view.selection.order:
        done.notes.append("--order does not apply to I/Os: all are there")


def _depths(view: View, events: Events, tracks: dict[int, int]) -> Iterator[str]:
    """Mean and greatest number of I/Os in flight on each device, where completions and no tasks are looked at."""
    from tracereplay.analysis.registry import analysis_named

    analysis = analysis_named("depth-over-time")
    if set(view.selection.used) - analysis.filters or not all(need.met_by(view.trace) for need in analysis.needs):
        return
    pids = {view.device_name(disk): pid for disk, pid in tracks.items()}
    width = max(1000, (view.end_ns - view.start_ns) // BINS)
    frame = analysis(view, bin=f"{width}ns").filter(pl.col("device").is_in(list(pids)))
    for device, start, mean, peak in frame.select("device", "start_ns", "mean_depth", "peak_depth").iter_rows():
        ts = events.us(view.origin_ns + start)
        yield (
            f'{{"ph":"C","name":"I/Os in flight","pid":{pids[device]},"tid":0,"ts":{ts},'
            f'"args":{{"mean":{mean:.4g},"peak":{peak}}}}}'
        )


def _kept(view: View, rows: pl.DataFrame) -> pl.DataFrame:
    """I/Os that the view keeps, with the name of their task. By time: those that overlap it."""
    first, chosen = pl.coalesce("q_ns", "i_ns", "d_ns", "c_ns"), view.selection
    last = pl.max_horizontal("q_ns", "i_ns", "d_ns", "c_ns")
    rows = rows.with_columns(pl.col(pl.Categorical).cast(pl.String), first.alias("first_ns"))
    rows = rows.filter((last >= view.start_ns) & (pl.col("first_ns") < view.end_ns))
    for name, values in (("pid", chosen.pid), ("cpu", chosen.cpu)):
        if values:
            rows = rows.filter(pl.col(name).is_in(values))
    if chosen.device:
        rows = rows.filter(pl.col("dev").is_in(chosen.device) | pl.col("disk").is_in(chosen.device))
    rows = view.with_task(rows.lazy(), ts="first_ns").collect()
    for name, globs in (("comm", chosen.comm), ("cgroup", chosen.cgroup)):
        if globs:
            fitting = [
                value
                for value in rows[name].unique().to_list()
                if value is not None and any(fnmatchcase(value, glob) for glob in globs)
            ]
            rows = rows.filter(pl.col(name).is_in(fitting))
    return rows


_IO = (
    "id", "disk", "dev", "op", "flags", "sector", "bytes", "q_ns", "d_ns", "c_ns", "pid", "comm", "cpu",
    "root_id", "merges", "splits", "requeues", "error", "class",
)  # fmt: skip


def _slices(rows: pl.DataFrame, events: Events, tracks: dict[int, int]) -> Iterator[str]:
    for (
        number, disk, dev, op, flags, sector, size, q, d, c, pid, comm, cpu, root, merges, splits, requeues, error,
        ending,
    ) in rows.select(_IO).iter_rows():  # fmt: skip
        begin = q if q is not None else d
        if begin is None:
            continue
        shared = f'"cat":"io","id":"{number:#x}","pid":{tracks[disk]},"tid":0'
        args = {
            "flags": flags, "sector": sector, "bytes": size, "pid": pid, "comm": comm, "cpu": cpu, "dev": dev,
            "io": number, "root_io": root, "merges": merges or None, "splits": splits or None,
            "requeues": requeues or None, "error": error or None, "class": ending,
        }  # fmt: skip
        name = text(_NAMES.get(op, op or "unknown"))
        yield f'{{"ph":"b","name":{name},{shared},"ts":{events.us(begin)},"args":{arguments(args)}}}'
        for what, start, end in (("queued", q, d), ("served", d, c)):
            if start is not None and end is not None:
                yield f'{{"ph":"b","name":"{what}",{shared},"ts":{events.us(start)}}}'
                yield f'{{"ph":"e","name":"{what}",{shared},"ts":{events.us(end)}}}'
        if c is not None:
            yield f'{{"ph":"e","name":{name},{shared},"ts":{events.us(c)}}}'
