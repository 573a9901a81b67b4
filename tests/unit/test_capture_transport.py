"""The way to another host: what is sent, what is read, and what each failure is called."""

from __future__ import annotations

import io
import json
import shlex
import subprocess
import zipfile
from collections.abc import Callable

import pytest

from tracereplay.errors import (
    BccUnavailableError,
    CaptureError,
    CollectorError,
    ConnectionLostError,
    HostUnreachableError,
    PrivilegeError,
    ProbeUnavailableError,
    UsageError,
)
from tracereplay.trace import transport
from tracereplay.trace.capture import CaptureOptions
from tracereplay.trace.collector_process import CollectorProcess
from tracereplay.trace.transport import READY, Via, explain_end, explain_start, remote_input, remote_line

Done = subprocess.CompletedProcess[bytes]


def other_side(data: bytes, shell: str = "sh") -> Done:
    """What a host's shell makes of the line and of its standard input."""
    return subprocess.run([shell, "-c", remote_line()], input=data, capture_output=True, check=False, timeout=60)


def package(**modules: str) -> bytes:
    """An exported file of other modules."""
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w") as archive:
        for name, text in {"__init__": "", **modules}.items():
            archive.writestr(f"collectors/{name}.py", text)
    return made.getvalue()


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> Callable[..., bytes]:
    """Input for the other side that carries modules of the test's instead of the collector."""

    def make(*arguments: str, **modules: str) -> bytes:
        monkeypatch.setattr(transport, "collector_bundle", lambda: package(**modules))
        return remote_input(arguments)

    return make


# ---------------------------------------------------------------- sending
def test_the_line_survives_every_shell() -> None:
    """Also csh and fish, in which these characters mean something between single quotes."""
    line = remote_line()
    assert shlex.split(line)[:2] == ["/bin/sh", "-c"]
    assert len(shlex.split(line)) == 3
    assert not set("\n\\!") & set(line)
    assert line.count("'") == 2


@pytest.mark.parametrize("shell", ["sh", "bash"])
def test_the_collector_runs_from_standard_input(shell: str) -> None:
    done = other_side(remote_input(["--version"]), shell)
    assert (done.returncode, done.stdout, done.stderr) == (0, READY + b"tracereplay collector 0.1.0\n", b"")


def test_standard_input_goes_on_where_the_collector_ended(sent: Callable[..., bytes]) -> None:
    command = "import os\ndef main(argv): os.write(1, os.read(0, 99)); return 7"
    done = other_side(sent(command=command) + b"the rest")
    assert (done.returncode, done.stdout, done.stderr) == (7, READY + b"the rest", b"")


def test_arguments_arrive_as_they_are(sent: Callable[..., bytes]) -> None:
    odd = ['--comm=it\'s "odd" $HOME `id` \\ !x', "--gfp=0x8", "ä\n"]
    done = other_side(sent(*odd, command="import json\ndef main(argv): print(json.dumps(argv))"))
    assert json.loads(done.stdout.removeprefix(READY)) == odd


def test_modules_import_each_other_from_memory_and_tracebacks_name_them(sent: Callable[..., bytes]) -> None:
    done = other_side(
        sent(
            command="import collectors\nfrom collectors.other import fail\ndef main(argv): fail()",
            other="from __future__ import annotations\ndef fail() -> int | None:\n    raise ValueError('here')",
        )
    )
    assert done.returncode == 1
    assert b'File "<sent>/collectors/other.py", line 3, in fail' in done.stderr


@pytest.mark.parametrize("cut", [9, 2000, 20_000, -1])
def test_an_input_that_ends_early_runs_nothing(cut: int) -> None:
    whole = remote_input(["--version"])
    done = other_side(whole[:cut])
    assert done.stdout == READY
    if cut not in (9, 2000):  # the start itself came whole
        assert done.returncode == transport.STATUS_DAMAGED


def test_an_input_that_was_changed_runs_nothing() -> None:
    whole = bytearray(remote_input(["--version"]))
    whole[-100] ^= 1
    done = other_side(bytes(whole))
    assert done.returncode == transport.STATUS_DAMAGED
    assert b"standard input ended or was changed" in done.stderr


def test_an_old_python_is_told() -> None:
    data = remote_input(["--version"])
    done = other_side(data.replace(b"OLDEST_PYTHON = (3, 9)", b"OLDEST_PYTHON = (9, 9)", 1))
    assert done.returncode == transport.STATUS_OLD_PYTHON
    error = explain_start(Via("ssh h", ("ssh", "h")), done.returncode, done.stderr.decode())
    assert isinstance(error, BccUnavailableError)
    assert "the collector needs 3.9 or later" in error.message


