"""Which bytes of a tracefs event become which field of a record: the rules of a hello, checked against the traced
kernel's own ``format`` files.

Widths differ between kernels (``gfp_flags`` 4 or 8 bytes, ``rwbs`` 8 or 10), fields come and go; nothing is assumed but
the eight common bytes, and those are checked.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from tracereplay.errors import CollectorError
from tracereplay.trace.decode import Array, RingLayout

_FIELD = re.compile(
    r"^\s*field:(?P<decl>[^;]+);\s*offset:(?P<at>\d+);\s*size:(?P<size>\d+);\s*signed:(?P<sign>[01]);", re.M
)
_DECL = re.compile(r"(?P<name>\w+)\s*(?P<array>\[[^\]]*\])?\s*$")
_SIZES = (1, 2, 4, 8)


@dataclass(frozen=True, slots=True)
class EventField:
    """A field of an event's binary record."""

    offset: int
    size: int
    signed: bool
    text: bool
    """An array of characters."""

    @property
    def type(self) -> str:
        """NumPy type."""
        return f"S{self.size}" if self.text else f"<{'i' if self.signed else 'u'}{self.size}"


def event_fields(text: str) -> dict[str, EventField]:
    """Fields by name of a ``format`` file; empty for a text that is none. Dynamic strings are left out."""
    found: dict[str, EventField] = {}
    for match in _FIELD.finditer(text):
        name = _DECL.search(match["decl"].strip())
        if name is None or "__data_loc" in match["decl"] or "__rel_loc" in match["decl"]:
            continue
        size, text_field = int(match["size"]), name["array"] is not None
        if text_field or size in _SIZES:
            found[name["name"]] = EventField(int(match["at"]), size, match["sign"] == "1", text_field)
    return found


def _ended(values: Array) -> Array:
    """Texts without what follows their first NUL: the kernel leaves old bytes there."""
    raw = np.ascontiguousarray(values).view(np.uint8).reshape(len(values), -1)
    raw[np.logical_or.accumulate(raw == 0, axis=1)] = 0
    return raw.view(values.dtype).reshape(-1)


Fill = Callable[[Array, Array], None]
"""(records to fill, events)."""


class EventRules:
    """How one kind of event becomes records of one ring."""

    def __init__(self, probe: Mapping[str, Any], kind: int, layout: RingLayout) -> None:
        """Raises CollectorError for rules that name fields which are not there."""
        self.kind = kind
        self.event = str(probe["event"])
        self.id = int(probe["id"])
        self.ring = int(probe["ring"])
        self._layout = layout
        fields = event_fields(str(probe["format"]))
        used: dict[str, EventField] = {}

        def source(name: str) -> str:
            if name not in fields:
                raise CollectorError(f"the format of {self.event} on the traced kernel has no field {name}")
            used[name] = fields[name]
            return name

        kind_field = fields.get("common_type")
        if kind_field is None or (kind_field.offset, kind_field.size) != (0, 2):
            raise CollectorError(f"events of the traced kernel do not begin with their type ({self.event})")
        self._fills: list[Fill] = []
        copy: dict[str, str] = {"pid": "common_pid", **probe["copy"]}
        for target, name in copy.items():
            if name.endswith("?") and name[:-1] not in fields:
                continue
            self._fills.append(_copying(self._target(target), source(name.rstrip("?")), used))
        for rule in probe["packed"]:
            if rule["source"] in fields:
                fill = _packing(
                    self._target(rule["target"]), source(rule["source"]), int(rule["shift"]), int(rule["mask"])
                )
                self._fills.append(fill)
        self.size = max(f.offset + f.size for f in used.values())
        """Bytes that an event has at least."""
        self.dtype: np.dtype[Any] = np.dtype(
            {
                "names": list(used),
                "formats": [f.type for f in used.values()],
                "offsets": [f.offset for f in used.values()],
                "itemsize": self.size,
            }
        )

    def _target(self, name: str) -> str:
        if name not in self._layout.offsets:
            raise CollectorError(f"ring {self._layout.name} has no field {name}, which {self.event} fills")
        return name

    def records(self, events: Array, ts: npt.NDArray[np.int64]) -> Array:
        """Records of these events, numbered from 0; the caller moves the numbers."""
        out: Array = np.zeros(len(events), self._layout.dtype)
        out["header"] = self._layout.record_bytes
        out["ts"] = ts
        out["kind"] = self.kind
        for fill in self._fills:
            fill(out, events)
        return out


def _copying(target: str, source: str, fields: Mapping[str, EventField]) -> Fill:
    text = fields[source].text

    def fill(out: Array, events: Array) -> None:
        out[target] = _ended(events[source]) if text else events[source]

    return fill


def _packing(target: str, source: str, shift: int, mask: int) -> Fill:
    def fill(out: Array, events: Array) -> None:
        value = (events[source] != 0) if mask == 1 else events[source] & mask
        out[target] |= (value.astype(np.uint64) << shift).astype(out[target].dtype)

    return fill
