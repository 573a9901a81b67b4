"""One-at-a-time changes of a question: every tunable by a sensible step both ways.

Steps: sizes and counts to half and double, shares to stated values, a generation to its neighbours, switches to the
other side. ``cpus`` and ``cma`` are what the host has and ``pcp_lock`` moves no page: they are left out.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tracereplay.kernel.constants import PAGE_SIZE
from tracereplay.kernel.generations import GENERATIONS
from tracereplay.machine.config import MachineConfig, pcp_batch, percpu_batch
from tracereplay.machine.marks import derived_watermarks
from tracereplay.machine.options import KEYS

if TYPE_CHECKING:
    from tracereplay.strategies.contract import ParamInfo
    from tracereplay.whatif.grid import Plan

COPIES = ("4", "16")
RATES = ("0.5", "2")
REQUEST_PAGES = ("1", "16")
MAX_WRITES = ("4096", "131072", "1048576")


@dataclass(frozen=True, slots=True)
class Change:
    """One tunable set to another value."""

    name: str
    """As in ``--grid``."""
    before: str
    """Its value now, in words."""
    value: str
    keeps: str | None = None
    """The value now as ``--grid`` takes it; None: what the machine has without the option."""

    @property
    def weight(self) -> int:
        """How many times the demand it replays."""
        return int(self.value) if self.name == "copies" else 1

    def of(self, label: str) -> bool:
        """Whether it is a parameter of that strategy."""
        return self.name not in KEYS and self.name.startswith(f"{label}.")


def changes_of(plan: Plan, machine: MachineConfig) -> list[Change]:
    """Changes of a plan without a grid, in the order machine, demand, strategies. ``machine``: the plan's."""
    found = [c for c in (*_of_machine(machine, plan), *_of_demand(plan), *_of_strategies(plan)) if c.value != c.keeps]
    return list(dict.fromkeys(found))


def _of_machine(m: MachineConfig, plan: Plan) -> Iterator[Change]:
    known = m.zones[0].free_blocks is not None
    batch = m.pcp_batch or pcp_batch(max(zone.pages for zone in m.zones))
    yield from _halved("pcp.batch", batch)
    if m.pcp_high:
        yield from _halved("pcp.high", m.pcp_high)
    else:
        yield from (Change("pcp.high", "auto", str(n * batch)) for n in (6, 24))
    yield from _listed("pcp.scale_max", m.pcp_scale_max, (max(m.pcp_scale_max - 2, 0), 6))
    names = list(GENERATIONS)
    at = names.index(m.generation)
    yield from _listed("generation", m.generation, names[max(at - 1, 0) : at] + names[at + 1 : at + 2])
    for name, now, values in (
        ("fragmentation", m.fragmentation, ("0", "0.5", "0.9")),
        ("occupancy", m.occupancy, ("0.5", "0.9")),
    ):
        yield from (Change(name, "recorded", v) if known else Change(name, f"{now:g}", v, f"{now:g}") for v in values)
    yield Change("largest_free_order", "recorded" if known else "10", "3", None if known else "10")
    yield from _halved("min_free_kbytes", m.min_free_kbytes or _min_free_kbytes(m))
    yield from _listed("watermark_scale_factor", m.watermark_scale_factor or 10, (100, 1000))
    mib = round(m.memory_bytes / (1 << 20))
    size = None if known else f"{mib}MiB"
    yield from (Change("memory", f"{mib}MiB", f"{value}MiB", size) for value in (mib // 2, mib * 2) if value >= 64)
    yield from _listed("nodes", m.nodes, (m.nodes * 2 if m.nodes < 8 else 4,))
    yield from _halved("llc_pages_per_cpu", m.llc_pages_per_cpu)
    yield from _listed("init_on_alloc", str(m.init_on_alloc).lower(), ("false" if m.init_on_alloc else "true",))
    yield from _listed("watermark_boost_factor", m.watermark_boost_factor, (0, 2 * m.watermark_boost_factor))
    yield from _listed("vmstat_interval", f"{m.vmstat_interval:g}", ("0", "10"))
    yield from _listed("kswapd_rate", m.kswapd_rate, (0, 256))
    yield from _listed("reclaim_pages", m.reclaim_pages, (0, 32))
    yield from _listed("compaction_success", f"{m.compaction_success:g}", ("0", "1"))
    if plan.demand.path and percpu_batch(m):
        yield from _halved("percpu_batch", percpu_batch(m))
    if any("unmapped" in text for text in plan.strategies.values()):
        yield from (Change(name, "recorded", v) for name in ("direct_map.1g", "direct_map.4k") for v in ("0", "1"))


def _min_free_kbytes(m: MachineConfig) -> int:
    """As the watermarks have it: recorded ones, else the kernel's own."""
    marks = [z.watermarks or derived for z, derived in zip(m.zones, derived_watermarks(m), strict=True)]
    return sum(mark.min for mark in marks) * PAGE_SIZE // 1024


def _of_demand(plan: Plan) -> Iterator[Change]:
    demand = plan.demand
    yield from _listed("copies", demand.copies, COPIES)
    yield from _listed("rate", f"{demand.rate:g}", RATES)
    yield from _listed("request_pages", demand.request_pages or "none", REQUEST_PAGES)
    if demand.path:
        yield from _listed("max_write", demand.max_write or "none", MAX_WRITES)


def _of_strategies(plan: Plan) -> Iterator[Change]:
    for choice in plan.choices:
        for info in type(choice.params).infos().values():
            now = getattr(choice.params, info.name)
            told = str(now).lower() if info.kind is bool else str(now)
            yield from _listed(f"{choice.label}.{info.name}", told, _values(info, now))


def _values(info: ParamInfo, now: object) -> list[str]:
    if info.choices:
        return list(info.choices)
    if info.kind is bool:
        return ["false", "true"]
    n = int(str(now))
    low, high = info.low, info.high
    steps = (n // 2, 2 * n) if n else (1, 16)
    return [str(max(low if low is not None else s, min(high if high is not None else s, s))) for s in steps]


def _halved(name: str, now: int) -> Iterator[Change]:
    return _listed(name, now, (max(now // 2, 1), 2 * now))


def _listed(name: str, now: object, values: Iterator[object] | tuple[object, ...] | list[str]) -> Iterator[Change]:
    return (Change(name, str(now), str(value), str(now)) for value in values)


def grid_of(name: str, changes: list[Change]) -> str:
    """``--grid`` text with the values of a tunable's changes and its own, numbers rising."""
    from tracereplay.whatif.axes import DEFAULT
    from tracereplay.whatif.crossings import is_numeric, number_of

    mine = [c for c in changes if c.name == name]
    values = list(dict.fromkeys([*(c.keeps or DEFAULT for c in mine), *(c.value for c in mine)]))
    if is_numeric(name, values):
        values.sort(key=lambda value: number_of(value) or 0.0)
    elif name == "generation":
        values.sort(key=list(GENERATIONS).index)
    return f"{name}={','.join(values)}"
