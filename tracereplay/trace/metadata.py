"""What a trace says about itself: where it came from, on which clock, and what is missing from it."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from datetime import UTC, datetime
from typing import Any

from tracereplay import __version__
from tracereplay.errors import TraceFormatError


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


@dataclass(slots=True)
class TraceMetadata:
    """Facts about a trace; JSON under ``metadata`` of manifest.json. Unknown facts are left out, never
    guessed.
    """

    trace_id: str = field(default_factory=lambda: uuid.uuid4().hex)
    """UUID4 in hex: the identity that results carry."""
    created: str = field(default_factory=_now)
    """ISO-8601, UTC."""
    tool: str = f"tracereplay {__version__}"
    source: dict[str, Any] = field(default_factory=dict)
    """``kind`` capture, import or synthetic; ``format path sha256`` of an imported file."""
    host: dict[str, Any] = field(default_factory=dict)
    """``hostname release arch cpus page_size command_line ...``: those that are known."""
    clock: dict[str, Any] = field(default_factory=dict)
    """``name`` of the clock, ``resolution_ns``, ``triples`` of [monotonic, boottime, realtime] ns."""
    events: list[str] = field(default_factory=list)
    """Tracepoints recorded, as ``system:name``."""
    gfp_flags: dict[str, int] = field(default_factory=dict)
    """Names of gfp bits on this kernel."""
    migratetypes: list[str] = field(default_factory=list)
    """Names by number."""
    filters: dict[str, Any] = field(default_factory=dict)
    sampling: dict[str, Any] = field(default_factory=dict)
    rejected: dict[str, Any] = field(default_factory=dict)
    """Input an importer could not use: ``lines`` and ``samples`` of {line, text, reason}."""
    loss: dict[str, Any] = field(default_factory=dict)
    """What the recorder itself counted as lost, for comparison with the ``loss`` table: ``by_class`` {class:
    n}.
    """
    unseen: dict[str, Any] = field(default_factory=dict)
    """Pages allocated without an event, reckoned at the end of a capture (``tracereplay.trace.unseen``); empty: not
    reckoned."""
    self_cost: dict[str, Any] = field(default_factory=dict)
    """What recording cost: CPU seconds, peak memory, ns per event."""
    notes: list[str] = field(default_factory=list)
    hosts: list[dict[str, Any]] = field(default_factory=list)
    """Of a trace of several hosts (``tracereplay.trace.merge``): ``host``, its own ``metadata``, ``rows`` and
    ``ranges`` by table, ``offset_ns``, ``uncertainty_ns``; empty: one host."""

    def to_json(self) -> dict[str, Any]:
        """Plain values for manifest.json."""
        return asdict(self)

    @classmethod
    def from_json(cls, value: Any, *, where: object = "manifest.json") -> TraceMetadata:
        """Metadata from manifest.json. Keys of a later minor version are ignored, absent ones keep their
        default.

        Raises TraceFormatError when a value has the wrong type.
        """
        if not isinstance(value, Mapping):
            raise TraceFormatError(f"metadata in {where} is not an object", hint="the manifest is damaged")
        made = cls(trace_id="", created="", tool="")
        for f in fields(cls):
            if f.name not in value:
                continue
            if not isinstance(value[f.name], type(getattr(made, f.name))):
                raise TraceFormatError(
                    f"metadata.{f.name} in {where} is a {type(value[f.name]).__name__}",
                    hint="the manifest is damaged",
                )
            setattr(made, f.name, value[f.name])
        return made
