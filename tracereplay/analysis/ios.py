"""Latencies of I/Os and where they arise: summary, percentiles, histograms, slowest, layers, merges, pages of bios."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tracereplay.analysis.analysis import BIO_FILTERS, Analysis, Answer, Need, Option, Picture
from tracereplay.analysis.together import Together

if TYPE_CHECKING:
    from tracereplay.analysis.view import View

_ENDS = Need("bio_events", ("complete", "bio_complete"), "capture --events bio")
_BY_ALL = ("device", "op", "size", "process", "cgroup", "layer", "all")
_BY = Option(
    "by", "device", "what a row is for; process and cgroup: of the task that queued the uppermost I/O", _BY_ALL
)
_STAGE = Option(
    "stage",
    "auto",
    "q2c in all, q2d software, d2c device; auto: q2c where bios' queueing was recorded, else d2c",
    ("auto", "q2c", "q2d", "d2c"),
)


def io(view: View, *, by: str) -> Answer:
    """See io_tables.io_summary."""
    from tracereplay.analysis.io_tables import io_summary

    return io_summary(view, by)


def latency(view: View, *, by: str, stage: str) -> Answer:
    """See io_tables.latency_table."""
    from tracereplay.analysis.io_tables import latency_table

    return latency_table(view, by, stage)


def latency_histogram(view: View, *, by: str, stage: str) -> Answer:
    """See io_tables.latency_bins."""
    from tracereplay.analysis.io_tables import latency_bins

    return latency_bins(view, by, stage)


def slowest(view: View, *, stage: str, top: int | None) -> Answer:
    """See io_slowest.slowest_table."""
    from tracereplay.analysis.io_slowest import slowest_table

    return slowest_table(view, stage, top)


def layers(view: View) -> Answer:
    """See io_tables.layer_table."""
    from tracereplay.analysis.io_tables import layer_table

    return layer_table(view)


def merges(view: View) -> Answer:
    """See io_tables.merge_table."""
    from tracereplay.analysis.io_tables import merge_table

    return merge_table(view)


IO = Analysis(
    "io",
    "I/Os, bytes, merges and latencies by device and layer",
    "bios",
    io,
    (_ENDS,),
    BIO_FILTERS,
    (Option("by", "device", "op: a row for each operation too", ("device", "op")),),
    together=Together(
        ("layer", "device", "op"),
        ("ios", "bytes", "merged", "splits", "requeues", "errors", "unfinished"),
    ),
)
LATENCY = Analysis(
    "latency",
    "percentiles of I/O latency by device, operation, size or task",
    "bios",
    latency,
    (_ENDS,),
    BIO_FILTERS,
    (_BY, _STAGE),
    ranked=True,
    picture=Picture("bars", "by", "p99_ns", title="99th percentile of I/O latency", unit="ns"),
    together=Together(("by",), ("ios",), means={"mean_ns": "ios"}, most=("max_ns",), rank="ios"),
)
LATENCY_HISTOGRAM = Analysis(
    "latency-histogram",
    "I/Os by powers of two of their latency",
    "bios",
    latency_histogram,
    (_ENDS,),
    BIO_FILTERS,
    (_BY, _STAGE),
    picture=Picture("histogram", "low_ns", "ios", group="by", title="I/O latency", unit="ns"),
    together=Together(("by", "low_ns", "high_ns"), ("ios",), {"share": "ios"}, within=("by",)),
)
SLOWEST = Analysis(
    "slowest",
    "the slowest I/Os, and what went on meanwhile",
    "bios",
    slowest,
    (_ENDS,),
    BIO_FILTERS,
    (_STAGE,),
    ranked=True,
    together="each row is one I/O of one host",
)
LAYERS = Analysis(
    "layers",
    "the stack of devices, and the time that each layer adds",
    "bios",
    layers,
    (_ENDS, Need("bio_events", ("queue",), "capture --events bio")),
    BIO_FILTERS,
    together=Together(("layer", "device", "below"), ("ios",), means={"q2c_mean_ns": "ios"}),
)
MERGES = Analysis(
    "merges",
    "merges, splits, requeues and errors by device",
    "bios",
    merges,
    (Need("bio_events", ("queue",), "capture --events bio"),),
    BIO_FILTERS,
    together=Together(
        ("layer", "device"),
        ("ios", "merged", "requests", "split", "splits", "requeues", "errors"),
        ratios={"ios_per_request": ("ios", "requests")},
    ),
)
ANALYSES = (IO, LATENCY, LATENCY_HISTOGRAM, SLOWEST, LAYERS, MERGES)
