# SPDX-License-Identifier: GPL-2.0-only
"""The tracepoints that can be recorded, one table entry each, and the reader of tracefs ``format`` files.

An entry says which field of the event goes where in the record of its ring. Names, widths and offsets come
from the running kernel's ``format`` file, never from a version: gfp_flags is 4 bytes up to 5.15 and 8 later,
percpu_refill came with 6.0, rwbs grew from 8 to 10, ioprio came with 6.5.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from collectors.layout import BIO, FLAG_REFILL, PAGE, TASK, Ring


class UnusableProbeError(Exception):
    """The kernel lacks the tracepoint, or a field of it that the record cannot do without."""


@dataclass(frozen=True)
class FormatField:
    """A field of a tracepoint's binary record."""

    name: str
    offset: int
    size: int
    signed: bool
    array: bool


@dataclass(frozen=True)
class Format:
    """A tracefs ``format`` file."""

    name: str
    fields: Mapping[str, FormatField]
    text: str


_FIELD = re.compile(
    r"^\s*field:(?P<decl>[^;]+);\s*offset:(?P<offset>\d+);\s*size:(?P<size>\d+);\s*signed:(?P<signed>[01]);",
    re.M,
)
_DECL = re.compile(r"(?P<name>\w+)\s*(?P<array>\[[^\]]*\])?\s*$")


def parse_format(text: str) -> Format:
    """Fields by name of a ``format`` file. ``__data_loc`` fields keep their 4-byte locator."""
    name = re.search(r"^name:\s*(\S+)", text, re.M)
    if name is None:
        raise ValueError("not a tracefs format file: no name line")
    fields: dict[str, FormatField] = {}
    for found in _FIELD.finditer(text):
        decl = _DECL.search(found["decl"].strip())
        if decl is None:
            continue
        dynamic = "__data_loc" in found["decl"]
        fields[decl["name"]] = FormatField(
            decl["name"],
            int(found["offset"]),
            int(found["size"]),
            found["signed"] == "1",
            decl["array"] is not None and not dynamic,
        )
    if not fields:
        raise ValueError(f"format file of {name[1]} has no fields")
    return Format(name[1], fields, text)


@dataclass(frozen=True)
class Probe:
    """How one tracepoint becomes a record: ``copy`` maps record field -> event field, or ``event?`` when
    optional."""

    event: str
    kind: str
    group: str
    ring: Ring
    copy: Mapping[str, str]
    extra: tuple[tuple[str, str], ...] = ()
    """Further (event field, C statement) pairs; the statement is used when the field exists, with ``{v}``
    its value."""
    raw: tuple[str, ...] = ()
    """Record fields in the order of the tracepoint's arguments (TP_PROTO), for a raw tap; ``page`` is a
    struct page pointer. Empty: no raw tap."""

    @property
    def function(self) -> str:
        """Name of the BPF program (at most 15 characters reach the kernel)."""
        return "tr_" + self.event.split(":")[1]

    def check(self, fmt: Format) -> None:
        """Raise UnusableProbeError when a field that the record needs is missing from this kernel's event."""
        missing = [f for f in self.copy.values() if not f.endswith("?") and f not in fmt.fields]
        if missing:
            raise UnusableProbeError(f"{self.event} has no field {', '.join(missing)} on this kernel")


def _page(event: str, kind: str, copy: dict[str, str], *raw: str) -> Probe:
    return Probe("kmem:" + event, kind, "page", PAGE, copy, raw=raw)


def _buddy(event: str, kind: str, copy: dict[str, str], extra: tuple[tuple[str, str], ...] = ()) -> Probe:
    return Probe("kmem:" + event, kind, "buddy", PAGE, copy, extra)


_BIO_COMMON = {"dev": "dev", "sector": "sector", "rwbs": "rwbs"}


def _bio(event: str, kind: str, **copy: str) -> Probe:
    return Probe("block:" + event, kind, "bio", BIO, {**_BIO_COMMON, **copy})


_PFN_ORDER = {"pfn": "pfn", "order": "order"}
PROBES: tuple[Probe, ...] = (
    _page(
        "mm_page_alloc",
        "alloc",
        {**_PFN_ORDER, "gfp": "gfp_flags", "migratetype": "migratetype"},
        *("page", "order", "gfp", "migratetype"),
    ),
    _page("mm_page_free", "free", _PFN_ORDER, "page", "order"),
    _buddy(
        "mm_page_alloc_zone_locked",
        "zone_locked",
        {**_PFN_ORDER, "migratetype": "migratetype"},
        (("percpu_refill", f"e->flags |= {{v}} ? {FLAG_REFILL} : 0;"),),
    ),
    _buddy("mm_page_pcpu_drain", "drain", {**_PFN_ORDER, "migratetype": "migratetype"}),
    _buddy(
        "mm_page_alloc_extfrag",
        "extfrag",
        {"pfn": "pfn", "order": "alloc_order", "migratetype": "alloc_migratetype"},
        (
            # No gfp in this event: its word carries the three values that only this event has.
            ("fallback_order", "e->gfp |= ((u32){v} & 0xff);"),
            ("fallback_migratetype", "e->gfp |= ((u32){v} & 0xff) << 8;"),
            ("change_ownership", "e->gfp |= {v} ? 1u << 16 : 0;"),
        ),
    ),
    _bio("block_bio_queue", "queue", nr_sectors="nr_sector"),
    _bio("block_bio_remap", "remap", nr_sectors="nr_sector", old_dev="old_dev", other_sector="old_sector"),
    _bio("block_split", "split", other_sector="new_sector"),
    _bio("block_bio_complete", "bio_complete", nr_sectors="nr_sector", error="error"),
    _bio("block_rq_issue", "issue", nr_sectors="nr_sector", nr_bytes="bytes"),
    _bio("block_rq_complete", "complete", nr_sectors="nr_sector", error="error"),
    Probe("task:task_rename", "rename", "task", TASK, {"pid": "pid", "comm": "newcomm"}),
)
GROUPS = ("page", "buddy", "bio")
"""Groups that ``--events`` can name; group ``task`` is always on."""


def chosen(groups: list[str]) -> list[Probe]:
    """The probes of the groups, and those that name tasks, in table order."""
    return [p for p in PROBES if p.group in groups or p.group == "task"]


def read_format(tracefs: Path, event: str) -> Format:
    """The running kernel's format of ``category:name``. Raises UnusableProbeError with the reason."""
    category, name = event.split(":")
    try:
        return parse_format((tracefs / "events" / category / name / "format").read_text())
    except FileNotFoundError:
        raise UnusableProbeError(f"the kernel has no tracepoint {event}") from None
    except PermissionError:
        raise UnusableProbeError(f"no permission to read the format of {event} in {tracefs}") from None
    except ValueError as error:
        raise UnusableProbeError(f"{event}: {error}") from None


def find_formats(tracefs: Path, probes: list[Probe]) -> tuple[dict[str, Format], dict[str, str]]:
    """Formats of the probes that this kernel offers, and for the others the reason."""
    formats: dict[str, Format] = {}
    missing: dict[str, str] = {}
    for probe in probes:
        try:
            fmt = read_format(tracefs, probe.event)
            probe.check(fmt)
        except UnusableProbeError as error:
            missing[probe.event] = str(error)
        else:
            formats[probe.event] = fmt
    return formats, missing


def tracefs_root() -> Path | None:
    """Where tracefs is mounted and filled, or None."""
    for path in (Path("/sys/kernel/tracing"), Path("/sys/kernel/debug/tracing")):
        try:
            if (path / "events").is_dir():
                return path
        except PermissionError:
            continue
    return None
