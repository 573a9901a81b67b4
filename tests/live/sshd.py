"""An ssh server of the test's own: loopback, a free port, keys made for it, gone with the test."""

from __future__ import annotations

import contextlib
import getpass
import os
import shlex
import shutil
import socket
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.live.conftest import wait_for
from tracereplay.trace.hostcheck import examine_host

PRIVILEGE_SEPARATION = Path("/run/sshd")


@dataclass(frozen=True)
class Server:
    """A running server."""

    via: str
    """What leads to it, for ``--via``."""
    pid: int
    log: Path


def _server_program() -> str:
    """Path of sshd. Skips for the reason that ``doctor`` gives when there is none."""
    item = next(i for i in examine_host().items if i.name == "sshd")
    if not item.ok:
        pytest.skip(f"doctor: sshd: {item.found}; {item.remedy}")
    return item.found


def _key(path: Path) -> Path:
    command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(path)]
    subprocess.run(command, check=True, stdin=subprocess.DEVNULL)
    return path


@contextlib.contextmanager
def _privilege_separation_directory() -> Iterator[None]:
    """sshd as root insists on it; it is made at boot where sshd is a service."""
    made = os.geteuid() == 0 and not PRIVILEGE_SEPARATION.exists()
    if made:
        PRIVILEGE_SEPARATION.mkdir(mode=0o755)
    try:
        yield
    finally:
        if made:
            PRIVILEGE_SEPARATION.rmdir()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _answers(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1) as link:
        return link.recv(4) == b"SSH-"
    return False


@contextlib.contextmanager
def running_sshd(folder: Path) -> Iterator[Server]:
    """A server that lets this user in with a key."""
    program = _server_program()
    host, client = _key(folder / "host_key"), _key(folder / "client_key")
    port = _free_port()
    (folder / "authorized_keys").write_text(client.with_suffix(".pub").read_text())
    (folder / "known_hosts").write_text(f"[127.0.0.1]:{port} {host.with_suffix('.pub').read_text()}")
    (folder / "sshd_config").write_text(
        f"ListenAddress 127.0.0.1\nPort {port}\nHostKey {host}\nPidFile none\nUsePAM no\nStrictModes no\n"
        f"AuthorizedKeysFile {folder}/authorized_keys\nPermitRootLogin yes\nPasswordAuthentication no\n"
        "KbdInteractiveAuthentication no\n"
    )
    log = folder / "sshd.log"
    with _privilege_separation_directory(), log.open("wb") as said:
        process = subprocess.Popen([program, "-D", "-e", "-f", str(folder / "sshd_config")], stderr=said)
        try:
            wait_for(lambda: _answers(port) or process.poll() is not None, "sshd answers")
            assert process.poll() is None, log.read_text()
            options = ["-F", "none", "-p", str(port), "-i", str(client), "-o", "BatchMode=yes"]
            options += ["-o", f"UserKnownHostsFile={folder}/known_hosts", "-o", "IdentitiesOnly=yes"]
            ssh = shutil.which("ssh")
            assert ssh is not None, "openssh-server brings the client along"
            yield Server(shlex.join([ssh, *options, f"{getpass.getuser()}@127.0.0.1"]), process.pid, log)
        finally:
            process.terminate()
            process.wait()
