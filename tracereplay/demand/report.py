"""What reconstruction found, as numbers: filled once the stream is exhausted."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from tracereplay.demand import gaps
from tracereplay.demand.bios import Crosscheck
from tracereplay.demand.callers import Callers
from tracereplay.demand.layers import Layers
from tracereplay.demand.path_layer import PathInUse
from tracereplay.demand.state import C_CUT_BIO, C_JOINED_BIO, Array, Work
from tracereplay.demand.stream import DemandReport
from tracereplay.kernel.constants import dev_text
from tracereplay.trace.unseen import unseen_of

if TYPE_CHECKING:
    from tracereplay.trace.reader import Trace

_IGNORED = "ignored_"
_CUT = "cut_"


@dataclass(frozen=True, slots=True)
class Sizes:
    """Requests by (caller << 16 | pages)."""

    keys: Array
    counts: Array


def fill_report(
    report: DemandReport,
    *,
    trace: Trace,
    count: Mapping[str, int],
    sums: Sequence[int],
    sizes: Sizes,
    callers: Callers,
) -> None:
    """Totals, callers and accounting. The identities are tested, see :func:`identities`."""
    report.requests, report.pages, report.targeted_requests, report.targeted_pages = sums[:4]
    report.callers = list(callers.labels)
    by_caller: dict[str, dict[int, int]] = defaultdict(lambda: defaultdict(int))
    for key, n in zip(sizes.keys.tolist(), sizes.counts.tolist(), strict=True):
        by_caller[callers.labels[key >> 16]][key & 0xFFFF] += n
    rows = [
        {
            "caller": label,
            "requests": sum(found.values()),
            "pages": sum(p * n for p, n in found.items()),
            "sizes": {str(p): found[p] for p in sorted(found, reverse=True)},
        }
        for label, found in by_caller.items()
    ]
    rows.sort(key=lambda r: (-int(str(r["pages"])), str(r["caller"])))
    report.by_caller = rows
    a = report.accounting
    loss = trace.loss_summary()
    a.events = count["events"]
    a.allocations = count["allocations"]
    a.frees = count["frees"]
    a.matched = count["matched"]
    a.unmatched_frees = count["left_censored"] + count["unseen_frees"] + count["lost_frees"]
    a.left_censored = count["left_censored"]
    a.unseen_frees = count["unseen_frees"]
    a.lost_frees = count["lost_frees"]
    a.right_censored = count["live_blocks"]
    a.right_censored_pages = count["live_pages"]
    a.lost = loss["lost"]
    a.loss_intervals = loss["intervals"]
    a.unseen_pages = count["unseen_pages"]
    a.lost_pages = count["lost_pages"]
    a.reused = count["reused"]
    a.reused_lost = count["reused_lost"]
    a.failed = count["failed"]
    a.malformed = count["malformed"]
    for name in ("allocated", "matched", "left_censored", "reused"):
        setattr(a, f"{name}_pages", count[f"{name}_pages"])
    a.partial_frees = count["partial_frees"]
    a.covering_frees = count["covering_frees"]
    a.failed_requests = count["failed_requests"]
    a.second_keys = count["second_keys"]
    a.ignored = {k.removeprefix(_IGNORED): v for k, v in count.items() if k.startswith(_IGNORED)}
    a.boundaries = {k.removeprefix(_CUT): v for k, v in count.items() if k.startswith(_CUT)}
    a.boundaries["joined_by_bio"] = count["joined_bio"]
    estimate = unseen_of(trace)
    if estimate is not None:
        a.unseen = {name: value for name, value in estimate.items() if name != "intervals"}
        a.snapshots = reconcile(estimate, count["unseen_pages"])


def reconcile(estimate: Mapping[str, Any], unseen_pages: int) -> dict[str, int] | None:
    """Hold pages inferred from frees against the kernel's own count: growth of vmstat's pgalloc_* between its first
    and last reading, minus the pages whose events show (or may have shown, where some were lost).

    None where that cannot be told. ``bulk_pages`` are those of recorded calls of the bulk allocator; their frees are
    among the inferred ones. ``difference`` is what nothing explains: a positive one is pages allocated unseen and not
    freed in the trace, a negative one the capture's own margin.
    """
    if estimate["unseen_pages"] is None:
        return None
    return {
        "pgalloc_delta": estimate["pgalloc_delta"],
        "traced_pages": estimate["traced_pages"],
        "bulk_pages": estimate["bulk_pages"],
        "unseen_pages": unseen_pages,
        "difference": estimate["unseen_pages"] - max(0, unseen_pages - estimate["bulk_pages"]),
    }


def as_json(report: DemandReport) -> dict[str, Any]:
    """The document of ``demand --format json`` (architecture.md section 5, and more)."""
    from dataclasses import asdict

    return {
        "schema": 1,
        "requests": report.requests,
        "pages": report.pages,
        "targeted": {
            "selector": report.target,
            "requests": report.targeted_requests,
            "pages": report.targeted_pages,
            "share": report.targeted_pages / report.pages if report.pages else 0.0,
        },
        "by_caller": report.by_caller,
        "bios": report.bios,
        "path": report.path,
        "loads": report.loads,
        "rate": report.rate,
        "request_pages": report.request_pages,
        "thresholds": report.thresholds,
        "accounting": asdict(report.accounting),
    }


def thresholds_section(
    work: Work, callers: Callers, floors: Array, unit_ns: float, resolution_ns: int
) -> dict[str, Any]:
    """Thresholds of the callers with most gaps, and what they were read from."""
    by_caller = []
    totals = work.gaps.sum(axis=1)
    for number in np.argsort(-totals, kind="stable")[:20].tolist():
        if not totals[number] or number >= len(callers):
            break
        found = gaps.threshold(work.gaps[number], unit_ns, int(floors[number]), resolution_ns)
        by_caller.append(
            {
                "caller": callers.labels[number],
                "threshold_ns": found.ns,
                "gaps": found.gaps,
                "loop_ns": found.mode_ns,
            }
        )
    return {"method": gaps.METHOD, "unit_ns": round(unit_ns), "by_caller": by_caller}


def bios_section(check: Crosscheck, layers: Layers, counts: Array) -> dict[str, Any]:
    """WRITE bios on dm-crypt's devices (else on the lowest device), and how many have their requests."""
    lowest = layers.lowest()
    if layers.crypt:
        devices, writes = sorted(layers.crypt), check.writes
    else:
        devices, writes = ([lowest], layers.devices()[lowest]) if lowest is not None else ([], 0)
    return {
        "writes": writes,
        "matched": check.matched,
        "devices": [dev_text(d) for d in devices],
        "parts": check.parts,
        "matched_parts": check.matched_parts,
        "requests": check.requests,
        "boundaries_cut_by_bio": int(counts[C_CUT_BIO]),
        "boundaries_joined_by_bio": int(counts[C_JOINED_BIO]),
    }


def path_section(path: PathInUse | None) -> dict[str, Any] | None:
    """The path, its options, the layer it used and what came of its bios."""
    if path is None:
        return None
    made: dict[str, Any] = {
        "name": path.spec.name,
        "device": None if path.device is None else dev_text(path.device),
        "recorded": path.recorded,
    }
    made |= {k: v for k, v in path.spec.describe().items() if k != "name"} | path.layer
    if (source := path.source) is None:
        made["hold"] = "as recorded" if path.recorded else "no requests"
    else:
        made |= {
            "bios": source.bios,
            "below_dm_crypt": source.below_dm_crypt,
            "requests": source.requests,
            "pages": source.pages,
            "completed": source.completed,
            "lost": source.flight.lost,
            "right_censored": source.flight.pieces(),
            "after_end": source.after_end,
            "unmatched_completions": source.flight.unmatched,
        }
    return made
