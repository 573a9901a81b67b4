"""A Python process of ours with a pipe to it. It ends when this one does, and has its stdout on stderr."""

from __future__ import annotations

import ctypes
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Sequence
from multiprocessing.connection import Connection
from pathlib import Path

PR_SET_PDEATHSIG = 1


def start_child(module: str, fds: Sequence[int] = ()) -> tuple[subprocess.Popen[bytes], Connection]:
    """Run ``python -m module PIPE FD...``; the process and our end of the pipe. Raises OSError.

    The child inherits ``fds``. Ctrl-C does not reach it; the thread that calls this has to live as long as it does
    (prctl(2), PR_SET_PDEATHSIG).
    """
    ours, theirs = socket.socketpair()
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(p or str(Path.cwd()) for p in sys.path)}
    try:
        with theirs:
            process = subprocess.Popen(
                [sys.executable, "-m", module, str(theirs.fileno()), *map(str, fds)],
                pass_fds=(theirs.fileno(), *fds),
                stdin=subprocess.DEVNULL,
                stdout=2,  # what a strategy's file prints is talk
                env=environment,
                process_group=0,
            )
    except OSError:
        ours.close()
        raise
    return process, Connection(ours.detach())


def begin_child() -> Connection:
    """In the child: its end of the pipe."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    return Connection(int(sys.argv[1]))


def ending(code: int) -> str:
    """How a process with this return code ended."""
    return f"died of {signal.Signals(-code).name}" if code < 0 else f"ended its process with status {code}"
