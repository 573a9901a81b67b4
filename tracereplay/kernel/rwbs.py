"""The ``rwbs`` text of block tracepoints (``blk_fill_rwbs``, kernel/trace/blktrace.c)."""

from __future__ import annotations

_OPERATIONS = "RWDFNZ"


def operation(rwbs: str) -> str:
    """The operation in an rwbs text, without preflush and flags: R W D DE F N, or a zone operation (ZA, ZR
    ...).

    A leading F is a preflush when an operation follows it, else the flush operation itself.
    """
    text = rwbs[1:] if len(rwbs) > 1 and rwbs[0] == "F" and rwbs[1] in _OPERATIONS else rwbs
    if text.startswith("DE"):
        return "DE"
    if text.startswith("ZRA"):
        return "ZRA"
    if text.startswith("Z"):
        return text[:2]
    return text[:1]
