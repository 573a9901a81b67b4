# SPDX-License-Identifier: GPL-2.0-only
"""Calls of the bulk page allocator, recorded at the function itself, since its fast path fires no tracepoint.

``__alloc_pages_bulk`` (since 5.13) and ``alloc_pages_bulk_noprof`` (since 6.10) hand out pages of order 0 from a
per-CPU list; only a page that they fetch the ordinary way fires ``mm_page_alloc`` (mm/page_alloc.c). Two programs:
one at the entry keeps what was asked, one at the return makes the record. Through kprobes where there are any (no
type information needed), else through fentry and fexit (BTF and function tracing needed).

- *Pairing.* A call is named by the address of its stack frame (for fentry: of the trampoline's argument area), which
  no other running call shares, whatever sleeps, migrates, nests or interrupts. A return whose entry was missed is
  recorded without ``requested`` and gfp (FLAG_NO_ENTRY); an entry whose return was missed is overwritten by the next
  call in its place. Missed returns (a kretprobe has a limited number of instances) are entries minus returns.
- *What was there before.* The array variant counts entries that the caller had filled. Those among the first
  ``ENTRIES_READ`` are counted at the entry and taken off both numbers, so ``requested`` and ``returned`` are new
  pages.
- *Pages with a row of their own.* The allocator goes the ordinary way (``mm_page_alloc`` fires) for at most one page,
  and only when its lists gave none: so a call that returned one page has an ``alloc`` row as well, and the unseen
  pages are those of the calls that returned more.

Where arguments are comes from BTF, else from the function's name; which function there is, from /proc/kallsyms.
"""

from __future__ import annotations

import contextlib
import ctypes
import platform
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from collectors import btf, cbulk
from collectors.cbulk import ENTRIES_READ, ENTRY_FUNCTION, EXIT_FUNCTION, FENTRY, KPROBE, MACHINES, Target
from collectors.tracepoints import Probe, tracefs_root

SYMBOLS = ("alloc_pages_bulk_noprof", "__alloc_pages_bulk")
"""The allocator itself; its wrappers call it (perhaps several times), so they are not probed."""
_MARKS = (b"bpf_trampoline_link_prog", b"rethook_trampoline", b"kretprobe_trampoline", b"return_to_handler")
_TRAMPOLINES = ("arch_rethook_trampoline", "__kretprobe_trampoline", "kretprobe_trampoline", "return_to_handler")
"""What tracers put in the place of a return address."""


@dataclass
class Host:
    """What the choice depends on, with places that a test can replace."""

    kallsyms: Path = Path("/proc/kallsyms")
    btf: Path = btf.VMLINUX
    perf_kprobe: Path = Path("/sys/bus/event_source/devices/kprobe/type")
    machine: str = field(default_factory=platform.machine)
    tracefs: Path | None = field(default_factory=tracefs_root)

    def functions(self) -> dict[str, tuple[int, int]]:
        """Name -> [start, end) of the text symbols whose name says bulk allocation, of tracers' trampolines, and of
        what tells whether programs can be attached to functions; the address is 0 where the kernel hides it."""
        found: dict[str, tuple[int, int]] = {}
        waiting: list[tuple[str, int]] = []
        with self.kallsyms.open("rb") as file:
            for line in file:
                if waiting:
                    address = int(line.split(None, 1)[0], 16)
                    if address != waiting[0][1]:
                        found.update({name: (start, max(start, address)) for name, start in waiting})
                        waiting = []
                if b"alloc_pages_bulk" in line or any(word in line for word in _MARKS):
                    parts = line.split()
                    if parts[1] in b"tT" and not parts[2].startswith((b"__pfx_", b"__cfi_")):
                        waiting.append((parts[2].decode(), int(parts[0], 16)))
        found.update({name: (start, start) for name, start in waiting})
        return found

    def traceable(self, symbol: str) -> bool:
        """Whether the kernel can patch the function's entry."""
        if self.tracefs is None:
            return False
        try:
            with (self.tracefs / "available_filter_functions").open() as file:
                return any(line.split()[:1] == [symbol] for line in file)
        except OSError:
            return False


def find_target(host: Host, functions: dict[str, tuple[int, int]]) -> Target | None:
    """The bulk allocator of this kernel; None when it has none (before 5.13) or hides its symbols."""
    symbol = next((s for s in SYMBOLS if s in functions), None)
    if symbol is None:
        return None
    inside = [r for name, r in functions.items() if "alloc_pages_bulk" in name and r[1] > r[0]]
    trampolines = [r for name, r in functions.items() if name in _TRAMPOLINES and r[1] > r[0]]
    names = btf.parameters(symbol, host.btf)
    if names is not None and {"gfp", "nr_pages"} <= set(names):
        array = names.index("page_array") if "page_array" in names else None
        return Target(symbol, inside, trampolines, names.index("gfp"), names.index("nr_pages"), array, len(names))
    # (gfp, preferred_nid, nodemask, nr_pages, page_list, page_array); without page_list since 6.14. Which of the two
    # can only be told from what the wrappers are called.
    array = 5 if symbol == "__alloc_pages_bulk" or "alloc_pages_bulk_array_mempolicy_noprof" in functions else None
    if "alloc_pages_bulk_mempolicy_noprof" in functions:
        array = 4
    return Target(symbol, inside, trampolines, array=array)


