"""How well the machine does what the kernel did: on this trace where that was checked, else on captures of its kernel.

Refills and drains as precision and recall, frames as the share that the machine named exactly (docs/verify.md). The
captures are those of docs/accuracy.md whose free pages were known at the start; ``accuracy.json`` sums them up.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from typing import Any

from tracereplay.report.data import Fact
from tracereplay.report.numbers import UNKNOWN, count, share

FEW = 20
"""Of fewer refills or drains a share says little, and that is told."""


@dataclass(frozen=True, slots=True)
class Accuracy:
    """What is said of the machine beside a cost."""

    line: str
    """Short, for beneath each claim."""
    facts: tuple[Fact, ...]
    note: str
    """What was checked, and what that does not say."""


def of_check(document: Mapping[str, Any]) -> Accuracy:
    """Of a twin check of the trace: the document of ``verify --format json``."""
    refill, drain, pfn = document["refill"], document["drain"], document["pfn"]
    said = [_pair("refills", refill), _pair("drains", drain), f"frames {share(pfn['share'], 1)}"]
    facts = (
        Fact("refills", _both(refill), _of(refill)),
        Fact("drains", _both(drain), _of(drain)),
        Fact("fallbacks", _both(document["extfrag"]), _of(document["extfrag"])),
        Fact("frames", share(pfn["share"], 1), f"named exactly, of {count(pfn['eligible'])} allocations from lists"),
        Fact("free blocks at the end", share(document["free_blocks"]["l1_share"], 1), "off from the kernel's"),
    )
    return Accuracy(
        f"machine, on this trace: {', '.join(said)}",
        facts,
        f"The machine, a kernel {document['generation']}, got this trace's own allocations and frees and predicted "
        "what its kernel did with them (precision, recall). That tells how well it stands for this kernel when "
        "requests come as recorded; what another strategy would have done on the host itself was not recorded.",
    )


def _pair(name: str, match: Mapping[str, Any]) -> str:
    if not match["kernel"] and not match["twin"]:
        return f"no {name}"
    few = f" of {count(match['kernel'])}" if match["kernel"] < FEW else ""
    return f"{name} {_both(match)}{few}"


def _both(match: Mapping[str, Any]) -> str:
    if not match["kernel"] and not match["twin"]:
        return "none"
    return f"{_share(match['precision'])} / {_share(match['recall'])}"


def _of(match: Mapping[str, Any]) -> str:
    return f"kernel {count(match['kernel'])}, machine {count(match['twin'])}"


def _share(value: float | None) -> str:
    return UNKNOWN if value is None else share(value, 1)


def of_captures(generation: str | None, why: str) -> Accuracy:
    """From this project's captures of a kernel's generation. ``why``: the trace itself was not checked."""
    known: dict[str, dict[str, Any]] = json.loads(
        resources.files("tracereplay.report").joinpath("accuracy.json").read_text()
    )
    found = known.get(generation or "")
    if found is None:
        return Accuracy(
            f"machine: not checked on this trace ({why}), nor on captures of its kernel",
            (),
            f"The machine was checked on captures of kernels {', '.join(known)}. {_next(why)}",
        )
    names = {"refill": "refills", "drain": "drains"}
    said = [
        f"{text} {share(found[f'{key}_precision'][1], 1)} / {share(found[f'{key}_recall'][1], 1)}"
        for key, text in names.items()
    ]
    facts = [Fact("captures", count(found["captures"]), f"{count(found['allocations'])} allocations")]
    facts += [
        Fact(f"{text}, {kind}", share(middle, 1), f"median; {share(low, 1)} to {share(high, 1)}")
        for key, text in names.items()
        for kind in ("precision", "recall")
        for low, middle, high in [found[f"{key}_{kind}"]]
    ]
    low, middle, high = found["exact"]
    facts.append(Fact("frames", share(middle, 1), f"median; {share(low, 1)} to {share(high, 1)}"))
    return Accuracy(
        f"machine, on {found['captures']} other captures of {generation} kernels (median): {', '.join(said)}, frames "
        f"{share(middle, 1)}; not checked on this trace",
        tuple(facts),
        f"This trace itself was not checked: {why}. The figures are those of this project's own captures of "
        f"{generation} kernels (docs/accuracy.md), of other hosts and loads. {_next(why)}",
    )


def _next(why: str) -> str:
    if "events" in why or "snapshot" in why:
        return "A capture with --events page,buddy can be checked."
    return "To check it: tracereplay verify TRACE -o check.json, then tracereplay report --verified check.json."
