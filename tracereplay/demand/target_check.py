"""Selectors that a trace cannot answer: refused with what would record the missing column."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from tracereplay.demand.stream import FROM_BIO, ON_PATH
from tracereplay.demand.target import Target
from tracereplay.errors import UsageError
from tracereplay.kernel.constants import dev_text

if TYPE_CHECKING:
    from tracereplay.trace.reader import Trace


def check_target(
    target: Target, trace: Trace, *, comms: Mapping[int, str], cgroups: Mapping[int, str], devices: Iterable[int] | None
) -> None:
    """Raises UsageError when a term can match nothing in this trace, whatever its value.

    ``devices``: those whose bios a path makes requests from; None without a path.
    """
    terms = target.alternatives
    if any(a.symbols for a in terms) and not has_stacks(trace):
        raise UsageError("no allocation of this trace has a stack", hint="symbol: needs a capture with --stacks")
    if any(a.comms for a in terms) and not comms:
        raise UsageError("this trace names no task", hint="comm: needs table tasks; `tracereplay capture` records it")
    if any(a.cgroups for a in terms) and not cgroups:
        raise UsageError(
            "no task of this trace has a cgroup",
            hint="capture anew: `tracereplay capture` records the cgroup of each task; imported text does not tell it",
        )
    if devices is None:
        if any(a.devices or a.need & (FROM_BIO | ON_PATH) for a in terms):
            raise UsageError(
                "without a path no request is made from a bio or on a path",
                hint="add --path dm-crypt, or another; `--events page,bio` captures bios",
            )
        return
    known = set(devices)
    for device in sorted({d for a in terms for d in a.devices} - known):
        listing = ", ".join(map(dev_text, sorted(known))) or "none"
        raise UsageError(
            f"the path makes no request from bios of {dev_text(device)}",
            hint=f"it does from: {listing}; --device chooses the layer",
        )


def has_stacks(trace: Trace) -> bool:
    """Whether an allocation of a trace has a recorded stack."""
    import polars as pl

    if not trace.rows("stacks") or not trace.rows("page_events"):
        return False
    found = trace.page_events.filter((pl.col("kind") == "alloc") & pl.col("stack_id").is_not_null()).head(1)
    return bool(found.select("stack_id").collect(engine="streaming").height)
