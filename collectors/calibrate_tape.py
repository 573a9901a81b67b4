# SPDX-License-Identifier: GPL-2.0-only
"""A tape of time stamps: programs on raw tracepoints note when this process passed, one tape per CPU, no system call.

A program looks whether its CPU is to be watched and whether the task is the one that asked; if so it takes the time
and writes 16 bytes to the CPU's part of an array that Python maps. Starting and stopping are stores to mapped
memory, so nothing of the recording happens between the events that are timed, but the programs themselves. What
those cost is found by running the same call with and without some of them.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import struct
from collections.abc import Iterable
from string import Template
from typing import Any

from collectors.errors import ProbeUnavailableError

EVENTS = {
    "E": ("sys_enter", "0", "0"),
    "X": ("sys_exit", "0", "0"),
    "K": ("kmalloc", "0", "0"),
    "R": ("kfree", "0", "0"),
    "A": ("mm_page_alloc", "ctx->args[1]", "ctx->args[0]"),
    "F": ("mm_page_free", "ctx->args[1]", "ctx->args[0]"),
    "Z": ("mm_page_alloc_zone_locked", "ctx->args[1]", "ctx->args[0]"),
    "D": ("mm_page_pcpu_drain", "ctx->args[1]", "ctx->args[0]"),
}
"""Letter -> tracepoint, order and struct page of its event. The letter is how samples name it."""
MAX_CPUS = 8192
RECORDS = 32768
"""Of one recording; what comes later is not noted."""

_SOURCE = """\
/* SPDX-License-Identifier: GPL-2.0-only */
struct tape_gate { u32 pid; u32 n; };
struct tape_record { u64 ns; u64 what; };
BPF_F_TABLE("array", u32, struct tape_gate, gates, ${cpus}, 1024 /* BPF_F_MMAPABLE */);
BPF_F_TABLE("array", u32, struct tape_record, tape, ${records}, 1024);
static __always_inline int note(u64 kind, u64 order, u64 page) {
    u32 cpu = bpf_get_smp_processor_id();
    struct tape_gate *g = gates.lookup(&cpu);
    if (!g || g->pid != (u32)bpf_get_current_pid_tgid())
        return 0;
    u64 now = bpf_ktime_get_ns();
    u32 i = g->n;
    struct tape_record *r = tape.lookup(&i);
    if (!r)
        return 0;
    g->n = i + 1;
    r->ns = now;
    r->what = kind << 56 | (order & 0xff) << 48 | (page >> 6 & 0xffffffffffULL);
    return 0;
}
"""
_PROGRAM = """\
int tr_tape_${letter}(struct bpf_raw_tracepoint_args *ctx) { return note('${letter}', ${order}, ${page}); }
"""
_GATE = struct.Struct("=II")
_RECORD = struct.Struct("=QQ")


def source() -> str:
    """The C source of all programs."""
    parts = [Template(_SOURCE).substitute(cpus=MAX_CPUS, records=RECORDS)]
    for letter, (_event, order, page) in EVENTS.items():
        parts.append(Template(_PROGRAM).substitute(letter=letter, order=order, page=page))
    return "".join(parts)


class Tape:
    """The loaded programs, none attached. Raises CollectorError, BccUnavailableError, PrivilegeError."""

    def __init__(self) -> None:
        from collectors.kernel import compile_programs, import_bcc

        bcc = import_bcc()
        self._lib = __import__("bcc.libbcc", fromlist=["lib"]).lib
        self._bpf = compile_programs(source())
        self._functions = {
            letter: self._bpf.load_func(b"tr_tape_" + letter.encode(), bcc.BPF.RAW_TRACEPOINT) for letter in EVENTS
        }
        self._links: dict[str, int] = {}
        self._gates = self._map("gates", MAX_CPUS * _GATE.size)
        self._tape = self._map("tape", RECORDS * _RECORD.size)

    def _map(self, name: str, size: int) -> mmap.mmap:
        page = mmap.PAGESIZE
        rounded = -(-size // page) * page
        return mmap.mmap(self._bpf[name.encode()].map_fd, rounded, mmap.MAP_SHARED, mmap.PROT_READ | mmap.PROT_WRITE)

    def attach(self, letters: Iterable[str]) -> None:
        """Attach exactly these programs; others are detached. Raises ProbeUnavailableError."""
        wanted = set(letters)
        for letter in sorted(set(self._links) - wanted):
            os.close(self._links.pop(letter))
        for letter in sorted(wanted - set(self._links)):
            event = EVENTS[letter][0]
            link = self._lib.bpf_attach_raw_tracepoint(self._functions[letter].fd, event.encode())
            if link < 0:
                raise ProbeUnavailableError(
                    f"the kernel refuses the raw tracepoint {event}", "see `tracereplay doctor`"
                )
            os.set_inheritable(link, False)
            self._links[letter] = link

    def start(self, cpu: int) -> None:
        """Note the events of this process on a CPU from now on."""
        _GATE.pack_into(self._gates, cpu * _GATE.size, os.getpid(), 0)

    def stop(self, cpu: int) -> dict[str, Any]:
        """What was noted: ``k`` letters, ``o`` orders (one hexadecimal digit each), ``t`` ns since the first, ``p``
        numbers of the pages (relative, but aligned as the pages are)."""
        _pid, n = _GATE.unpack_from(self._gates, cpu * _GATE.size)
        _GATE.pack_into(self._gates, cpu * _GATE.size, 0, 0)
        kinds, orders, times, pages = [], [], [], []
        for ns, what in _RECORD.iter_unpack(self._tape[: min(n, RECORDS) * _RECORD.size]):
            kinds.append(chr(what >> 56))
            orders.append("0123456789abcdef"[min(what >> 48 & 0xFF, 15)])
            times.append(ns)
            pages.append(what & 0xFFFFFF)
        return {"k": "".join(kinds), "o": "".join(orders), "t": [t - times[0] for t in times], "p": pages}

    def close(self) -> None:
        """Detach all. The kernel frees programs and maps with the last descriptor."""
        with contextlib.suppress(OSError):
            self.attach(())
