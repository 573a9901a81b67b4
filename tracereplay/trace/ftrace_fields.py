"""Which bytes of a tracefs event become which field of a record: the rules of a hello, checked against the traced
kernel's own ``format`` files.

Widths differ between kernels (``gfp_flags`` 4 or 8 bytes, ``rwbs`` 8 or 10), fields come and go; nothing is assumed but
the eight common bytes, and those are checked.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tracereplay.errors import CollectorError
from tracereplay.trace.decode import I64, Array, RingLayout
from tracereplay.trace.ftrace_pages import Pages, field_at_words

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

    def values(self, pages: Pages, at: I64) -> Array:
        """The field of the events that begin at some words."""
        return field_at_words(pages, np.dtype(self.type), self.offset)[at]


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


Fill = Callable[[Array, "slice | Array", Pages, I64], None]
"""(records to fill, which of them, pages, index of each event's first word)."""


class EventRules:
    """How one kind of event becomes records of one ring."""

    def __init__(self, probe: Mapping[str, Any], kind: int, layout: RingLayout) -> None:
        """Raises CollectorError for rules that name fields which are not there."""
        self.kind = kind
        self.event = str(probe["event"])
        self.id = int(probe["id"])
        self.ring = int(probe["ring"])
        self._layout = layout
        self._fields = event_fields(str(probe["format"]))
        first = self._fields.get("common_type")
        if first is None or (first.offset, first.size) != (0, 2):
            raise CollectorError(f"events of the traced kernel do not begin with their type ({self.event})")
        self.size = 0
        """Bytes that an event has at least."""
        self._fills: list[Fill] = []
        copy: dict[str, str] = {"pid": "common_pid", **probe["copy"]}
        for target, name in copy.items():
            if not name.endswith("?") or name[:-1] in self._fields:
                self._fills.append(_copying(self._target(target), self._source(name.rstrip("?"))))
        packed: dict[str, list[tuple[EventField, int, int]]] = {}
        for rule in probe["packed"]:
            if rule["source"] in self._fields:
                part = (self._source(rule["source"]), int(rule["shift"]), int(rule["mask"]))
                packed.setdefault(self._target(rule["target"]), []).append(part)
        self._fills += [_packing(target, parts) for target, parts in packed.items()]

    def _source(self, name: str) -> EventField:
        if name not in self._fields:
            raise CollectorError(f"the format of {self.event} on the traced kernel has no field {name}")
        found = self._fields[name]
        self.size = max(self.size, found.offset + found.size)
        return found

    def _target(self, name: str) -> str:
        if name not in self._layout.offsets:
            raise CollectorError(f"ring {self._layout.name} has no field {name}, which {self.event} fills")
        return name

    def fill(self, out: Array, which: slice | Array, pages: Pages, at: I64) -> None:
        """Fill some of the records (zeros so far) from the events that begin at the words ``at``."""
        out["kind"][which] = self.kind
        for fill in self._fills:
            fill(out, which, pages, at)


def _copying(target: str, source: EventField) -> Fill:
    def fill(out: Array, which: slice | Array, pages: Pages, at: I64) -> None:
        values = source.values(pages, at)
        out[target][which] = _ended(values) if source.text else values

    return fill


def _packing(target: str, parts: Sequence[tuple[EventField, int, int]]) -> Fill:
    def fill(out: Array, which: slice | Array, pages: Pages, at: I64) -> None:
        word = np.zeros(len(at), np.int64)
        for source, shift, mask in parts:
            values = source.values(pages, at)
            word |= ((values != 0) if mask == 1 else values & mask).astype(np.int64) << shift
        out[target][which] = word

    return fill
