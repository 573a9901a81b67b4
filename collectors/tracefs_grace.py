# SPDX-License-Identifier: GPL-2.0-only
"""Up to which time an ftrace buffer is complete.

ftrace takes an event's time before it has its place in the buffer, with preemption off. So an event that is not there
when the buffer is looked at may be older than the look: by microseconds, or by however long a hypervisor kept the CPU.
membarrier(MEMBARRIER_CMD_GLOBAL) returns after every CPU has been seen outside such a stretch (it waits for an RCU
grace period). What was stamped before the call is in its buffer after it.
"""

from __future__ import annotations

import ctypes
import platform
import threading
import time

_MEMBARRIER_GLOBAL = 1
_NUMBER = {"x86_64": 324, "aarch64": 283, "riscv64": 283, "ppc64le": 365, "s390x": 356}
EVERY_S = 0.02
SLACK_NS = 200_000_000
"""Where the kernel refuses membarrier: assumed to be the longest time between an event's stamp and its place."""


class Grace:
    """Keeps ``floor_ns`` up to date on a thread: every event with a smaller time is in its buffer."""

    def __init__(self) -> None:
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._number = _NUMBER.get(platform.machine(), -1)
        self._stop = threading.Event()
        self._floor = 0
        self.exact = self.wait()
        """Whether membarrier works here; else the floor lags by SLACK_NS."""
        self._thread = threading.Thread(target=self._run, name="grace", daemon=True)
        if self.exact:
            self._thread.start()

    @property
    def floor_ns(self) -> int:
        """CLOCK_MONOTONIC."""
        return self._floor if self.exact else time.monotonic_ns() - SLACK_NS

    def wait(self) -> bool:
        """Let every CPU pass through; whether that worked."""
        before = time.monotonic_ns()
        if self._number < 0 or self._libc.syscall(self._number, _MEMBARRIER_GLOBAL, 0, 0) != 0:
            return False
        self._floor = max(self._floor, before)
        return True

    def _run(self) -> None:
        while not self._stop.wait(EVERY_S):
            self.wait()

    def close(self) -> None:
        """End the thread."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join(1.0)
