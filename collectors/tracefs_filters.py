# SPDX-License-Identifier: GPL-2.0-only
"""A capture's options in the kernel's event-filter language, for an instance of tracefs.

A filter here sees one event by itself. So what the eBPF programs follow (the free of a page whose allocation was
recorded, the completion of a bio whose queueing was) cannot be followed: such events are all let through where the
choice is by task, by gfp mask or by size of the bio. The trace then holds more than was asked for, never less.
"""

from __future__ import annotations

from collectors.errors import CollectorError
from collectors.filters import Filters
from collectors.options import Options
from collectors.tracepoints import Format, Probe


class UnsupportedOptionError(CollectorError):
    """An option needs eBPF."""


def check_options(options: Options) -> None:
    """Raise UnsupportedOptionError for what an instance of tracefs cannot do."""
    refused = {
        "--stacks": options.stacks,
        "--cgroup": bool(options.cgroups),
        "--tgid": bool(options.tgids),
        "--max-overhead": bool(options.max_overhead),
        "--max-rate": bool(options.max_rate),
        "--events bulk": "bulk" in options.groups,
    }
    names = [name for name, used in refused.items() if used]
    if names:
        raise UnsupportedOptionError(
            f"{', '.join(names)} cannot be done through tracefs, which this capture has to use",
            "through tracefs work: --events page,buddy,reclaim,bio, --pid, --comm, --device, --order, --gfp and "
            "--min-bytes; `tracereplay doctor` says what eBPF lacks here",
        )


def _any(terms: list[str]) -> str:
    return terms[0] if len(terms) == 1 else "(" + " || ".join(terms) + ")"


def _task_terms(filters: Filters) -> list[str]:
    terms = []
    if filters.pids:
        terms.append(_any([f"common_pid == {n}" for n in filters.pids]))
    if filters.comms:
        terms.append(_any([f'COMM == "{_quoted(name)}"' for name in filters.comms]))
    return terms


def _quoted(name: str) -> str:
    """A task name as the kernel holds it. Raises UnsupportedOptionError for one that a filter cannot spell."""
    kept = name.encode()[:15].decode(errors="ignore")
    if any(c in kept for c in '"*?[]\\'):
        raise UnsupportedOptionError(f"--comm {name!r} cannot be spelled in a filter of tracefs", "use --pid")
    return kept


def condition(probe: Probe, fmt: Format, filters: Filters) -> str:
    """The event's filter; empty: all are recorded."""
    if probe.group == "task":
        return ""
    if probe.ring == "bio":
        return " && ".join(_bio_terms(probe, fmt, filters))
    terms: list[str] = []
    if probe.kind not in ("free", "free_batched"):
        terms += _task_terms(filters)
    order = probe.copy.get("order")
    if probe.ring == "page":
        if filters.orders and order in fmt.fields:
            terms.append(_any([f"{order} == {n}" for n in filters.orders]))
        if filters.gfp and probe.kind == "alloc":
            name = probe.copy["gfp"]
            bits = [1 << n for n in range(32) if filters.gfp >> n & 1]
            terms += [f"({name} & {bit})" for bit in bits]
    return " && ".join(terms)


def _bio_terms(probe: Probe, fmt: Format, filters: Filters) -> list[str]:
    terms: list[str] = []
    if filters.devices:
        names = [name for name in ("dev", "old_dev") if name in fmt.fields]
        terms.append(_any([f"{name} == {n}" for name in names for n in filters.devices]))
    if probe.kind == "queue":
        terms += _task_terms(filters)
        if filters.min_sectors:
            terms.append(f"nr_sector >= {filters.min_sectors}")
    return terms


def note(filters: Filters) -> str:
    """What the trace holds beyond the filters; empty: nothing."""
    beyond = []
    if filters.pids or filters.comms or filters.gfp:
        beyond.append("frees of all pages")
    if filters.pids or filters.comms or filters.min_sectors:
        beyond.append("what follows the queueing of any bio")
    return f"tracefs cannot follow pages and bios: {' and '.join(beyond)} are recorded" if beyond else ""
