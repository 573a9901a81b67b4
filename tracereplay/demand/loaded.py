"""A demand stream with loads put into it.

Requests of loads arrive between recorded ones by their time. They carry TARGETED and SYNTHETIC whatever ``--target``
says, are of single pages (contiguity none), and have keys above those of the stream. Pages of a CPU come back in the
order in which they were asked for, so its keys go round in a ring.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from tracereplay.demand.load import MOST_CPUS, SECOND, Asked, Load, parse_load
from tracereplay.demand.load_kvfree import KvfreeLoad
from tracereplay.demand.load_network import NetworkLoad
from tracereplay.demand.stream import (
    ALLOC,
    BATCH,
    FIRST,
    FREE,
    OP,
    SYNTHETIC,
    TARGETED,
    DemandInfo,
    DemandReport,
    DemandStream,
)
from tracereplay.errors import ParameterError

LOADS: dict[str, type[Load]] = {load.name: load for load in (KvfreeLoad, NetworkLoad)}
"""Loads by name."""
WINDOW_PAGES = 1 << 15
"""Pages that loads ask for, about, in the time that is put together at once."""
MOST_KEYS = (1 << 31) - 1

Ops = np.ndarray[tuple[int], np.dtype[np.void]]
I64 = npt.NDArray[np.int64]


class _Source:
    """One load as operations in time order."""

    def __init__(self, load: Load, caller: str, number: int, first_key: int, info: DemandInfo) -> None:
        self.load = load
        self.caller = caller
        self.requests = self.pages = 0
        self._number = number
        span = (info.start_ns, info.end_ns + 1)
        self._rings: list[tuple[int, int]] = []  # first key and keys of each CPU
        self.end_key = first_key
        for cpu in range(load.cpus):
            keys = load.most_live(cpu, *span)
            self._rings.append((self.end_key, keys))
            self.end_key += keys
        self._asked = [load.asked(cpu, *span) for cpu in range(load.cpus)]
        self._next = [next(asked, None) for asked in self._asked]
        self._given = [0] * load.cpus
        self._out = np.zeros(0, OP)  # frees to come

    def up_to(self, ts_ns: int) -> Ops:
        """What happens up to a time, since the last call: frees by time and key, then requests by CPU."""
        made = []
        frees = [self._out]
        for cpu in range(self.load.cpus):
            while (asked := self._next[cpu]) is not None and asked.ts_ns[0] <= ts_ns:
                now, later = asked.split(ts_ns)
                self._next[cpu] = later if len(later.ts_ns) else next(self._asked[cpu], None)
                keys = self._keys(cpu, now.frees.size)
                made.append(self._requests(now, cpu, keys))
                frees.append(_frees(now, keys))
        out = np.concatenate(frees)
        due = out["ts_ns"] <= ts_ns
        self._out = out[~due]
        now_free = out[due]
        # those of one time by key: however time is cut, the order is the same
        return np.concatenate([now_free[np.lexsort((now_free["pfn"], now_free["ts_ns"]))], *made])

    def _keys(self, cpu: int, n: int) -> I64:
        first, room = self._rings[cpu]
        keys = first + (self._given[cpu] + np.arange(n, dtype=np.int64)) % room
        self._given[cpu] += n
        return keys

    def _requests(self, asked: Asked, cpu: int, keys: I64) -> Ops:
        n, pages = asked.frees.shape
        made = np.zeros(asked.frees.size, OP)
        made["ts_ns"], made["pfn"], made["cpu"] = np.repeat(asked.ts_ns, pages), keys, cpu
        made["flags"] = TARGETED | SYNTHETIC | (BATCH if pages > 1 else 0)
        made["flags"][::pages] |= FIRST
        made["pages"][::pages] = pages
        made["kind"], made["gfp"], made["caller"] = ALLOC, self.load.gfp, self._number
        self.requests += n
        self.pages += made.size
        return made

    def row(self) -> dict[str, Any]:
        """What the report says of it."""
        return {
            "caller": self.caller,
            "requests": self.requests,
            "pages": self.pages,
            "parameters": {"load": self.load.name, **self.load.values()},
        }


def _frees(asked: Asked, keys: I64) -> Ops:
    made = np.zeros(asked.frees.size, OP)
    made["ts_ns"], made["pfn"], made["cpu"] = asked.frees.ravel(), keys, asked.cpus.ravel()
    made["kind"] = FREE
    return made


class LoadedDemand:
    """A demand stream with loads. Iterate once, then read ``report``, which is the stream's with the loads added."""

    def __init__(self, stream: DemandStream, loads: Sequence[Load]) -> None:
        """Raises ParameterError when the loads have more pages out at one time than there are keys."""
        self._stream = stream
        info = stream.info
        first_key, cpus = info.frames, info.cpus
        self._sources: list[_Source] = []
        for load in loads:
            settled = load.on(min(info.cpus, MOST_CPUS))
            twins = sum(source.load.name == load.name for source in self._sources)
            caller = f"load {load.name}" + (f" {twins + 1}" if twins else "")
            source = _Source(settled, caller, -1 - len(self._sources), first_key, info)
            self._sources.append(source)
            first_key, cpus = source.end_key, max(cpus, settled.cpus)
        if first_key > MOST_KEYS:
            raise ParameterError(
                f"the loads have {first_key - info.frames} pages out at one time",
                hint="lower their rates or hold times",
            )
        self.info = replace(info, frames=first_key, cpus=cpus)
        self.report = DemandReport()
        rate = sum(source.load.pages_per_s() for source in self._sources)
        self._window = max(WINDOW_PAGES * SECOND // rate, 1)
        self._done = info.start_ns - 1

    def __iter__(self) -> Iterator[Ops]:
        """Batches of OP records in replay order."""
        for batch in self._stream:
            last = np.maximum.accumulate(batch["ts_ns"])  # where a batch goes back in time, its latest yet counts
            at = 0
            while at < len(batch):
                until = min(self._done + self._window, max(int(last[-1]), self._done))
                end = int(np.searchsorted(last, until, side="right"))
                yield from self._merged(batch[at:end], last[at:end], until)
                at = end
        while self._done < self.info.end_ns:
            until = min(self._done + self._window, self.info.end_ns)
            yield from self._merged(np.zeros(0, OP), np.zeros(0, np.int64), until)
        self._count()

    def _merged(self, recorded: Ops, last: I64, until: int) -> Iterator[Ops]:
        """Recorded operations, and those of the loads behind all recorded ones of their time or before."""
        own = np.concatenate([source.up_to(until) for source in self._sources])
        self._done = until
        own = own[np.argsort(own["ts_ns"], kind="stable")]
        merged = np.empty(len(recorded) + len(own), OP)
        places = np.searchsorted(last, own["ts_ns"], side="right") + np.arange(len(own))
        theirs = np.ones(len(merged), np.bool_)
        theirs[places] = False
        merged[places] = own
        merged[theirs] = recorded
        if len(merged):
            yield merged

    def _count(self) -> None:
        """Add the loads to the report."""
        r = self.report
        r.take(self._stream.report)
        stated = [source.caller for source in self._sources]
        r.target = " | ".join(stated if r.target == "none" else [r.target, *stated])
        for source in self._sources:
            r.requests += source.requests
            r.pages += source.pages
            r.targeted_requests += source.requests
            r.targeted_pages += source.pages
            r.loads.append(source.row())
            if source.requests:
                size = str(source.pages // source.requests)
                row = {k: v for k, v in source.row().items() if k != "parameters"}
                r.by_caller.append(row | {"sizes": {size: source.requests}})
        r.by_caller.sort(key=lambda row: (-int(row["pages"]), str(row["caller"])))


def with_loads(stream: DemandStream, loads: Sequence[str]) -> DemandStream:
    """The stream with loads of ``NAME:key=value,...`` put into it. Raises ParameterError."""
    parsed = [parse_load(text, LOADS) for text in loads]
    return LoadedDemand(stream, parsed) if parsed else stream
