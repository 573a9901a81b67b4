"""What perf kmem counts in a recording, against what tracereplay counts in the same.

    perf kmem --page record -o kmem.perf.data -- COMMAND
    perf kmem -i kmem.perf.data --page --caller -l 100000 stat > kmem.txt 2>&1
    tracereplay import kmem.perf.data kmem.trace
    python -m tests.reference.compare_perf_kmem kmem.txt kmem.trace

Compared are the totals, which both define alike, and the table of orders, types and gfp flags. perf's names of
types are those of older kernels (tools/perf/builtin-kmem.c: 1 is "Reclaimable", which kernels call Movable), so numbers
are compared. Its callsites are left out: perf 6.1 does not take the functions that allocate in
6.18 for the allocator's, and names the innermost one for all requests.
Exit code 0: all equal.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

from tracereplay.analysis.page_counts import SUMMARY
from tracereplay.analysis.tally import tally
from tracereplay.analysis.view import View
from tracereplay.kernel.gfp import gfp_table, parse_gfp
from tracereplay.trace.reader import Trace

TYPES = {"UNMOVABL": 0, "RECLAIM": 1, "MOVABLE": 2, "RESERVED": 3, "CMA/ISLT": 4}
"""perf's names of migratetypes by the number that it means."""
NAMES = {
    "allocation requests": "alloc",
    "free requests": "free",
    "allocation failures": "alloc_failed",
    "alloc+freed requests": "alloc+free",
    "alloc-only requests": "alloc only",
    "free-only requests": "free only",
}
"""perf's totals by their kinds in `analyze summary`."""
Counts = dict[str, int]
Table = dict[tuple[int, int, int], int]


def perf_totals(text: str) -> Counts:
    """Requests and KiB of the summary."""
    found = {}
    for name, requests, kib in re.findall(r"^Total (.+?)\s+:\s+(\d+)\s+\[\s+(\d+) KB \]", text, flags=re.M):
        found[name] = int(requests)
        found[f"{name}, KiB"] = int(kib)
    return found


def perf_table(text: str, release: str | None) -> Table:
    """Hits by order, migratetype and gfp mask, over all callers."""
    names = gfp_table(release)
    masks = {
        short: parse_gfp(full, names)
        for short, full in re.findall(r"^# [0-9a-f]{8}:\s+(\S+): (\S+)$", text, flags=re.M)
    }
    found: Table = {}
    for line in text.splitlines():
        cells = [cell.strip() for cell in line.split(" | ")]
        if len(cells) == 6 and cells[0].isdecimal():
            key = (int(cells[2]), TYPES[cells[3]], masks[cells[4]])
            found[key] = found.get(key, 0) + int(cells[1])
    return found


def our_totals(trace: Trace) -> Counts:
    """The same totals from `analyze summary`."""
    rows = {
        kind: (events, bytes_) for kind, events, bytes_ in SUMMARY(trace).select("kind", "events", "bytes").iter_rows()
    }
    found = {}
    for name, kind in NAMES.items():
        found[name], size = rows.get(kind, (0, 0))
        found[f"{name}, KiB"] = size // 1024
    return found


def our_table(trace: Trace) -> Table:
    """Allocations by order, migratetype and gfp mask."""
    counted = tally(View.of(trace), ("order", "migratetype", "gfp"), kinds=("alloc",))
    return {(order, kind, mask): n for order, kind, mask, n in counted.iter_rows()}


def main(kmem: str, path: str) -> int:
    """Print both sides; 0 when they agree."""
    text, trace = Path(kmem).read_text(), Trace.open(path)
    theirs, ours = perf_totals(text), our_totals(trace)
    for name, count in theirs.items():
        print(f"{name:28} perf kmem {count:10,}  tracereplay {ours[name]:10,}")
    table = perf_table(text, trace.metadata.host.get("release"))
    same = table == our_table(trace)
    print(f"{len(table)} combinations of order, type and gfp flags: {'the same' if same else 'DIFFERENT'}")
    return int(theirs != ours or not same)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
