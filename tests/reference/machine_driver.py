"""One list of operations through the compiled machine and through the slow one, and a plain picture of either's state.

Operations are rows ``(what, cpu, order, gfp, a, b)``; frees name a live block by its place in a list that both sides
keep alike, so that the same rows make sense whatever the machines do.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from tests.reference.slow_machine import Pcp, SlowMachine, Zone
from tracereplay.compiled import kernel
from tracereplay.kernel.constants import NR_PAGE_ORDERS
from tracereplay.machine import layout as at
from tracereplay.machine.background import run_background
from tracereplay.machine.bulk import alloc_pages_bulk
from tracereplay.machine.config import MachineConfig
from tracereplay.machine.counters import BY_ORDER, COUNTERS, NR_COUNTERS
from tracereplay.machine.page_alloc import alloc_pages
from tracereplay.machine.page_free import free_held, free_pages
from tracereplay.machine.pcp import drain, drain_all
from tracereplay.machine.vmstat import vmstat_update

ALLOC, BULK, FREE, HELD_FREE, DRAIN, DRAIN_ALL, TICK, RECLAIM, TIME, NR_OPS = range(10)
"""``ALLOC``: order, gfp. ``BULK``: a slots, of which those whose bit (modulo 16) is set in b are filled before.
``FREE``: the a-th live block. ``HELD_FREE``: order, frame a. ``DRAIN``: all that a CPU's lists of zone a hold, as
after a free. ``DRAIN_ALL``: drain_all_pages. ``TICK``: the CPU's vmstat worker runs. ``RECLAIM``: kswapd starts (b is
1) or ends (0) its work on zone a. ``TIME``: a ns go by."""
FILLED = 1 << 40
"""What a slot holds that was filled before a bulk call."""
Ops = np.ndarray[Any, np.dtype[np.int64]]


@kernel
def _run(m: Any, ops: Any, live: Any, n_live: int, slots: Any, out: Any) -> int:
    """Do ``ops``; frames (or counts, -1 for none) go to ``out``. Returns the number of (frame, order) pairs live."""
    for i in range(ops.shape[0]):
        what, cpu, order, gfp, a, b = ops[i, 0], ops[i, 1], ops[i, 2], ops[i, 3], ops[i, 4], ops[i, 5]
        m.w[at.CFG_CPU] = cpu
        out[i] = -1
        if what == ALLOC:
            pfn = alloc_pages(m, cpu, order, gfp)
            out[i] = pfn
            if pfn >= 0:
                live[2 * n_live] = pfn
                live[2 * n_live + 1] = order
                n_live += 1
        elif what == BULK:
            for k in range(a):
                slots[2 * k] = FILLED if (b >> (k % 16)) & 1 else -1
                slots[2 * k + 1] = 0
            out[i] = alloc_pages_bulk(m, cpu, gfp, a, slots)
            for k in range(a):
                if not (b >> (k % 16)) & 1 and slots[2 * k] >= 0:
                    live[2 * n_live] = slots[2 * k]
                    live[2 * n_live + 1] = 0
                    n_live += 1
        elif what == FREE:
            if n_live > 0:
                k = a % n_live
                pfn = live[2 * k]
                out[i] = pfn
                order = live[2 * k + 1]
                n_live -= 1
                live[2 * k] = live[2 * n_live]
                live[2 * k + 1] = live[2 * n_live + 1]
                free_pages(m, cpu, pfn, order)
        elif what == HELD_FREE:
            out[i] = free_held(m, cpu, a, order)
        elif what == DRAIN_ALL:
            out[i] = drain_all(m)
        elif what == TICK:
            out[i] = vmstat_update(m, cpu)
        elif what == RECLAIM:
            m.w[a * at.Z_WORDS + at.Z_RECLAIM_ACTIVE] = b
        elif what == TIME:
            m.w[at.CFG_NOW] += a
            if m.w[at.CFG_NOW] >= m.w[at.CFG_TIMER]:
                run_background(m)
        else:
            p = a * m.w[at.CFG_CPUS] + cpu
            if m.w[p * at.P_WORDS + at.P_COUNT] > 0:
                drain(m, a, p, m.w[p * at.P_WORDS + at.P_COUNT], 0)
    return n_live


class Compiled:
    """The compiled machine under a list of live blocks."""

    def __init__(self, machine: at.Machine, room: int = 1 << 20) -> None:
        self.machine = machine
        self._live = np.zeros(2 * room, np.int64)
        self._n = 0
        self._slots = np.zeros(2 << 15, np.int64)

    def run(self, ops: Ops) -> list[int]:
        """Do operations; their results."""
        out = np.zeros(len(ops), np.int64)
        self._n = _run(self.machine, ops, self._live, self._n, self._slots, out)
        return out.tolist()

    @property
    def live(self) -> list[tuple[int, int]]:
        """(frame, order) of blocks not freed yet."""
        return [(int(f), int(o)) for f, o in self._live[: 2 * self._n].reshape(-1, 2)]


class Slow:
    """The slow machine under the same."""

    def __init__(self, machine: SlowMachine) -> None:
        self.machine = machine
        self.live: list[tuple[int, int]] = []

    def run(self, ops: Ops) -> list[int]:
        """Do operations; their results."""
        return [self._one(*row) for row in ops.tolist()]

    def _one(self, what: int, cpu: int, order: int, gfp: int, a: int, b: int) -> int:
        m = self.machine
        m.cpu = cpu
        if what == ALLOC:
            pfn = m.alloc(cpu, order, gfp)
            if pfn is not None:
                self.live.append((pfn, order))
            return -1 if pfn is None else pfn
        if what == BULK:
            before = [FILLED if b >> (k % 16) & 1 else None for k in range(a)]
            slots: list[int | None] = list(before)
            filled = m.alloc_bulk(cpu, gfp, slots)
            self.live += [(f, 0) for f, was in zip(slots, before, strict=True) if f is not None and was is None]
            return filled
        if what == FREE:
            if not self.live:
                return -1
            k = a % len(self.live)
            pfn, order = self.live[k]
            last = self.live.pop()
            if k < len(self.live):
                self.live[k] = last
            m.free(cpu, pfn, order)
            return pfn
        if what == HELD_FREE:
            pfn = m.free_held(cpu, a, order)
            return -1 if pfn is None else pfn
        if what == DRAIN_ALL:
            return self._drained(m.drain_all)
        if what == TICK:
            return self._drained(lambda: m.vmstat_update(cpu))
        if what == RECLAIM:
            m.zones[a].reclaim_active = bool(b)
            return -1
        if what == TIME:
            m.background(m.now + a)
            return -1
        pcp = m.pcps[a, cpu]
        if pcp.count:
            m.drain(m.zones[a], pcp, pcp.count, 0)
        return -1

    def _drained(self, work: Callable[[], None]) -> int:
        before = self.machine.counters["pcp_drain_pages"]
        work()
        return self.machine.counters["pcp_drain_pages"] - before


# ---------------------------------------------------------------- pictures
def chain(machine: at.Machine, head: int) -> list[int]:
    """Frames of a list, the head first. Asserts that the links agree in both directions."""
    pg, first = machine.pg, int(machine.w[at.CFG_NODES])
    found = []
    before, node = head, int(pg[3 * head])
    while node != head:
        assert pg[3 * node + 1] == before, "prev does not lead back"
        assert node >= first, "a list leads into another"
        assert len(found) <= machine.w[at.CFG_FRAMES], "a list has no end"
        found.append(node - first)
        before, node = node, int(pg[3 * node])
    assert pg[3 * head + 1] == before
    return found


def zone_lists(machine: at.Machine, z: int) -> dict[tuple[int, int], list[int]]:
    """Buddy lists of a zone by (order, type), the head first; empty ones left out."""
    lists = {
        (order, mt): chain(machine, (z * NR_PAGE_ORDERS + order) * at.NR_TYPES + mt)
        for order in range(NR_PAGE_ORDERS)
        for mt in range(at.NR_TYPES)
    }
    return {key: frames for key, frames in lists.items() if frames}


def word(machine: at.Machine, i: int, words: int, name: int) -> int:
    """A word of zone or page set ``i``."""
    return int(machine.w[i * words + name])


def infos(machine: at.Machine) -> np.ndarray[Any, Any]:
    """Info words of all frames."""
    return machine.pg[3 * int(machine.w[at.CFG_NODES]) + at.INFO :: 3].astype(np.int64)


def used_blocks(machine: at.Machine) -> dict[int, tuple[int, int, int]]:
    """Blocks handed out: order, type, CPU."""
    info = infos(machine)
    return {
        int(pfn): (int(w) & at.INFO_ORDER, int(w) >> at.INFO_TYPE_SHIFT & at.INFO_TYPE, int(w) >> at.INFO_CPU_SHIFT)
        for pfn in np.flatnonzero(info & at.INFO_STATE == at.USED)
        for w in (info[pfn],)
    }


def counters_of(row: at.I64) -> dict[str, int]:
    """Plain and by-order counters of a row that are not 0."""
    plain = dict(zip(COUNTERS, row.tolist(), strict=False))
    orders = {
        f"{name}[{order}]": int(row[NR_COUNTERS + i * NR_PAGE_ORDERS + order])
        for i, name in enumerate(BY_ORDER)
        for order in range(NR_PAGE_ORDERS)
    }
    return {k: v for k, v in (plain | orders).items() if v}


def picture_of_compiled(machine: at.Machine) -> dict[str, Any]:
    """The whole state, in plain values."""
    zones, cpus = int(machine.w[at.CFG_ZONES]), int(machine.w[at.CFG_CPUS])
    pcps = {}
    for z in range(zones):
        for cpu in range(cpus):
            p = z * cpus + cpu
            heads = int(machine.w[at.CFG_PCP_BASE]) + p * at.PCP_LISTS
            pcps[z, cpu] = {
                "lists": [chain(machine, heads + i) for i in range(at.PCP_LISTS)],
                "count": word(machine, p, at.P_WORDS, at.P_COUNT),
                "high": word(machine, p, at.P_WORDS, at.P_HIGH),
                "alloc_factor": word(machine, p, at.P_WORDS, at.P_ALLOC_FACTOR),
                "free_factor": word(machine, p, at.P_WORDS, at.P_FREE_FACTOR),
                "free_count": word(machine, p, at.P_WORDS, at.P_FREE_COUNT),
                "prev_high_order": bool(word(machine, p, at.P_WORDS, at.P_PREV_HIGH_ORDER)),
                "locks": word(machine, p, at.P_WORDS, at.P_LOCKS),
                "longest": word(machine, p, at.P_WORDS, at.P_LONGEST),
                "expire": word(machine, p, at.P_WORDS, at.P_EXPIRE),
            }
    pb = machine.pb.reshape(-1, at.B_WORDS)
    return {
        "counters": counters_of(machine.c),
        "zones": [
            {
                "lists": zone_lists(machine, z),
                "free_pages": word(machine, z, at.Z_WORDS, at.Z_FREE),
                "below_high": bool(word(machine, z, at.Z_WORDS, at.Z_BELOW_HIGH)),
                "reclaim_active": bool(word(machine, z, at.Z_WORDS, at.Z_RECLAIM_ACTIVE)),
                "boost": word(machine, z, at.Z_WORDS, at.Z_BOOST),
                "highatomic": word(machine, z, at.Z_WORDS, at.Z_HIGHATOMIC),
                "locks": word(machine, z, at.Z_WORDS, at.Z_LOCKS),
                "longest": word(machine, z, at.Z_WORDS, at.Z_LONGEST),
            }
            for z in range(zones)
        ],
        "pcps": pcps,
        "kswapd": [n for n in range(at.MAX_NODES) if machine.w[n * at.KS_WORDS + at.KS_RUNNING]],
        "types": dict(enumerate(pb[:, at.B_TYPE].tolist())),
        "movable": dict(enumerate(pb[:, at.B_MOVABLE].tolist())),
        "used": used_blocks(machine),
    }


def picture_of_slow(machine: SlowMachine) -> dict[str, Any]:
    """The same of the slow machine."""
    orders = {f"{name}[{order}]": n for (name, order), n in machine.by_order.items()}
    return {
        "counters": {k: v for k, v in (machine.counters | orders).items() if v},
        "zones": [
            {
                "lists": {key: frames for key, frames in zone.lists.items() if frames},
                "free_pages": zone.free_pages,
                "below_high": zone.below_high,
                "reclaim_active": zone.reclaim_active,
                "boost": zone.boost,
                "highatomic": zone.highatomic,
                "locks": zone.locks,
                "longest": zone.longest,
            }
            for zone in machine.zones
        ],
        "pcps": {
            key: {
                "lists": [[pfn for pfn, _, _ in entries] for entries in pcp.lists]
                + [[]] * (at.PCP_LISTS - len(pcp.lists)),
                "count": pcp.count,
                "high": pcp.high,
                "alloc_factor": pcp.alloc_factor,
                "free_factor": pcp.free_factor,
                "free_count": pcp.free_count,
                "prev_high_order": pcp.prev_high_order,
                "locks": pcp.locks,
                "longest": pcp.longest,
                "expire": pcp.expire,
            }
            for key, pcp in machine.pcps.items()
        },
        "kswapd": sorted(machine.kswapd),
        "types": machine.block_types,
        "movable": machine.movable,
        "used": machine.used,
    }


def slow_twin(machine: at.Machine, config: MachineConfig) -> SlowMachine:
    """A slow machine in the state of a compiled one that has done nothing yet: same limits, same free lists."""
    seen = picture_of_compiled(machine)
    cpus = int(machine.w[at.CFG_CPUS])
    zones, held = [], set()
    for z, facts in enumerate(seen["zones"]):
        start, end = word(machine, z, at.Z_WORDS, at.Z_START), word(machine, z, at.Z_WORDS, at.Z_END)
        reserve = machine.w[z * at.Z_WORDS + at.Z_RESERVE :][: at.NR_ZONE_TYPES].tolist()
        marks = {
            name: word(machine, z, at.Z_WORDS, place)
            for name, place in (("min", at.Z_MIN), ("low", at.Z_LOW), ("high", at.Z_HIGH))
        }
        held |= set(range(start, end))
        for (order, _), frames in facts["lists"].items():
            for pfn in frames:
                held -= set(range(pfn, pfn + (1 << order)))
        zones.append(
            Zone(
                name=at.ZONE_NAMES[word(machine, z, at.Z_WORDS, at.Z_TYPE)],
                node=word(machine, z, at.Z_WORDS, at.Z_NODE),
                start=start,
                end=end,
                marks=marks,
                reserve=reserve,
                nofragment=bool(word(machine, z, at.Z_WORDS, at.Z_NOFRAGMENT)),
                lists=facts["lists"],
                free_pages=facts["free_pages"],
                managed=word(machine, z, at.Z_WORDS, at.Z_MANAGED),
            )
        )
    lists = {"5.10": 3, "5.14": 15, "6.1": 13, "6.7": 13}.get(config.generation, 14)
    pcps = {
        (z, cpu): Pcp(
            batch=word(machine, z * cpus + cpu, at.P_WORDS, at.P_BATCH),
            high=word(machine, z * cpus + cpu, at.P_WORDS, at.P_HIGH),
            high_min=word(machine, z * cpus + cpu, at.P_WORDS, at.P_HIGH_MIN),
            high_max=word(machine, z * cpus + cpu, at.P_WORDS, at.P_HIGH_MAX),
            free_high_batch=bool(word(machine, z * cpus + cpu, at.P_WORDS, at.P_FREE_HIGH_BATCH)),
            lists=[[] for _ in range(lists)],
        )
        for z in range(len(zones))
        for cpu in range(cpus)
    }
    return SlowMachine(
        generation=config.generation,
        zones=zones,
        pcps=pcps,
        cpu_nodes=machine.w[at.CN : at.CN + cpus].tolist(),
        block_types=seen["types"],
        movable=seen["movable"],
        scale_max=config.pcp_scale_max,
        boost_factor=config.watermark_boost_factor,
        kswapd_rate=config.kswapd_rate,
        reclaim_pages=config.reclaim_pages,
        compaction_share=round(config.compaction_success * 1_000_000),
        vmstat_interval_ns=round(config.vmstat_interval * 1e9),
        init_on_alloc=config.init_on_alloc,
        random=int(machine.w[at.CFG_RANDOM]) % 2**64,
        held=held,
    )


def differences(compiled: Any, slow: Any, where: str = "") -> list[str]:
    """Where two pictures differ, in words."""
    if isinstance(compiled, dict) and isinstance(slow, dict):
        keys: Sequence[Any] = list(dict.fromkeys([*compiled, *slow]))
        return [d for k in keys for d in differences(compiled.get(k), slow.get(k), f"{where}.{k}")]
    if isinstance(compiled, list) and isinstance(slow, list) and len(compiled) == len(slow):
        return [
            d for i, (c, s) in enumerate(zip(compiled, slow, strict=True)) for d in differences(c, s, f"{where}[{i}]")
        ]
    return [] if compiled == slow else [f"{where.lstrip('.')}: compiled {compiled}, slow {slow}"]
