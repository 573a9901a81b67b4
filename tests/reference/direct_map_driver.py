"""One list of operations on the compiled direct map and on the slow one, each on a machine of its kind."""

from __future__ import annotations

from typing import Any

import numpy as np

from tests.reference.machine_driver import counters_of, slow_twin
from tests.reference.slow_direct_map import LARGE, MEDIUM, SlowDirectMap
from tests.reference.slow_machine import SlowMachine
from tracereplay.compiled import kernel
from tracereplay.kernel.constants import GIB_ORDER, PAGEBLOCK_ORDER
from tracereplay.machine import layout as at
from tracereplay.machine.build import build_machine
from tracereplay.machine.config import MachineConfig
from tracereplay.machine.directmap import collapse_block, flush_range, map_pages, unmap_pages, unmapped_pages

UNMAP, MAP, FLUSH, COLLAPSE, COUNT, NR_MAP_OPS = range(6)
MapOps = np.ndarray[Any, np.dtype[np.int64]]
"""Rows (what, cpu, page, pages)."""


@kernel
def _run(m: Any, ops: Any, out: Any) -> None:
    for i in range(ops.shape[0]):
        what, cpu, page, pages = ops[i, 0], ops[i, 1], ops[i, 2], ops[i, 3]
        out[i] = 0
        if what == UNMAP:
            out[i] = unmap_pages(m, cpu, page, pages)
        elif what == MAP:
            out[i] = map_pages(m, page, pages)
        elif what == FLUSH:
            flush_range(m, pages)
        elif what == COLLAPSE:
            out[i] = collapse_block(m, cpu, page)
        else:
            out[i] = unmapped_pages(m, page, pages)


def run_compiled(machine: at.Machine, ops: MapOps) -> list[int]:
    """Results of operations on the compiled direct map."""
    out = np.zeros(len(ops), np.int64)
    _run(machine, ops, out)
    return out.tolist()


def slow_map_of(machine: at.Machine, slow: SlowMachine) -> SlowDirectMap:
    """The slow direct map in the state of a compiled one in which no page is absent."""
    pb = machine.pb.reshape(-1, at.B_WORDS)
    found = SlowDirectMap(lambda cpu: slow.alloc(cpu, 0, 0xCC0), lambda cpu, pfn: slow.free(cpu, pfn, 0), slow.count)
    for block in np.flatnonzero(pb[:, at.B_ZONE] >= 0).tolist():
        first = block // 512 * 512
        if pb[first, at.B_MAP] & at.MAP_1G:
            found.entries[first << PAGEBLOCK_ORDER] = LARGE
        elif not pb[block, at.B_MAP] & at.MAP_4K:
            found.entries[block << PAGEBLOCK_ORDER] = MEDIUM
    return found


class Both:
    """Both direct maps in one state."""

    def __init__(self, config: MachineConfig) -> None:
        self.machine = build_machine(config)
        self.slow_machine = slow_twin(self.machine, config)
        self.slow = slow_map_of(self.machine, self.slow_machine)

    def run(self, ops: MapOps) -> tuple[list[int], list[int]]:
        """Results of both."""
        return run_compiled(self.machine, ops), [self._one(*row) for row in ops.tolist()]

    def _one(self, what: int, cpu: int, page: int, pages: int) -> int:
        slow = self.slow
        if what == UNMAP:
            return slow.unmap(cpu, page, pages)
        if what == MAP:
            return slow.map(page, pages)
        if what == FLUSH:
            slow.flush(pages)
            return 0
        if what == COLLAPSE:
            return int(slow.collapse(cpu, page))
        return len(slow.absent & set(range(page, page + pages)))

    def pictures(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """State of both, in plain values."""
        counted = {k: v for k, v in self.slow_machine.counters.items() if v}
        orders = {f"{name}[{order}]": n for (name, order), n in self.slow_machine.by_order.items()}
        return picture_of_map(self.machine) | {"counters": counters_of(self.machine.c)}, {
            "entries": self.slow.entries,
            "absent": self.slow.absent,
            "tables": self.slow.tables,
            "counters": counted | orders,
        }


def picture_of_map(machine: at.Machine) -> dict[str, Any]:
    """Entries, absent pages and page tables of the compiled direct map. Asserts that its totals are theirs."""
    w, pb = machine.w, machine.pb.reshape(-1, at.B_WORDS)
    blocks = int(w[at.CFG_BLOCKS])
    entries: dict[int, int] = {}
    split = 0
    for block in np.flatnonzero(pb[:, at.B_ZONE] >= 0).tolist():
        first = block // 512 * 512
        if pb[first, at.B_MAP] & at.MAP_1G:
            assert not pb[block, at.B_MAP] & at.MAP_4K
            entries[first << PAGEBLOCK_ORDER] = LARGE
        elif pb[block, at.B_MAP] & at.MAP_4K:
            split += 1
        else:
            entries[block << PAGEBLOCK_ORDER] = MEDIUM
    assert w[at.CFG_MAP_4K] == split
    assert w[at.CFG_MAP_1G] == sum(size == LARGE for size in entries.values())
    words = w[at.DM_ABSENT : at.DM_ABSENT + blocks * at.DM_ABSENT_WORDS].view(np.uint8)
    absent = set(np.flatnonzero(np.unpackbits(words, bitorder="little")).tolist())
    places = w[at.DM_ABSENT + blocks * at.DM_ABSENT_WORDS : at.notes_from(blocks)]
    tables = {}
    for number in np.flatnonzero(places).tolist():
        key = (number << PAGEBLOCK_ORDER, MEDIUM) if number < blocks else ((number - blocks) << GIB_ORDER, LARGE)
        tables[key] = int(places[number]) - 1
    assert w[at.DM_TABLES] == len(tables)
    return {"entries": entries, "absent": absent, "tables": tables}
