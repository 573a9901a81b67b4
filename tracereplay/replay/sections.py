"""How long per-CPU lists stay locked at once, and how long interrupts are off (M. Gorman, J. Brouer, 2021-03-12).

The machine keeps what the longest section of its kind consisted of, in work units (layout.py, SECTIONS), whoever caused
it. A refill runs under the zone lock, inside the pcp lock, with interrupts off in every generation; the rest of a
section has interrupts off as the protection of the lists says (page-allocator.md 3.9).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tracereplay.kernel.generations import PCP_LOCKS
from tracereplay.machine.layout import SECTION_BULK, SECTION_DRAIN, SECTION_PARTS, SECTION_REFILL, SECTION_WORK

if TYPE_CHECKING:
    from tracereplay.machine.layout import Machine


def longest(machine: Machine, kind: int) -> dict[str, int]:
    """Parts of the longest section of a kind, in work units, and ``work``, their sum."""
    first = kind + SECTION_WORK
    parts = {name: int(machine.w[first + 1 + k]) for k, name in enumerate(SECTION_PARTS)}
    return {"work": int(machine.w[first]), **parts}


def sections(machine: Machine, protection: str) -> dict[str, Any]:
    """The ``sections`` of a result: longest hold of a pcp lock, and longest stretch with interrupts off.

    ``pcp``: the longest section that allocates: that of a bulk call, or a refill and the one page unlinked after it.
    ``interrupts_off``: the same where interrupts are off under the lock, else the longest refill. Drains, which have
    them off everywhere, are apart. Without a lock (llist) there is no section but that of the zone lock.
    """
    refill = longest(machine, SECTION_REFILL)
    bulk = longest(machine, SECTION_BULK)
    single = dict(refill)
    if refill["work"]:
        single["unlinked"] += 1
        single["work"] += 1
    allocation = max(bulk, single, key=lambda section: section["work"])
    drain = int(machine.w[SECTION_DRAIN])
    return {
        "pcp": {"lock": protection, **(longest_of_nothing() if protection == "llist" else allocation)},
        "interrupts_off": {**(allocation if PCP_LOCKS[protection] else refill), "longest_drain_pages": drain},
    }


def longest_of_nothing() -> dict[str, int]:
    """A section that does not exist."""
    return {"work": 0, **dict.fromkeys(SECTION_PARTS, 0)}
