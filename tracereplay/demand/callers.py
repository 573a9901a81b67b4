"""Who allocates: callers by stack where there is one, else by task name and gfp class.

A caller is numbered when it is first seen; the number indexes ``DemandReport.callers``. What a caller tolerates
(architecture.md 3, "Original blocks") is read from its label or from its gfp mask:

- dm-crypt's ``crypt_alloc_buffer``: HIGHMEM without MOVABLE, with NORETRY and NOMEMALLOC (what both its compound
  attempt and the page mempool add), and without IO, FS, ZERO, HARDWALL and ACCOUNT; or its symbols;
- vmalloc: GFP_KERNEL with HIGHMEM, without MOVABLE and HARDWALL; or its symbols;
- user page faults: HIGHUSER_MOVABLE without WRITE and NORETRY (page cache has one of them); or ``handle_mm_fault``
  in the stack. Each fault enters the kernel by itself, so each is a request of its own;
- the user's list of labels (``--single-ok``).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase

import numpy as np

from tracereplay.demand.state import (
    CALLERS,
    CLASS_MASK,
    CRYPT,
    HASH,
    OTHER_CALLER,
    SINGLE,
    SINGLE_OK,
    UNSEEN_CALLER,
    Array,
)
from tracereplay.kernel.allocators import ALLOCATOR
from tracereplay.kernel.gfp import (
    GFP_ACCOUNT,
    GFP_BITS,
    GFP_FS,
    GFP_HARDWALL,
    GFP_HIGHMEM,
    GFP_IO,
    GFP_KERNEL,
    GFP_MOVABLE,
    GFP_NOMEMALLOC,
    GFP_NORETRY,
    GFP_RECLAIMABLE,
    GFP_ZERO,
    format_gfp,
)

UNSEEN_LABEL = "unseen (no allocation event)"
OTHER_LABEL = "other callers"
_WRITE = GFP_BITS["__GFP_WRITE"]
_USER = GFP_HIGHMEM | GFP_MOVABLE | GFP_HARDWALL

_VMALLOC = re.compile(r"^(__vmalloc_(node|area)|vm_area_alloc_pages|__vmalloc)")
_CRYPT_SYMBOLS = ("crypt_alloc_buffer", "kcryptd_crypt_write_convert", "kcryptd_crypt")
_FAULT_SYMBOLS = ("handle_mm_fault", "__handle_mm_fault")


def is_crypt_gfp(gfp: int) -> bool:
    """Whether a mask is that of a dm-crypt buffer (drivers/md/dm-crypt.c, crypt_alloc_buffer)."""
    need = GFP_HIGHMEM | GFP_NORETRY | GFP_NOMEMALLOC
    never = GFP_MOVABLE | GFP_RECLAIMABLE | GFP_ZERO | GFP_IO | GFP_FS | GFP_HARDWALL | GFP_ACCOUNT
    return gfp & need == need and not gfp & never


def is_vmalloc_gfp(gfp: int) -> bool:
    """Whether a mask is that of vmalloc's pages (mm/vmalloc.c, __vmalloc_area_node)."""
    need = GFP_KERNEL | GFP_HIGHMEM
    return gfp & need == need and not gfp & (GFP_MOVABLE | GFP_RECLAIMABLE | GFP_HARDWALL)


def is_fault_gfp(gfp: int) -> bool:
    """Whether a mask is that of a page for user space, which a fault takes."""
    return gfp & _USER == _USER and not gfp & (_WRITE | GFP_NORETRY)


TRACER = "(tracer)"
"""Name given to the tasks that recorded the trace: their requests are real and replayed, but never a target."""


def comm_group(comm: str) -> str:
    """Name that tasks of one kind share: ``kworker/u4:2`` and ``kworker/0:1H`` are both ``kworker``."""
    return re.sub(r"^([A-Za-z_.\-]+)/[0-9u].*$", r"\1", comm) or comm


