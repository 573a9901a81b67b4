"""The collector as a child process: found, started (through sudo, or on another host), asked to stop, waited
for."""

from __future__ import annotations

import contextlib
import os
import select
import shutil
import subprocess
import tempfile
import threading
from collections.abc import Sequence
from typing import IO

from tracereplay.errors import BccUnavailableError, CaptureError, CollectorError, PrivilegeError
from tracereplay.trace.collector_files import (
    BCC_HINT,
    SYSTEM_PYTHON,
    SYSTEM_PYTHON_ENV,
    collectors_directory,
)
from tracereplay.trace.transport import (
    ALIVE_S,
    SILENCE_S,
    Via,
    explain_end,
    explain_start,
    remote_input,
    sudo_refused,
    wait_until_ready,
)

ROOT_HINT = "run as root (`sudo tracereplay capture ...`), or allow sudo without a password for it"
STOP_TIMEOUT_S = 20.0
"""How long a collector may take from its last frame to its end."""
TERMINATE_TIMEOUT_S = 2.0


def collector_command(arguments: Sequence[str]) -> list[str]:
    """Command line of the collector on the system Python, behind ``sudo -n`` when this process is not root.

    Raises PrivilegeError without root and sudo, BccUnavailableError without a system Python.
    """
    python = os.environ.get(SYSTEM_PYTHON_ENV, SYSTEM_PYTHON)
    if not os.access(python, os.X_OK):
        raise BccUnavailableError(
            f"there is no system Python at {python}",
            hint=f"{BCC_HINT}; set {SYSTEM_PYTHON_ENV} to the Python that has it",
        )
    command = [python, "-B", "-E", "-s", str(collectors_directory()), *arguments]
    if os.geteuid() == 0:
        return command
    sudo = shutil.which("sudo")
    if sudo is None:
        raise PrivilegeError("tracing needs root, and there is no sudo here", hint="run as root")
    return [sudo, "-n", *command]


