"""What this host allows: the collector's own check, plus the programs that imports use.

One question has one answer everywhere: ``capture_possible`` gives the reason that ``doctor`` prints, that
``capture`` fails with and that live tests skip with.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from dataclasses import dataclass
from functools import cache
from typing import Any

from tracereplay.errors import CaptureError
from tracereplay.trace.collector_process import collector_command

CHECK_TIMEOUT_S = 60.0


@dataclass(frozen=True, slots=True)
class Item:
    """One finding about the host."""

    name: str
    found: str
    needed: str
    ok: bool
    effect: str = ""
    """What is lost without it; empty when it is there."""
    remedy: str = ""
    blocks: bool = False
    """Part of what stands between this host and any capture."""


@dataclass(frozen=True, slots=True)
class HostReport:
    """All findings and the conclusion."""

    possible: bool
    reason: str
    """How a capture works here, or why it does not."""
    items: tuple[Item, ...]
    host: dict[str, Any]
    path: str = ""
    """``ebpf``, ``tracefs``, or nothing when no capture is possible."""

    def to_json(self) -> dict[str, Any]:
        """The JSON of ``doctor --format json``."""
        items = [{name: getattr(i, name) for name in Item.__slots__} for i in self.items]
        return {
            "schema": 1,
            "capture": {"possible": self.possible, "path": self.path, "reason": self.reason},
            "host": self.host,
            "items": items,
        }


def examine_host() -> HostReport:
    """Try what a capture needs, through the collector itself. Never raises for what a host lacks."""
    try:
        value = _collector_check()
    except CaptureError as error:
        item = Item("collector", error.message, "starts", False, "no capture", error.hint or "", blocks=True)
        return HostReport(False, f"collector: {error.message}", (item, *_programs()), {})
    items = tuple(Item(**item) for item in value["items"])
    conclusion = value["capture"]
    return HostReport(
        bool(conclusion["possible"]),
        str(conclusion["reason"]),
        (*items, *_programs()),
        dict(value["host"]),
        str(conclusion.get("path", "")),
    )


@cache
def capture_path() -> tuple[str, str]:
    """Which way a capture goes here (``ebpf``, ``tracefs``, or nothing), and the reason in words. Asked once per
    process."""
    report = examine_host()
    return report.path, report.reason


def capture_possible() -> tuple[bool, str]:
    """Whether a capture can run here, and through what or why not. Asked once per process."""
    path, reason = capture_path()
    return bool(path), reason


def _collector_check() -> dict[str, Any]:
    """The collector's findings as root where possible, else as this user.

    Raises CaptureError when the collector does not even start or speaks no sense.
    """
    command = collector_command(["--check"])
    done = _run(command)
    if done.returncode != 0 and command[1:2] == ["-n"]:  # sudo refused: let the check say what is missing
        done = _run(command[2:])
    try:
        value = json.loads(done.stdout)
        if not isinstance(value, dict) or not {"items", "capture", "host"} <= set(value):
            raise ValueError("findings are incomplete")
    except ValueError as error:
        said = (done.stderr.strip().splitlines() or [str(error)])[-1]
        raise CaptureError(
            f"the collector's check failed with exit code {done.returncode}: {said}",
            hint="run it by hand: " + " ".join(command),
        ) from None
    return value


def _run(command: list[str]) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=CHECK_TIMEOUT_S, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise CaptureError(f"cannot run {command[0]}: {error}") from error


def _programs() -> list[Item]:
    """Programs of the distribution that help, and what they are for."""
    uses = {
        "trace-cmd": ("trace.dat files cannot be imported", "apt install trace-cmd"),
        "perf": ("perf.data files cannot be read", "apt install linux-perf"),
        "ssh": ("other hosts cannot be captured over ssh (--via)", "apt install openssh-client"),
        "sshd": ("this host cannot be captured over ssh from another one", "apt install openssh-server"),
    }
    search = os.environ.get("PATH", os.defpath) + ":/usr/sbin:/sbin"  # a user's PATH may lack these
    items = []
    for name, (effect, remedy) in uses.items():
        path = shutil.which(name, path=search)
        items.append(
            Item(name, path or "absent", "optional", bool(path), "" if path else effect, "" if path else remedy)
        )
    if os.geteuid() != 0:
        sudo = shutil.which("sudo")
        effect = "" if sudo else "capture works only from a root shell"
        items.append(Item("sudo", sudo or "absent", "for capture as a user", bool(sudo), effect))
    return items
