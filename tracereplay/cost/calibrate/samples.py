"""What ``collectors calibrate`` wrote: lines of JSON, grouped by round, load, mode and key.

A *tape* is ``{"k": letters, "o": orders, "t": ns, "p": pages}``, one entry per event: E and X enter and leave a
system call, K and R are kmalloc and kfree, A and F a block allocated and freed, Z a block taken from the buddy
lists under the zone lock, D a page drained from a per-CPU list.
"""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from tracereplay.errors import CalibrationError

Floats = npt.NDArray[np.float64]
WARM_UP = 2
"""Calls at the beginning of a series that are not looked at: they fill the caches."""
_CALL = re.compile(r"E[^EX]*X")


@dataclass(frozen=True, slots=True)
class Call:
    """One system call: letters of its events and their times."""

    kinds: str
    times: Floats

    def gap(self, pattern: re.Pattern[str], first: int, second: int) -> float | None:
        """ns between two events of the first match; None without a match."""
        found = pattern.search(self.kinds)
        return float(self.times[found.start() + second] - self.times[found.start() + first]) if found else None


Block = tuple[str, str, int]
"""Load, mode, key."""


@dataclass(slots=True)
class Samples:
    """All that one calibration noted."""

    host: dict[str, Any]
    ebpf: bool
    why: str
    """Why there is no eBPF; empty where there is."""
    tight: bool = True
    rounds: dict[int, dict[Block, list[Any]]] = field(default_factory=dict)
    refused: dict[str, str] = field(default_factory=dict)
    """Load -> why this host does not allow it."""
    seconds: float = 0.0

    def raw(self, rounds: Iterable[int], block: Block) -> list[Any]:
        """Tapes (or, by the wall clock, numbers) of some rounds."""
        return [tape for r in rounds for tape in self.rounds.get(r, {}).get(block, ())]

    def calls(self, rounds: Iterable[int], block: Block, warm_up: int = WARM_UP) -> Iterator[Call]:
        """System calls of some rounds, without the first ones of each series."""
        for tape in self.raw(rounds, block):
            times = np.asarray(tape["t"], dtype=np.float64)
            for i, found in enumerate(_CALL.finditer(tape["k"])):
                if i >= warm_up:
                    yield Call(found.group(), times[found.start() : found.end()])


def read_samples(lines: Iterable[str]) -> Samples:
    """Samples from the collector's lines. Raises CalibrationError for anything else, and for a broken end."""
    samples: Samples | None = None
    rounds: dict[int, dict[Block, list[Any]]] = defaultdict(lambda: defaultdict(list))
    done = False
    for number, line in enumerate(lines, 1):
        try:
            row = json.loads(line)
            kind = row["type"]
            if kind == "hello":
                samples = Samples(row["host"], row["ebpf"], row["why"], row.get("tight", True))
            elif samples is None:
                raise ValueError("no hello before it")
            elif kind == "block":
                rounds[row["round"]][row["work"], row["mode"], row["key"]] += row["calls"]
            elif kind == "refused":
                samples.refused[row["work"]] = row["reason"]
            elif kind == "done":
                if row["error"]:
                    raise CalibrationError(
                        f"this host cannot be measured now: {row['error']}", hint="free memory first"
                    )
                samples.seconds, done = row["seconds"], True
        except (ValueError, KeyError, TypeError) as error:
            raise CalibrationError(f"line {number} is none of a calibration: {error}") from None
    if samples is None or not done:
        raise CalibrationError("the measurement broke off", hint="see `tracereplay doctor`")
    samples.rounds = {r: dict(blocks) for r, blocks in sorted(rounds.items())}
    return samples


def undisturbed(values: Sequence[float] | Floats) -> float:
    """Mean of the second to sixth tenth; NaN without values. For calls that all do the same: what others on this host
    add is never negative."""
    ordered = np.sort(np.asarray(values, dtype=np.float64))
    n = len(ordered)
    return float(ordered[n // 10 : max(1, -(-n * 6 // 10))].mean()) if n else float("nan")


def trimmed(values: Sequence[float] | Floats) -> float:
    """Mean of the middle 60 %; NaN without values. For what truly differs. (A median would see the grain of the clock,
    often 10 ns.)"""
    ordered = np.sort(np.asarray(values, dtype=np.float64))
    cut = len(ordered) // 5
    return float(ordered[cut : len(ordered) - cut].mean()) if len(ordered) else float("nan")
