# SPDX-License-Identifier: GPL-2.0-only
"""Who is on the other side: signals that ask for the end, the reader of the output, and standard input."""

from __future__ import annotations

import os
import select
import signal
import time

from collectors.errors import ReaderGoneError
from collectors.output import Output


class StopRequest:
    """Why to stop, set by signals, by the clock or by the other side."""

    def __init__(self) -> None:
        self.reason: str | None = None

    def set(self, reason: str) -> None:
        """The first reason stays."""
        self.reason = self.reason or reason

    def install(self) -> None:
        """Let SIGINT, SIGTERM and SIGHUP ask for the end."""
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, lambda n, _frame: self.set(signal.Signals(n).name))
        signal.signal(signal.SIGPIPE, signal.SIG_IGN)


class Attendance:
    """Watches the output's reader, and, when attended, standard input: lines of text, then the end of file that
    asks for the end.

    ``silence_s``: a link over which nothing comes (or to which nothing goes) for so long is dead, whatever its
    sockets say; 0: no limit.
    """

    def __init__(self, output: Output, stop: StopRequest, *, attended: bool, silence_s: float = 0.0) -> None:
        self._output = output
        self._stop = stop
        self._poller = select.poll()
        self._text = b""
        self.writer_seconds = 0.0
        """CPU that the writer has used on this host, by its ``cost SECONDS`` lines."""
        if output.is_stream:
            self._poller.register(output.fd, 0)
        if attended:
            self._poller.register(0, select.POLLIN)
        self._silence_s = silence_s if attended else 0.0
        self._heard = time.monotonic()
        if self._silence_s:
            output.stall_limit_s = self._silence_s

    def wait(self, ns: int) -> None:
        """Sleep for so long, or until the other side stirs. Raises ReaderGoneError."""
        for fd, events in self._poller.poll(max(0, -(-ns // 1_000_000))):
            if fd == self._output.fd and self._output.reader_gone(events):
                raise ReaderGoneError("the reader closed the stream")
            if fd == 0:
                self._input(events)
                self._heard = time.monotonic()
        if self._silence_s and time.monotonic() - self._heard > self._silence_s:
            raise ReaderGoneError(f"nothing came over standard input for {self._silence_s:g} s")

    def _input(self, events: int) -> None:
        data = os.read(0, 4096) if events & select.POLLIN else b""
        if not data:
            self._stop.set("asked")
            return
        *lines, self._text = (self._text + data).split(b"\n")
        for line in lines:
            words = line.split()
            if len(words) == 2 and words[0] == b"cost":
                try:
                    self.writer_seconds = float(words[1])
                except ValueError:
                    continue  # a line from a later version
