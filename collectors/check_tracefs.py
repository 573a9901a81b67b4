# SPDX-License-Identifier: GPL-2.0-only
"""Whether a capture can go through a private instance of tracefs: tried for real, with one that is removed at once."""

from __future__ import annotations

from pathlib import Path

from collectors import hostfacts
from collectors.errors import CollectorError
from collectors.finding import TRACEFS, Finding
from collectors.tracefs_grace import SLACK_NS, Grace
from collectors.tracefs_instance import Instance, leftovers, remove_leftovers

_TRIAL_KIB = 64
_NAME = "tracefs instance"


def check_leftovers(tracefs: Path) -> Finding:
    """Remove what collectors that were killed have left, and say so."""
    removed = remove_leftovers(tracefs)
    running = [path.name for path in leftovers(tracefs)]
    parts = []
    if removed:
        parts.append(f"removed {', '.join(removed)}, left by a collector that was killed")
    if running:
        parts.append(f"in use: {', '.join(running)}")
    return Finding("leftover instances", "; ".join(parts) or "none", "none", True)


def check_instance(tracefs: Path) -> Finding:
    """Make an instance with a clock, a filter and an event of its own, open its buffers, remove it."""
    needed = "private instances with clock mono and raw pages"
    try:
        trial = Instance(tracefs, _TRIAL_KIB)
    except CollectorError as error:
        return _refused(error, needed)
    try:
        trial.enable("kmem:mm_page_alloc", "order == 0")
        cpus = hostfacts.cpus("online")
        for cpu in cpus:
            trial.add_cpu(cpu)
        pages = trial.page_bytes
    except CollectorError as error:
        return _refused(error, needed)
    finally:
        trial.close()
    if trial.path.exists():
        return Finding(
            "tracefs instance",
            f"{trial.path} cannot be removed",
            needed,
            False,
            "",
            "close what has it open",
            (TRACEFS,),
        )
    return Finding("tracefs instance", f"made and removed, {len(cpus)} buffers of pages of {pages} bytes", needed, True)


def _refused(error: CollectorError, needed: str) -> Finding:
    return Finding(_NAME, error.message, needed, False, "", error.hint or "run as root", (TRACEFS,))


def check_grace() -> Finding:
    """membarrier, by which the fallback knows up to which time its buffers are complete."""
    grace = Grace()
    grace.close()
    return Finding(
        "membarrier",
        "works" if grace.exact else "refused",
        "optional",
        grace.exact,
        f"through tracefs, events that come later than {SLACK_NS // 1_000_000} ms are moved in time",
        "a kernel with CONFIG_MEMBARRIER, without nohz_full=; in a container, allow membarrier()",
    )
