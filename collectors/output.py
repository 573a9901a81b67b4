# SPDX-License-Identifier: GPL-2.0-only
"""Writing frames to a pipe, socket or file: no copies, no endless wait for a reader that died or hangs."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import select
import stat
import time
from collections.abc import Callable
from typing import Any

from collectors.errors import ReaderGoneError

PIPE_BYTES = 1 << 20
_IOV_MAX = 1024


class Output:
    """The stream's file descriptor. ``send`` returns when everything is written."""

    def __init__(self, fd: int) -> None:
        self.fd = fd
        mode = os.fstat(fd).st_mode
        self.is_stream = stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode)
        self.bytes_sent = 0
        self.waited_s = 0.0
        """Seconds spent waiting for the reader."""
        self.stall_limit_s: float | None = None
        """Give up when the reader takes nothing for so long; None: wait for ever (the rings count what is
        lost)."""
        self._poll = select.poll()
        if self.is_stream:
            os.set_blocking(fd, False)
            self._poll.register(fd, 0)  # POLLERR and POLLHUP come unasked
            if stat.S_ISFIFO(mode):
                with contextlib.suppress(OSError):  # beyond the user's limit: the default serves too
                    fcntl.fcntl(fd, getattr(fcntl, "F_SETPIPE_SZ", 1031), PIPE_BYTES)

    def send(self, buffers: list[Any], should_abort: Callable[[], bool] = lambda: False) -> None:
        """Write all buffers in order. Raises ReaderGoneError when the reader is dead, or hangs past the
        limit."""
        views = [memoryview(b) for b in buffers]
        stalled_since: float | None = None
        while views:
            try:
                written = os.writev(self.fd, views[:_IOV_MAX])
            except BlockingIOError:
                written = 0
            except OSError as error:
                if error.errno in (errno.EPIPE, errno.ECONNRESET):
                    raise ReaderGoneError("the reader closed the stream") from None
                raise
            if written:
                stalled_since = None
                self.bytes_sent += written
                views = _rest(views, written)
                continue
            now = time.monotonic()
            stalled_since = stalled_since or now
            if self.stall_limit_s is not None and now - stalled_since > self.stall_limit_s:
                raise ReaderGoneError(f"the reader took nothing for {self.stall_limit_s} s")
            if should_abort():
                raise ReaderGoneError("asked to stop while the reader hangs")
            self._wait_writable()
            self.waited_s += time.monotonic() - now

    def _wait_writable(self) -> None:
        poller = select.poll()
        poller.register(self.fd, select.POLLOUT)
        poller.poll(100)

    def reader_gone(self, events: int) -> bool:
        """Whether poll results for the descriptor say that nobody reads."""
        return bool(events & (select.POLLERR | select.POLLHUP | select.POLLNVAL))


def _rest(views: list[Any], written: int) -> list[Any]:
    done = 0
    for view in views:
        if written < view.nbytes:
            break
        written -= view.nbytes
        done += 1
    rest = views[done:]
    if written:
        rest[0] = rest[0].cast("B")[written:]
    return rest
