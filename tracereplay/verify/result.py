"""The result of a twin check: what the numbers of a finished :class:`~tracereplay.verify.run.Twin` say.

Shares are of exact integer counts; a share of nothing is None.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import polars as pl

from tracereplay.errors import EmptyTraceError
from tracereplay.kernel.constants import NR_PAGE_ORDERS
from tracereplay.trace.completeness import completeness
from tracereplay.verify import layout as at
from tracereplay.verify.ending import end_snapshot, free_blocks, pcp_counts, share, vmstat_sums, zone_changes
from tracereplay.verify.run import Twin, totals

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    import pyarrow as pa

    from tracereplay.trace.reader import Trace

SCHEMA = 1
NEEDED = {"zone_locked": "kmem:mm_page_alloc_zone_locked", "drain": "kmem:mm_page_pcpu_drain"}
"""Kinds of page events that the check compares with, and their tracepoints."""
LATE_S = 0.1
"""Seconds between last event and snapshot from which on the result says so."""
HINT = "capture with --events page,buddy"


@dataclass(frozen=True, slots=True)
class Match:
    """Operations of the kernel, of the twin, and those that both did alike."""

    kernel: int
    twin: int
    matched: int

    def to_json(self) -> dict[str, Any]:
        """``kernel twin precision recall``: matched / twin and matched / kernel."""
        return {
            "kernel": self.kernel,
            "twin": self.twin,
            "precision": share(self.matched, self.twin),
            "recall": share(self.matched, self.kernel),
        }


@dataclass(frozen=True, slots=True)
class Frames:
    """Allocations of an order that per-CPU lists hold, and those for which the twin named the frame."""

    allocations: int
    eligible: int
    exact: int

    def to_json(self) -> dict[str, Any]:
        """``eligible eligible_share exact share``."""
        return {
            "eligible": self.eligible,
            "eligible_share": share(self.eligible, self.allocations),
            "exact": self.exact,
            "share": share(self.exact, self.eligible),
        }


@dataclass(frozen=True, slots=True)
class VerifyResult:
    """A finished twin check. :meth:`to_json` is the contract; plain values throughout."""

    trace: dict[str, Any]
    completeness: dict[str, Any]
    machine: dict[str, Any]
    """``generation``, CPUs, zones, ``source`` and ``notes`` of the machine."""
    totals: dict[str, int]
    """By the names of ``layout.TOTALS``."""
    refill: Match
    drain: Match
    extfrag: Match
    pfn: Frames
    pfn_free_running: Frames | None
    """Without the frames of refills as input. None: not run."""
    resynchronisations: dict[str, int]
    """By reason (``layout.REASONS``), all of them."""
    by_order: list[dict[str, Any]]
    free_blocks: dict[str, Any]
    pcp_counts: list[dict[str, Any]]
    vmstat: dict[str, Any] | None
    initial: dict[str, Any]
    vmstat_worker: dict[str, Any]
    zone_changed: list[dict[str, Any]]
    seconds: float | None
    """Of feeding the events, without compiling the loop and without finding the start. None: not timed."""
    warnings: list[str] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        """The document of ``verify --format json``."""
        return {
            "schema": SCHEMA,
            "generation": self.machine["generation"],
            "allocations": {
                "traced": self.totals["allocations"],
                "unmatched_frees": self.totals["unmatched_frees"],
            },
            "refill": self.refill.to_json(),
            "drain": self.drain.to_json(),
            "extfrag": self.extfrag.to_json(),
            "pfn": self.pfn.to_json(),
            "pfn_free_running": None if self.pfn_free_running is None else self.pfn_free_running.to_json(),
            "resynchronisations": self.resynchronisations,
            "free_blocks": self.free_blocks,
            "trace": self.trace,
            "completeness": self.completeness,
            "machine": self.machine,
            "by_order": self.by_order,
            "totals": self.totals,
            "pcp_counts": self.pcp_counts,
            "vmstat": self.vmstat,
            "initial": self.initial,
            "vmstat_worker": self.vmstat_worker,
            "zone_changed": self.zone_changed,
            "seconds": self.seconds,
            "events_per_second": share(self.totals["events"], self.seconds) if self.seconds else None,
            "warnings": self.warnings,
        }


def result_of(twin: Twin, seconds: float | None = None) -> VerifyResult:
    """The result of a twin that has run; ``seconds``: how long that took.

    Raises EmptyTraceError where the trace of a foreign recorder holds no event of the zone lock though the twin
    refilled: they were not recorded.
    """
    trace, v = twin.trace, twin.v
    counts = totals(v)
    counts["events"] = int(v[at.VC_INDEX])
    said = _warnings(twin, counts)
    changed, end = zone_changes(trace), end_snapshot(trace)
    if end is not None and end.seconds_after is not None and abs(end.seconds_after) > LATE_S:
        said.append(
            f"The snapshot at the end was taken {end.seconds_after:.1f} s after the last event: free blocks and counts "
            "differ by what the host did in that time."
        )
    return VerifyResult(
        trace=trace.identity(),
        completeness=completeness(trace).to_json(),
        machine=_machine(twin),
        totals=counts,
        refill=Match(counts["refill_kernel"], counts["refill_twin"], counts["refill_matched"]),
        drain=Match(counts["drain_kernel"], counts["drain_twin"], counts["drain_matched"]),
        extfrag=Match(counts["extfrag_kernel"], counts["extfrag_twin"], counts["extfrag_matched"]),
        pfn=Frames(counts["pcp_allocations"], counts["eligible"], counts["exact"]),
        pfn_free_running=_free_running(twin),
        resynchronisations={name: int(v[at.RS + i]) for i, name in enumerate(at.REASONS)},
        by_order=_by_order(twin),
        free_blocks=free_blocks(twin, end, changed),
        pcp_counts=pcp_counts(twin, end),
        vmstat=vmstat_sums(trace),
        initial=dict(twin.initial.facts),
        vmstat_worker={"phase_ns": twin.phase.ns, "skew_ns": twin.phase.skew_ns, "drains": twin.phase.drains},
        zone_changed=changed,
        seconds=seconds,
        warnings=said,
    )


def _machine(twin: Twin) -> dict[str, Any]:
    config = twin.config
    return {
        "generation": config.generation,
        "cpus": config.cpus,
        "zones": [{"node": z.node, "zone": z.name, "managed": z.managed} for z in config.zones],
        "source": config.source,
        "notes": list(config.notes),
    }


def _by_order(twin: Twin) -> list[dict[str, Any]]:
    """Counters of the orders that occurred, with the share of exact frames."""
    rows = []
    for order in range(NR_PAGE_ORDERS):
        start = at.BY_ALLOCS + order * at.BY_WORDS
        row = {name: int(twin.v[start + i]) for i, name in enumerate(at.BY_NAMES)}
        if any(row.values()):
            rows.append({"order": order, **row, "share": share(row["exact"], row["eligible"])})
    return rows


def _warnings(twin: Twin, counts: Mapping[str, int]) -> list[str]:
    trace, said = twin.trace, []
    missing = [kind for kind, event in NEEDED.items() if event not in trace.metadata.events]
    if "zone_locked" in missing and counts["refill_kernel"] == 0:
        if counts["refill_twin"]:
            raise EmptyTraceError(
                f"no zone_locked events in {trace.location}, though its lists must have been refilled "
                f"({counts['refill_twin']:,} times in the twin): they were not recorded",
                hint=HINT,
            )
        said.append("The file holds no zone_locked event; the twin refilled no list either.")
    if "drain" in missing and counts["drain_kernel"] == 0:
        said.append(
            "The file holds no drain event, and does not say whether they were recorded; "
            f"the twin drained {counts['drain_twin']:,} times."
        )
    if trace.metadata.filters:
        said.append("The capture was filtered: what other tasks did to the lists is not in it.")
    if counts["outside_zones"]:
        said.append(f"{counts['outside_zones']:,} events name frames outside the zones of the snapshot.")
    if twin.config.source != "snapshot":
        said.append("The trace has no memory snapshot: where its host began is not known.")
    return said


def _free_running(twin: Twin) -> Frames | None:
    """The check without the frames of refills."""
    counts = totals(twin.free_v)
    return Frames(counts["pcp_allocations"], counts["eligible"], counts["exact"])


# ---------------------------------------------------------------- the run
def require_events(trace: Trace) -> None:
    """Raise EmptyTraceError where the trace cannot be checked: without page events, or recorded without the zone
    lock's. Foreign files name only the events they hold; what those left out is found when the twin has run."""
    if not trace.rows("page_events"):
        raise EmptyTraceError(f"no page events in {trace.location}", hint=HINT)
    missing = [kind for kind, event in NEEDED.items() if event not in trace.metadata.events]
    if not missing:
        return
    kinds = _kinds(trace)
    if "alloc" not in kinds or "free" not in kinds:
        raise EmptyTraceError(
            f"no allocations and frees in {trace.location}: page events of kind {', '.join(sorted(kinds))}", hint=HINT
        )
    missing = [kind for kind in missing if kind not in kinds]
    foreign = trace.metadata.source.get("kind") == "import" and trace.metadata.source.get("format") != "raw"
    if len(missing) == len(NEEDED) and not foreign:
        raise EmptyTraceError(f"no {' and no '.join(missing)} events in {trace.location}", hint=HINT)
    if missing and not foreign:
        raise EmptyTraceError(f"no {missing[0]} events in {trace.location}", hint=HINT)


def _kinds(trace: Trace) -> set[str]:
    found = trace.page_events.select(pl.col("kind").cast(pl.String).unique()).collect()
    return set(found["kind"].to_list())


class _Beginning:
    """A trace of no event, in the types of another's: what compiles the loop before it is timed."""

    def __init__(self, trace: Trace) -> None:
        self.trace = trace
        self.metadata = trace.metadata

    def bounds(self, table: str, column: str) -> tuple[int, int] | None:
        return self.trace.bounds(table, column)

    def batches(self, table: str, columns: list[str]) -> Iterator[pa.RecordBatch]:
        for batch in self.trace.batches(table, columns, rows=1):
            yield batch.slice(0, 0)
            break


def run_check(trace: Trace, room: int = 0) -> tuple[Twin, VerifyResult]:
    """Check a trace: the finished twin, for ``--explain``, and its result. ``room``: disagreements to keep.

    Raises EmptyTraceError where the trace does not hold what is compared.
    """
    require_events(trace)
    twin = Twin(trace, room)
    twin.trace = _Beginning(trace)  # type: ignore[assignment]
    twin.run()
    twin.trace = trace
    started = time.perf_counter()
    twin.run()
    return twin, result_of(twin, time.perf_counter() - started)
