"""The collector as one file: equal bytes for equal sources, nothing overwritten, Python 3.9 can run it."""

from __future__ import annotations

import ast
import os
import stat
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from collectors import VERSION, frommemory
from tracereplay import __version__
from tracereplay.errors import OutputExistsError, StorageError, UsageError
from tracereplay.trace import collector_bundle as bundle
from tracereplay.trace import transport
from tracereplay.trace.collector_files import collectors_directory

SOURCES = sorted(collectors_directory().glob("*.py"))
LATER_KEYWORDS = {"strict": (3, 10), "slots": (3, 10), "kw_only": (3, 10)}
LATER_NAMES = {"pairwise", "bit_count", "StrEnum", "TaskGroup", "UTC", "batched", "tomllib", "file_digest"}
"""Of the standard library after 3.9."""


def test_both_sides_have_one_version() -> None:
    assert __version__ == VERSION


def test_both_sides_agree_on_the_start() -> None:
    assert frommemory.OLDEST_PYTHON == bundle.OLDEST_PYTHON
    assert frommemory.PACKAGE == bundle.PACKAGE
    assert frommemory.STATUS_DAMAGED == transport.STATUS_DAMAGED
    assert frommemory.STATUS_OLD_PYTHON == transport.STATUS_OLD_PYTHON


def test_bytes_depend_on_the_sources_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    copy = tmp_path / "copy"
    copy.mkdir()
    for source in reversed(SOURCES):
        (copy / source.name).write_bytes(source.read_bytes())
        os.utime(copy / source.name, (1e9, 1e9))
    (copy / "__pycache__").mkdir()
    (copy / "__pycache__" / "x.py").write_text("1")
    original = bundle.collector_bundle()
    monkeypatch.setattr(bundle, "collectors_directory", lambda: copy)
    assert bundle.collector_bundle() == original
    (copy / "errors.py").write_text("# other")
    assert bundle.collector_bundle() != original


def test_the_file_is_executable_and_carries_every_module(tmp_path: Path) -> None:
    made = bundle.export_collector(tmp_path / "new" / "collector")
    assert made.path.read_bytes().startswith(b"#!/usr/bin/python3 ")
    assert stat.S_IMODE(made.path.stat().st_mode) == 0o755
    assert made.bytes == made.path.stat().st_size
    with zipfile.ZipFile(made.path) as archive:
        assert archive.testzip() is None
        names = set(archive.namelist())
    assert names == {"__main__.py"} | {f"collectors/{p.name}" for p in SOURCES if p.name != "__main__.py"}
    assert list((tmp_path / "new").iterdir()) == [made.path]


@pytest.mark.parametrize("how", ["exported", "directory"])
def test_it_runs_from_anywhere(how: str, tmp_path: Path) -> None:
    exported = bundle.export_collector(tmp_path / "collector").path
    what = exported if how == "exported" else collectors_directory()
    command = [sys.executable, "-EsB", str(what), "--version"]
    done = subprocess.run(command, cwd="/", env={}, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, f"tracereplay collector {VERSION}\n", "")


def test_an_older_python_is_told(tmp_path: Path) -> None:
    exported = bundle.export_collector(tmp_path / "collector").path
    with zipfile.ZipFile(exported) as archive:
        main = archive.read("__main__.py").decode()
    ast.parse(main, feature_version=(3, 4))
    later = tmp_path / "main.py"
    later.write_text(main.replace("(3, 9)", "(99, 0)"))
    done = subprocess.run([sys.executable, str(later)], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "needs 3.9 or later" in done.stderr


def test_nothing_is_overwritten_unasked(tmp_path: Path) -> None:
    path = tmp_path / "collector"
    path.write_text("mine")
    with pytest.raises(OutputExistsError):
        bundle.export_collector(path)
    assert path.read_text() == "mine"
    bundle.export_collector(path, force=True)
    assert path.read_bytes() == bundle.collector_bundle()
    with pytest.raises(UsageError, match="is a directory"):
        bundle.export_collector(tmp_path, force=True)
    with pytest.raises(StorageError):
        bundle.export_collector(path / "below")


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: p.name)
def test_a_module_keeps_to_python_3_9(path: Path) -> None:
    """No newer Python can be assumed on a host, and none is here to try it with: what is known to be later."""
    tree = ast.parse(path.read_text(), feature_version=(3, 9))
    lazy = "from __future__ import annotations" in path.read_text()
    assert lazy or not any(isinstance(n, ast.BinOp) and isinstance(n.op, ast.BitOr) for n in ast.walk(tree))
    later = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            later += [f"{k.arg}=" for k in node.keywords if k.arg in LATER_KEYWORDS]
            if ast.unparse(node.func) in ("isinstance", "issubclass") and isinstance(node.args[1], ast.BinOp):
                later.append(ast.unparse(node))
        elif isinstance(node, ast.Attribute) and node.attr in LATER_NAMES:
            later.append(node.attr)
        elif isinstance(node, ast.ImportFrom | ast.Import):
            later += [alias.name for alias in node.names if alias.name in LATER_NAMES]
        elif (
            isinstance(node, ast.Assign) and isinstance(node.value, ast.BinOp) and isinstance(node.value.op, ast.BitOr)
        ):
            later += [ast.unparse(node)] if _is_type(node.value.left) else []
    assert later == []


def _is_type(node: ast.expr) -> bool:
    """A name of a type, as far as a name tells."""
    text = ast.unparse(node)
    return text in ("int", "str", "float", "bytes", "None") or "[" in text


def test_the_start_can_be_read_by_any_python_3() -> None:
    """It has to be read before it can say that the Python is too old."""
    ast.parse(Path(frommemory.__file__).read_text(), feature_version=(3, 4))
    assert "from __future__" not in Path(frommemory.__file__).read_text()
