"""Names of kernel addresses from the text of ``/proc/kallsyms``, for display on the host itself.

A trace does not need this: its collector resolves its addresses at the end and stores the names.
"""

from __future__ import annotations

from bisect import bisect_right
from pathlib import Path

KALLSYMS = Path("/proc/kallsyms")
FARTHEST = 1 << 20
"""No function is larger: an address farther behind a symbol has no name."""
_TEXT = (b"t", b"T", b"w", b"W")


class KernelSymbols:
    """Text symbols by address."""

    def __init__(self, text: bytes) -> None:
        fields = (line.split(None, 3) for line in text.splitlines())
        pairs = sorted((int(f[0], 16), f[2].decode(errors="replace")) for f in fields if len(f) > 2 and f[1] in _TEXT)
        if pairs and not pairs[-1][0]:
            pairs = []  # kernel.kptr_restrict: every address is 0
        self._starts = [start for start, _ in pairs]
        self._names = [name for _, name in pairs]

    @classmethod
    def of_this_host(cls, path: Path = KALLSYMS) -> KernelSymbols:
        """This kernel's symbols; none where the file is absent or hides the addresses."""
        try:
            return cls(path.read_bytes())
        except OSError:
            return cls(b"")

    def __len__(self) -> int:
        return len(self._starts)

    def name(self, address: int) -> str | None:
        """Function of a return address (of the call before it); None when it is in none."""
        at = bisect_right(self._starts, address - 1) - 1
        if at < 0 or address - self._starts[at] > FARTHEST:
            return None
        return self._names[at]
