# SPDX-License-Identifier: GPL-2.0-only
"""What this host allows, item by item, found by trying: ``--check`` prints it as one JSON object.

``items`` is a list of {name, found, needed, ok, effect, remedy}; ``capture`` is {possible, reason}. An item
that is not ``ok`` and has ``blocks`` true is what stands between this host and a capture.
"""

from __future__ import annotations

import json
import os
import platform
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from collectors import hostfacts, programs
from collectors.errors import CollectorError
from collectors.kernel import BCC_HINT, BPF_MAP_TYPE_RINGBUF, compile_programs, ensure_tracefs, import_bcc
from collectors.layout import PAGE
from collectors.pagegeometry import EVENT, find_page_geometry
from collectors.rings import MappedRing, memory_barrier
from collectors.tracepoints import PROBES, Probe, UnusableProbeError, chosen, find_formats, read_format

_TINY = """\
BPF_ARRAY(hits, u64, 1);
int tr_check(void *ctx) { int zero = 0; u64 *n = hits.lookup(&zero); if (n) (*n)++; return 0; }
"""


def _item(
    name: str, found: str, needed: str, ok: bool, effect: str = "", remedy: str = "", blocks: bool = False
) -> dict[str, Any]:
    return {
        "name": name,
        "found": found,
        "needed": needed,
        "ok": ok,
        "effect": "" if ok else effect,
        "remedy": "" if ok else remedy,
        "blocks": blocks and not ok,
    }


def _readable(path: str) -> str:
    """Empty when the file can be opened and read, else why not."""
    try:
        with Path(path).open("rb") as file:
            file.read(8)
    except OSError as error:
        return error.strerror or str(error)
    return ""


def _capabilities() -> list[str]:
    """Names of those effective capabilities that tracing can use."""
    bits = {"CAP_SYS_ADMIN": 21, "CAP_SYSLOG": 34, "CAP_PERFMON": 38, "CAP_BPF": 39}
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("CapEff:"):
            mask = int(line.split()[1], 16)
            return [name for name, bit in bits.items() if mask >> bit & 1]
    return []


def check_rights() -> dict[str, Any]:
    """Root, or the capabilities that bpf() and perf_event_open() ask for."""
    have = _capabilities()
    enough = os.geteuid() == 0 or "CAP_SYS_ADMIN" in have or {"CAP_BPF", "CAP_PERFMON"} <= set(have)
    who = f"uid {os.geteuid()}, " + (", ".join(have) or "no tracing capability")
    remedy = "run as root (sudo), or grant CAP_BPF, CAP_PERFMON and read access to tracefs"
    return _item("rights", who, "root or CAP_BPF + CAP_PERFMON", enough, "capture refused", remedy, blocks=True)


def check_kernel() -> dict[str, Any]:
    """Ring buffers came with Linux 5.8."""
    release = platform.release()
    numbers = [int("".join(c for c in p if c.isdigit()) or 0) for p in release.split("-")[0].split(".")[:2]]
    return _item(
        "kernel", release, "5.8 or later", numbers >= [5, 8], "no BPF ring buffer", "boot a newer kernel", blocks=True
    )


def check_bcc() -> dict[str, Any]:
    """The bcc module of this Python."""
    needed = "python3-bpfcc (Debian), python3-bcc (Fedora)"
    try:
        bcc = import_bcc()
    except CollectorError as error:
        return _item("bcc", error.message, needed, False, "no programs can be compiled", BCC_HINT, blocks=True)
    return _item("bcc", f"{getattr(bcc, '__version__', '?')} for {sys.executable}", needed, True)


def check_bpf() -> dict[str, Any]:
    """Really compile and load a tiny tracepoint program."""
    try:
        bcc = import_bcc()
        loaded = compile_programs(_TINY)
        loaded.load_func(b"tr_check", bcc.BPF.TRACEPOINT)
        loaded.cleanup()
    except CollectorError as error:
        return _item("bpf", error.message, "bpf() loads a program", False, "capture refused", error.hint, blocks=True)
    except Exception as error:  # bcc raises bare Exception
        return _item(
            "bpf",
            str(error),
            "bpf() loads a program",
            False,
            "capture refused",
            "run as root; in a container, allow bpf() and perf_event_open()",
            blocks=True,
        )
    return _item("bpf", "a program was compiled without headers and loaded", "bpf() loads a program", True)


def check_ring_buffer() -> dict[str, Any]:
    """Really create and map a ring."""
    try:
        import_bcc()
        lib = __import__("bcc.libbcc", fromlist=["lib"]).lib
        fd = lib.bcc_create_map(BPF_MAP_TYPE_RINGBUF, b"tr_check", 0, 0, 1 << 16, 0)
        if fd < 0:
            raise OSError("the kernel refuses the map")
        MappedRing(fd, 1 << 16, PAGE.stride, memory_barrier()).close()
    except (OSError, CollectorError) as error:
        return _item("ring buffer", str(error), "BPF ring buffer maps", False, "capture refused", "", blocks=True)
    return _item("ring buffer", "created and mapped", "BPF ring buffer maps", True)


