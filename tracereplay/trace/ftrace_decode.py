"""From the raw pages of a tracefs instance to the same records that the eBPF rings carry.

What comes out has the layouts of hello's ``rings``, CPU by CPU in time order with running numbers, so that
:class:`~tracereplay.trace.decode.RingDecoder` merges and counts it like any other. Loss is different: an instance has
one buffer per CPU for all events, and the kernel says how many it overwrote but not which. So losses are booked here,
under table ``all``, between the last event before the gap and the first one behind it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from tracereplay.errors import CollectorError
from tracereplay.trace.decode import Array, Loss, RingLayout
from tracereplay.trace.frames import Bytes, SlabKey
from tracereplay.trace.ftrace_fields import EventRules, event_fields
from tracereplay.trace.ftrace_pages import Events, PageLayout, Pages, gather_pages, read_events

TABLE = "all"
SCAN_CPU = 65535
"""The tasks found in /proc come as records of this CPU."""
ASKED_FOR = "asked for"
"""The reason in hello of a capture with ``--tracer tracefs``."""
NEWTASK = "task:task_newtask"
CLONE_THREAD = 0x10000
"""include/uapi/linux/sched.h: the new task belongs to the process of the one that made it."""


@dataclass(slots=True)
class _Cpu:
    """What is known of one CPU's buffer."""

    last_ns: int | None = None
    seen: int = 0
    lost: int = 0
    """Overwritten, by the gaps that are booked."""
    refused: int = 0
    """Refused for lack of space, as the kernel counted by the last look."""
    looked_ns: int | None = None
    open: tuple[int | None, int] | None = None
    """A gap whose end has not come yet: its begin and number (0: not said)."""
    unsaid: list[tuple[int | None, int | None]] = field(default_factory=list)
    """Gaps (begin, end) for which the pages do not say how many."""


