# SPDX-License-Identifier: GPL-2.0-only
"""What capturing costs this host, measured while it runs.

Three parts: the BPF programs (the kernel's run-time statistics, which themselves cost two clock readings a
run), this process, and the writer where it runs on the same host (it tells on standard input). Switching the
statistics patches code that all CPUs run, so that is done once, before the programs are attached, and undone
once: two seconds into the capture, or at its end where a limit has to be kept.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Mapping
from typing import Any

from collectors import bpfsys, hostfacts

WINDOW_NS = 2_000_000_000

Times = Mapping[str, "tuple[int, int]"]
"""Function -> ns and runs so far."""


class SelfCost:
    """Costs so far, and since the last look: ``start`` before the programs are attached, ``begin`` when they record,
    then ``step`` often, ``close`` at the end."""

    def __init__(self, run_times: Callable[[], Times], *, always: bool) -> None:
        self._run_times = run_times
        self._always = always
        self._fd: int | None = None
        self._refused = ""
        self._since_ns = 0
        self._before: Times = {}
        self._final: tuple[int, Times] | None = None
        """How long was measured, and what came out; None: it still is."""
        self.writer_seconds = 0.0
        """CPU of the writer, as it tells."""
        self.excused_seconds = 0.0
        """CPU of this process that no shedding could save: reading the page map, once."""
        self._last = (time.monotonic_ns(), 0, self._cpu())
        self.overhead = 0.0
        """Share of one core in the last interval of ``look``."""

    def _cpu(self) -> float:
        return float(hostfacts.own_cost()["cpu_seconds"]) - self.excused_seconds + self.writer_seconds

    def start(self) -> None:
        """Let the kernel count from now on."""
        try:
            self._fd = bpfsys.enable_run_statistics()
        except OSError as error:
            self._refused = error.strerror or str(error)

    def begin(self, now_ns: int) -> None:
        """The programs record from now on; what they ran before, with a closed gate, does not count."""
        self._before = dict(self._run_times())
        self._since_ns = now_ns

    def step(self, now_ns: int) -> None:
        """Stop counting when enough is known."""
        if self._fd is not None and not self._always and now_ns - self._since_ns >= WINDOW_NS:
            self.close(now_ns)

    def _since_begin(self) -> Times:
        found = {}
        for name, (ns, runs) in self._run_times().items():
            ns_then, runs_then = self._before.get(name, (0, 0))
            found[name] = (ns - ns_then, runs - runs_then)
        return found

    def look(self, now_ns: int) -> float:
        """Overhead since the last look, as a share of one core. BPF run time counts where it is measured all
        the time."""
        bpf_ns = sum(ns for ns, _ in self._run_times().values()) if self._always else 0
        cpu = self._cpu()
        then, bpf_then, cpu_then = self._last
        if now_ns > then:
            self.overhead = (bpf_ns - bpf_then + (cpu - cpu_then) * 1e9) / (now_ns - then)
        self._last = (now_ns, bpf_ns, cpu)
        return self.overhead

    def describe(self) -> dict[str, Any]:
        """For STATUS and CLOSING: CPU and memory of this process; of each BPF program ns and runs within
        ``measured_ns`` of wall time, and the share of a core that makes (None: the kernel refuses to count)."""
        measured, times = self._final or (time.monotonic_ns() - self._since_ns, self._since_begin())
        total = sum(ns for ns, _ in times.values())
        told: dict[str, Any] = dict(hostfacts.own_cost())
        told.update(
            measured_ns=measured,
            bpf_ns=total,
            bpf_runs=sum(runs for _, runs in times.values()),
            bpf_share=total / measured if measured and not self._refused else None,
            programs={name: {"run_time_ns": ns, "run_cnt": runs} for name, (ns, runs) in times.items() if runs},
            overhead=self.overhead,
            page_map_cpu_seconds=self.excused_seconds,
        )
        if self._refused:
            told["bpf_refused"] = self._refused
        return told

    def close(self, now_ns: int | None = None) -> None:
        """Let the kernel stop counting."""
        if self._fd is None:
            return
        if self._since_ns:
            self._final = ((now_ns or time.monotonic_ns()) - self._since_ns, self._since_begin())
        with contextlib.suppress(OSError):
            os.close(self._fd)
        self._fd = None
