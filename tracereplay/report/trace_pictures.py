"""Pictures of a trace: rates over time with what was lost, callers and stacks, orders, bios by size, time and layer."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from tracereplay.analysis.analysis import Picture as Spec
from tracereplay.report.answer_flame import flame
from tracereplay.report.bars import Bar, bars_svg
from tracereplay.report.numbers import count, figure, seconds, share, size, size_bytes
from tracereplay.report.picture import Picture
from tracereplay.report.plot import Plane
from tracereplay.report.scale import linear, logarithmic, within
from tracereplay.report.svg import in_unit

if TYPE_CHECKING:
    import polars as pl

    from tracereplay.report.data import Chart
    from tracereplay.report.tracedata import Loss, TraceData

CALLERS = 12
DEVICES = 6
LAYERS = ("before the device below", "in the device below", "after it", "a device with none below")


def trace_pictures(trace: TraceData) -> dict[str, list[Picture]]:
    """By the part of the page they belong to: ``time``, ``pages``, ``bios``."""
    time = [course(chart, trace.losses) for chart in trace.charts]
    pages = [_orders(trace)] if trace.orders else []
    bios: list[Picture] = []
    found = trace.sources
    if (callers := found.frame("callers")) is not None:
        pages.insert(0, _callers(callers))
    if (stacks := found.stacks) is not None:
        pages.insert(1, _flame(stacks))
    if (sizes := found.frame("sizes")) is not None:
        bios.append(_sizes(sizes, found.frame("layers")))
    if (latency := found.frame("latency-histogram")) is not None:
        bios.append(_latency(latency, found.frame("latency")))
    if (layers := found.frame("layers")) is not None:
        bios.append(_layers(layers))
    return {"time": time, "pages": pages, "bios": bios}


# ---------------------------------------------------------------- over time
def course(chart: Chart, losses: tuple[Loss, ...] | None) -> Picture:
    """Rates over time. ``losses``: where events were lost; None: that is told elsewhere."""
    told = [
        (line.name, figure(sum(line.values) / len(line.values)), figure(max(line.values)), chart.unit)
        for line in chart.lines
    ]
    lost = tuple(
        (
            f"lost, {loss.where}",
            "at " + seconds(1e9 * loss.begin_s),
            "until " + seconds(1e9 * loss.end_s),
            "events unknown" if loss.events is None else f"{count(loss.events)} events",
        )
        for loss in losses or ()
    )
    rows = (*told, *lost)
    note = "Shaded: events were lost there." if losses else "" if losses is None else "No events were lost."
    return Picture(
        f"rate-{chart.title.lower().replace(' ', '-').replace('/', '')}", f"{chart.title} over time",
        partial(_course_svg, chart, losses), ("line", "mean", "peak", "unit"), rows, note,
    )  # fmt: skip


def _course_svg(chart: Chart, losses: tuple[Loss, ...] | None, width: int, below: Sequence[str]) -> str:
    top = max(max(line.values) for line in chart.lines)
    bins = len(chart.lines[0].values)
    end = chart.bin_s * bins
    scale = within(0.0, end, lambda s: in_unit("ns")(1e9 * s))
    names = [line.name for line in chart.lines]
    plane = Plane(
        f"{chart.title} over time", scale, linear(0.0, top, _short), width, "time since the first event", chart.unit,
        names,
    )  # fmt: skip
    for loss in losses or ():
        plane.upright(loss.begin_s, loss.end_s, "lost")
    for index, line in enumerate(chart.lines):
        plane.line([((k + 0.5) * chart.bin_s, value) for k, value in enumerate(line.values)], index)
    told = "; ".join(f"{line.name}: peak {figure(max(line.values))} {chart.unit}" for line in chart.lines)
    lost = f"{count(len(losses))} stretches with lost events, shaded. " if losses else ""
    return plane.svg(f"{chart.title} over {seconds(1e9 * end)}. {lost}{told}", *below)


def _short(x: float) -> str:
    """``1.2 M``, ``500 k``."""
    for unit, factor in ((" M", 1e6), (" k", 1e3)):
        if abs(x) >= factor:
            return f"{x / factor:g}{unit}"
    return f"{x:g}"


# ---------------------------------------------------------------- pages
def _callers(frame: pl.DataFrame) -> Picture:
    whole = int(frame["pages"].sum())
    rows = list(frame.head(CALLERS).select("by", "requests", "pages", "orders").iter_rows())
    shown = [Bar(str(by), share(pages, whole), (float(pages),)) for by, _, pages, _ in rows]
    data = [(str(by), count(requests), count(pages), share(pages, whole)) for by, requests, pages, _ in rows]
    if len(frame) > CALLERS:
        rest = frame.slice(CALLERS)
        pages, requests = int(rest["pages"].sum()), int(rest["requests"].sum())
        name = f"{len(rest):,} others"
        shown.append(Bar(name, share(pages, whole), (float(pages),)))
        data.append((name, count(requests), count(pages), share(pages, whole)))
    title = "Pages allocated, by caller"
    return Picture(
        "callers", title, lambda width, below: bars_svg(title, shown, (), width, f"{title}: {_told(shown)}", below),
        ("caller", "requests", "pages", "share"), tuple(data), "Shares are of all pages allocated in the trace.",
    )  # fmt: skip


def _told(bars: list[Bar]) -> str:
    return "; ".join(f"{bar.name} {bar.value}" for bar in bars[:5])


def _flame(frame: pl.DataFrame) -> Picture:
    whole = float(frame["value"].sum())
    rows = tuple(
        (" ".join(str(stack).split(";")[-3:]), count(int(value)), share(value, whole))
        for stack, value in frame.head(20).select("stack", "value").iter_rows()
    )
    spec = Spec("flame", "stack", value="value", unit="pages")
    title = "Pages allocated, by stack"
    return Picture(
        "callers-flame", title, lambda width, _: flame(frame, spec, title, width),
        ("innermost functions of the stack", "pages", "share"), rows,
        "Width is pages; callers below, what they call above. Point at a box for its name.",
    )  # fmt: skip


def _orders(trace: TraceData) -> Picture:
    whole = trace.allocated_pages
    title = "Pages allocated, by order"
    shown = [
        Bar(f"order {o.order}, {size(1 << o.order)}", share(o.pages, whole), (float(o.pages),)) for o in trace.orders
    ]
    rows = tuple(
        (str(o.order), size(1 << o.order), count(o.blocks), count(o.pages), share(o.pages, whole)) for o in trace.orders
    )
    return Picture(
        "orders", title, lambda width, below: bars_svg(title, shown, (), width, f"{title}: {_told(shown)}", below),
        ("order", "block", "allocations", "pages", "share"), rows,
    )  # fmt: skip


# ---------------------------------------------------------------- bios
def _sizes(frame: pl.DataFrame, layers: pl.DataFrame | None) -> Picture:
    """Of the busiest device that has none above it: those below see the same I/Os again."""
    device = _busiest(frame, layers)
    rows = [r for r in frame.sort("size_bytes").iter_rows(named=True) if r["device"] == device]
    ops = sorted({str(r["op"]) for r in rows})
    by_size: dict[int, dict[str, int]] = {}
    for r in rows:
        by_size.setdefault(int(r["size_bytes"]), {})[str(r["op"])] = int(r["ios"])
    kept = sorted(sorted(by_size, key=lambda b: -sum(by_size[b].values()))[:16])
    shown = [
        Bar(size_bytes(b) if b else "no data", count(sum(by_size[b].values())),
            tuple(float(by_size[b].get(op, 0)) for op in ops)) for b in kept
    ]  # fmt: skip
    data = tuple(
        (str(r["device"]), str(r["op"]), size_bytes(r["size_bytes"]) if r["size_bytes"] else "no data",
         count(r["ios"]), share(r["share"], 1)) for r in frame.head(200).iter_rows(named=True)
    )  # fmt: skip
    title = f"I/Os by size, device {device}"
    names = [_OPERATIONS.get(op, op) for op in ops]
    left = f"The {len(by_size) - len(kept)} rarest sizes are in the figures only. " if len(by_size) > len(kept) else ""
    return Picture(
        "bio-sizes", title,
        lambda width, below: bars_svg(title, shown, names, width, f"{title}: {_told(shown)}", below),
        ("device", "operation", "size", "I/Os", "share"), data, f"{left}All devices are in the figures.",
    )  # fmt: skip


_OPERATIONS = {"R": "read", "W": "write", "D": "discard", "F": "flush"}


def _busiest(frame: pl.DataFrame, layers: pl.DataFrame | None) -> str:
    below = set() if layers is None else {r["device"] for r in layers.iter_rows(named=True) if r["layer"]}
    found = (
        frame.group_by("device").agg(_sum("ios")).sort("ios", "device", descending=[True, False])["device"].to_list()
    )
    return str(next((device for device in found if device not in below), found[0]))


def _sum(column: str) -> Any:
    import polars as pl

    return pl.col(column).sum()


def _latency(frame: pl.DataFrame, percentiles: pl.DataFrame | None) -> Picture:
    devices = [str(d) for d in frame.group_by("by").agg(_sum("ios")).sort("ios", descending=True)["by"]][:DEVICES]
    title = "Time from queueing to completion"
    rows = tuple(
        (str(r["by"]), count(r["ios"]), *(seconds(r[f"{p}_ns"]) for p in ("mean", "p50", "p99", "max")))
        for r in (percentiles.iter_rows(named=True) if percentiles is not None else ())
    )
    return Picture(
        "bio-latency", title, partial(_latency_svg, frame, devices, title),
        ("device", "I/Os", "mean", "p50", "p99", "most"), rows,
        "Share of a device's I/Os in each power of two of time. An I/O counts once on each layer of a stack.",
    )  # fmt: skip


def _latency_svg(frame: pl.DataFrame, devices: list[str], title: str, width: int, below: Sequence[str]) -> str:
    found: dict[str, list[tuple[float, float]]] = {d: [] for d in devices}
    for r in frame.sort("low_ns").iter_rows(named=True):
        if str(r["by"]) in found:
            middle = (max(float(r["low_ns"]), 0.5) * float(r["high_ns"])) ** 0.5
            found[str(r["by"])].append((middle, 100 * float(r["share"])))
    xs = [x for points in found.values() for x, _ in points]
    top = max(y for points in found.values() for _, y in points)
    scale = logarithmic(min(xs) / 1.5, 1.5 * max(xs), in_unit("ns"))
    plane = Plane(
        title, scale, linear(0.0, top, lambda x: f"{x:g} %"), width, "time, logarithmic", "share of I/Os", devices
    )
    for index, points in enumerate(found.values()):
        plane.line(points, index, dots=True)
    peaks = "; ".join(f"{d}: most at {seconds(max(p, key=lambda q: q[1])[0])}" for d, p in found.items() if p)
    return plane.svg(f"{title}. {peaks}", *below)


def _layers(frame: pl.DataFrame) -> Picture:
    columns = ("before_mean_ns", "below_mean_ns", "after_mean_ns")
    shown, rows = [], []
    for r in frame.head(16).iter_rows(named=True):
        alone = r["below_mean_ns"] is None
        parts = (0.0, 0.0, 0.0, float(r["q2c_mean_ns"] or 0)) if alone else (*(float(r[c] or 0) for c in columns), 0.0)
        name = f"{r['device']} over {r['below']}" if r["below"] else str(r["device"])
        shown.append(Bar(name, seconds(r["q2c_mean_ns"]), parts))
        own = "-" if r["own_share"] is None else share(r["own_share"], 1)
        rows.append((name, count(r["ios"]), seconds(r["q2c_mean_ns"]), *(seconds(r[c]) for c in columns), own))
    title = "Mean time of an I/O, by layer"
    return Picture(
        "bio-layers", title,
        lambda width, below: bars_svg(title, shown, LAYERS, width, f"{title}: {_told(shown)}", below),
        ("device", "I/Os", "mean", "before", "below", "after", "own share"), tuple(rows),
        "From queueing to completion.",
    )  # fmt: skip
