"""The first disagreements of a twin check, each in words and with the recorded events around it on its CPU."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import polars as pl

from tracereplay.kernel.constants import MIGRATETYPE_NAMES
from tracereplay.machine import layout as machine_at
from tracereplay.verify import layout as at

if TYPE_CHECKING:
    from collections.abc import Callable

    from tracereplay.trace.reader import Trace
    from tracereplay.verify.run import Twin

ROOM = 1 << 14
"""Disagreements kept while the twin runs, of which the first of each kind are shown."""
OF_A_KIND = 10
BEFORE, AFTER = 6, 3
"""Events of the CPU shown before and after the one at which a disagreement was noticed."""
_REACH = 256
"""Rows looked through for them on either side, for each CPU."""
_MOST_ROWS = 1 << 14
_SHOWN = ("ts_ns", "kind", "pfn", "order", "migratetype", "pid")
_TRANSIT = 0x500


@dataclass(frozen=True, slots=True)
class Disagreement:
    """What twin and kernel did differently."""

    event: int
    """Row of ``page_events`` at which it was noticed, from 0. A drain is over, and compared, at the next event."""
    kind: str
    """One of ``layout.DISAGREEMENTS``."""
    cpu: int
    text: str
    numbers: dict[str, int]
    """What the text says, as the twin noted it: frame (-1, -2: none) and four numbers by kind."""
    context: list[dict[str, Any]]
    """Events of the CPU around it: ``event`` and columns of ``page_events``."""

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)


def disagreements(twin: Twin, limit: int | None = None) -> list[Disagreement]:
    """The first disagreements in time order, ``limit`` in all and at most ten of a kind (None: ten of each).

    The twin must have been made with room for them.
    """
    v = twin.v
    room, logged = int(v[at.VC_ROOM]), int(v[at.VC_LOGGED])
    log = v[len(v) - room * at.LOG_WORDS :].reshape(room, at.LOG_WORDS)[: min(room, logged)].tolist()
    chosen: list[list[int]] = []
    seen: Counter[int] = Counter()
    for row in log:
        seen[row[1]] += 1
        if seen[row[1]] <= OF_A_KIND or limit is not None:
            chosen.append(row)
        if limit is not None and len(chosen) == limit:
            break
    around = contexts(twin.trace, [(row[0] - 1, row[2]) for row in chosen], twin.config.cpus)
    return [
        Disagreement(
            event=row[0] - 1,
            kind=at.DISAGREEMENTS[row[1]],
            cpu=row[2],
            text=text_of(row[1], row[3], row[4], row[5], row[6], row[7]),
            numbers=dict(zip(("pfn", "a", "b", "c", "d"), row[3:], strict=True)),
            context=events,
        )
        for row, events in zip(chosen, around, strict=True)
    ]


def contexts(trace: Trace, places: list[tuple[int, int]], cpus: int) -> list[list[dict[str, Any]]]:
    """Events around (row, CPU) on that CPU, in time order. Windows are read one by one; the table stays on disk."""
    reach = min(_REACH * max(cpus, 1), _MOST_ROWS)
    found = []
    for row, cpu in places:
        first = max(row - reach, 0)
        window = (
            trace.page_events.slice(first, row - first + reach + 1)
            .with_row_index("event", first)
            .filter(pl.col("cpu") == cpu)
            .select("event", *_SHOWN)
            .with_columns(pl.col("kind").cast(pl.String))
            .collect()
        )
        earlier = window.filter(pl.col("event") < row).tail(BEFORE)
        later = window.filter(pl.col("event") >= row).head(1 + AFTER)
        found.append(pl.concat([earlier, later]).to_dicts())
    return found


# ---------------------------------------------------------------- in words
def text_of(kind: int, pfn: int, a: int, b: int, c: int, d: int) -> str:
    """A line of the log in words; what the numbers are is decided where it is written (``journal.disagree``)."""
    return _TEXTS[at.DISAGREEMENTS[kind]](pfn, a, b, c, d)


def _frame(pfn: int) -> str:
    return f"page {pfn:#x}"


def _list(order: int, mt: int) -> str:
    name = MIGRATETYPE_NAMES[mt] if 0 <= mt < len(MIGRATETYPE_NAMES) else f"type {mt}"
    return f"the {name} list of order {order}"


def _pages(n: int) -> str:
    return f"{n:,} page{'' if n == 1 else 's'}"


def _blocks(n: int) -> str:
    return f"{n:,} block{'' if n == 1 else 's'}"


def _whereabouts(info: int) -> str:
    """Where the twin had a page, from its info word."""
    state = info & machine_at.INFO_STATE
    order = info & machine_at.INFO_ORDER
    mt = info >> machine_at.INFO_TYPE_SHIFT & machine_at.INFO_TYPE
    cpu = info >> machine_at.INFO_CPU_SHIFT & 0xFFFF
    if state == machine_at.PCP:
        return f"on {_list(order, mt)} of CPU {cpu}"
    return {
        machine_at.BUDDY: f"free in the buddy lists, order {order}",
        machine_at.USED: f"in use since an allocation of order {order}",
        machine_at.HELD: "in use, or within a larger block",
        machine_at.CACHED: "in a drain that it predicted",
        _TRANSIT: "freed, not yet pushed on a list",
    }.get(state, f"in state {state:#x}")


def _trigger(pfn: int) -> str:
    if pfn == at.TICK:
        return "when the vmstat worker ran"
    return f"at the free of {_frame(pfn)}" if pfn >= 0 else "away from any free"


_TEXTS: dict[str, Callable[[int, int, int, int, int], str]] = {
    "pop": lambda pfn, order, mt, passed, _: (
        f"kernel popped {_frame(pfn)} off {_list(order, mt)}; the twin had {_blocks(passed)} above it there"
    ),
    "pop_elsewhere": lambda pfn, order, mt, _, info: (
        f"kernel handed out {_frame(pfn)} from {_list(order, mt)}; the twin had it {_whereabouts(info)}"
    ),
    "refill_not_predicted": lambda pfn, order, mt, blocks, left: (
        f"kernel refilled {_list(order, mt)} with {_blocks(blocks)} for {_frame(pfn)}; "
        f"the twin had {_blocks(left)} left on it"
    ),
    "refill_not_seen": lambda pfn, order, mt, blocks, info: (
        f"kernel handed out {_frame(pfn)} without a refill; the twin found {_list(order, mt)} empty and expected "
        f"{_blocks(blocks)}. It had the page {_whereabouts(info)}"
    ),
    "refill_length": lambda pfn, order, mt, kernel, twin: (
        f"kernel refilled {_list(order, mt)} with {_blocks(kernel)} for {_frame(pfn)}; the twin expected {twin:,}"
    ),
    "drain_not_predicted": lambda pfn, pages, count, high, strange: (
        f"kernel drained {_pages(pages)} {_trigger(pfn)}; the twin expected no drain with {_pages(count)} on the lists "
        f"and high at {high:,}. {_blocks(strange)} drained were not in a predicted drain"
    ),
    "drain_not_seen": lambda pfn, pages, count, high, _: (
        f"the twin drained {_pages(pages)} {_trigger(pfn)}; the kernel did not. "
        f"Put back: {_pages(count)} on the lists, high at {high:,}"
    ),
    "drain_frames": lambda pfn, kernel, twin, place, other: (
        f"both drained {_trigger(pfn)}, the kernel {_pages(kernel)} and the twin {_pages(twin)}; "
        f"the first difference is block {place}, where the kernel drained {_frame(other)}"
    ),
    "extfrag": lambda _pfn, kernel, twin, _c, _d: (
        f"kernel fell back to another type {kernel:,} times in a run, where the twin's free lists called for {twin:,}"
    ),
}
