# SPDX-License-Identifier: GPL-2.0-only
"""Names of kernel addresses, from /proc/kallsyms, so that a trace needs its host no more.

The file is read twice: first the addresses of all text symbols, as plain numbers; then the names, but only
those at addresses that were hit. A hundred thousand symbols take a megabyte so.
"""

from __future__ import annotations

import re
from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Any

TEXT_TYPES = b"tTwW"
TEXT_ENDS = (b"_etext", b"_einittext")
"""Where text ends: an address behind one of these, and before the next symbol, is in no function."""
MAX_SYMBOLS = 1_000_000
"""More is not a symbol table of a kernel; the rest is left out, and the note says so (8 MB)."""
MAX_FUNCTION_BYTES = 1 << 20
"""No function is larger: an address farther behind its symbol is in a hole, such as between modules."""
PADDING = "__pfx_"
"""What the kernel calls the patchable bytes before a function."""
RESTRICTED = (
    "/proc/kallsyms shows no addresses to this process (kernel.kptr_restrict, or no CAP_SYSLOG): "
    "stacks carry addresses without names"
)

_MARKER = re.compile(rb"(^|_)([se]|sinit|einit|exit|entry)?text(_start|_end)?$")
"""Labels of linker sections: they share the address of the section's first function."""
_GENERATED = (b".", b"__pfx_", b"__cfi_", b"__pi_")

_Rank = tuple[bool, bool, int]
_Name = tuple[str, str]


def _text_lines(file: Iterator[bytes]) -> Iterator[tuple[bytes, bytes, bytes, bytes]]:
    """(address, type, name, module with its brackets) of the text symbols and of the ends of text."""
    for line in file:
        parts = line.split(None, 3)
        if len(parts) >= 3 and (parts[1] in TEXT_TYPES or parts[2] in TEXT_ENDS):
            yield parts[0], parts[1], parts[2], parts[3].strip() if len(parts) > 3 else b""


def _rank(kind: bytes, name: bytes) -> _Rank:
    """Which of several names at one address is taken: the smallest. Functions before section labels and
    before what compilers put in front of a function; global before weak before local; then the file's order,
    which is the kernel's own."""
    return (_MARKER.search(name) is not None, name.startswith(_GENERATED), b"TWwt".find(kind))


class SymbolTable:
    """The kernel's text symbols as they are at the time of asking."""

    def __init__(self, kallsyms: Path = Path("/proc/kallsyms")) -> None:
        self._path = kallsyms

    def resolve(self, addresses: Collection[int]) -> dict[str, Any]:
        """The JSON of a SYMBOLS frame: ``symbols`` (address in decimal -> [name, offset, module or ""]) and
        ``note`` (why there are none, or fewer).

        Addresses are return addresses: they belong to the call before them, which for a call that never
        returns is in the function that ends there. Those that lie in no function are left out.
        """
        try:
            starts, ends, note = self._starts()
        except OSError as error:
            return {"symbols": {}, "note": f"{self._path} not read: {error.strerror or error}"}
        if note:
            return {"symbols": {}, "note": note}
        found = {address: at for address in addresses if (at := _function_of(address, starts, ends)) is not None}
        names = self._names(set(found.values()))
        symbols: dict[str, list[Any]] = {}
        for address, start in found.items():
            # A name can be gone by the second reading, with its module.
            if start in names:
                name, module = names[start]
                offset = address - start
                if name.startswith(PADDING) and _is_start(address, starts):
                    # No call returns from the padding before a function: its first instruction was interrupted.
                    name, offset = name[len(PADDING) :], 0
                symbols[str(address)] = [name, offset, module]
        more = len(starts) >= MAX_SYMBOLS
        return {"symbols": symbols, "note": f"only the first {MAX_SYMBOLS:,} symbols were looked at" if more else ""}

    def _starts(self) -> tuple[array[int], frozenset[int], str]:
        """Addresses of the symbols, ascending; which of them end a text; and why that is useless, if so."""
        starts = array("Q")
        ends = set()
        last = highest = 0
        ascending = True
        with self._path.open("rb") as file:
            for address, _, name, _ in _text_lines(file):
                value = int(address, 16)
                ascending = ascending and value >= last
                last, highest = value, max(highest, value)
                starts.append(value)
                if name in TEXT_ENDS:
                    ends.add(value)
                if len(starts) >= MAX_SYMBOLS:
                    break
        if not highest:
            return starts, frozenset(), RESTRICTED if starts else f"{self._path} names no function"
        # Modules and BPF programs follow the kernel in the order of their loading.
        return starts if ascending else array("Q", sorted(starts)), frozenset(ends), ""

    def _names(self, wanted: set[int]) -> dict[int, _Name]:
        """Start address -> (name, module)."""
        best: dict[int, tuple[_Rank, _Name]] = {}
        with self._path.open("rb") as file:
            for address, kind, name, module in _text_lines(file):
                value = int(address, 16)
                if value not in wanted or name in TEXT_ENDS:
                    continue
                rank = _rank(kind, name)
                if value not in best or rank < best[value][0]:
                    best[value] = rank, (name.decode("utf-8", "replace"), module.decode("utf-8", "replace").strip("[]"))
        return {start: name for start, (_, name) in best.items()}


def _is_start(address: int, starts: Sequence[int]) -> bool:
    at = bisect_left(starts, address)
    return at < len(starts) and starts[at] == address


def _function_of(address: int, starts: Sequence[int], ends: frozenset[int]) -> int | None:
    """Start of the function whose call returns to ``address``; None when there is none."""
    at = bisect_right(starts, address - 1)
    if not at:
        return None
    start = starts[at - 1]
    if start in ends or address - start > MAX_FUNCTION_BYTES:
        return None
    return start
