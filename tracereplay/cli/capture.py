"""``tracereplay capture``: record this host's page-allocation and bio events into a trace."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from tracereplay.cli.console import note, warn
from tracereplay.cli.units import mask, seconds, size

if TYPE_CHECKING:
    from tracereplay.trace.recording import CaptureSummary


def run(
    out: Annotated[str, typer.Argument(help="Directory of the new trace, or a URL; with --raw: the new file.")],
    command: Annotated[
        list[str] | None, typer.Argument(help="After --: capture while this command runs.", show_default=False)
    ] = None,
    duration: Annotated[
        str | None, typer.Option(help="Stop after so long: 500ms, 10s, 2m. Default: at Ctrl-C.", show_default=False)
    ] = None,
    events: Annotated[str, typer.Option(help="Groups: page, buddy, reclaim, bio, bulk.")] = "page,bio",
    stacks: Annotated[bool, typer.Option("--stacks", help="Take kernel stacks of allocations and bios.")] = False,
    stack_sample: Annotated[int, typer.Option(help="A stack for one event in so many.")] = 1,
    stack_every: Annotated[
        str, typer.Option(help="At most one stack in so long for a task, order and gfp mask.")
    ] = "0s",
    via: Annotated[str, typer.Option(help='Capture another host: --via "ssh root@host".', show_default=False)] = "",
    raw: Annotated[bool, typer.Option("--raw", help="Keep raw frames in one file, to import later.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Replace an older trace.")] = False,
    pid: Annotated[list[int] | None, typer.Option(help="Only this thread.")] = None,
    tgid: Annotated[list[int] | None, typer.Option(help="Only this process.")] = None,
    comm: Annotated[list[str] | None, typer.Option(help="Only tasks of this name.")] = None,
    cgroup: Annotated[list[str] | None, typer.Option(help="Only tasks in this cgroup (v2) or below.")] = None,
    device: Annotated[list[str] | None, typer.Option(help="Only this block device.")] = None,
    order: Annotated[list[int] | None, typer.Option(help="Only blocks of this order.")] = None,
    gfp: Annotated[str, typer.Option(help="Only allocations with all these gfp bits, e.g. 0x100.")] = "0",
    min_size: Annotated[str, typer.Option(help="Only blocks of pages and bios at least so large.")] = "0",
    max_overhead: Annotated[float, typer.Option(help="Share of a core; beyond it, shed load. 0: no limit.")] = 0.0,
    max_rate: Annotated[float, typer.Option(help="Events per second; beyond it, shed load. 0: no limit.")] = 0.0,
    ring_mib: Annotated[float, typer.Option(help="Ring buffer per CPU, in MiB.")] = 16.0,
    snapshot_every: Annotated[str, typer.Option(help="State of the allocator, so often; 0: at start and end.")] = "10s",
    page_map: Annotated[bool, typer.Option(help="Record what every page frame is used for.")] = True,
    tracer: Annotated[str, typer.Option(help="auto, ebpf or tracefs.")] = "auto",
    ring: Annotated[
        str | None,
        typer.Option(help="Flight recorder: keep the last so long, e.g. 10m.", show_default=False),
    ] = None,
    freeze_on: Annotated[list[str] | None, typer.Option(help="End at alloc_failed or extfrag=RATE.")] = None,
    freeze_after: Annotated[str, typer.Option(help="Go on so long after that.")] = "5s",
    max_size: Annotated[str, typer.Option(help="End before the trace is larger.")] = "0",
    min_free_disk: Annotated[str, typer.Option(help="End before the disk has less free.")] = "64MiB",
    rotate_size: Annotated[str, typer.Option(help="Begin a new file at this size.")] = "256MiB",
    rotate_time: Annotated[str, typer.Option(help="Begin new files so often.")] = "60s",
) -> None:
    """Record page-allocation and block-I/O events of this host into a trace.

    Needs root (or sudo without a password) and BCC for the system Python; `tracereplay doctor` says whether
    this host allows it. Ctrl-C, SIGTERM, the end of the duration and the end of the command each end the
    capture cleanly. Nothing stays attached.

    Example: tracereplay capture run1 --duration 10s
             tracereplay capture build --events page,bio,buddy -- make -j4
    """
    from tracereplay.cli.capture_view import view_of
    from tracereplay.trace.capture import CaptureOptions, capture
    from tracereplay.trace.store import is_url
    from tracereplay.trace.upload import bundle_at

    options = CaptureOptions(
        groups=tuple(g.strip() for g in events.split(",") if g.strip()),
        duration_s=None if duration is None else seconds(duration),
        ring_mib=ring_mib,
        command=tuple(command or ()),
        force=force,
        tracer=tracer,
        stacks=stacks,
        stack_sample=stack_sample,
        stack_every_s=seconds(stack_every, zero=True),
        pids=tuple(pid or ()),
        tgids=tuple(tgid or ()),
        comms=tuple(comm or ()),
        cgroups=tuple(cgroup or ()),
        devices=tuple(device or ()),
        orders=tuple(order or ()),
        gfp=mask(gfp),
        min_bytes=size(min_size),
        snapshot_every_s=seconds(snapshot_every, zero=True),
        page_map=page_map,
        max_overhead=max_overhead,
        max_rate=max_rate,
        rotate_s=seconds(rotate_time),
        rotate_bytes=size(rotate_size),
        max_bytes=size(max_size),
        min_free_bytes=size(min_free_disk),
        flight_s=0.0 if ring is None else seconds(ring),
        freeze_on=tuple(freeze_on or ()),
        freeze_after_s=seconds(freeze_after, zero=True),
        via=via,
        raw=raw,
    )
    with bundle_at(out, force=force) as path:
        view = view_of(path, options)
        try:
            summary = capture(path, options, on_progress=None if view is None else view.show)
        finally:
            if view is not None:
                view.close()
        _tell(summary, out if is_url(out) else str(summary.path))
    if is_url(out):
        note(f"stored: {out}")


def _tell(summary: CaptureSummary, place: str) -> None:
    """The summary of what goes to ``place``, on stderr."""
    total = sum(summary.events.values())
    parts = ", ".join(f"{rows:,} {table}" for table, rows in summary.events.items())
    per_event = f"{summary.bytes_on_disk / total:.2f} bytes/event" if total else "no events"
    note(f"{place}: {parts} in {summary.duration_s:.1f} s ({summary.reason})")
    note(f"lost: {summary.lost:,}; on disk: {summary.bytes_on_disk:,} bytes, {per_event}")
    if summary.path.is_dir():
        from tracereplay.trace.completeness import completeness
        from tracereplay.trace.reader import Trace

        note(completeness(Trace.open(summary.path)).text())
    if cost := summary.self_cost.get("cpu_ns_per_event"):
        note(f"cost of capturing: {cost:,.0f} ns of CPU per event, outside the traced tasks")
    if summary.fallback:
        warn(f"captured through tracefs: {summary.fallback}")
    for reason in summary.missing.values():
        warn(f"not recorded: {reason}")
    if summary.reason == "min-free-disk":
        warn("the disk came near --min-free-disk, and the capture ended early; the trace is complete up to there")
    if summary.command_status:
        warn(f"the command ended with status {summary.command_status}")
