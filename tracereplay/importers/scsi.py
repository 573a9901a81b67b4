"""SCSI operation codes of block traces (SCSI Block Commands 4, table of commands)."""

from __future__ import annotations

_READ, _WRITE, _DISCARD, _FLUSH = range(4)

SCSI_OPERATIONS: dict[int, int] = {
    **dict.fromkeys((0x08, 0x28, 0xA8, 0x88), _READ),  # READ (6, 10, 12, 16)
    **dict.fromkeys((0x0A, 0x2A, 0xAA, 0x8A), _WRITE),  # WRITE (6, 10, 12, 16)
    **dict.fromkeys((0x2E, 0xAE, 0x8E), _WRITE),  # WRITE AND VERIFY (10, 12, 16)
    0x42: _DISCARD,  # UNMAP
    **dict.fromkeys((0x35, 0x91), _FLUSH),  # SYNCHRONIZE CACHE (10, 16)
}
"""Operation code -> index into ``requests.OPERATIONS``. Others move no data that a bio would carry."""


def scsi_name(opcode: int) -> str:
    """How commands that are no requests are counted."""
    return f"scsi:{opcode:#04x}"