class CollectorProcess:
    """A running collector. Frames come from ``frames_fd``; closing its standard input asks it to stop.

    ``via``: a command that leads to another host (transport.py); the collector is sent there and runs there.

    Raises UsageError for a ``via`` that is no command, HostUnreachableError, BccUnavailableError (no Python
    there), PrivilegeError and CollectorError when it cannot be started.
    """

    def __init__(self, arguments: Sequence[str], *, via: str | None = None) -> None:
        self.via = Via.parse(via) if via is not None else None
        command = self.via.command() if self.via else collector_command(arguments)
        self.words = ""
        """What it wrote to standard error (its end), known after ``end``."""
        self._code: int | None = None
        self._attendance: _Attendance | None = None
        self._stderr = tempfile.TemporaryFile()  # noqa: SIM115 - lives as long as the process
        try:
            # A session of its own (but for ssh, see there): Ctrl-C in the terminal reaches this process, which
            # then ends the capture in order.
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._stderr,
                bufsize=0,
                start_new_session=not (self.via and self.via.is_ssh),
            )
        except OSError as error:
            self._stderr.close()
            raise CollectorError(f"cannot start {command[0]}: {error.strerror}") from error
        assert self._process.stdout is not None
        self.frames_fd = self._process.stdout.fileno()
        if self.via is not None:
            try:
                self._send(self.via, arguments)
            except BaseException:
                self._kill()
                raise

    @property
    def pid(self) -> int:
        """Process id of the collector (of sudo, or of the command of ``via``, where it is in between)."""
        return self._process.pid

    def _send(self, via: Via, arguments: Sequence[str]) -> None:
        """Give the collector to the Python that waits at the other end."""
        assert self._process.stdin is not None
        ready, noise = wait_until_ready(self.frames_fd)
        if ready:
            content = memoryview(remote_input([*arguments, "--silence-s", f"{SILENCE_S:g}"]))
            try:
                while content:
                    content = content[self._process.stdin.write(content) or 0 :]
            except BrokenPipeError:
                ready = False
        if not ready:
            code = self.end()
            words = self.words or noise.decode(errors="replace").strip()[-2000:]
            raise explain_start(via, code, words)
        self._attendance = _Attendance(self._process.stdin)

    def tell_cost(self, cpu_seconds: float) -> None:
        """Tell a collector on this host what the writer has used so far: that counts towards its limit. Never
        waits."""
        stdin = self._process.stdin
        if self.via is None and stdin is not None:
            # Full: it hears the next one. Closed: it has been asked to stop.
            with contextlib.suppress(OSError, ValueError):
                os.set_blocking(stdin.fileno(), False)
                stdin.write(b"cost %.6f\n" % cpu_seconds)

    def ask_to_stop(self) -> None:
        """Close its standard input: it detaches, drains, accounts and ends. Safe to call again, and from a
        signal."""
        if self._attendance is not None:
            self._attendance.stop()
            return
        stdin = self._process.stdin
        if stdin is not None and not stdin.closed:
            with contextlib.suppress(OSError):
                stdin.close()

    def end(self) -> int:
        """Wait for the end; the exit code. Safe to call again. One that hangs is killed (the kernel detaches)."""
        if self._code is not None:
            return self._code
        self.ask_to_stop()
        assert self._process.stdout is not None
        self._process.stdout.close()
        try:
            self._code = self._process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._code = self._process.wait()
        self._close()
        return self._code

    def _kill(self) -> None:
        """An end without waiting for anything, of a process that is not a collector yet."""
        if self._code is None:
            self._process.terminate()  # lets ssh, which may ask for a password, switch the terminal's echo on
            try:
                self._code = self._process.wait(TERMINATE_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._code = self._process.wait()
            assert self._process.stdout is not None
            self._process.stdout.close()
            self._close()

    def _close(self) -> None:
        if self._attendance is not None:
            self._attendance.join()
        elif self._process.stdin is not None:
            self._process.stdin.close()
        self._stderr.seek(0)
        self.words = self._stderr.read().decode(errors="replace").strip()[-2000:]
        self._stderr.close()

    def explain(self, error: CaptureError) -> CaptureError:
        """An error of the stream, with what is known of the process's end and of where it ran."""
        code = self.end()
        words = self.words
        if self.via is not None:
            return explain_end(self.via, error, code, words)
        if not isinstance(error, CollectorError):
            return error
        if sudo_refused(words):
            return PrivilegeError("tracing needs root, and sudo asks for a password", hint=ROOT_HINT)
        ended = f"killed by signal {-code}" if code < 0 else f"exit code {code}"
        last = words.splitlines()[-1] if words else ""
        text = f"{error.message} (collector: {ended}{'; it said: ' + last if last else ''})"
        return CollectorError(text, hint=error.hint)


class _Attendance:
    """Says to the other side, again and again, that this one is still there, and closes its standard input.

    A thread of its own, the only one that writes: a link that takes nothing must not hold up the capture.
    ``stop`` is a write to a pipe, which a signal handler may do at any time.
    """

    def __init__(self, stdin: IO[bytes]) -> None:
        self._stdin = stdin
        os.set_blocking(stdin.fileno(), False)
        self._wake_read, self._wake = os.pipe()
        self._ended = False
        self._thread = threading.Thread(target=self._run, name="attendance", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Let standard input of the other side end."""
        if not self._ended:
            os.write(self._wake, b"x")

    def join(self) -> None:
        """Stop, and wait until it is done."""
        if not self._ended:
            self.stop()
            self._ended = True
            self._thread.join()
            os.close(self._wake)
            os.close(self._wake_read)

    def _run(self) -> None:
        poller = select.poll()
        poller.register(self._wake_read, select.POLLIN)
        fd = self._stdin.fileno()
        while not poller.poll(ALIVE_S * 1000):
            try:
                os.write(fd, b"alive\n")
            except BlockingIOError:  # the link takes nothing at the moment
                continue
            except OSError:
                break
        self._stdin.close()
