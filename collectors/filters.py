# SPDX-License-Identifier: GPL-2.0-only
"""Filters in the kernel: which events a program records, as C, decided before anything is counted or stored.

Values of one option are alternatives, different options must all hold.

Tasks are judged when a CPU turns to another one, not at every event. Frees and completions are often made by
another task than their allocation or submission, so they follow it: a page is *traced* from its recorded
allocation to its free (one bit per page frame; a block's bits are set and cleared together, so the parts of a
split block follow too), and a bio from its recorded queueing, by device and sector, through remaps and
splits, to its completion. A request that swallowed the bio in a merge is found under the first bio's sector.

Sampling by caller, the last resort of load shedding: a caller is a task within 134 ms; one in N is recorded,
whole, with its bursts. It goes through the same bits.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from string import Template

BIOS = 65536
"""Bios in flight that can be followed."""
MAX_ORDER_WORDS = 64
"""Words of 64 page frames in the largest block that is followed: order 12. Of larger ones the beginning is."""
SLICE_BITS = 27
"""A caller is judged anew every 2^27 ns."""


@dataclass(frozen=True)
class Filters:
    """Filters with names resolved to numbers."""

    pids: Sequence[int] = ()
    tgids: Sequence[int] = ()
    comms: Sequence[str] = ()
    cgroups: Sequence[tuple[int, int]] = ()
    """(id, depth below the root) in the v2 hierarchy."""
    devices: Sequence[int] = ()
    """Kernel dev_t."""
    orders: Sequence[int] = ()
    """Orders let through; empty: all."""
    gfp: int = 0
    min_sectors: int = 0
    samples: bool = False
    """Sampling by caller may be switched on while running."""
    page_frames: int = 0
    """One more than the highest frame: what the bits have to cover."""

    @property
    def task(self) -> bool:
        """Whether tasks are chosen."""
        return bool(self.pids or self.tgids or self.comms or self.cgroups)

    @property
    def page(self) -> bool:
        """Whether page events are chosen, and pages followed."""
        return bool(self.task or self.orders or self.gfp or self.samples)

    @property
    def follow_bio(self) -> bool:
        """Whether bios are followed by device and sector."""
        return bool(self.task or self.min_sectors)


def _any_of(terms: Sequence[str]) -> str:
    return "(" + " || ".join(terms) + ")"


def _comm_words(comm: str) -> tuple[int, int]:
    raw = comm.encode()[:15].ljust(16, b"\0")
    return int.from_bytes(raw[:8], sys.byteorder), int.from_bytes(raw[8:], sys.byteorder)


def _wanted_task(filters: Filters) -> str:
    """C of ``wanted_task``: whether the current task's events are recorded."""
    lines = ["static __always_inline u32 wanted_task(u64 id) {", "    u32 pid = id, tgid = id >> 32;"]
    if filters.pids:
        lines.append(f"    if (!{_any_of([f'pid == {n}u' for n in filters.pids])}) return 0;")
    if filters.tgids:
        lines.append(f"    if (!{_any_of([f'tgid == {n}u' for n in filters.tgids])}) return 0;")
    if filters.comms:
        words = [_comm_words(c) for c in filters.comms]
        terms = [f"(comm[0] == {a}ULL && comm[1] == {b}ULL)" for a, b in words]
        lines += [
            "    u64 comm[2] = {};",
            "    bpf_get_current_comm(comm, sizeof(comm));",
            f"    if (!{_any_of(terms)}) return 0;",
        ]
    if filters.cgroups:
        terms = [f"bpf_get_current_ancestor_cgroup_id({level}) == {number}ULL" for number, level in filters.cgroups]
        lines.append(f"    if (!{_any_of(terms)}) return 0;")
    return "\n".join([*lines, "    return 1;", "}", ""])


_TRACED = """\
BPF_ARRAY(traced, u64, ${words});
static __always_inline u64 bits_of(u64 pfn, u32 order) {
    return order >= 6 ? ~0ULL : ((1ULL << (1u << order)) - 1) << (pfn & 63);
}
static __always_inline u32 is_traced(u64 pfn) {
    u32 at = pfn >> 6;
    u64 *word = pfn >> 6 < ${words} ? traced.lookup(&at) : 0;
    return word && *word >> (pfn & 63) & 1;
}
/* A page's own bit is changed by its own events only, so adding and subtracting leaves its neighbours alone. */
static __always_inline void set_traced(u64 pfn, u32 order, u32 value) {
    u64 first = pfn >> 6;
    if (first >= ${words})
        return;
    u64 bits = bits_of(pfn, order);
    u32 words = order > 6 ? 1u << (order - 6) : 1;
    for (u32 i = 0; i < ${block}; i++) {
        if (i >= words)
            break;
        u32 at = first + i;
        u64 *word = traced.lookup(&at);
        if (!word)
            break;
        u64 old = *word & bits;
        if (value && old != bits)
            __sync_fetch_and_add(word, bits & ~old);
        else if (!value && old)
            __sync_fetch_and_add(word, -old);
    }
}
"""

_SAMPLE = """\
static __always_inline u32 in_sample(struct gate_state *g, u32 pid) {
    if (!g->sample_mask)
        return 1;
    u32 h = (pid + 1) * 2654435761u ^ (u32)(bpf_ktime_get_ns() >> ${slice}) * 2246822519u;
    h ^= h >> 15;
    h *= 2654435769u;
    return (h >> 16 & g->sample_mask) == 0;
}
"""

