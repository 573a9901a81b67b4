"""The collector as a child process: found, started (through sudo where needed), asked to stop, waited for."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

import tracereplay
from tracereplay.errors import BccUnavailableError, CaptureError, CollectorError, PrivilegeError

SYSTEM_PYTHON_ENV = "TRACEREPLAY_SYSTEM_PYTHON"
SYSTEM_PYTHON = "/usr/bin/python3"

BCC_HINT = (
    "install BCC for the system Python: Debian/Ubuntu `apt install python3-bpfcc`, Fedora/RHEL "
    "`dnf install python3-bcc`; never `pip install bcc`, which is something else"
)
ROOT_HINT = "run as root (`sudo tracereplay capture ...`), or allow sudo without a password for it"
STOP_TIMEOUT_S = 20.0
"""How long a collector may take from its last frame to its end."""


def collectors_directory() -> Path:
    """The on-host part: inside the installed package, or beside it in a checkout.

    Raises CaptureError when it is in neither place.
    """
    package = Path(tracereplay.__file__).resolve().parent
    for path in (package / "_collectors", package.parent / "collectors"):
        if (path / "__main__.py").is_file():
            return path
    raise CaptureError(
        f"the collectors directory is missing beside {package}", hint="reinstall tracereplay; the wheel carries it"
    )


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
    """A running collector. Frames come from ``frames_fd``; closing its standard input asks it to stop."""

    def __init__(self, arguments: Sequence[str]) -> None:
        command = collector_command(arguments)
        self.words = ""
        """What it wrote to standard error (its end), known after ``end``."""
        self._code: int | None = None
        self._stderr = tempfile.TemporaryFile()  # noqa: SIM115 - lives as long as the process
        try:
            # A session of its own: Ctrl-C in the terminal reaches this process, which then ends the capture
            # in order.
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._stderr,
                bufsize=0,
                start_new_session=True,
            )
        except OSError as error:
            self._stderr.close()
            raise CollectorError(f"cannot start {command[0]}: {error.strerror}") from error
        assert self._process.stdout is not None
        self.frames_fd = self._process.stdout.fileno()

    @property
    def pid(self) -> int:
        """Process id of the collector (of sudo, where it is in between)."""
        return self._process.pid

    def ask_to_stop(self) -> None:
        """Close its standard input: it detaches, drains, accounts and ends. Safe to call again, and from a
        signal."""
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
        self._stderr.seek(0)
        self.words = self._stderr.read().decode(errors="replace").strip()[-2000:]
        self._stderr.close()
        return self._code

    def explain(self, error: CollectorError) -> CaptureError:
        """The error of a stream that broke, with what is known of the process's end."""
        code = self.end()
        words = self.words
        if "sudo:" in words and ("password" in words or "not allowed" in words or "sudoers" in words):
            return PrivilegeError("tracing needs root, and sudo asks for a password", hint=ROOT_HINT)
        ended = f"killed by signal {-code}" if code < 0 else f"exit code {code}"
        last = words.splitlines()[-1] if words else ""
        text = f"{error.message} (collector: {ended}{'; it said: ' + last if last else ''})"
        return CollectorError(text, hint=error.hint)
