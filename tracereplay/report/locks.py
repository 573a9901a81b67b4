"""What a report says of locks: the longest sections under them, and what CPUs wait for them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tracereplay.report.numbers import UNKNOWN, count, figure, seconds, share

Lines = tuple[tuple[str, ...], ...]
"""What it is, then its value for each strategy."""
NOTABLE = 0.01
"""Share of acquisitions that must find a lock taken before there is waiting to speak of."""


def section_lines(rows: Sequence[Mapping[str, Any]], unit: str) -> Lines:
    """The longest sections in work units, each with its price where the profile has one."""
    found = [row.get("sections") for row in rows]
    if not found or not all(found):
        return ()
    some = [s for s in found if s]
    lines: list[tuple[str, ...]] = []
    for name, key in ((f"pcp lock ({some[0]['pcp']['lock']})", "pcp"), ("interrupts off", "interrupts_off")):
        lines.append((name, *(count(s[key]["work"]) for s in some)))
        if all(s[key].get("cost") is not None for s in some):
            lines.append((f"  {unit}", *(figure(s[key]["cost"]) for s in some)))
    lines.append(("pages of a drain", *(count(s["interrupts_off"]["longest_drain_pages"]) for s in some)))
    if all(s["interrupts_off"].get("longest_drain_cost") is not None for s in some):
        lines.append((f"  {unit}, at least", *(figure(s["interrupts_off"]["longest_drain_cost"]) for s in some)))
    return tuple(lines)


def contention_lines(rows: Sequence[Mapping[str, Any]]) -> Lines:
    """Waits at each strategy's busiest zone lock, and the time spun; nothing where there are none to speak of."""
    found = [row.get("contention") or {} for row in rows]
    if not any(_notable(c) for c in found):
        return ()
    busiest = [max(c.get("locks") or [{}], key=lambda lock: lock.get("spin_total", 0.0)) for c in found]
    slots = [lock.get("busiest_slot") or {} for lock in busiest]
    slot = seconds(found[0].get("slot_ns"))
    return (
        ("zone lock", *(lock.get("lock", UNKNOWN).replace(", node ", " ") for lock in busiest)),
        ("in use", *(share(lock.get("utilisation"), 1) for lock in busiest)),
        (f"busiest {slot}", *(share(s.get("utilisation"), 1) for s in slots)),
        ("found taken", *(share(lock.get("contended"), 1) for lock in busiest)),
        ("mean wait", *(seconds(lock.get("wait_mean")) for lock in busiest)),
        ("99 % wait less than", *(seconds(lock.get("wait_p99")) for lock in busiest)),
        ("CPU time spun", *(seconds(c.get("spin_total")) for c in found)),
        ("of targeted", *(seconds(c.get("spin_targeted")) for c in found)),
        ("share of cost", *(share(c.get("share_of_cost"), 1) for c in found)),
    )


def contention_note(rows: Sequence[Mapping[str, Any]]) -> str:
    """What is said where there are no such lines."""
    found = [c for row in rows if (c := row.get("contention"))]
    if not found or any(_notable(c) for c in found):
        return ""
    if reason := next((c["reason"] for c in found if "reason" in c), ""):
        return f"Waiting at zone locks is not reckoned: {reason}."
    most = max((lock["contended"] for c in found for lock in c["locks"]), default=0.0)
    spun = max(c["spin_total"] for c in found)
    told = "no acquisition meets another" if most == 0 else f"at most {share(most, 1)} of acquisitions find one taken"
    return f"Zone locks: no waiting to speak of ({told}; {seconds(spun)} of CPU time)."


def _notable(contention: Mapping[str, Any]) -> bool:
    return any(lock["contended"] >= NOTABLE for lock in contention.get("locks") or ())
