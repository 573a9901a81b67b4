"""Loads: demand at a stated rate that no trace recorded, such as a million pointers a second to kvfree_rcu on 8 CPUs.

A load is a frozen dataclass of whole numbers whose fields are what ``--load NAME:key=value,...`` takes. It says when
each CPU asks for pages and when each page comes back; loaded.py puts that into a demand stream.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, ClassVar, Self

import numpy as np
import numpy.typing as npt

from tracereplay.errors import ParameterError, nearest

SECOND = 1_000_000_000
MOST_CPUS = 1024
I64 = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Asked:
    """Requests of a load on one CPU, all of the same number of pages."""

    ts_ns: I64
    """Arrivals, [request], ascending."""
    frees: I64
    """When the pages come back, ns, [request, page], ascending throughout and later than the arrival."""
    cpus: npt.NDArray[np.int16]
    """On which CPU each comes back, [request, page]."""

    def split(self, ts_ns: int) -> tuple[Asked, Asked]:
        """Requests up to a time, and the rest."""
        n = int(np.searchsorted(self.ts_ns, ts_ns, side="right"))
        return (
            Asked(self.ts_ns[:n], self.frees[:n], self.cpus[:n]),
            Asked(self.ts_ns[n:], self.frees[n:], self.cpus[n:]),
        )


def load_field(default: int, *, unit: str, low: int, high: int, doc: str) -> Any:
    """Declare a parameter of a load: default, unit, range, and what it is."""
    meta = MappingProxyType({"unit": unit, "low": low, "high": high, "doc": doc})
    return dataclasses.field(default=default, metadata=meta)


@dataclass(frozen=True)
class Load:
    """Base of every load: M CPUs that ask alike, each shifted against the last."""

    name: ClassVar[str]
    gfp: ClassVar[int]
    """Mask of its requests, as a strategy without a cache of its own uses it."""

    cpus: int = load_field(
        0, unit="CPUs", low=0, high=MOST_CPUS, doc="CPUs that ask, from the first on; 0: all that the trace names"
    )

    def __post_init__(self) -> None:
        """Raises ParameterError for a value outside its range."""
        for field in dataclasses.fields(self):
            value, low, high = getattr(self, field.name), field.metadata["low"], field.metadata["high"]
            if not low <= value <= high:
                raise ParameterError(
                    f"load {self.name}: {field.name} cannot be {value}",
                    hint=f"it takes {low}..{high} ({field.metadata['unit']})",
                )

    def asked(self, cpu: int, start_ns: int, end_ns: int) -> Iterator[Asked]:
        """Requests of a CPU that arrive from ``start_ns`` up to ``end_ns``, in order, some thousand pages at a time."""
        raise NotImplementedError

    def most_live(self, cpu: int, start_ns: int, end_ns: int) -> int:
        """Pages of a CPU that are out at one time at most; an upper bound will do."""
        parts = list(self.asked(cpu, start_ns, end_ns))
        if not parts:
            return 1
        ts = np.concatenate([part.ts_ns for part in parts])
        frees = np.concatenate([part.frees.ravel() for part in parts])
        given = np.arange(1, len(ts) + 1) * parts[0].frees.shape[1]
        return int((given - np.searchsorted(frees, ts, side="left")).max())

    def pages_per_s(self) -> int:
        """Pages asked for a second on all CPUs, about."""
        raise NotImplementedError

    def on(self, cpus: int) -> Self:
        """The load with its number of CPUs settled: its own, else ``cpus``."""
        return dataclasses.replace(self, cpus=self.cpus or cpus)

    def values(self) -> dict[str, int]:
        """Parameter values, for provenance."""
        return {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}


def share_of(things: int, percent: int, first: int) -> npt.NDArray[np.bool_]:
    """Which of so many consecutive things, the ``first``-th on, are among an even ``percent`` of all."""
    return np.diff(np.arange(first, first + things + 1, dtype=np.int64) * percent // 100) > 0


def parse_load(text: str, known: Mapping[str, type[Load]]) -> Load:
    """A load of ``NAME`` or ``NAME:key=value,...``. Raises ParameterError: unknown name or key, bad value."""
    name, _, tail = text.partition(":")
    if name not in known:
        guess = nearest(name, known)
        listing = f"loads: {', '.join(known)}"
        raise ParameterError(f"unknown load {name!r}", hint=f"did you mean {guess!r}? {listing}" if guess else listing)
    fields = {field.name: field for field in dataclasses.fields(known[name])}
    values = {}
    for item in filter(None, tail.split(",")):
        key, _, value = (part.strip() for part in item.partition("="))
        if key not in fields:
            guess = nearest(key, fields)
            listing = f"it has: {', '.join(fields)}"
            raise ParameterError(
                f"load {name} has no parameter {key!r}", hint=f"did you mean {guess!r}? {listing}" if guess else listing
            )
        try:
            values[key] = int(value)
        except ValueError:
            meta = fields[key].metadata
            raise ParameterError(
                f"load {name}: {key} cannot be {value!r}",
                hint=f"it takes {meta['low']}..{meta['high']} ({meta['unit']})",
            ) from None
    return known[name](**values)