class FtraceDecoder:
    """Takes FTRACE frames, gives slabs of records for the ring decoders, and rows of ``loss``."""

    def __init__(self, hello: Mapping[str, Any], layouts: Sequence[RingLayout]) -> None:
        """Raises CollectorError for a hello whose formats cannot be read."""
        if hello["byteorder"] != "little":
            raise CollectorError("ring-buffer pages of a big-endian host cannot be read", hint="capture it with eBPF")
        try:
            self._layout = PageLayout.from_header_page(hello["ftrace"]["header_page"])
            probes = list(hello["probes"])
            self._rules = [
                EventRules(probe, kind, layouts[probe["ring"]])
                for kind, probe in enumerate(probes)
                if probe.get("attached") and probe.get("id") is not None
            ]
            self._clone_flags = _clone_flags(probes)
            self.buffers = {"ftrace": int(hello["ftrace"]["buffer_bytes_per_cpu"])}
            """Bytes of buffer per CPU."""
        except (KeyError, TypeError, ValueError, IndexError) as error:
            raise CollectorError(f"the collector's hello is damaged: {error!r}") from None
        self._layouts = list(layouts)
        self._task_ring = next(i for i, layout in enumerate(layouts) if layout.table == "tasks")
        self._scan_kind = next((k for k, p in enumerate(probes) if p["group"] == "task"), 0)
        reason = str(hello.get("tracer_reason", ""))
        self.fallback = "" if reason == ASKED_FOR else reason
        """Why eBPF could not be used; empty: tracefs was asked for."""
        self.hello_notes = [f"captured through an instance of tracefs: {reason}", str(hello.get("filters_note", ""))]
        self.hello_notes = [note for note in self.hello_notes if note]
        self.losses: list[Loss] = []
        """Gaps found since the caller last emptied the list."""
        self.notes: list[str] = []
        """What does not add up at the end."""
        self.watermark_ns = 0
        """Every event with a smaller time has been fed."""
        self._payloads: dict[int, list[Any]] = {}
        self._cpus: dict[int, _Cpu] = {}
        self._numbers: dict[tuple[int, int], int] = {}
        """(CPU, kind) -> records made."""
        self._tgids: dict[int, int] = {}
        self._extra: dict[SlabKey, list[Array]] = {}

    # ------------------------------------------------------------ intake
    def feed(self, cpu: int, payload: Any, floor_ns: int) -> None:
        """Take the pages of a frame. ``floor_ns``: every event of any CPU with a smaller time came before."""
        self.watermark_ns = max(self.watermark_ns, floor_ns)
        self._payloads.setdefault(cpu, []).append(payload)

    def tasks(self, rows: Sequence[Sequence[Any]], ts_ns: int) -> None:
        """Names found in /proc at a time: [pid, tgid, comm] each."""
        layout = self._layouts[self._task_ring]
        out: Array = np.zeros(len(rows), layout.dtype)
        out["header"] = layout.record_bytes
        out["ts"] = ts_ns
        out["kind"] = self._scan_kind
        out["pid"] = [int(row[0]) for row in rows]
        out["tgid"] = [int(row[1]) for row in rows]
        out["comm"] = [str(row[2]).encode()[:15] for row in rows]
        self._tgids.update((int(row[0]), int(row[1])) for row in rows)
        out["seq"] = self._numbers_for(self._scan_kind, [SCAN_CPU], [len(out)])
        self._extra.setdefault((self._task_ring, SCAN_CPU), []).append(out)

    def status(self, value: Mapping[str, Any], now_ns: int) -> None:
        """Take what a STATUS frame says of tasks and of the kernel's counters. All pages fed before must have been
        taken. Raises CollectorError for a frame that makes no sense.
        """
        try:
            if value.get("event") == "tasks":
                self.tasks(value["tasks"], int(value["t_ns"]))
            self.counted(value.get("ftrace", {}), now_ns, emptied=value.get("emptied", ()))
        except (KeyError, TypeError, ValueError, IndexError) as error:
            raise CollectorError(f"a status frame of the collector is damaged: {error!r}") from None

    def take(self) -> dict[SlabKey, Bytes]:
        """Records of everything fed so far, per (ring, CPU)."""
        payloads, self._payloads = self._payloads, {}
        slabs: dict[SlabKey, list[Array]] = self._extra
        self._extra = {}
        cpus = sorted(payloads)
        parts = [part for cpu in cpus for part in payloads[cpu]]
        if parts:
            pages = gather_pages(self._layout, parts)
            events = read_events(pages)
            size = self._layout.page_bytes
            counts = [sum(-(-len(part) // size) for part in payloads[cpu]) for cpu in cpus]
            ends = np.cumsum(counts)
            cuts = np.searchsorted(events.page, ends)
            for cpu, first, page_end, begin, end in zip(
                cpus, (ends - counts).tolist(), ends.tolist(), [0, *cuts[:-1].tolist()], cuts.tolist(), strict=True
            ):
                self._gaps(cpu, pages, events, slice(first, page_end), slice(begin, end))
            for key, records in self._records(pages, events, cpus, cuts.tolist()):
                slabs.setdefault(key, []).append(records)
        return {key: _joined(found).view(np.uint8) for key, found in slabs.items()}

    # ------------------------------------------------------------ records
    def _records(
        self, pages: Pages, events: Events, cpus: Sequence[int], cuts: Sequence[int]
    ) -> Iterator[tuple[SlabKey, Array]]:
        """Records of each (ring, CPU), in time order."""
        ids = pages.words[events.at].astype(np.uint16)  # the lower half: common_type
        count_of = np.bincount(ids, minlength=1 << 16)
        mine = [rules for rules in self._rules if count_of[rules.id]]
        if sum(int(count_of[rules.id]) for rules in mine) < len(ids):
            strange = set(np.flatnonzero(count_of).tolist()) - {rules.id for rules in mine}
            raise CollectorError(f"the tracefs instance holds events of id {min(strange)}, which hello does not name")
        rows_of = {rules.id: np.flatnonzero(ids == rules.id) for rules in mine}
        for ring in sorted({rules.ring for rules in mine}):
            of_ring = [rules for rules in mine if rules.ring == ring]
            if len(of_ring) == 1:
                rows = rows_of[of_ring[0].id]
            else:
                rows = np.flatnonzero(np.isin(ids, [rules.id for rules in of_ring]))
            layout = self._layouts[ring]
            out: Array = np.zeros(len(rows), layout.dtype)
            out["header"] = layout.record_bytes
            out["ts"] = events.ts[rows]
            place = np.empty(len(ids), np.int64)
            place[rows] = np.arange(len(rows))
            for rules in of_ring:
                these = rows_of[rules.id]
                if (events.size[these] < rules.size).any():
                    raise CollectorError(f"an event {rules.event} is shorter than its format says")
                which = slice(None) if len(of_ring) == 1 else place[these]
                rules.fill(out, which, pages, events.at[these])
                out["seq"][which] = self._numbers_for(rules.kind, cpus, np.searchsorted(these, cuts).tolist())
            if ring == self._task_ring:
                self._name_processes(pages, events, rows, out)
            ends = np.searchsorted(rows, cuts).tolist()
            for cpu, begin, end in zip(cpus, [0, *ends[:-1]], ends, strict=True):
                if end > begin:
                    yield (ring, cpu), out[begin:end]

    def _numbers_for(self, kind: int, cpus: Sequence[int], ends: Sequence[int]) -> Array:
        """Running numbers for one kind of event, CPU by CPU: the loss is booked here, so there are no gaps in them."""
        out: Array = np.arange(ends[-1])
        for cpu, begin, end in zip(cpus, [0, *ends[:-1]], ends, strict=True):
            first = self._numbers.get((cpu, kind), 0)
            out[begin:end] += first - begin
            self._numbers[cpu, kind] = first + end - begin
        return out & 0xFFFFFFFF

    def _name_processes(self, pages: Pages, events: Events, rows: Array, records: Array) -> None:
        """Fill ``tgid``: a new task is its own process unless it is a thread of the one that made it."""
        new_kind = self._clone_flags[0] if self._clone_flags else -1
        for index in np.argsort(records["ts"], kind="stable").tolist():
            record = records[index]
            pid = int(record["pid"])
            if record["kind"] == new_kind and self._clone_flags:
                data = pages.words[int(events.at[rows[index]]) :].view(np.uint8)
                _, flags_at, maker_at = self._clone_flags
                flags = int(data[flags_at : flags_at + 4].view(np.uint32)[0])
                maker = int(data[maker_at : maker_at + 4].view(np.uint32)[0])
                self._tgids[pid] = self._tgids.get(maker, 0) if flags & CLONE_THREAD else pid
            record["tgid"] = self._tgids.get(pid, 0)

    # ------------------------------------------------------------ loss
    def _gaps(self, cpu: int, pages: Pages, events: Events, span: slice, rows: slice) -> None:
        """Book what the kernel overwrote before some of a CPU's pages, and advance what is known of the CPU."""
        state = self._cpus.setdefault(cpu, _Cpu())
        ts = events.ts[rows]
        if state.open is not None and len(ts):
            begin, n = state.open
            state.open = None
            self._gap(cpu, state, begin, int(ts[0]), n)
        flagged = np.flatnonzero(pages.missed[span]) + span.start
        for page in flagged.tolist():
            at = int(np.searchsorted(events.page[rows], page))
            begin = int(ts[at - 1]) if at else state.last_ns
            n = int(pages.lost[page])
            if at < len(ts):
                self._gap(cpu, state, begin, int(ts[at]), n)
            else:
                state.open = (begin, n)
        state.seen += len(ts)
        if len(ts):
            state.last_ns = int(ts[-1])

    def _gap(self, cpu: int, state: _Cpu, begin: int | None, end: int | None, n: int) -> None:
        if n:
            state.lost += n
            self.losses.append(Loss(TABLE, cpu, begin, end, n, "overwritten"))
        else:
            state.unsaid.append((begin, end))

    def counted(self, stats: Mapping[str, Mapping[str, int]], now_ns: int, *, emptied: Sequence[str] = ()) -> None:
        """Take the kernel's counters per CPU (per_cpu/cpuN/stats). For the CPUs in ``emptied`` all that was overwritten
        by then lies before the pages fed so far: that says how many a page did not have room to say.
        """
        for text, counters in stats.items():
            cpu = int(text)
            state = self._cpus.setdefault(cpu, _Cpu())
            refused = int(counters.get("dropped events", 0)) + int(counters.get("commit overrun", 0))
            if refused > state.refused:
                n = refused - state.refused
                self.losses.append(Loss(TABLE, cpu, state.looked_ns, now_ns, n, "ring_full"))
                state.refused = refused
            state.looked_ns = now_ns
            if text in emptied and state.unsaid:
                self._settle(cpu, state, int(counters["overrun"]))

    def _settle(self, cpu: int, state: _Cpu, overrun: int) -> None:
        """Give the gaps of unknown size what the counter has beyond those of known size; several become one row, from
        the first one's begin to the last one's end."""
        rest = overrun - state.lost
        gaps, state.unsaid = state.unsaid, []
        if rest <= 0:
            self.notes.append(f"CPU {cpu}: {len(gaps)} gaps, but the kernel counts {overrun} overwritten events in all")
            return
        self._gap(cpu, state, gaps[0][0], gaps[-1][1], rest)

    def close(self, stats: Mapping[str, Mapping[str, int]], stopped_ns: int) -> None:
        """Compare with the kernel's last counters, of the stopped and drained instance, and book what is left.

        All that was fed must have been taken.
        """
        for text, counters in stats.items():
            cpu = int(text)
            state = self._cpus.setdefault(cpu, _Cpu())
            if state.open is not None:
                begin, n = state.open
                state.open = None
                self._gap(cpu, state, begin, stopped_ns, n)
            overrun = int(counters["overrun"])
            if state.unsaid:
                self._settle(cpu, state, overrun)
            if overrun > state.lost:
                self._gap(cpu, state, state.last_ns, stopped_ns, overrun - state.lost)
            elif overrun < state.lost:
                self.notes.append(f"CPU {cpu}: pages tell of {state.lost} overwritten events, the counter of {overrun}")
            missing = int(counters["read events"]) + int(counters["entries"]) - state.seen
            if missing > 0:
                self.losses.append(Loss(TABLE, cpu, state.last_ns, stopped_ns, missing, "reader"))
            elif missing < 0:
                self.notes.append(f"CPU {cpu}: {state.seen} events came, the kernel counts {missing + state.seen} read")
        self.counted(stats, stopped_ns)

    def totals(self) -> dict[str, int]:
        """``seen`` and ``lost`` (overwritten or refused) over all CPUs so far."""
        cpus = self._cpus.values()
        return {"seen": sum(c.seen for c in cpus), "lost": sum(c.lost + c.refused for c in cpus)}


def _joined(parts: Sequence[Array]) -> Array:
    """One array of records (NumPy's own concatenation drops the padding between records)."""
    if len(parts) == 1:
        return parts[0]
    out: Array = np.empty(sum(map(len, parts)), parts[0].dtype)
    at = 0
    for part in parts:
        out[at : at + len(part)] = part
        at += len(part)
    return out


def kernel_losses(stats: Mapping[str, Mapping[str, int]]) -> dict[str, int]:
    """Loss by class as the kernel counted it, for comparison with the ``loss`` table."""
    counts = {
        "overwritten": sum(int(c["overrun"]) for c in stats.values()),
        "ring_full": sum(int(c.get("dropped events", 0)) + int(c.get("commit overrun", 0)) for c in stats.values()),
    }
    return {name: n for name, n in counts.items() if n}


def _clone_flags(probes: Sequence[Mapping[str, Any]]) -> tuple[int, int, int] | None:
    """(kind, offset of clone_flags, offset of the maker's pid) of the event of new tasks; None without it."""
    for kind, probe in enumerate(probes):
        if probe["event"] == NEWTASK and probe.get("attached"):
            fields = event_fields(probe["format"])
            return kind, fields["clone_flags"].offset, fields["common_pid"].offset
    return None
