# SPDX-License-Identifier: GPL-2.0-only
"""What this host allows, item by item, found by trying: ``--check`` prints it as one JSON object.

``items`` is a list of {name, found, needed, ok, effect, remedy, blocks}; ``capture`` is {possible, path, reason}, path
being ``ebpf``, ``tracefs`` or "". An item with ``blocks`` true is part of what stands between this host and any
capture.
"""

from __future__ import annotations

import json
import os
import platform
import sys
from pathlib import Path
from typing import Any

from collectors import bpfsys, hostfacts, programs
from collectors.check_extras import check_extras
from collectors.check_tracefs import check_grace, check_instance, check_leftovers
from collectors.errors import CollectorError
from collectors.finding import BOTH, EBPF, TRACEFS, Finding
from collectors.kernel import BCC_HINT, BPF_MAP_TYPE_RINGBUF, compile_programs, ensure_tracefs, import_bcc
from collectors.layout import PAGE
from collectors.pagegeometry import EVENT, find_page_geometry
from collectors.rings import MappedRing, memory_barrier
from collectors.tracefs_tasks import NEW_TASK
from collectors.tracepoints import PROBES, Probe, UnusableProbeError, chosen, find_formats, read_format

_TINY = """\
BPF_ARRAY(hits, u64, 1);
int tr_check(void *ctx) { int zero = 0; u64 *n = hits.lookup(&zero); if (n) (*n)++; return 0; }
"""


def _capabilities() -> list[str]:
    """Names of those effective capabilities that tracing can use."""
    bits = {"CAP_SYS_ADMIN": 21, "CAP_SYSLOG": 34, "CAP_PERFMON": 38, "CAP_BPF": 39}
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("CapEff:"):
            mask = int(line.split()[1], 16)
            return [name for name, bit in bits.items() if mask >> bit & 1]
    return []


def _ebpf(name: str, found: str, needed: str, ok: bool, remedy: str = "") -> Finding:
    return Finding(name, found, needed, ok, "", remedy, (EBPF,))


def check_rights() -> Finding:
    """The capabilities that bpf() and perf_event_open() ask for; a root without them is none."""
    have = _capabilities()
    enough = "CAP_SYS_ADMIN" in have or {"CAP_BPF", "CAP_PERFMON"} <= set(have)
    who = f"uid {os.geteuid()}, " + (", ".join(have) or "no tracing capability")
    remedy = "run as root (sudo), or grant CAP_BPF, CAP_PERFMON and read access to tracefs"
    return _ebpf("rights", who, "CAP_SYS_ADMIN, or CAP_BPF + CAP_PERFMON", enough, remedy)


def check_kernel() -> Finding:
    """Ring buffers came with Linux 5.8."""
    release = platform.release()
    numbers = [int("".join(c for c in p if c.isdigit()) or 0) for p in release.split("-")[0].split(".")[:2]]
    return _ebpf("kernel", release, "5.8 or later", numbers >= [5, 8], "boot a newer kernel")


def check_bcc() -> Finding:
    """The bcc module of this Python."""
    needed = "python3-bpfcc (Debian), python3-bcc (Fedora)"
    try:
        bcc = import_bcc()
    except CollectorError as error:
        return _ebpf("bcc", error.message, needed, False, BCC_HINT)
    return _ebpf("bcc", f"{getattr(bcc, '__version__', '?')} for {sys.executable}", needed, True)


def check_bpf() -> Finding:
    """Really compile and load a tiny tracepoint program."""
    needed = "bpf() loads a program"
    allow = "run as root; in a container, allow bpf() and perf_event_open()"
    try:
        os.close(bpfsys.create_ring_map())
        bcc = import_bcc()
        loaded = compile_programs(_TINY)
        loaded.load_func(b"tr_check", bcc.BPF.TRACEPOINT)
        loaded.cleanup()
    except OSError as error:
        return _ebpf("bpf", f"the kernel refuses bpf(): {error.strerror or error}", needed, False, allow)
    except CollectorError as error:
        return _ebpf("bpf", error.message, needed, False, allow)
    except Exception as error:  # bcc raises bare Exception
        return _ebpf("bpf", str(error), needed, False, allow)
    return _ebpf("bpf", "a program was compiled without headers and loaded", needed, True)


def check_ring_buffer() -> Finding:
    """Really create and map a ring."""
    needed = "BPF ring buffer maps"
    try:
        import_bcc()
        lib = __import__("bcc.libbcc", fromlist=["lib"]).lib
        fd = lib.bcc_create_map(BPF_MAP_TYPE_RINGBUF, b"tr_check", 0, 0, 1 << 16, 0)
        if fd < 0:
            raise OSError("the kernel refuses the map")
        MappedRing(fd, 1 << 16, PAGE.stride, memory_barrier()).close()
    except (OSError, CollectorError) as error:
        return _ebpf("ring buffer", str(error), needed, False, "run as root; in a container, allow bpf() and mmap()")
    return _ebpf("ring buffer", "created and mapped", needed, True)


