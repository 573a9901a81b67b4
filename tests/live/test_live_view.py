"""The live view of a real capture on a pseudo-terminal, ended by Ctrl-C."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import select
import struct
import sys
import termios
import time
from pathlib import Path

import pytest

from tracereplay.trace.reader import Trace

pytestmark = [pytest.mark.live, pytest.mark.usefixtures("nothing_stays")]
COMMAND = [sys.executable, "-c", "from tracereplay.cli.app import main; main()", "capture"]
ESCAPES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


def on_a_terminal(arguments: list[str], columns: int, until: str) -> tuple[int, str]:
    """Exit code and everything drawn; Ctrl-C once ``until`` has been drawn."""
    pid, fd = pty.fork()
    if pid == 0:
        os.environ["TERM"] = "xterm"
        fcntl.ioctl(0, termios.TIOCSWINSZ, struct.pack("HHHH", 30, columns, 0, 0))
        os.execv(sys.executable, [*COMMAND, *arguments])
    drawn, asked = b"", False
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        if not select.select([fd], [], [], 1.0)[0]:
            continue
        try:
            piece = os.read(fd, 65536)
        except OSError:  # the other end is closed
            break
        drawn += piece
        if not asked and until.encode() in drawn:
            asked = True
            os.write(fd, b"\x03")
    os.close(fd)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), drawn.decode()


@pytest.mark.parametrize("columns", [80, 40])
def test_it_draws_and_ctrl_c_leaves_the_terminal_clean(tmp_path: Path, columns: int) -> None:
    out = tmp_path / "trace"
    arguments = [str(out), "--stacks", "--duration", "300s", "--no-page-map"]
    code, text = on_a_terminal(arguments, columns, "allocated by")
    assert code == 0, text
    assert Trace.open(out).complete
    assert text.rindex("\x1b[?25h") > text.rindex("\x1b[?25l")  # the cursor is back
    view, _, summary = text.rpartition("\x1b[?25h")
    pieces = view.replace("\x1b[2K", "\n").split("\n")  # a line is erased before it is drawn again
    lines = [ESCAPES.sub("", line).strip("\r") for line in pieces]
    assert max(len(line.removesuffix("^C")) for line in lines) < columns  # nothing wraps
    assert any(line.startswith("alloc ") for line in lines)
    assert any("to go" in line for line in lines)
    said = ESCAPES.sub("", summary)
    assert said.replace("\r", "").startswith(f"{out}: ")
    assert "(asked)" in said
    assert "completeness: " in said
    assert "per second" not in said
