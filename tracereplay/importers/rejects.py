"""Refused lines: all counted, some kept."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from tracereplay.errors import ImportFormatError

FIRST = 5
RESERVOIR = 15
TEXT_BYTES = 200
LATE_SAMPLES = 20
"""Late rows of a batch that are sampled; all are counted."""
_SEED = 20
Array = npt.NDArray[Any]


class Rejects:
    """The first FIRST refused lines, and a seeded uniform sample of RESERVOIR of the later ones."""

    def __init__(self) -> None:
        self.count = 0
        self._first: list[dict[str, Any]] = []
        self._reservoir: list[dict[str, Any]] = []
        self._random = np.random.default_rng(_SEED)

    def add(self, line: int | None, text: bytes, reason: str) -> None:
        """One refused line; ``line`` counts from 1, None when it is not known."""
        entry = {"line": line, "text": text[:TEXT_BYTES].decode("utf-8", "backslashreplace"), "reason": reason}
        later = self.count - FIRST
        self.count += 1
        if later < 0:
            self._first.append(entry)
        elif later < RESERVOIR:
            self._reservoir.append(entry)
        elif (slot := int(self._random.integers(0, later + 1))) < RESERVOIR:
            self._reservoir[slot] = entry

    def add_late(self, ts_ns: Array, numbers: Array, what: str, reason: str) -> None:
        """Rows that came too late to be sorted in. ``what`` names one by ``{ts}`` and ``{n}``, its number."""
        for ts, n in zip(ts_ns[:LATE_SAMPLES].tolist(), numbers.tolist(), strict=False):
            self.add(None, what.format(ts=ts, n=n).encode(), reason)
        self.count += max(0, ts_ns.size - LATE_SAMPLES)

    def check_strict(self, strict: bool, name: str, places: str) -> None:
        """With ``--strict``, refuse the source ``name``. Raises ImportFormatError that names the first of its
        ``places``."""
        if strict and self.count:
            raise ImportFormatError(
                f"{name}, {first_text(self.samples())}",
                hint=f"without --strict such {places} are counted, sampled and left out",
            )

    def samples(self) -> list[dict[str, Any]]:
        """The kept lines in the order of the source."""
        return self._first + sorted(self._reservoir, key=lambda entry: (entry["line"] is None, entry["line"] or 0))

    def metadata(self) -> dict[str, Any]:
        """``rejected`` of the trace's metadata."""
        return {"lines": self.count, "samples": self.samples()}


def first_text(samples: Sequence[dict[str, Any]]) -> str:
    """The first of some samples, for an error message."""
    entry = samples[0]
    where = f"line {entry['line']}: " if entry["line"] is not None else ""
    return f"{where}{entry['reason']}: {entry['text'][:60]!r}"
