"""Two recordings of one run, event by event: tracereplay's capture against another tracer's.

Both must have run at once on one host with the same clock (CLOCK_MONOTONIC; trace-cmd's ``-C mono``), and both have
to be traces (``tracereplay import trace.dat``). Events are paired by kind, CPU and what names them (frame and order;
device and sectors), in time order, within a tolerance: the two tracers take their times one after the other. What has
no partner is listed; what both saw, but on different sides of the window's edge, is counted apart. Fields of pairs are
compared as well.

    python tests/reference/compare_tracecmd.py OURS THEIRS [--window T0 T1] [--tolerance-us N]

Exit code 0: the same events in the window, with the same fields.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from collections import defaultdict
from dataclasses import dataclass, field
from typing import Any

import polars as pl

from tracereplay.trace.reader import Trace
from tracereplay.trace.schema import EVENT_TABLES

TOLERANCE_NS = 50_000_000
"""An interrupt may come between the two, and in a guest the host may take the CPU away."""

NAMES = {
    "page_events": ("pfn", "order", "alloc_order"),
    "bio_events": ("dev", "sector", "flags"),
    "mm_events": ("pid", "order"),
}
"""What names an event of a table besides its kind and CPU."""
_SHOWN = 5

Row = dict[str, Any]


@dataclass
class KindResult:
    """What came of one kind of event."""

    table: str
    kind: str
    ours: int = 0
    """Events of ours inside the window."""
    theirs: int = 0
    pairs: int = 0
    edge: int = 0
    """Pairs of which one side lies outside the window."""
    only_ours: list[Row] = field(default_factory=list)
    only_theirs: list[Row] = field(default_factory=list)
    differing: dict[str, list[tuple[Row, Row]]] = field(default_factory=lambda: defaultdict(list))
    """Field -> pairs that disagree on it."""
    gaps_ns: list[int] = field(default_factory=list)
    """Their time minus ours, of every pair."""

    @property
    def same(self) -> bool:
        """Both saw the same events, with the same fields."""
        return not (self.only_ours or self.only_theirs or self.differing)


def common_window(ours: Trace, theirs: Trace) -> tuple[int, int]:
    """The time in which both recorded, by their first and last events. Raises ValueError when there is none."""
    bounds = []
    for trace in (ours, theirs):
        ranges = [b for table in EVENT_TABLES if (b := trace.sort_range(table)) is not None]
        if not ranges:
            raise ValueError(f"{trace.path} holds no events")
        bounds.append((min(b[0] for b in ranges), max(b[1] for b in ranges)))
    window = max(b[0] for b in bounds), min(b[1] for b in bounds)
    if window[0] >= window[1]:
        raise ValueError(f"the recordings do not overlap: {bounds}")
    return window


def compare(
    ours: Trace, theirs: Trace, window: tuple[int, int] | None = None, tolerance_ns: int = TOLERANCE_NS
) -> list[KindResult]:
    """One result per kind of event that both recorded. Raises ValueError when there is none, or no common time."""
    t0, t1 = window or common_window(ours, theirs)
    results = []
    for table, names in NAMES.items():
        if not (ours.rows(table) and theirs.rows(table)):
            continue
        a, b = (_rows(trace, table, t0 - tolerance_ns, t1 + tolerance_ns) for trace in (ours, theirs))
        # A column that one of them never fills is not compared (trace-cmd's reports have no tgid, and so on).
        fields = [c for c in a.columns if c not in ("ts_ns", "cpu", "kind", "stack_id", *names)]
        fields = [c for c in fields if a[c].null_count() < len(a) and b[c].null_count() < len(b)]
        kinds = [set(frame["kind"].unique().to_list()) for frame in (a, b)]
        # Seen by one only: it was not asked of the other, or the other missed all of it.
        common = [k for k in sorted(kinds[0] | kinds[1]) if k in kinds[0] & kinds[1] or _wanted(ours, theirs, k)]
        results += [_compare_kind(table, kind, names, fields, a, b, (t0, t1), tolerance_ns) for kind in common]
    if not results:
        raise ValueError("no kind of event is in both recordings")
    return results


EVENT_OF_KIND = {
    "alloc": "kmem:mm_page_alloc",
    "free": "kmem:mm_page_free",
    "free_batched": "kmem:mm_page_free_batched",
    "zone_locked": "kmem:mm_page_alloc_zone_locked",
    "drain": "kmem:mm_page_pcpu_drain",
    "extfrag": "kmem:mm_page_alloc_extfrag",
    "compaction_begin": "compaction:mm_compaction_begin",
    "compaction_end": "compaction:mm_compaction_end",
    "reclaim_begin": "vmscan:mm_vmscan_direct_reclaim_begin",
    "reclaim_end": "vmscan:mm_vmscan_direct_reclaim_end",
    "queue": "block:block_bio_queue",
    "remap": "block:block_bio_remap",
    "split": "block:block_split",
    "backmerge": "block:block_bio_backmerge",
    "frontmerge": "block:block_bio_frontmerge",
    "insert": "block:block_rq_insert",
    "requeue": "block:block_rq_requeue",
    "error": "block:block_rq_error",
    "bio_complete": "block:block_bio_complete",
    "issue": "block:block_rq_issue",
    "complete": "block:block_rq_complete",
}


def _wanted(ours: Trace, theirs: Trace, kind: str) -> bool:
    event = EVENT_OF_KIND.get(kind)
    return event in ours.metadata.events and event in theirs.metadata.events


def _rows(trace: Trace, table: str, t0: int, t1: int) -> pl.DataFrame:
    rows = trace.table(table).filter(pl.col("ts_ns").is_between(t0, t1)).collect()
    return rows.with_columns(pl.col("kind").cast(pl.String))


def _compare_kind(
    table: str,
    kind: str,
    names: tuple[str, ...],
    fields: list[str],
    a: pl.DataFrame,
    b: pl.DataFrame,
    window: tuple[int, int],
    tolerance_ns: int,
) -> KindResult:
    result = KindResult(table, kind)
    t0, t1 = window
    sides: list[dict[tuple[Any, ...], list[Row]]] = []
    for frame in (a, b):
        by_name: dict[tuple[Any, ...], list[Row]] = defaultdict(list)
        for row in frame.filter(pl.col("kind") == kind).iter_rows(named=True):
            by_name[(row["cpu"], *(row[n] for n in names))].append(row)
        sides.append(by_name)
    inside = [sum(t0 <= row["ts_ns"] <= t1 for rows in side.values() for row in rows) for side in sides]
    result.ours, result.theirs = inside
    for name in sides[0].keys() | sides[1].keys():
        mine, other = sides[0].get(name, []), sides[1].get(name, [])
        i = j = 0
        while i < len(mine) or j < len(other):
            gap = other[j]["ts_ns"] - mine[i]["ts_ns"] if i < len(mine) and j < len(other) else None
            if gap is not None and abs(gap) <= tolerance_ns:
                _pair(result, mine[i], other[j], fields, window)
                i, j = i + 1, j + 1
            elif j >= len(other) or (gap is not None and gap > 0):
                if t0 <= mine[i]["ts_ns"] <= t1:
                    result.only_ours.append(mine[i])
                i += 1
            else:
                if t0 <= other[j]["ts_ns"] <= t1:
                    result.only_theirs.append(other[j])
                j += 1
    return result


def _pair(result: KindResult, mine: Row, other: Row, fields: list[str], window: tuple[int, int]) -> None:
    inside = [window[0] <= row["ts_ns"] <= window[1] for row in (mine, other)]
    if not any(inside):
        return
    result.pairs += 1
    result.edge += inside[0] != inside[1]
    result.gaps_ns.append(other["ts_ns"] - mine["ts_ns"])
    for name in fields:
        if mine[name] != other[name] and mine[name] is not None and other[name] is not None:
            result.differing[name].append((mine, other))


def report(results: list[KindResult]) -> str:
    """A table of the results, and examples of what differs."""
    lines = [f"{'kind':<14}{'ours':>9}{'theirs':>9}{'pairs':>9}{'edge':>6}{'only ours':>11}{'only theirs':>13}  gap us"]
    for r in results:
        low, middle, high = (min(r.gaps_ns), statistics.median(r.gaps_ns), max(r.gaps_ns)) if r.pairs else (0, 0, 0)
        lines.append(
            f"{r.kind:<14}{r.ours:>9,}{r.theirs:>9,}{r.pairs:>9,}{r.edge:>6,}{len(r.only_ours):>11,}"
            f"{len(r.only_theirs):>13,}  {low / 1e3:.1f} .. {middle / 1e3:.1f} .. {high / 1e3:.1f}"
        )
    for r in results:
        for which, rows in (("ours", r.only_ours), ("theirs", r.only_theirs)):
            lines += [f"only {which}: {_short(row)}" for row in rows[:_SHOWN]]
        for name, pairs in r.differing.items():
            lines.append(f"{r.kind}: {name} differs in {len(pairs):,} pairs")
            lines += [f"  ours {_short(x)}\n  theirs {_short(y)}" for x, y in pairs[:_SHOWN]]
    return "\n".join(lines)


def _short(row: Row) -> str:
    return " ".join(f"{name}={value}" for name, value in row.items() if value is not None)


def main(arguments: list[str] | None = None) -> int:
    """Print the comparison; 0 when nothing differs, else 1."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("ours")
    parser.add_argument("theirs")
    parser.add_argument("--window", nargs=2, type=int, metavar=("T0", "T1"), help="CLOCK_MONOTONIC, ns")
    parser.add_argument("--tolerance-us", type=float, default=TOLERANCE_NS / 1e3)
    args = parser.parse_args(arguments)
    window = (args.window[0], args.window[1]) if args.window else None
    results = compare(Trace.open(args.ours), Trace.open(args.theirs), window, int(args.tolerance_us * 1000))
    print(report(results))
    return 0 if all(r.same for r in results) else 1


if __name__ == "__main__":
    sys.exit(main())
