"""Samples as ``collectors calibrate`` writes them, of a host whose prices are known."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

EVENT = 76.0
"""What an event costs on this host, in every gap that ends with one."""
ORDERS = (2, 3, 4, 5, 6, 7, 8, 9, 10)
PCP_LOCK = 5.0


@dataclass
class Host:
    """Prices in ns, and how noisy the host is."""

    alloc: float = 80.0
    extra: float = 17.0
    pop: float = 16.0
    free: float = 65.0
    batched: float = 19.0
    lock: float = 40.0
    buddy_free: float = 30.0
    tail_prepare: float = 0.7
    tail_check: float = 6.8
    split: float = 12.0
    merge: float = 10.0
    refill: float = 23.0
    drain: float = 31.0
    zero: float = 120.0
    noise: float = 0.02
    """Standard deviation of a gap, as a share of it."""
    drift: float = 0.0
    """The same of all gaps of a round."""
    cpus: int = 2
    zeroes: bool = False
    """init_on_alloc."""
    rng: random.Random = field(default_factory=lambda: random.Random(5))
    factor: float = 1.0

    def tape(self, kinds: str, gaps: list[float], order: int = 0, pages: list[int] | None = None) -> dict[str, Any]:
        """A tape; ``gaps`` lie between its events."""
        times = [0.0]
        for gap in gaps:
            disturbed = 5.0 if self.rng.random() < 0.003 else 1.0
            times.append(times[-1] + gap * self.factor * disturbed * self.rng.gauss(1.0, self.noise))
        assert len(times) == len(kinds)
        made: dict[str, Any] = {"k": kinds, "o": "0123456789a"[order] * len(kinds), "t": [round(t) for t in times]}
        return made if pages is None else {**made, "p": pages}

    def series(self, one: Callable[[], tuple[str, list[float]]], count: int = 12) -> dict[str, Any]:
        """The same call many times, 2 us apart."""
        kinds, gaps = "", []
        for i in range(count):
            k, g = one()
            gaps += ([2000.0] if i else []) + g
            kinds += k
        return self.tape(kinds, gaps)

    # ------------------------------------------------------------ loads
    def splice(self, n: int, *, events: bool) -> tuple[str, list[float]]:
        """A read of nothing into n pages."""
        zero = self.zero if self.zeroes else 0.0
        taken = (self.alloc + zero if n == 1 else self.alloc - self.extra - self.pop + n * (self.pop + zero)) + EVENT
        if not events:
            return "EKKRX", [450.0, taken + 150.0, 130.0 + n * self.batched, 200.0]
        if n == 1:
            return "EKAKRX", [450.0, taken, 150.0 + EVENT, 130.0 + self.batched, 200.0]
        return "EKKR" + "F" * n + "X", [450.0, taken + 150.0, 130.0, *[self.batched + EVENT] * n, 200.0]

    def zeroing(self, n: int) -> tuple[str, list[float]]:
        """n pages from /dev/zero."""
        once = 2 if self.zeroes else 1
        return "EKRX", [450.0, 300.0 + n * (self.pop + once * self.zero), 200.0]

    def kvmalloc(self, k: int, *, events: bool) -> tuple[str, list[float]]:
        """A block of order k, taken and given back."""
        tails = (1 << k) - 1
        zero = self.zero * (1 << k) if self.zeroes else 0.0
        locked = k not in (2, 3, 9)
        take = self.alloc + tails * self.tail_prepare + zero + (self.lock - PCP_LOCK - self.pop if locked else 0.0)
        give = self.free + tails * self.tail_check + (self.lock + self.buddy_free - PCP_LOCK if locked else 0.0)
        if not events:
            return "EKKKKRRRRRRRRX", [700.0, 150.0, take + EVENT + 50.0, 90.0, 900.0, *[90.0] * 5,
                                      give + EVENT + 60.0, 90.0, 160.0]  # fmt: skip
        taken = [take + EVENT]
        if locked:
            prepare = 40.0 + tails * self.tail_prepare + zero
            taken = [take - prepare + EVENT, prepare + EVENT]
        return "EKK" + ("ZA" if locked else "A") + "KKRRRRRRFRRX", [
            700.0, 150.0, *taken, 50.0 + EVENT, 90.0, 900.0, *[90.0] * 5, 60.0 + EVENT, give + EVENT, 90.0, 160.0,
        ]  # fmt: skip

    def ring(self, k: int) -> list[Any]:
        """A few large blocks."""
        zero = (1 << k) * (self.zero + self.tail_prepare)
        opened = self.tape("ZA" * 4, [zero + EVENT, 400.0] * 3 + [zero + EVENT], k, [0, 0, 2048, 2048] * 2)
        return [opened, self.tape("FFFF", [900.0] * 3, k, [0, 2048, 0, 2048])]

    def crossing(self) -> list[Any]:
        """Pages taken by refills of 64 on one CPU, drained 32 at a time on another."""
        kinds, gaps, pages = "", [], []
        for start in range(4096, 4096 + 512, 64):
            for p in range(start, start + 64):
                level = (p & -p).bit_length() - 1
                kinds += "Z"
                gaps.append(EVENT + self.refill + self.split * level + (self.alloc + self.lock if p == start else 0))
                pages.append(p)
            for p in range(start, start + 64):
                kinds += "A"
                gaps.append(EVENT + self.alloc + self.zero)
                pages.append(p)
        opened = self.tape(kinds, gaps[1:], 0, pages)
        kinds, gaps, pages = "", [], []
        for start in range(4096, 4096 + 512, 32):
            for p in range(start, start + 32):
                kinds, gaps, pages = kinds + "F", [*gaps, EVENT + self.free], [*pages, p]
            for p in range(start + 8192, start + 8192 + 32):
                level = (p + 1 & -(p + 1)).bit_length() - 1
                kinds, gaps, pages = kinds + "D", [*gaps, EVENT + self.drain + self.merge * level], [*pages, p]
        return [opened, self.tape(kinds, gaps[1:], 0, pages)]

    # ------------------------------------------------------------ lines
    def hello(self, *, ebpf: bool = True, why: str = "") -> dict[str, Any]:
        """The first line."""
        host = {
            "kernel": "6.18.1", "machine": "x86_64", "cpu": "Test CPU 3000", "cpus": self.cpus, "hypervisor": True,
            "mem_total_mib": 8192, "init_on_alloc": "", "vulnerabilities": {}, "load": 0.5, "at": 1795219200.0,
        }  # fmt: skip
        return {"type": "hello", "version": "0", "page": 4096, "host": host, "ebpf": ebpf, "why": why, "tight": True}

    def round(self, number: int) -> list[dict[str, Any]]:
        """Blocks of one round."""
        self.factor = self.rng.gauss(1.0, self.drift)
        found: list[tuple[str, str, int, list[Any]]] = []

        def add(work: str, mode: str, keys: tuple[int, ...], one: Callable[[int], tuple[str, list[float]]]) -> None:
            for key in keys:
                count, times = (1, 6) if mode == "cold" else (12, 4)
                found.append((work, mode, key, [self.series(lambda key=key: one(key), count)] * times))

        add("splice", "plain", (1, 2, 4, 8, 16, 32, 64), lambda n: self.splice(n, events=False))
        add("splice", "pages", (1, 32), lambda n: self.splice(n, events=True))
        add("splice", "cold", (2, 64), lambda n: self.splice(n, events=False))
        add("zero", "plain", (2, 8, 32), self.zeroing)
        add("kvmalloc", "plain", ORDERS[:5], lambda k: self.kvmalloc(k, events=False))
        add("kvmalloc", "pages", ORDERS, lambda k: self.kvmalloc(k, events=True))
        add("kvmalloc", "busy", (4,), lambda k: self.kvmalloc(k, events=True))
        found += [("ring", "pages", k, self.ring(k)) for k in (4, 5, 6, 8, 10)]
        if self.cpus > 1:
            found.append(("ring", "crossing", 0, self.crossing()))
        return [
            {"type": "block", "round": number, "cpu": 0, "work": w, "mode": m, "key": k, "calls": calls}
            for w, m, k, calls in found
        ]

    def lines(self, rounds: int = 8, *, without: tuple[str, ...] = ()) -> list[str]:
        """A whole measurement; ``without``: loads that the host refuses."""
        rows = [self.hello()]
        for number in range(rounds):
            rows += [b for b in self.round(number) if b["work"] not in without]
            rows += [{"type": "refused", "round": number, "work": w, "reason": f"{w} is forbidden"} for w in without]
        rows.append({"type": "done", "rounds": rounds, "seconds": 12.0, "error": ""})
        return [json.dumps(row) for row in rows]

    def clock_lines(self, why: str, rounds: int = 8) -> list[str]:
        """The same by the wall clock."""
        rows = [self.hello(ebpf=False, why=why)]
        for number in range(rounds):
            for work in ("splice", "zero"):
                for n in (1, 2, 4, 8, 16, 32, 64):
                    each = self.batched + self.pop + (self.zero if work == "zero" else 0.0)
                    ns = 900.0 + n * each + (self.extra if n == 1 else 0.0)
                    calls = [ns * self.rng.gauss(1.0, self.noise / 10) for _ in range(30)]
                    rows.append({"type": "block", "round": number, "cpu": 0, "work": work, "mode": "clock", "key": n,
                                 "calls": calls})  # fmt: skip
        rows.append({"type": "done", "rounds": rounds, "seconds": 12.0, "error": ""})
        return [json.dumps(row) for row in rows]