def choose(host: Host | None = None) -> tuple[str, str, Target | None]:
    """How this host's bulk allocator can be watched: ``kprobe``, ``fentry`` or nothing; the reason; the function."""
    host = host or Host()
    try:
        functions = host.functions()
    except OSError as error:
        return "", f"{host.kallsyms} not read: {error.strerror or error}", None
    target = find_target(host, functions)
    if target is None:
        return "", "the kernel has no function alloc_pages_bulk", None
    if host.machine not in MACHINES:
        return "", f"registers of {host.machine} are not known", None
    events = host.tracefs is not None and (host.tracefs / "kprobe_events").exists()
    if host.perf_kprobe.exists() or events:
        return KPROBE, f"kprobes on {target.symbol}", target
    no_kprobes = "the kernel has no kprobes"
    if target.arguments is None:
        return "", f"{no_kprobes}, and for fentry no BTF that describes {target.symbol}", None
    if "bpf_trampoline_link_prog" not in functions:
        return "", f"{no_kprobes}, and no BPF trampolines for fentry", None
    if not host.traceable(target.symbol):
        return "", f"{no_kprobes}, and for fentry no function tracing of {target.symbol}", None
    return FENTRY, f"fentry on {target.symbol}", target


def available() -> tuple[str, str]:
    """``kprobe``, ``fentry``, or "" when this host cannot show its bulk allocator; and the reason in words."""
    tap, reason, _target = choose()
    return tap, reason


class BulkProbe:
    """The two programs: their C, attached and detached, and what they missed."""

    def __init__(self, tap: str, target: Target, machine: str | None = None) -> None:
        self.tap = tap
        self.target = target
        self.probe = Probe(f"{tap}:{target.symbol}", "bulk", "bulk", "bulk", {})
        """Its entry in hello; the record's kind."""
        self._machine = machine or platform.machine()
        self._bpf: Any = None

    def source(self, kind: int, conditions: Sequence[str] = ()) -> str:
        """C of maps, functions and both programs. ``kind``: number of the lane. ``conditions``: statements that
        leave the program unless the call is wanted; in scope are ``s``, ``pid``, ``gfp``, ``requested`` and
        ``found``."""
        return cbulk.source(self.tap, self.target, self._machine, kind, conditions)

    # ------------------------------------------------------------ life
    def attach(self, bpf: Any) -> int:
        """Attach to a loaded bcc.BPF that holds ``source``; file descriptor of the program at the return.

        What bcc raises when the kernel refuses comes through.
        """
        self._bpf = bpf
        if self.tap == FENTRY:
            # BCC attached both when it loaded the source, and would have raised.
            return int(bpf.funcs[next(iter(bpf.kfunc_exit_fds))].fd)
        # The return first: handlers of one place run from the newest to the oldest, and the return's own replaces
        # the return address, which the entry's reads.
        symbol = self.target.symbol.encode()
        bpf.attach_kretprobe(event=symbol, fn_name=EXIT_FUNCTION.encode())
        bpf.attach_kprobe(event=symbol, fn_name=ENTRY_FUNCTION.encode())
        return int(bpf.funcs[EXIT_FUNCTION.encode()].fd)

    def detach(self) -> None:
        """Detach what is attached; nothing happens when nothing is."""
        if self._bpf is None:
            return
        if self.tap == FENTRY:
            for name in list(self._bpf.kfunc_entry_fds):
                self._bpf.detach_kfunc(name)
            for name in list(self._bpf.kfunc_exit_fds):
                self._bpf.detach_kretfunc(name)
            return
        symbol = self.target.symbol.encode()
        with contextlib.suppress(Exception):  # bcc raises bare Exception for what is not attached
            self._bpf.detach_kprobe(symbol, ENTRY_FUNCTION.encode())
        with contextlib.suppress(Exception):
            self._bpf.detach_kretprobe(symbol, EXIT_FUNCTION.encode())

    def counts(self) -> tuple[int, int]:
        """Entries and returns that the programs saw, over all CPUs, since they were attached."""
        per_cpu = self._bpf[b"bulk_counts"][ctypes.c_int(0)]
        seen = list(per_cpu)
        return sum(int(x.entries) for x in seen), sum(int(x.exits) for x in seen)

    def missed(self, before: tuple[int, int]) -> int:
        """Calls whose return was not seen since ``before`` (an earlier ``counts()``), whatever the reason; calls that
        are still running count as such. Calls of which neither was seen are not known here."""
        if self._bpf is None:
            return 0
        now = self.counts()
        return max(0, (now[0] - before[0]) - (now[1] - before[1]))

    def describe(self) -> dict[str, Any]:
        """For hello: the function, how it is tapped, and where its arguments come from."""
        target = self.target
        return {
            "function": target.symbol,
            "tap": self.tap,
            "arguments": {"gfp": target.gfp, "nr_pages": target.wanted, "page_array": target.array},
            "known_by": target.known_by,
            "entries_read": ENTRIES_READ if target.array is not None else 0,
        }


def bulk_probe(host: Host | None = None) -> tuple[BulkProbe | None, str]:
    """A probe for this host, or None and why there is none."""
    host = host or Host()
    tap, reason, target = choose(host)
    return (BulkProbe(tap, target, host.machine), reason) if target is not None else (None, reason)
