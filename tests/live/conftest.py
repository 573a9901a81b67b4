"""Live tests capture on this host. They skip for one reason only: the one that ``tracereplay doctor``
gives.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from collectors.bpfsys import loaded_programs
from tracereplay.trace.hostcheck import capture_possible


@pytest.fixture(autouse=True, scope="session")
def _host_allows_capture() -> None:
    possible, reason = capture_possible()
    if not possible:
        pytest.skip(f"doctor: {reason}")


def attached_programs() -> set[int]:
    """Ids of our programs that the kernel holds now."""
    return {int(str(p["id"])) for p in loaded_programs() if str(p["name"]).startswith("tr_")}


@pytest.fixture
def nothing_stays() -> Iterator[None]:
    """After the test the kernel holds no program of ours that it did not hold before."""
    before = attached_programs()
    yield
    assert attached_programs() <= before, "programs of the collector are still loaded"


@pytest.fixture
def cli() -> list[str]:
    """The command line, as this environment's Python runs it."""
    return [sys.executable, "-c", "from tracereplay.cli.app import main; main()"]


@pytest.fixture
def out(tmp_path: Path) -> Path:
    """Where the trace goes."""
    return tmp_path / "trace"
