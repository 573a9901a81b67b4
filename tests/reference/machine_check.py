"""What holds for every state of the machine, read from its arrays."""

from __future__ import annotations

import numpy as np

from tests.reference.machine_driver import chain, infos, word, zone_lists
from tracereplay.kernel.constants import MIGRATE_PCPTYPES, NR_PAGE_ORDERS, PAGEBLOCK_ORDER
from tracereplay.machine import layout as at
from tracereplay.machine.counters import slot


def check_machine(machine: at.Machine) -> dict[str, int]:
    """Assert it; pages by state (buddy, pcp, used, cached), and ``held``, the rest of the zones.

    Every block lies aligned in one zone and overlaps no other; its page record says what its list says; links agree;
    no two free buddies of a zone could merge; counts of blocks and pages are those of the lists.
    """
    w = machine.w
    zones, cpus, frames = int(w[at.CFG_ZONES]), int(w[at.CFG_CPUS]), int(w[at.CFG_FRAMES])
    info = infos(machine)
    owner = np.zeros(frames, np.int64)  # zone + 1
    for z in range(zones):
        owner[word(machine, z, at.Z_WORDS, at.Z_START) : word(machine, z, at.Z_WORDS, at.Z_END)] = z + 1
    taken = np.zeros(frames, bool)
    pages = dict.fromkeys(("buddy", "pcp", "used", "cached"), 0)

    def enter(state: str, pfn: int, order: int) -> None:
        size = 1 << order
        assert pfn % size == 0, f"{state} block {pfn:#x} of order {order} is not aligned"
        assert not taken[pfn : pfn + size].any(), f"{state} block {pfn:#x} of order {order} overlaps another"
        assert set(owner[pfn : pfn + size].tolist()) == {owner[pfn]} - {0}, f"{state} block {pfn:#x} leaves its zone"
        assert not info[pfn + 1 : pfn + size].any(), f"a page inside {state} block {pfn:#x} has a record"
        taken[pfn : pfn + size] = True
        pages[state] += size

    # whole pageblocks of HIGHATOMIC and CMA do not merge with others, nor at once when they become like others
    apart = bool((machine.pb.reshape(-1, at.B_WORDS)[:, at.B_TYPE] >= MIGRATE_PCPTYPES).any())
    apart |= machine.c[slot("highatomic_released")] > 0
    for z in range(zones):
        free = 0
        heads: dict[int, int] = {}
        for (order, mt), found in zone_lists(machine, z).items():
            assert w[at.NF + (z * NR_PAGE_ORDERS + order) * at.NR_TYPES + mt] == len(found)
            for pfn in found:
                enter("buddy", pfn, order)
                assert info[pfn] == at.BUDDY | mt << at.INFO_TYPE_SHIFT | order
                assert owner[pfn] == z + 1
                heads[pfn] = order
                free += 1 << order
        assert word(machine, z, at.Z_WORDS, at.Z_FREE) == free
        nr_free = w[at.NF + z * NR_PAGE_ORDERS * at.NR_TYPES :][: NR_PAGE_ORDERS * at.NR_TYPES]
        assert (nr_free >= 0).all()
        for pfn, order in heads.items():
            if order >= PAGEBLOCK_ORDER and apart:
                continue
            assert order == NR_PAGE_ORDERS - 1 or heads.get(pfn ^ (1 << order)) != order, f"{pfn:#x} could merge"
        for cpu in range(cpus):
            p = z * cpus + cpu
            count = 0
            for i in range(at.PCP_LISTS):
                for pfn in chain(machine, int(w[at.CFG_PCP_BASE]) + p * at.PCP_LISTS + i):
                    order = int(info[pfn]) & at.INFO_ORDER
                    enter("pcp", pfn, order)
                    assert info[pfn] & at.INFO_STATE == at.PCP
                    assert owner[pfn] == z + 1
                    count += 1 << order
            assert word(machine, p, at.P_WORDS, at.P_COUNT) == count
    listed = pages["buddy"] + pages["pcp"]
    for i in range(at.STRATEGY_LISTS):
        for pfn in chain(machine, int(w[at.CFG_STRATEGY_LIST]) + i):
            assert info[pfn] & at.INFO_STATE == at.CACHED
            enter("cached", pfn, int(info[pfn]) & at.INFO_ORDER)
    for pfn in np.flatnonzero(info & at.INFO_STATE == at.USED).tolist():
        enter("used", pfn, int(info[pfn]) & at.INFO_ORDER)
    states = info & at.INFO_STATE
    sizes = 1 << (info & at.INFO_ORDER)
    assert sizes[(states == at.BUDDY) | (states == at.PCP)].sum() == listed, "a record says free, but no list has it"
    assert sizes[states == at.CACHED].sum() == pages["cached"]
    pages["held"] = int((owner > 0).sum()) - sum(pages.values())
    return pages