# ---------------------------------------------------------------- the command
def test_words_of_a_way() -> None:
    via = Via.parse("sh -c")
    assert via.command() == ["sh", "-c", remote_line()]


@pytest.mark.parametrize("text", ["", "  ", "ssh 'root@host", "no-such-program-here root@host"])
def test_what_is_no_command_is_refused(text: str) -> None:
    with pytest.raises(UsageError) as caught:
        Via.parse(text)
    assert "ssh root@host" in (caught.value.hint or "")


def test_ssh_notices_a_dead_host() -> None:
    def options(*words: str) -> list[str]:
        return [w for w in Via("", words).command() if w.startswith("ServerAlive")]

    assert options("/usr/bin/ssh", "root@host") == ["ServerAliveInterval=10", "ServerAliveCountMax=3"]
    assert options("ssh", "-o", "serveraliveinterval=3", "h") == []
    assert options("docker", "exec", "-i", "x", "sh", "-c") == []


def test_ssh_stays_at_the_terminal_and_does_not_hear_its_interrupt() -> None:
    """What the wrapper runs ignores both signals, and gets the words as they are."""
    command = Via("", ("/usr/bin/ssh", "a b", "$HOME")).command()
    wrapper = command[: command.index("/usr/bin/ssh")]
    show = ["sh", "-c", 'kill -INT $$; kill -HUP $$; printf "%s|" "$@"', "show", "a b", "$HOME"]
    done = subprocess.run([*wrapper, *show], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "a b|$HOME|")


def test_a_command_would_run_on_the_wrong_machine() -> None:
    with pytest.raises(UsageError, match="'make' would run on this machine") as caught:
        CaptureOptions(via="ssh root@host", command=("make", "-j4"))
    assert "ssh root@host COMMAND" in (caught.value.hint or "")


# ---------------------------------------------------------------- failing to start
@pytest.mark.parametrize(
    ("via", "kind", "message"),
    [
        ("true", CollectorError, "ended before the collector was sent"),
        ("false", CollectorError, "ended with exit code 1 before a collector began"),
        ("sh -c 'echo This account is not available.; exit 1'", CollectorError, "This account is not available"),
        ("sh -c 'kill -9 $$'", CollectorError, "was killed by signal 9"),
        (f"sh -c 'printf {READY.decode()}'", CollectorError, "ended before the collector was sent"),
        ("sh -c 'exec <&-; $0'", CollectorError, "before a collector began"),
        (f"sh -c 'exit {transport.STATUS_NO_PYTHON}'", BccUnavailableError, "has no python3"),
        ("sh -c 'echo sudo: a password is required >&2; exit 1'", PrivilegeError, "sudo there asks for a password"),
        ("ssh -F none -p 1 127.0.0.1", HostUnreachableError, "Connection refused"),
    ],
)
def test_what_keeps_a_collector_from_starting_is_named(via: str, kind: type[CaptureError], message: str) -> None:
    with pytest.raises(CaptureError, match=message) as caught:
        CollectorProcess([], via=via)
    assert type(caught.value) is kind
    assert caught.value.exit_code == 4
    assert caught.value.hint


def test_endless_noise_is_given_up() -> None:
    with pytest.raises(CollectorError, match="before a collector began"):
        CollectorProcess([], via="sh -c 'cat /dev/zero'")


# ---------------------------------------------------------------- breaking in the middle
VIA = Via("ssh root@host", ("ssh", "root@host"))


@pytest.mark.parametrize(
    ("code", "kind", "message"),
    [
        (255, ConnectionLostError, "the connection was lost: no end (ssh root@host: exit code 255; it said: bye)"),
        (-9, ConnectionLostError, "the connection was lost: no end (ssh root@host: killed by signal 9; it said: bye)"),
        (137, CollectorError, "ssh root@host: no end (exit code 137; it said: bye)"),
    ],
)
def test_a_stream_that_breaks_is_explained(code: int, kind: type[CaptureError], message: str) -> None:
    error = explain_end(VIA, CollectorError("no end", hint="h"), code, "x\nbye\n\n")
    assert (type(error), error.message) == (kind, message)


def test_errors_that_the_collector_names_say_where() -> None:
    error = explain_end(VIA, ProbeUnavailableError("no tracepoint", hint="h"), 4, "collector: no tracepoint")
    assert (type(error), error.message, error.hint) == (ProbeUnavailableError, "ssh root@host: no tracepoint", "h")
