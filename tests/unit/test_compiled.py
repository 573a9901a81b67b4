"""The disk cache of compiled code never serves stale code, and its absence is tolerated."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

import tracereplay
from tracereplay import compile_cache

PACKAGE = Path(tracereplay.__file__).parent

CALLEE = """
from typing import NamedTuple
import numpy as np
import numpy.typing as npt
from tracereplay.compiled import entry, inner
from tracereplay.machine.numbers import FACTOR

class Box(NamedTuple):
    a: npt.NDArray[np.int64]

@inner
def times(x):
    return x * FACTOR

@entry(Box, int, bool)
def callee(box, i, wanted):
    return times(box.a[i]) if wanted else 0
"""
CALLER = """
import numpy as np
from tracereplay.compiled import address_of, entry, indirect, inner, kernel
from tracereplay.machine import callee as module
from tracereplay.machine.callee import Box

call = indirect(int, Box, int)

@entry(Box, int)
def between(box, i):
    return module.callee(box, i, True)

def pointed(box, i):
    return between(box, i) + 1

@kernel
def caller(box, i, address):
    return call(address, (box, i))

@kernel
def direct(box, i):
    return between(box, i) + 1

def both(values, i):
    box = Box(values)
    found = caller(box, i, address_of(pointed, int, Box, int))
    assert found == direct(box, i), (found, direct(box, i))
    return found
"""
MAIN = """
import sys
import numpy as np
from pathlib import Path
from tracereplay.compile_cache import directory_for
from tracereplay.machine import caller as module

index = int(sys.argv[1])
found = module.both(np.arange(5), index)
print(found, sum(module.direct.stats.cache_hits.values()), directory_for(Path(module.__file__)))
"""


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """A small package called tracereplay with two compiled modules and one of constants."""
    root = tmp_path / "src" / "tracereplay"
    machine = root / "machine"
    machine.mkdir(parents=True)
    for module in ("compiled.py", "compile_cache.py"):
        shutil.copy(PACKAGE / module, root)
    for folder in (root, machine):
        (folder / "__init__.py").write_text('"""Test."""\n')
    (machine / "numbers.py").write_text("FACTOR = 10\n")
    (machine / "callee.py").write_text(CALLEE)
    (machine / "caller.py").write_text(CALLER)
    (tmp_path / "main.py").write_text(MAIN)
    return root


def run(package: Path, index: int = 2, **environment: str) -> list[str]:
    top = package.parent.parent
    env = {k: v for k, v in os.environ.items() if not k.startswith(("NUMBA", "TRACEREPLAY", "XDG"))}
    env |= {"PYTHONPATH": str(package.parent), "XDG_CACHE_HOME": str(top / "cache"), **environment}
    done = subprocess.run(
        [sys.executable, "-B", str(top / "main.py"), str(index)],
        env=env,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(done.stderr)
    return done.stdout.split()


def test_second_process_loads_compiled_code_from_disk(package: Path) -> None:
    assert run(package)[:2] == ["21", "0"]
    assert run(package)[:2] == ["21", "1"]


@pytest.mark.parametrize(
    ("file", "old", "new", "value"),
    [
        ("numbers.py", "10", "20", "41"),
        ("callee.py", "x * FACTOR", "x * FACTOR + 5", "26"),
        ("caller.py", "+ 1", "+ 2", "22"),
    ],
)
def test_a_change_in_any_compiled_source_or_constant_is_seen(
    package: Path, file: str, old: str, new: str, value: str
) -> None:
    before = run(package)
    path = package / "machine" / file
    state = path.stat()
    path.write_text(path.read_text().replace(old, new))
    os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns))  # a checkout can keep the time of a file
    after = run(package)
    assert (before[0], after[0]) == ("21", value)
    assert before[2] != after[2]


def test_a_module_without_compiled_code_does_not_change_the_key(package: Path) -> None:
    before = run(package)
    (package / "report.py").write_text("TITLE = 'x'\n")
    assert run(package)[2] == before[2]


def test_options_have_their_own_directories_and_agree(package: Path) -> None:
    results = [run(package), run(package, TRACEREPLAY_NRT="1"), run(package, TRACEREPLAY_BOUNDSCHECK="1")]
    assert {r[0] for r in results} == {"21"}
    assert len({r[2] for r in results}) == 3


def test_bounds_check_raises(package: Path) -> None:
    with pytest.raises(RuntimeError, match="IndexError"):
        run(package, index=5, TRACEREPLAY_BOUNDSCHECK="1")


def test_cache_that_cannot_be_written_is_done_without(package: Path, tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("not a directory")
    assert run(package, XDG_CACHE_HOME=str(blocked)) == ["21", "0", "None"]
    assert run(package, XDG_CACHE_HOME=str(blocked)) == ["21", "0", "None"]
    assert blocked.read_text() == "not a directory"


def test_directory_that_others_may_write_to_is_not_used(package: Path) -> None:
    directory = Path(run(package)[2])
    assert directory.stat().st_mode & 0o777 == 0o700
    directory.chmod(0o777)
    assert run(package)[2] == "None"


def test_inherited_numba_directory_does_not_stick(package: Path, tmp_path: Path) -> None:
    first = run(package, NUMBA_CACHE_DIR=str(tmp_path / "elsewhere"))
    assert first[2] == run(package)[2]
    assert not (tmp_path / "elsewhere").exists()


def test_directories_unused_for_long_are_removed(package: Path, tmp_path: Path) -> None:
    directory = Path(run(package)[2])
    old, young = directory.parent / "old", directory.parent / "young"
    old.mkdir()
    young.mkdir()
    long_ago = time.time() - compile_cache.STALE_AFTER_S - 60
    os.utime(old, (long_ago, long_ago))
    run(package, TRACEREPLAY_NRT="1")
    assert not old.exists()
    assert young.exists()
    assert directory.exists()


def test_sources_cover_what_compiled_modules_import() -> None:
    names = {str(p.relative_to(PACKAGE)) for p in compile_cache.sources_of(PACKAGE / "replay" / "loop.py")}
    assert "kernel/constants.py" in names
    assert "compiled.py" in names
    assert not any(n.startswith(("cli/", "report/")) for n in names)


def test_environment_variable_names_the_place(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("TRACEREPLAY_CACHE_DIR", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "x"))
    assert compile_cache.cache_root() == tmp_path / "x" / "tracereplay" / "numba"
    monkeypatch.setenv("TRACEREPLAY_CACHE_DIR", str(tmp_path / "t"))
    assert compile_cache.cache_root() == tmp_path / "t" / "numba"
