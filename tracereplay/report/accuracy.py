"""How well the machine does what the kernel did: on this trace where that was checked, else on captures of its kernel.

Refills and drains as precision and recall, frames as the share that the machine named exactly (docs/verify.md). The
captures are those of docs/accuracy.md whose free pages were known at the start; ``accuracy.json`` sums them up.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from typing import Any

from tracereplay.report.data import Fact
from tracereplay.report.numbers import UNKNOWN, count, share

NAMES = {"refill": "refills", "drain": "drains"}
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
        f"machine as a {document['generation']} kernel, on this trace: {', '.join(said)}",
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


def of_captures(generations: Sequence[str], why: str) -> Accuracy:
    """From this project's captures of the machine's generations. ``why``: the trace itself was not checked."""
    known: dict[str, dict[str, Any]] = json.loads(
        resources.files("tracereplay.report").joinpath("accuracy.json").read_text()
    )
    found = {name: known[name] for name in generations if name in known}
    unknown = [name for name in generations if name not in known]
    if not found:
        return Accuracy(
            f"machine: not checked on this trace ({why}), nor on captures of its kernel",
            (),
            f"The machine was checked on captures of kernels {', '.join(known)}. {_next(why)}",
        )
    said = "; ".join(f"{name}: {_medians(sums)}" for name, sums in found.items())
    if unknown:
        said += f"; {', '.join(unknown)}: never checked"
    facts = tuple(fact for name, sums in found.items() for fact in _facts(name, sums))
    return Accuracy(
        f"machine, on other captures of its kernel (medians), {said}; not checked on this trace",
        facts,
        f"This trace itself was not checked: {why}. The figures are those of this project's own captures of kernels "
        f"{', '.join(found)} (docs/accuracy.md), of other hosts and loads. {_next(why)}",
    )


def _medians(sums: Mapping[str, Any]) -> str:
    pairs = [
        f"{text} {share(sums[f'{key}_precision'][1], 1)} / {share(sums[f'{key}_recall'][1], 1)}"
        for key, text in NAMES.items()
    ]
    return ", ".join([*pairs, f"frames {share(sums['exact'][1], 1)}"])


def _facts(generation: str, sums: Mapping[str, Any]) -> list[Fact]:
    rows = [(f"{text}, {kind}", f"{key}_{kind}") for key, text in NAMES.items() for kind in ("precision", "recall")]
    captures = f"{count(sums['captures'])} captures, {count(sums['allocations'])} allocations"
    return [
        Fact(f"kernel {generation}", captures),
        *(
            Fact(text, share(middle, 1), f"median; {share(low, 1)} to {share(high, 1)}")
            for text, key in [*rows, ("frames", "exact")]
            for low, middle, high in [sums[key]]
        ),
    ]


def _next(why: str) -> str:
    if "events" in why or "snapshot" in why:
        return "A capture with --events page,buddy can be checked."
    return "To check it: tracereplay verify TRACE -o check.json, then tracereplay report --verified check.json."
