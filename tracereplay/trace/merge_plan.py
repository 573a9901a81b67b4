"""What is merged with what: which traces are of one host, on which clock each is put, what the whole says of itself."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

from tracereplay.errors import MergeError, nearest
from tracereplay.trace.clock_map import ClockMap, shift, to_wall_clock
from tracereplay.trace.metadata import TraceMetadata
from tracereplay.trace.reader import Trace
from tracereplay.trace.schema import EVENT_TABLES


@dataclass(slots=True)
class Part:
    """One trace that goes into the whole."""

    trace: Trace
    start_ns: int
    """First and last event, on its own clock."""
    end_ns: int
    clock: ClockMap | None = None
    """None: its times stay as they are."""

    @property
    def name(self) -> str:
        """What messages call it."""
        return self.trace.location + (f"#{self.trace.host}" if self.trace.host else "")


@dataclass(slots=True)
class Host:
    """One boot of one host: traces whose CPUs, tasks and frames are the same ones."""

    name: str
    parts: list[Part] = field(default_factory=list)
    """By time."""
    uncertainty_ns: int | None = None
    """Of its place on the common clock; None: it was placed there by hand or by its start."""


def hosts_of(traces: Sequence[Trace]) -> list[Host]:
    """The traces by host and boot, which a boot id tells; a trace without one is a host of its own.

    Raises MergeError for a trace given twice, for one without events, for parts of one boot that hold the same times.
    """
    groups: dict[Any, list[Part]] = {}
    seen: dict[str, str] = {}
    for number, trace in enumerate(_single(traces)):
        part = _part(trace)
        identity = trace.metadata.trace_id
        if identity and identity in seen:
            raise MergeError(
                f"{part.name} and {seen[identity]} are the same trace ({identity})", hint="give each trace once"
            )
        seen[identity] = part.name
        boot = trace.metadata.host.get("boot_id")
        clock = trace.metadata.clock.get("name")
        groups.setdefault((boot, clock) if boot and trace.host is None else number, []).append(part)
    names = _names(list(groups.values()))
    made = [Host(n, sorted(p, key=lambda x: x.start_ns)) for n, p in zip(names, groups.values(), strict=True)]
    for host in made:
        _refuse_overlap(host)
    return made


def _single(traces: Sequence[Trace]) -> list[Trace]:
    """Traces of several hosts taken apart again."""
    return [one for t in traces for one in ([t.select_host(h) for h in t.hosts] or [t])]


def _part(trace: Trace) -> Part:
    ranges = [r for t in EVENT_TABLES if (r := trace.sort_range(t)) is not None]
    if not ranges:
        raise MergeError(f"{trace.location} holds no events", hint="leave it out")
    return Part(trace, min(r[0] for r in ranges), max(r[1] for r in ranges))


def _names(groups: list[list[Part]]) -> list[str]:
    """A name for each host: its own, with its boot where two boots or two hosts have the same."""
    own = [str(p[0].trace.host or p[0].trace.metadata.host.get("hostname") or p[0].trace.path.stem) for p in groups]
    often = Counter(own)
    boots = [str(p[0].trace.metadata.host.get("boot_id") or "")[:8] for p in groups]
    full = [f"{n}@{boot or i + 1}" if often[n] > 1 else n for i, (n, boot) in enumerate(zip(own, boots, strict=True))]
    twice = Counter(full)
    return [f"{n}@{i + 1}" if twice[n] > 1 else n for i, n in enumerate(full)]


def _refuse_overlap(host: Host) -> None:
    for table in EVENT_TABLES:
        held = sorted((r, p.name) for p in host.parts if (r := p.trace.sort_range(table)) is not None)
        for (before, first), (after, second) in pairwise(held):
            if after[0] <= before[1]:
                raise MergeError(
                    f"{first} and {second} hold {table} of the same time on {host.name}: events would count twice",
                    hint="leave one of them out",
                )


# ---------------------------------------------------------------- clocks
def place(hosts: list[Host], *, align: bool, offsets: Mapping[str, int]) -> dict[str, Any]:
    """Set each part's clock; what ``metadata.clock`` of the whole is. ``align``: each host begins at 0; ``offsets``: ns
    to add by host.

    Raises MergeError for a clock that cannot be converted and an offset of a host that there is not.
    """
    known = [h.name for h in hosts]
    for name in offsets:
        if name not in known:
            guess = nearest(name, known)
            raise MergeError(
                f"--offset {name}: there is no such host",
                hint=(f"did you mean {guess!r}? " if guess else "") + f"hosts: {', '.join(known)}",
            )
    first = hosts[0].parts[0].trace.metadata.clock
    if len(hosts) == 1 and not align and not offsets:
        triples = sorted(t for p in hosts[0].parts for t in p.trace.metadata.clock.get("triples") or [])
        resolution = max(_resolution(p) for p in hosts[0].parts)
        return {**first, "resolution_ns": resolution, "triples": triples}
    for host in hosts:
        _place_host(host, align, offsets.get(host.name))
    name = "since start" if align else "realtime"
    return {"name": name, "resolution_ns": max(_resolution(p) for h in hosts for p in h.parts), "triples": []}


def _place_host(host: Host, align: bool, offset: int | None) -> None:
    begin, end = host.parts[0].start_ns, max(p.end_ns for p in host.parts)
    if align:
        common = shift((offset or 0) - begin)
    else:
        clock = dict(host.parts[0].trace.metadata.clock)
        clock["triples"] = [t for p in host.parts for t in p.trace.metadata.clock.get("triples") or []]
        try:
            common = to_wall_clock(clock, begin, end, host.parts[0].name)
            host.uncertainty_ns = common.uncertainty_ns
        except MergeError:
            if offset is None:
                raise
            common = shift(0)
        common = common.plus(offset or 0)
    for part in host.parts:
        part.clock = common


def _resolution(part: Part) -> int:
    return int(part.trace.metadata.clock.get("resolution_ns") or 1)


# ---------------------------------------------------------------- what the whole says
def merged_metadata(hosts: list[Host], clock: dict[str, Any]) -> TraceMetadata:
    """Metadata of the whole: facts that all share, sums, and where each part came from."""
    metas = [p.trace.metadata for h in hosts for p in h.parts]
    parts = [
        {"trace_id": p.trace.metadata.trace_id, "path": p.trace.location, "host": h.name, "complete": p.trace.complete}
        for h in hosts
        for p in h.parts
    ]
    made = TraceMetadata(source={"kind": "merge", "parts": parts}, clock=clock)
    made.host = metas[0].host if len(hosts) == 1 else _shared([m.host for m in metas], ("page_size", "arch", "release"))
    made.events = sorted({e for m in metas for e in m.events})
    made.gfp_flags = metas[0].gfp_flags if all(m.gfp_flags == metas[0].gfp_flags for m in metas) else {}
    if all(m.migratetypes == metas[0].migratetypes for m in metas):
        made.migratetypes = metas[0].migratetypes
    named = [(h.name, p.trace.metadata) for h in hosts for p in h.parts]
    filters = [m.filters for m in metas]
    alike = all(f == filters[0] for f in filters)
    made.filters = filters[0] if alike else {n: m.filters for n, m in named if m.filters}
    sample = max(int(m.sampling.get("stack_sample", 1)) for m in metas)
    made.sampling = {"stack_sample": sample} if sample > 1 else {}
    lines = sum(int(m.rejected.get("lines", 0)) for m in metas)
    made.rejected = {"lines": lines} if lines else {}
    made.loss = _loss(metas)
    made.notes = list(dict.fromkeys(n if len(hosts) == 1 else f"{name}: {n}" for name, m in named for n in m.notes))
    return made


def _shared(facts: Sequence[Mapping[str, Any]], names: Sequence[str]) -> dict[str, Any]:
    return {n: facts[0][n] for n in names if n in facts[0] and all(f.get(n) == facts[0][n] for f in facts)}


def _loss(metas: Sequence[TraceMetadata]) -> dict[str, Any]:
    """What the recorders counted, where all of them did."""
    counted = [m.loss.get("by_class") for m in metas]
    if not all(isinstance(c, dict) for c in counted):
        return {}
    total: dict[str, int | None] = {}
    for classes in counted:
        for name, n in (classes or {}).items():
            so_far = total.get(name, 0)
            total[name] = None if n is None or so_far is None else so_far + n
    return {"by_class": total}
