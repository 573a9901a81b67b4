"""Live tests capture on this host. They skip for one reason only: the one that ``tracereplay doctor``
gives.
"""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from collectors.bpfsys import loaded_programs
from tracereplay.trace.hostcheck import capture_path


@pytest.fixture(autouse=True)
def _host_allows_capture(request: pytest.FixtureRequest) -> None:
    """Tests of the fallback need tracefs only; the others look at eBPF programs."""
    path, reason = capture_path()
    if not path or (path != "ebpf" and "tracefs" not in request.path.name):
        pytest.skip(f"doctor: {reason}")


def programs_held_by(pid: int | str) -> set[int]:
    """Ids of the BPF programs that a process holds, through a program, a link or a perf event."""
    held: set[int] = set()
    # A process may end while it is looked at, and a container's first process may be closed even to root.
    with contextlib.suppress(FileNotFoundError, ProcessLookupError, PermissionError):
        for info in Path(f"/proc/{pid}/fdinfo").iterdir():
            for line in info.read_text().splitlines():
                if line.startswith("prog_id:"):
                    held.add(int(line.split()[1]))
    return held


def left_programs() -> set[int]:
    """Ids of the collector's programs that the kernel holds for no living process: what must not be.

    Captures of others on this host, running at the same time, do not count.
    """
    ours = {int(str(p["id"])) for p in loaded_programs() if str(p["name"]).startswith("tr_")}
    if ours:
        for process in Path("/proc").iterdir():
            if process.name.isdigit():
                ours -= programs_held_by(process.name)
    return ours


def wait_for(condition: Callable[[], bool], what: str, timeout: float = 20.0) -> None:
    """Poll until it holds; fail after the timeout."""
    end = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < end, f"timed out: {what}"
        time.sleep(0.02)


@pytest.fixture
def nothing_stays() -> Iterator[None]:
    """After the test the kernel holds no program of ours for a process that is gone."""
    yield
    wait_for(lambda: not left_programs(), "programs of the collector are still loaded")


@pytest.fixture
def cli() -> list[str]:
    """The command line, as this environment's Python runs it."""
    return [sys.executable, "-c", "from tracereplay.cli.app import main; main()"]


@pytest.fixture
def out(tmp_path: Path) -> Path:
    """Where the trace goes."""
    return tmp_path / "trace"
