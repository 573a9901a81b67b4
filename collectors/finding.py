# SPDX-License-Identifier: GPL-2.0-only
"""One finding of the host's check."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

EBPF, TRACEFS = "ebpf", "tracefs"
BOTH = (EBPF, TRACEFS)

COST = {
    EBPF: "no eBPF: captures go through tracefs, without stacks, the bulk group, filters by process or cgroup, and "
    "limits of overhead; frees and completions cannot be filtered",
    TRACEFS: "nothing to fall back on where eBPF is refused",
}
"""What a capture loses with a path, when the other one is there."""


@dataclass(frozen=True)
class Finding:
    """What was found, and what it costs when it is not as it should be."""

    name: str
    found: str
    needed: str
    ok: bool
    effect: str = ""
    """What is lost; for what stands in the way of a whole path, ``COST`` says it."""
    remedy: str = ""
    blocks: tuple[str, ...] = ()
    """The paths that cannot be taken without it."""

    def stands_in(self, path: str) -> bool:
        """Whether this keeps a capture from going that way."""
        return not self.ok and path in self.blocks

    def describe(self, path: str) -> dict[str, Any]:
        """As ``--check`` prints it, when captures take ``path`` ("" for none)."""
        effect = self.effect
        if not self.ok and self.blocks:
            lost = [COST[p] for p in self.blocks] if path else ["no capture"]
            effect = "; ".join([*([effect] if effect else []), *lost])
        return {
            "name": self.name,
            "found": self.found,
            "needed": self.needed,
            "ok": self.ok,
            "effect": "" if self.ok else effect,
            "remedy": "" if self.ok else self.remedy,
            "blocks": bool(not self.ok and self.blocks and not path),
        }


def unreadable(path: str) -> str:
    """Empty when the file can be opened and read, else why not."""
    try:
        with Path(path).open("rb") as file:
            file.read(8)
    except OSError as error:
        return error.strerror or str(error)
    return ""


def optional(name: str, path: str, effect: str, remedy: str = "") -> Finding:
    """A file that a capture can do without."""
    reason = unreadable(path)
    found = f"{path}: {reason}" if reason else "readable"
    return Finding(
        name, found, "optional", not reason, effect, remedy or "run as root; else the kernel was built without it"
    )
