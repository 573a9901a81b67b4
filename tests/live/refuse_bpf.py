"""Run a command that may do everything but call bpf(): what a container's seccomp profile does.

``python refuse_bpf.py COMMAND...``. The kernel answers EPERM, as it does without CAP_BPF.
"""

from __future__ import annotations

import ctypes
import os
import platform
import struct
import sys

BPF = {"x86_64": 321, "aarch64": 280}
_PR_SET_NO_NEW_PRIVS, _PR_SET_SECCOMP, _FILTER = 38, 22, 2
_LOAD_NUMBER, _IF_EQUAL, _RETURN = 0x20, 0x15, 0x06
_ALLOW, _ERRNO_EPERM = 0x7FFF0000, 0x00050001


def refuse_bpf() -> None:
    """Install the filter; it is inherited and cannot be removed."""
    steps = [
        (_LOAD_NUMBER, 0, 0, 0),
        (_IF_EQUAL, 0, 1, BPF[platform.machine()]),
        (_RETURN, 0, 0, _ERRNO_EPERM),
        (_RETURN, 0, 0, _ALLOW),
    ]
    code = ctypes.create_string_buffer(b"".join(struct.pack("=HBBI", *step) for step in steps))
    program = ctypes.create_string_buffer(struct.pack("@HP", len(steps), ctypes.addressof(code)))
    libc = ctypes.CDLL(None, use_errno=True)
    for arguments in ((_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), (_PR_SET_SECCOMP, _FILTER, program, 0, 0)):
        if libc.prctl(*arguments) != 0:
            raise OSError(ctypes.get_errno(), "prctl failed")


if __name__ == "__main__":
    refuse_bpf()
    os.execvp(sys.argv[1], sys.argv[1:])