def check_tracepoints() -> list[dict[str, Any]]:
    """tracefs, then every tracepoint that can be recorded."""
    try:
        root, how = ensure_tracefs()
    except CollectorError as error:
        return [_item("tracefs", error.message, "mounted, readable", False, "capture refused", error.hint, blocks=True)]
    found = f"{root}" if how == "mounted" else f"not mounted; a capture mounts it for itself alone at {root}"
    items = [_item("tracefs", found, "mounted, readable", True)]
    _, missing = find_formats(root, list(PROBES))
    essential = {p.event for p in chosen(["page"]) if p.group == "page"}
    items.extend(_probe_item(probe, probe.event in essential, missing.get(probe.event, "")) for probe in PROBES)
    return items


def _probe_item(probe: Probe, essential: bool, reason: str) -> dict[str, Any]:
    remedy = "the kernel needs CONFIG_TRACEPOINTS" + (" and CONFIG_BLOCK" if probe.group == "bio" else "")
    found, effect = reason or "present", f"no {probe.kind} events"
    return _item(probe.event, found, f"group {probe.group}", not reason, effect, remedy, blocks=essential)


def check_programs() -> dict[str, Any]:
    """Compile all programs and pass them through the verifier."""
    needed = "all programs pass the verifier"
    try:
        root, _ = ensure_tracefs()
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
        return _item("programs", error.message, needed, False, "capture refused", error.hint, blocks=True)
    except Exception as error:
        return _item("programs", str(error), needed, False, "capture refused", "report this as a bug", blocks=True)
    return _item("programs", f"{len(lanes)} programs pass", needed, True)


def check_raw_tap() -> dict[str, Any]:
    """Whether page events can be tapped raw, which also records what interrupts the programs."""
    effect = "frees inside interrupts are missed now and then, and counted as lost (class recursion)"
    try:
        root, _ = ensure_tracefs()
        geometry, reason = find_page_geometry(read_format(root, EVENT))
    except (CollectorError, UnusableProbeError) as error:
        geometry, reason = None, str(error)
    found = f"works, {1 << geometry.shift} bytes a page structure" if geometry else reason
    return _item("raw tap", found, "optional", geometry is not None, effect, "none needed")


def check_extras() -> list[dict[str, Any]]:
    """What a capture can do without, and what it then lacks."""
    config = Path("/sys/kernel/security/lockdown")
    lockdown = config.read_text().strip() if config.exists() and not _readable(str(config)) else "none"
    locked = "[confidentiality]" in lockdown
    items = [
        _item(
            "lockdown",
            lockdown,
            "not confidentiality",
            not locked,
            "BPF may not read",
            "boot without it",
            blocks=locked,
        ),
        _optional("BTF", "/sys/kernel/btf/vmlinux", "struct offsets by name are not known"),
        _optional("pagetypeinfo", "/proc/pagetypeinfo", "snapshots lack free blocks by type"),
        _optional("kpageflags", "/proc/kpageflags", "no map of free pages at the start"),
        _optional("zoneinfo", "/proc/zoneinfo", "snapshots lack zones"),
    ]
    root = Path("/sys/kernel/tracing")
    symbol = "CONFIG_KPROBE_EVENTS"
    items.append(_hook("kprobes", (root / "kprobe_events").exists(), symbol))
    # fentry needs the function tracer's call sites and the types of the functions.
    traceable = (root / "available_filter_functions").exists() and Path("/sys/kernel/btf/vmlinux").exists()
    items.append(_hook("fentry", traceable, "CONFIG_DYNAMIC_FTRACE and CONFIG_DEBUG_INFO_BTF"))
    return items


def _hook(name: str, present: bool, symbol: str) -> dict[str, Any]:
    effect = "pages of the bulk allocator are inferred, not recorded"
    found = "present" if present else "absent"
    return _item(name, found, "optional", present, effect, f"a kernel with {symbol}")


def _optional(name: str, path: str, effect: str) -> dict[str, Any]:
    reason = _readable(path)
    found = "readable" if not reason else f"{path}: {reason}"
    return _item(name, found, "optional", not reason, effect, "run as root; else the kernel was built without it")


def findings(groups: list[str]) -> dict[str, Any]:
    """All items and the conclusion. Later tries are left out when an earlier one decides."""
    items: list[dict[str, Any]] = [check_rights(), check_kernel(), check_bcc()]
    tries: list[Callable[[], Any]] = [check_bpf, check_ring_buffer, check_tracepoints]
    if not any(i["blocks"] for i in items):
        for attempt in tries:
            result = attempt()
            items += result if isinstance(result, list) else [result]
        if not any(i["blocks"] for i in items):
            items += [check_programs(), check_raw_tap()]
    items += check_extras()
    blocking = [i for i in items if i["blocks"]]
    reason = "; ".join(f"{i['name']}: {i['found']}" for i in blocking)
    return {
        "schema": 1,
        "capture": {"possible": not blocking, "reason": reason or "possible, through eBPF"},
        "groups": groups,
        "host": hostfacts.host_facts(),
        "items": items,
    }


def print_findings(groups: list[str]) -> int:
    """Print the findings; 0 also when capture is impossible, since the question was answered."""
    sys.stdout.write(json.dumps(findings(groups)) + "\n")
    return 0
