# SPDX-License-Identifier: GPL-2.0-only
"""Names of a kernel function's parameters, from BTF (Documentation/bpf/btf.rst). Standard library only.

The type section is a run of records whose length depends on their kind, so it is walked once, as plain
numbers: a kernel has 150,000 types in 5 MB.
"""

from __future__ import annotations

import struct
from pathlib import Path

VMLINUX = Path("/sys/kernel/btf/vmlinux")

_MAGIC = 0xEB9F
_HEADER = struct.Struct("=HBBIIIII")
_FUNC, _FUNC_PROTO = 12, 13
_FIXED = {1: 1, 3: 3, 14: 1, 17: 1}
"""Kind -> 32-bit words behind the three of each type: INT, ARRAY, VAR, DECL_TAG."""
_PER_MEMBER = {4: 3, 5: 3, 6: 2, 13: 2, 15: 3, 19: 3}
"""Kind -> words for each member: STRUCT, UNION, ENUM, FUNC_PROTO, DATASEC, ENUM64."""
_LAST_KIND = 19


def parameters(function: str, path: Path = VMLINUX) -> tuple[str, ...] | None:
    """Names of a function's parameters, in order; None when there is no BTF that tells them."""
    try:
        data = path.read_bytes()
        return _parameters(data, function.encode())
    except (OSError, ValueError, struct.error, IndexError):
        return None


def _parameters(data: bytes, function: bytes) -> tuple[str, ...] | None:
    magic, _version, _flags, header, types, types_bytes, strings, strings_bytes = _HEADER.unpack_from(data)
    if magic != _MAGIC:
        raise ValueError("not BTF, or of the other byte order")
    names = data[header + strings : header + strings + strings_bytes]
    at = names.find(b"\0" + function + b"\0")
    if at < 0:
        return None
    wanted = at + 1
    words = memoryview(data[header + types : header + types + types_bytes]).cast("I")
    starts = [0]  # type 0 is void and has no record
    found = 0
    at = 0
    while at < len(words):
        starts.append(at)
        info = words[at + 1]
        kind = info >> 24 & 0x1F
        if kind > _LAST_KIND:
            raise ValueError(f"BTF kind {kind}")
        if kind == _FUNC and words[at] == wanted:
            found = words[at + 2]
        at += 3 + _FIXED.get(kind, 0) + (info & 0xFFFF) * _PER_MEMBER.get(kind, 0)
    if not 0 < found < len(starts):
        return None
    at = starts[found]
    if words[at + 1] >> 24 & 0x1F != _FUNC_PROTO:
        return None
    members = range(at + 3, at + 3 + 2 * (words[at + 1] & 0xFFFF), 2)
    return tuple(names[words[m] : names.index(b"\0", words[m])].decode() for m in members)
