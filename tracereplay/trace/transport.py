"""The way to a collector on another host: any command that takes one more argument, a shell command line.

``ssh root@host``, ``docker exec -i NAME sh -c``, ``kubectl exec -i POD -- sh -c``, ``sh -c``. Nothing has to be
there but a Python with bcc, and nothing is left there: the collector is sent over standard input and runs from
memory (collectors/frommemory.py). Standard input then stays open as its attendance; standard output carries
frames.
"""

from __future__ import annotations

import hashlib
import json
import os
import shlex
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tracereplay.errors import (
    BccUnavailableError,
    CaptureError,
    CollectorError,
    ConnectionLostError,
    HostUnreachableError,
    PrivilegeError,
    UsageError,
)
from tracereplay.trace.collector_bundle import collector_bundle
from tracereplay.trace.collector_files import BCC_HINT, collectors_directory

READY = b"tracereplay-ready"
"""Sent by the other side's Python when it waits for the collector. What comes before is noise of its shell."""
NOISE_BYTES = 64 << 10
ALIVE_S = 5.0
"""Interval of the lines that say that this side is still there."""
SILENCE_S = 30.0
"""A collector that hears nothing for so long takes the link for dead, and ends."""

STATUS_NO_PYTHON = 91
STATUS_OLD_PYTHON = 93
STATUS_DAMAGED = 94

PYTHONS = ("/usr/bin/python3", "/usr/libexec/platform-python", "python3")
"""The system's Python, which is the one that has bcc; RHEL 8 keeps it elsewhere."""

# Both go through shells of unknown make (also csh and fish) and through two levels of quoting. So: one line,
# and in it no single quote, backslash or exclamation mark; in the Python part no double quote and no dollar.
_RECEIVE = (
    "import functools,os,sys;"
    "take=lambda n:functools.reduce(lambda got,_:got+os.read(0,n-len(got)),range(n),bytes());"
    "os.write(1,sys.argv[1].encode());"
    "exec(take(int(take(8)or 0)))"
)
_START = (
    f"for python in {' '.join(PYTHONS)}; do "
    "if command -v $python >/dev/null 2>&1; then "
    'root=; if [ "$(id -u)" -ne 0 ] && command -v sudo >/dev/null 2>&1; then root="sudo -n"; fi; '
    f'exec $root $python -EsB -c "{_RECEIVE}" {READY.decode()}; '
    "fi; done; "
    f"echo no python3 on this host >&2; exit {STATUS_NO_PYTHON}"
)

_SSH_ALIVE = ("-o", "ServerAliveInterval=10", "-o", "ServerAliveCountMax=3")
"""A host that is gone without a word is noticed after half a minute."""


_UNINTERRUPTED = ("/bin/sh", "-c", 'trap "" INT HUP; exec "$@"', "sh")
"""ssh asks for passwords and unknown host keys on the terminal, so it stays in the terminal's session; Ctrl-C there is
for this process alone, which then ends the capture in order. ssh keeps signals ignored that it finds ignored."""


def remote_line() -> str:
    """The one argument that a way gets: a line for a shell, which starts the waiting Python (as root through
    ``sudo -n`` where needed)."""
    return f"/bin/sh -c '{_START}'"


def remote_input(arguments: Sequence[str]) -> bytes:
    """What the waiting Python is sent: length and text of the start, the order in one line, the collector."""
    text = (collectors_directory() / "frommemory.py").read_bytes() + b"\nrun()\n"
    bundle = collector_bundle()
    order = {
        "bundle": len(bundle),
        "sha256": hashlib.sha256(bundle).hexdigest(),
        "arguments": list(arguments),
    }
    return f"{len(text):08d}".encode() + text + json.dumps(order).encode() + b"\n" + bundle


