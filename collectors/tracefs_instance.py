# SPDX-License-Identifier: GPL-2.0-only
"""A private instance of ftrace: a directory under tracefs ``instances``, with buffers, clock and events of its own.

It is removed however this process ends: by itself in an orderly end, else by a guard, a forked process that waits for
this one's death. What even that leaves (both killed) is removed by the next run and by ``doctor``. The kernel itself
says whether an instance is in use: it refuses to remove one whose files are open.
"""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import time
from pathlib import Path

from collectors.errors import CollectorError, PrivilegeError
from collectors.tracepoints import parse_format

PREFIX = "tracereplay-"
CLOCK = "mono"
"""CLOCK_MONOTONIC, as the eBPF programs take it."""
_REMOVE_TRIES_S = 2.0


class InstanceError(CollectorError):
    """The kernel refuses the instance, or a setting of it."""


def leftovers(tracefs: Path) -> list[Path]:
    """Instances of collectors, running ones included."""
    try:
        return sorted((tracefs / "instances").glob(PREFIX + "*"))
    except OSError:
        return []


def remove_leftovers(tracefs: Path) -> list[str]:
    """Remove the instances that no process has open any more; their names."""
    removed = []
    for path in leftovers(tracefs):
        with contextlib.suppress(OSError):  # EBUSY: a running capture
            path.rmdir()
            removed.append(path.name)
    return removed


def parse_stats(text: str) -> dict[str, int]:
    """The counters of a ``per_cpu/cpuN/stats`` file; times are left out."""
    found = {}
    for line in text.splitlines():
        name, _, value = line.partition(":")
        if value.strip().isdigit():
            found[name.strip()] = int(value)
    return found


class Instance:
    """The instance of this process. ``close`` removes it."""

    def __init__(self, tracefs: Path, buffer_kib: int) -> None:
        """Make it, empty and switched off. Raises PrivilegeError or InstanceError."""
        self.path = tracefs / "instances" / f"{PREFIX}{os.getpid()}"
        self._pipes: dict[int, int] = {}
        self._stats: dict[int, int] = {}
        self._guard = (0, -1)
        remove_leftovers(tracefs)
        self._make()
        try:
            self._guard = _start_guard(self.path)
            self.set("tracing_on", "0")
            self.set("trace_clock", CLOCK)
            # The newest events are kept: only then does the kernel mark in the pages where it lost how many.
            self.set("options/overwrite", "1")
            self.set("buffer_size_kb", str(buffer_kib))
            self.header_page = (tracefs / "events" / "header_page").read_text()
            data = parse_format("name: header_page\n" + self.header_page).fields["data"]
            self.data_at = data.offset
            """Bytes of a page's header."""
            self.page_bytes = self._page_bytes(data.offset + data.size)
        except OSError as error:
            self.close()
            raise InstanceError(f"{self.path.name}: {error.strerror}", "see `tracereplay doctor`") from None
        except BaseException:
            self.close()
            raise

    def _make(self) -> None:
        try:
            self.path.mkdir()
        except PermissionError as error:
            raise PrivilegeError(
                f"no permission to make an instance of tracefs: {error.strerror}", "run as root"
            ) from None
        except OSError as error:
            if error.errno == errno.ENOENT:
                raise InstanceError("this tracefs has no instances", "the kernel needs CONFIG_TRACING") from None
            hint = "memory is short; use a smaller --ring-mib" if error.errno == errno.ENOMEM else ""
            raise InstanceError(f"cannot make {self.path}: {error.strerror}", hint) from None

    def _page_bytes(self, usual: int) -> int:
        """Size of a sub-buffer: a memory page, unless set otherwise (6.8 and later can)."""
        with contextlib.suppress(OSError, ValueError):
            return int((self.path / "buffer_subbuf_size_kb").read_text()) * 1024
        return usual

    def set(self, name: str, value: str) -> None:
        """Write a file of the instance. Raises InstanceError with what the kernel says."""
        try:
            (self.path / name).write_text(value)
        except OSError as error:
            hint = "memory is short; use a smaller --ring-mib" if error.errno == errno.ENOMEM else ""
            raise InstanceError(f"{self.path.name}: cannot write {value!r} to {name}: {error.strerror}", hint) from None

    def get(self, name: str) -> str:
        """A file of the instance, stripped."""
        return (self.path / name).read_text().strip()

    def enable(self, event: str, condition: str = "") -> None:
        """Switch an event on, filtered by a condition in the kernel's filter language. Raises InstanceError."""
        place = "events/" + event.replace(":", "/")
        if condition:
            self.set(f"{place}/filter", condition)
        self.set(f"{place}/enable", "1")

    def add_cpu(self, cpu: int) -> None:
        """Open the buffer of a CPU. Raises InstanceError."""
        if cpu in self._pipes:
            return
        place = self.path / "per_cpu" / f"cpu{cpu}"
        opened: list[int] = []
        try:
            opened.append(os.open(place / "stats", os.O_RDONLY))
            opened.append(os.open(place / "trace_pipe_raw", os.O_RDONLY | os.O_NONBLOCK))
        except OSError as error:
            for fd in opened:
                os.close(fd)
            raise InstanceError(f"cannot open the buffer of CPU {cpu}: {error.strerror}") from None
        self._stats[cpu], self._pipes[cpu] = opened

    @property
    def cpus(self) -> list[int]:
        """The CPUs whose buffers are open."""
        return list(self._pipes)

    def read(self, cpu: int, pages: list[memoryview]) -> int:
        """Fill pages with sub-buffers of a CPU, one each; how many came. The last may be one that is being written: its
        events so far."""
        try:
            count = os.readv(self._pipes[cpu], pages)
        except BlockingIOError:
            return 0
        return count // self.page_bytes

    def stats(self, cpu: int) -> dict[str, int]:
        """The kernel's counters of a CPU's buffer."""
        return parse_stats(os.pread(self._stats[cpu], 4096, 0).decode())

    def all_stats(self) -> dict[str, dict[str, int]]:
        """Those of all CPUs."""
        return {str(cpu): self.stats(cpu) for cpu in self._stats}

    def set_gate(self, is_open: bool) -> None:
        """Start or stop recording at one instant."""
        self.set("tracing_on", "1" if is_open else "0")

    def close(self) -> None:
        """Remove the instance, with all its events. Harmless when it is gone."""
        for fd in (*self._pipes.values(), *self._stats.values()):
            os.close(fd)
        self._pipes.clear()
        self._stats.clear()
        _remove(self.path)
        pid, pipe = self._guard
        if pipe >= 0:
            self._guard = (0, -1)
            os.close(pipe)
            with contextlib.suppress(ChildProcessError):
                os.waitpid(pid, 0)


def _remove(path: Path) -> None:
    """Remove an instance; the kernel may still be letting go of its files."""
    end = time.monotonic() + _REMOVE_TRIES_S
    while True:
        try:
            path.rmdir()
        except FileNotFoundError:
            return
        except OSError:
            if time.monotonic() > end:
                return
            time.sleep(0.02)


def _start_guard(path: Path) -> tuple[int, int]:
    """A process that removes the instance when this one dies: its pid, and the pipe whose closing tells it."""
    read_end, write_end = os.pipe()
    pid = os.fork()
    if pid:
        os.close(read_end)
        os.set_inheritable(write_end, False)
        return pid, write_end
    try:
        os.setsid()  # what is sent to the collector's group does not reach it
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)
        os.dup2(read_end, 0)
        os.closerange(1, os.sysconf("SC_OPEN_MAX"))
        while os.read(0, 1):
            pass
        _remove(path)
    finally:
        os._exit(0)