def check_tracefs() -> tuple[Path | None, Finding]:
    """Where tracefs is, and how it comes there."""
    needed = "mounted, readable"
    try:
        root, how = ensure_tracefs()
    except CollectorError as error:
        return None, Finding("tracefs", error.message, needed, False, "", error.hint, BOTH)
    found = f"{root}" if how == "mounted" else f"not mounted; a capture mounts it for itself alone at {root}"
    return root, Finding("tracefs", found, needed, True)


def check_tracepoints(root: Path) -> list[Finding]:
    """Every tracepoint that can be recorded."""
    probes = [*PROBES, NEW_TASK]
    _, missing = find_formats(root, probes)
    essential = {p.event for p in chosen(["page"]) if p.group == "page"}
    return [_probe_item(probe, probe.event in essential, missing.get(probe.event, "")) for probe in probes]


def _probe_item(probe: Probe, essential: bool, reason: str) -> Finding:
    config = {"bio": " and CONFIG_BLOCK", "reclaim": " and CONFIG_COMPACTION"}.get(probe.group, "")
    effect = f"no {probe.kind} events"
    if probe is NEW_TASK:
        effect = "through tracefs, tasks that come later have a name only when they change it"
    return Finding(
        probe.event,
        reason or "present",
        f"group {probe.group}",
        not reason,
        effect,
        f"the kernel needs CONFIG_TRACEPOINTS{config}",
        BOTH if essential else (),
    )


def check_programs(root: Path) -> Finding:
    """Compile all programs and pass them through the verifier."""
    needed = "all programs pass the verifier"
    try:
        formats, _ = find_formats(root, list(PROBES))
        usable = [p for p in PROBES if p.event in formats]
        bcc = import_bcc()
        lanes = programs.lanes_of(usable, raw=True)
        loaded = compile_programs(programs.source(programs.Plan(lanes, formats)))
        for lane in lanes:
            raw = lane.role != programs.TRACEPOINT
            loaded.load_func(lane.function.encode(), bcc.BPF.RAW_TRACEPOINT if raw else bcc.BPF.TRACEPOINT)
        loaded.cleanup()
    except CollectorError as error:
        return _ebpf("programs", error.message, needed, False, error.hint)
    except Exception as error:
        return _ebpf("programs", str(error), needed, False, "report this as a bug")
    return _ebpf("programs", f"{len(lanes)} programs pass", needed, True)


def check_raw_tap(root: Path) -> Finding:
    """Whether page events can be tapped raw, which also records what interrupts the programs."""
    effect = "frees inside interrupts are missed now and then, and counted as lost (class recursion)"
    try:
        geometry, reason = find_page_geometry(read_format(root, EVENT))
    except (CollectorError, UnusableProbeError) as error:
        geometry, reason = None, str(error)
    found = f"works, {1 << geometry.shift} bytes a page structure" if geometry else reason
    return Finding("raw tap", found, "optional", geometry is not None, effect, "none needed")


def examine() -> list[Finding]:
    """Everything. What needs a thing that is missing is not tried."""

    def ebpf_open() -> bool:
        return not any(f.stands_in(EBPF) for f in found)

    found = [check_rights(), check_kernel(), check_bcc()]
    if ebpf_open():
        found.append(check_bpf())
    if ebpf_open():
        found.append(check_ring_buffer())
    root, tracefs = check_tracefs()
    found.append(tracefs)
    if root is not None:
        found += check_tracepoints(root)
        if ebpf_open():
            found += [check_programs(root), check_raw_tap(root)]
        found += [check_leftovers(root), check_instance(root), check_grace()]
    return found + check_extras()


def findings(groups: list[str]) -> dict[str, Any]:
    """All items, and which way a capture would go."""
    found = examine()
    standing = {path: [f for f in found if f.stands_in(path)] for path in BOTH}
    path = next((p for p in (EBPF, TRACEFS) if not standing[p]), "")
    why = {p: "; ".join(f"{f.name}: {f.found}" for f in standing[p]) for p in BOTH}
    reason = {
        EBPF: "possible, through eBPF",
        TRACEFS: f"possible, through an instance of tracefs; not through eBPF: {why[EBPF]}",
        "": "; ".join(f"{f.name}: {f.found}" for f in found if f.stands_in(EBPF) or f.stands_in(TRACEFS)),
    }[path]
    return {
        "schema": 1,
        "capture": {"possible": bool(path), "path": path, "reason": reason},
        "groups": groups,
        "host": hostfacts.host_facts(),
        "items": [f.describe(path) for f in found],
    }


def print_findings(groups: list[str]) -> int:
    """Print the findings; 0 also when capture is impossible, since the question was answered."""
    sys.stdout.write(json.dumps(findings(groups)) + "\n")
    return 0