@dataclass(frozen=True, slots=True)
class Via:
    """A command that leads to a host."""

    text: str
    """As the user gave it."""
    words: tuple[str, ...]

    @classmethod
    def parse(cls, text: str) -> Via:
        """Raises UsageError for a text that is no command of this machine."""
        hint = 'a command that takes a shell command line: --via "ssh root@host", --via "docker exec -i NAME sh -c"'
        try:
            words = shlex.split(text)
        except ValueError as error:
            raise UsageError(f"--via {text!r} cannot be split into words: {error}", hint=hint) from None
        if not words:
            raise UsageError("--via is empty", hint=hint)
        if shutil.which(words[0]) is None:
            raise UsageError(f"--via: there is no program {words[0]!r} here", hint=hint)
        return cls(text, tuple(words))

    @property
    def is_ssh(self) -> bool:
        """Whether the command is ssh itself, whose exit code 255 has a meaning."""
        return Path(self.words[0]).name == "ssh"

    def command(self) -> list[str]:
        """What to run here."""
        program, *rest = self.words
        if not self.is_ssh:
            return [program, *rest, remote_line()]
        if not any("serveraliveinterval" in word.lower() for word in rest):
            rest = [*_SSH_ALIVE, *rest]
        return [*_UNINTERRUPTED, program, *rest, remote_line()]


def wait_until_ready(fd: int) -> tuple[bool, bytes]:
    """Read the other side's output up to its READY; whether it came, and what came before it."""
    got = bytearray()
    while not got.endswith(READY):
        byte = os.read(fd, 1)  # what follows belongs to the frames
        if not byte or len(got) > NOISE_BYTES:
            return False, bytes(got)
        got += byte
    return True, bytes(got[: -len(READY)])


def explain_start(via: Via, code: int, words: str) -> CaptureError:
    """Why no collector began at the other end: ``code`` and last ``words`` of the way's command."""
    last = _last_line(words)
    said = f": {last}" if last else ""
    if code == STATUS_NO_PYTHON:
        return BccUnavailableError(f"{via.text}: that host has no python3", hint=BCC_HINT)
    if code == STATUS_OLD_PYTHON:
        return BccUnavailableError(
            f"{via.text}{said}", hint="capture there with trace-cmd, and import its trace.dat: docs/import.md"
        )
    if sudo_refused(words):
        return PrivilegeError(
            f"{via.text}: tracing needs root, and sudo there asks for a password",
            hint="log in as root, or allow sudo without a password for /usr/bin/python3",
        )
    if via.is_ssh and code == 255:
        return HostUnreachableError(
            f"cannot reach the host through {via.text!r}{said}",
            hint=f"try it by hand: {via.text} true",
        )
    if code == 0:
        return CollectorError(
            f"{via.text}: the other side ended before the collector was sent{said}",
            hint="standard input must reach it: docker exec and kubectl exec need -i, ssh must not have -n",
        )
    ended = f"was killed by signal {-code}" if code < 0 else f"ended with exit code {code}"
    return CollectorError(
        f"{via.text!r} {ended} before a collector began{said}",
        hint=f"it gets one more argument, a shell command line; try: {via.text} 'echo it works'",
    )


def explain_end(via: Via, error: CaptureError, code: int, words: str) -> CaptureError:
    """A stream's error, with what is known of the way's end."""
    if not isinstance(error, CollectorError):  # named by the collector itself
        return type(error)(f"{via.text}: {error.message}", hint=error.hint)
    last = _last_line(words)
    said = f"; it said: {last}" if last else ""
    if code < 0 or (via.is_ssh and code == 255):
        ended = f"killed by signal {-code}" if code < 0 else "exit code 255"
        return ConnectionLostError(
            f"the connection was lost: {error.message} ({via.text}: {ended}{said})",
            hint="what came before is kept; the collector there detaches by itself",
        )
    return CollectorError(f"{via.text}: {error.message} (exit code {code}{said})", hint=error.hint)


def sudo_refused(words: str) -> bool:
    """Whether sudo's words say that it wants a password, or never will let this user."""
    return "sudo:" in words and any(w in words for w in ("password", "not allowed", "sudoers", "tty"))


def _last_line(words: str) -> str:
    lines = [line.strip() for line in words.splitlines() if line.strip()]
    return lines[-1] if lines else ""
