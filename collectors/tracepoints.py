# SPDX-License-Identifier: GPL-2.0-only
"""The tracepoints that can be recorded, one table entry each, and the reader of tracefs ``format`` files.

An entry says which field of the event goes where in the record of its ring. Names, widths and offsets come
from the running kernel's ``format`` file, never from a version: gfp_flags is 4 bytes up to 5.15 and 8 later,
percpu_refill came with 6.0, rwbs grew from 8 to 10, ioprio came with 6.5.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from collectors.errors import ProbeUnavailableError
from collectors.layout import FLAG_REFILL


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
class Packed:
    """A field of the event that shares a field of the record: ``target |= (source & mask) << shift``."""

    source: str
    """Left out where the kernel's event lacks it."""
    target: str
    shift: int = 0
    mask: int = 0xFF
    """1: any value but 0 counts as 1."""


@dataclass(frozen=True)
class Probe:
    """How one tracepoint becomes a record: ``copy`` maps record field -> event field, or ``event?`` when
    optional."""

    event: str
    kind: str
    group: str
    ring: str
    """Name of the ring that takes the record (layout.py)."""
    copy: Mapping[str, str]
    packed: tuple[Packed, ...] = ()
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

    def describe(self) -> dict[str, object]:
        """The rules as plain values, for a reader that builds the records itself."""
        packed = [{"source": x.source, "target": x.target, "shift": x.shift, "mask": x.mask} for x in self.packed]
        return {"event": self.event, "kind": self.kind, "group": self.group, "copy": dict(self.copy), "packed": packed}


def _kmem(group: str, event: str, kind: str, copy: dict[str, str], packed: tuple[Packed, ...] = ()) -> Probe:
    return Probe("kmem:" + event, kind, group, "page", copy, packed)


def _mm(event: str, kind: str, **copy: str) -> Probe:
    return Probe(event, kind, "reclaim", "mm", copy)


def _bio(event: str, kind: str, **copy: str) -> Probe:
    return Probe("block:" + event, kind, "bio", "bio", {**_BIO_COMMON, **copy})


_BIO_COMMON = {"dev": "dev", "sector": "sector", "rwbs": "rwbs"}
_PFN_ORDER = {"pfn": "pfn", "order": "order"}
PROBES: tuple[Probe, ...] = (
    Probe(
        "kmem:mm_page_alloc",
        "alloc",
        "page",
        "page",
        {**_PFN_ORDER, "gfp": "gfp_flags", "migratetype": "migratetype"},
        raw=("page", "order", "gfp", "migratetype"),
    ),
    Probe("kmem:mm_page_free", "free", "page", "page", _PFN_ORDER, raw=("page", "order")),
    _kmem(
        "buddy",
        "mm_page_alloc_zone_locked",
        "zone_locked",
        {**_PFN_ORDER, "migratetype": "migratetype"},
        (Packed("percpu_refill", "flags", mask=FLAG_REFILL),),
    ),
    _kmem("buddy", "mm_page_pcpu_drain", "drain", {**_PFN_ORDER, "migratetype": "migratetype"}),
    _kmem(
        "buddy",
        "mm_page_alloc_extfrag",
        "extfrag",
        {"pfn": "pfn", "order": "alloc_order", "migratetype": "alloc_migratetype"},
        (
            # No gfp in this event: its word carries the three values that only this event has.
            Packed("fallback_order", "gfp"),
            Packed("fallback_migratetype", "gfp", shift=8),
            Packed("change_ownership", "gfp", shift=16, mask=1),
        ),
    ),
    # In addition to mm_page_free of the same page, and without an order: it tells frees in batches from others.
    _kmem("buddy", "mm_page_free_batched", "free_batched", {"pfn": "pfn"}),
    _mm(
        "compaction:mm_compaction_try_to_compact_pages", "compaction_try", order="order", gfp="gfp_mask", result="prio"
    ),
    _mm("compaction:mm_compaction_begin", "compaction_begin", result="sync"),
    _mm("compaction:mm_compaction_end", "compaction_end", result="status"),
    _mm("vmscan:mm_vmscan_direct_reclaim_begin", "reclaim_begin", order="order", gfp="gfp_flags?"),
    _mm("vmscan:mm_vmscan_direct_reclaim_end", "reclaim_end", result="nr_reclaimed"),
    _mm("vmscan:mm_vmscan_wakeup_kswapd", "kswapd_wakeup", order="order", gfp="gfp_flags?", result="nid"),
    _mm("vmscan:mm_vmscan_kswapd_wake", "kswapd_wake", order="order", result="nid"),
    _mm("vmscan:mm_vmscan_kswapd_sleep", "kswapd_sleep", result="nid"),
    _bio("block_bio_queue", "queue", nr_sectors="nr_sector"),
    _bio("block_bio_remap", "remap", nr_sectors="nr_sector", old_dev="old_dev", other_sector="old_sector"),
    _bio("block_split", "split", other_sector="new_sector"),
    _bio("block_bio_backmerge", "backmerge", nr_sectors="nr_sector"),
    _bio("block_bio_frontmerge", "frontmerge", nr_sectors="nr_sector"),
    _bio("block_bio_complete", "bio_complete", nr_sectors="nr_sector", error="error"),
    _bio("block_rq_insert", "insert", nr_sectors="nr_sector", nr_bytes="bytes"),
    _bio("block_rq_issue", "issue", nr_sectors="nr_sector", nr_bytes="bytes"),
    _bio("block_rq_requeue", "requeue", nr_sectors="nr_sector"),
    _bio("block_rq_complete", "complete", nr_sectors="nr_sector", error="error"),
    _bio("block_rq_error", "error", nr_sectors="nr_sector", error="error"),
    Probe("task:task_rename", "rename", "task", "task", {"pid": "pid", "comm": "newcomm"}),
)
GROUPS = ("page", "buddy", "reclaim", "bio", "bulk")
"""Groups that ``--events`` can name. ``bulk`` has no tracepoint (bulkprobe.py); group ``task`` is always on."""


def chosen(groups: Sequence[str]) -> list[Probe]:
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


def require_groups(groups: Collection[str], usable: Collection[str], missing: Mapping[str, str]) -> None:
    """Raise ProbeUnavailableError for a group without any usable event, with the reason for each (``missing``: by
    event)."""
    for group in groups:
        if group not in usable:
            reasons = "; ".join(missing[p.event] for p in PROBES if p.group == group and p.event in missing)
            raise ProbeUnavailableError(
                f"no usable tracepoint in group {group!r}: {reasons}", "see `tracereplay doctor`"
            )


def tracefs_root() -> Path | None:
    """Where tracefs is mounted and filled, or None."""
    for path in (Path("/sys/kernel/tracing"), Path("/sys/kernel/debug/tracing")):
        try:
            if (path / "events").is_dir():
                return path
        except PermissionError:
            continue
    return None