class Callers:
    """The registry behind ``OP.caller``. ``flags`` is what the compiled pass reads."""

    def __init__(
        self,
        *,
        single_ok: Iterable[str] = (),
        symbols: Iterable[str] = (),
        gfp_names: dict[str, int] | None = None,
    ) -> None:
        """``single_ok``: globs of labels. ``symbols``: globs of functions; stacks that differ in which of them they
        match are callers of their own, of one label.
        """
        self.labels: list[str] = [UNSEEN_LABEL, OTHER_LABEL]
        self.comms: list[str] = ["", ""]
        self.gfps: list[int] = [0, 0]
        self.symbols: list[frozenset[str]] = [frozenset(), frozenset()]
        """Globs of functions that a caller's stack matches."""
        self.flags: Array = np.zeros(CALLERS, np.uint8)
        self.keys: Array = np.zeros(CALLERS * 4, np.int64)
        self.ids: Array = np.zeros(CALLERS * 4, np.int32)
        self._single_ok = tuple(single_ok)
        self._names = gfp_names or {}
        self._globs = tuple(symbols)
        self._by_label: dict[tuple[str, str, int, frozenset[str]], int] = {}
        self._stored = 0

    def __len__(self) -> int:
        return len(self.labels)

    def add(self, label: str, comm: str, gfp: int, flags: int, symbols: frozenset[str] = frozenset()) -> int:
        """Number of a caller, new or known. OTHER_CALLER once the table is full."""
        key = (label, comm, flags, symbols)
        known = self._by_label.get(key)
        if known is not None:
            return known
        if len(self.labels) >= CALLERS:
            return OTHER_CALLER
        if any(fnmatchcase(label, g) or fnmatchcase(comm, g) for g in self._single_ok):
            flags |= SINGLE_OK
        number = len(self.labels)
        self.labels.append(label)
        self.comms.append(comm)
        self.gfps.append(gfp)
        self.symbols.append(symbols)
        self.flags[number] = flags
        self._by_label[key] = number
        return number

    def by_gfp(self, comm: str, gfp: int) -> int:
        """Caller known by its task's name and its gfp mask only."""
        group = comm_group(comm) or "?"
        if is_crypt_gfp(gfp):
            return self.add(f"dm-crypt ({group})", group, gfp, SINGLE_OK | CRYPT)
        if is_vmalloc_gfp(gfp):
            return self.add(f"vmalloc ({group})", group, gfp, SINGLE_OK)
        if is_fault_gfp(gfp):
            return self.add(f"user fault ({group})", group, gfp, SINGLE)
        text = format_gfp(gfp & CLASS_MASK, self._names)
        return self.add(f"{group}: {text}", group, gfp, 0)

    def by_stack(self, symbols: Sequence[str | None]) -> int:
        """Caller of a stack, innermost symbol first; -1 when it has no symbols."""
        names = [s for s in symbols if s]
        if not names:
            return -1
        label = next((s for s in names if not ALLOCATOR.match(s)), names[-1])
        flags = 0
        if any(s in _FAULT_SYMBOLS for s in names):
            flags = SINGLE
        elif any(s in _CRYPT_SYMBOLS for s in names) and not any("slab" in s or "kmem" in s for s in names):
            flags = SINGLE_OK | CRYPT
        elif any(_VMALLOC.match(s) for s in names):
            flags = SINGLE_OK
        matched = frozenset(g for g in self._globs if any(fnmatchcase(s, g) for s in names))
        return self.add(label, "", 0, flags, matched)

    def store(self, key: int, caller: int) -> None:
        """Make a (comm, gfp class) key known to the compiled pass (scan.caller_of probes it)."""
        mask = len(self.keys) - 1
        if self._stored * 2 > mask:  # the table stays half empty: later keys share one caller
            caller = OTHER_CALLER
            self.keys[:] = 0
            self._stored = 0
        h = slot_of(key, mask)
        while self.keys[h] != 0:
            h = (h + 1) & mask
        self.ids[h] = caller
        self.keys[h] = key
        self._stored += 1


def slot_of(key: int, mask: int) -> int:
    """First slot of a key in a table that a compiled pass probes: its multiplication wraps at 64 bits."""
    product = key * HASH & ((1 << 64) - 1)
    if product >> 63:
        product -= 1 << 64
    return (product >> 12) & mask


assert UNSEEN_CALLER == 0
