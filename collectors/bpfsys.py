# SPDX-License-Identifier: GPL-2.0-only
"""The few system calls that neither Python nor BCC wraps: bpf() object info, prctl, private mounts."""

from __future__ import annotations

import ctypes
import os
import platform
import struct
from pathlib import Path

_BPF_NUMBER = {"x86_64": 321, "aarch64": 280, "riscv64": 280, "s390x": 351, "ppc64le": 361, "ppc64": 361}
_BPF_MAP_CREATE = 0
_BPF_PROG_GET_NEXT_ID = 11
_BPF_PROG_GET_FD_BY_ID = 13
_BPF_OBJ_GET_INFO_BY_FD = 15
_BPF_ENABLE_STATS = 32
_BPF_STATS_RUN_TIME = 0
_BPF_MAP_TYPE_RINGBUF = 27

# struct bpf_prog_info, include/uapi/linux/bpf.h: fixed offsets, the struct only grows at its end.
_INFO_BYTES = 232
_INFO_ID = 4
_INFO_NAME = 64
_INFO_RUN_TIME_NS = 192
_INFO_RUN_CNT = 200
_INFO_RECURSION_MISSES = 208

_PR_SET_PDEATHSIG = 1
_CLONE_NEWNS = 0x00020000
_MS_REC_PRIVATE = 0x4000 | (1 << 18)

_libc = ctypes.CDLL(None, use_errno=True)


def _bpf(command: int, attr: ctypes.Array[ctypes.c_char]) -> int:
    number = _BPF_NUMBER.get(platform.machine())
    if number is None:
        raise OSError(f"bpf() has no known number on {platform.machine()}")
    result = int(_libc.syscall(number, command, ctypes.byref(attr), len(attr)))
    if result < 0:
        errno = ctypes.get_errno()
        raise OSError(errno, os.strerror(errno))
    return result


def program_info(fd: int) -> dict[str, int | None]:
    """``id``, ``run_time_ns``, ``run_cnt`` and ``recursion_misses`` of a program; None where the kernel is
    too old."""
    info = ctypes.create_string_buffer(_INFO_BYTES)
    attr = ctypes.create_string_buffer(struct.pack("=IIQ", fd, _INFO_BYTES, ctypes.addressof(info)), 120)
    _bpf(_BPF_OBJ_GET_INFO_BY_FD, attr)
    filled = struct.unpack_from("=I", attr.raw, 4)[0]

    def value(offset: int, code: str) -> int | None:
        if offset + struct.calcsize(code) > filled:
            return None
        return int(struct.unpack_from(code, info.raw, offset)[0])

    return {
        "id": value(_INFO_ID, "=I"),
        "run_time_ns": value(_INFO_RUN_TIME_NS, "=Q"),
        "run_cnt": value(_INFO_RUN_CNT, "=Q"),
        "recursion_misses": value(_INFO_RECURSION_MISSES, "=Q"),
    }


def create_ring_map() -> int:
    """A descriptor of a ring buffer of one memory page. Raises OSError where the kernel refuses bpf() or has none."""
    size = os.sysconf("SC_PAGESIZE")
    return _bpf(
        _BPF_MAP_CREATE, ctypes.create_string_buffer(struct.pack("=IIIII", _BPF_MAP_TYPE_RINGBUF, 0, 0, size, 0), 120)
    )


def enable_run_statistics() -> int:
    """Let the kernel count run time and runs of all BPF programs while the returned descriptor is open.

    Linux 5.8 or later, CAP_SYS_ADMIN; raises OSError.
    """
    return _bpf(_BPF_ENABLE_STATS, ctypes.create_string_buffer(struct.pack("=I", _BPF_STATS_RUN_TIME), 120))


def loaded_programs() -> list[dict[str, object]]:
    """``id`` and ``name`` of every program that the kernel holds (root only)."""
    found: list[dict[str, object]] = []
    last = 0
    while True:
        attr = ctypes.create_string_buffer(struct.pack("=III", last, 0, 0), 120)
        try:
            _bpf(_BPF_PROG_GET_NEXT_ID, attr)
        except FileNotFoundError:
            return found
        last = struct.unpack_from("=I", attr.raw, 4)[0]
        opener = ctypes.create_string_buffer(struct.pack("=III", last, 0, 0), 120)
        try:
            fd = _bpf(_BPF_PROG_GET_FD_BY_ID, opener)
        except FileNotFoundError:
            continue  # gone between the two calls
        try:
            info = ctypes.create_string_buffer(_INFO_BYTES)
            attr = ctypes.create_string_buffer(struct.pack("=IIQ", fd, _INFO_BYTES, ctypes.addressof(info)), 120)
            _bpf(_BPF_OBJ_GET_INFO_BY_FD, attr)
            name = info.raw[_INFO_NAME : _INFO_NAME + 16].split(b"\0")[0].decode(errors="replace")
            found.append({"id": last, "name": name})
        finally:
            os.close(fd)


def die_with_parent(signal_number: int) -> None:
    """Ask the kernel for a signal when the parent process dies."""
    if _libc.prctl(_PR_SET_PDEATHSIG, signal_number, 0, 0, 0) != 0:
        errno = ctypes.get_errno()
        raise OSError(errno, os.strerror(errno))


def mount_tracefs_privately(target: Path) -> None:
    """Mount tracefs for this process alone: a mount namespace of its own, so the host keeps its mounts as
    they are.

    Needs CAP_SYS_ADMIN; raises OSError. The mount is gone when the process ends, however it ends.
    """
    if _libc.unshare(_CLONE_NEWNS) != 0:
        errno = ctypes.get_errno()
        raise OSError(errno, f"unshare: {os.strerror(errno)}")
    calls = ((b"none", b"/", None, _MS_REC_PRIVATE), (b"nodev", os.fsencode(target), b"tracefs", 0))
    for source, where, kind, flags in calls:
        if _libc.mount(source, where, kind, ctypes.c_ulong(flags), None) != 0:
            errno = ctypes.get_errno()
            raise OSError(errno, f"mount tracefs: {os.strerror(errno)}")