_BIOS = """\
struct bio_key { u64 sector; u64 dev; };
BPF_TABLE("lru_hash", struct bio_key, u8, bios, ${bios});
static __always_inline void follow_bio(u32 dev, u64 sector) {
    struct bio_key key = { sector, dev };
    u8 one = 1;
    bios.update(&key, &one);
}
static __always_inline u32 is_followed(u32 dev, u64 sector) {
    struct bio_key key = { sector, dev };
    return bios.lookup(&key) != 0;
}
"""


def declarations(filters: Filters) -> str:
    """Maps and functions that the conditions below use."""
    values = {
        "words": max(1, -(-filters.page_frames // 64)),
        "block": MAX_ORDER_WORDS,
        "slice": SLICE_BITS,
        "bios": BIOS,
    }
    parts = [_wanted_task(filters)]
    if filters.page:
        parts.append(_TRACED)
    if filters.samples:
        parts.append(_SAMPLE)
    if filters.follow_bio:
        parts.append(_BIOS)
    return Template("\n".join(parts)).substitute(values)


def _all_of(terms: Sequence[str]) -> str:
    return " && ".join(terms) or "1"


def page_condition(filters: Filters, kind: str, values: dict[str, str], task_ok: str, lane: str) -> list[str]:
    """C statements that leave a page program unless its event is wanted; they also follow the page.

    ``values``: C expressions of pfn, order and gfp; ``lane``: the lane's counters.
    """
    if not filters.page:
        return []
    terms = [task_ok] if filters.task else []
    order = values.get("order")
    if filters.orders and order is not None:
        terms.append(f"(u32)({order}) < 32 && ({sum(1 << n for n in set(filters.orders)):#x}u >> (u32)({order}) & 1)")
    if kind == "alloc" and filters.gfp:
        terms.append(f"((u32)({values['gfp']}) & {filters.gfp:#x}u) == {filters.gfp:#x}u")
    if kind == "free" and filters.gfp:
        terms.append("0")
    if kind == "alloc":
        lines = [
            f"u64 frame = {values['pfn']}; u32 size = {values['order']};",
            f"u32 keep = {_all_of(terms)};",
            *_sampled(filters, "keep", lane),
            "if (frame != ~0ULL) set_traced(frame, size, keep);",
        ]
    elif kind == "free":
        lines = [
            f"u64 frame = {values['pfn']}; u32 size = {values['order']};",
            "u32 keep = is_traced(frame);",
            "if (keep) { set_traced(frame, size, 0); } else {",
            f"    keep = {_all_of(terms)};",
            # While callers are sampled, a page that is not traced is one left out, or older than the capture.
            *([f"    if (keep && g->sample_mask) {{ keep = 0; {lane}.shed++; }}"] if filters.samples else []),
            "}",
        ]
    else:
        lines = [f"u32 keep = {_all_of(terms)};", *_sampled(filters, "keep", lane)]
    return [*lines, "if (!keep) return 0;"]


def _sampled(filters: Filters, name: str, lane: str) -> list[str]:
    if not filters.samples:
        return []
    return [f"if ({name} && !in_sample(g, pid)) {{ {name} = 0; {lane}.shed++; }}"]


def bio_condition(filters: Filters, kind: str, values: dict[str, str], task_ok: str) -> list[str]:
    """C statements that leave a bio program unless its event is wanted; they also follow the bio."""
    lines: list[str] = []
    if filters.devices:
        devices = [values["dev"], *([values["old_dev"]] if "old_dev" in values else [])]
        terms = [f"(u32){d} == {n}u" for d in devices for n in filters.devices]
        lines.append(f"if (!{_any_of(terms)}) return 0;")
    if not filters.follow_bio:
        return lines
    dev, sector = values["dev"], values["sector"]
    if kind == "queue":
        terms = [task_ok] if filters.task else []
        if filters.min_sectors:
            terms.append(f"{values['nr_sectors']} >= {filters.min_sectors}u")
        return [*lines, f"if (!({_all_of(terms)})) return 0;", f"follow_bio({dev}, {sector});"]
    old_dev, old_sector = values.get("old_dev", dev), sector
    if kind == "remap":
        old_sector = values["other_sector"]
    lines.append(f"if (!is_followed({old_dev}, {old_sector})) return 0;")
    if kind == "remap":
        lines.append(f"follow_bio({dev}, {sector});")
    if kind == "split":
        lines.append(f"follow_bio({dev}, {values['other_sector']});")
    return lines


def bulk_condition(filters: Filters, task_ok: str) -> list[str]:
    """C statements that leave the bulk allocator's program unless the call is wanted. Calls are never sampled: they
    are few."""
    lines = task_condition(filters, task_ok)
    if filters.orders and 0 not in filters.orders:
        lines.append("if (1) return 0;")
    if filters.gfp:
        lines.append(f"if (found && (gfp & {filters.gfp:#x}u) != {filters.gfp:#x}u) return 0;")
    return lines


def task_condition(filters: Filters, task_ok: str) -> list[str]:
    """C statements for events that only have a task to be judged by."""
    return [f"if (!{task_ok}) return 0;"] if filters.task else []
