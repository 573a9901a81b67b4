"""The shape of the package: who may import whom, how long a module is, what is documented, what help costs."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "tracereplay"
MAX_LINES = 400

LAYERS = (
    {"errors"},
    {"compile_cache"},
    {"compiled"},  # the JIT switch: below everything that is compiled
    {"kernel"},
    {"trace"},
    {"importers"},
    {"demand"},
    {"machine"},
    {"strategies"},
    {"replay", "verify"},
    {"cost"},
    {"analysis"},  # above cost, whose intervals it uses
    {"testing", "export"},
    {"whatif"},
    {"report"},  # also on sweeps
    {"scenarios"},
    {"validation", "casestudy"},
    {"cli"},
)
"""Lowest first. A part imports its own layer and the layers below."""
LEVEL = {part: level for level, parts in enumerate(LAYERS) for part in parts}
MODULES = sorted(path for path in PACKAGE.rglob("*.py") if "_collectors" not in path.parts)


def name_of(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def part_of(module: str) -> str | None:
    """Part of the package a module belongs to; None for tracereplay itself."""
    _, _, rest = module.partition(".")
    return rest.split(".")[0] or None


def imports_of(tree: ast.Module) -> set[str]:
    """Modules of tracereplay that a module names, wherever in it: also inside functions."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            found |= {node.module or ""}
            if node.module == "tracereplay":
                found |= {f"tracereplay.{alias.name}" for alias in node.names}
    return {name for name in found if name.split(".")[0] == "tracereplay"}


def forbidden(module: str, imported: set[str]) -> list[str]:
    """Imports of a module that go upwards."""
    own = part_of(module)
    if own is None:
        return []
    return sorted(
        name for name in imported if (part := part_of(name)) in LEVEL and part != own and LEVEL[part] >= LEVEL[own]
    )  # fmt: skip


def test_every_part_has_a_layer() -> None:
    parts = {part for path in MODULES if (part := part_of(name_of(path))) is not None}
    assert parts - LEVEL.keys() == set()


def test_the_rule_itself() -> None:
    assert forbidden("tracereplay.machine.zone", {"tracereplay.kernel.gfp", "tracereplay.errors"}) == []
    assert forbidden("tracereplay.kernel.gfp", {"tracereplay.machine.zone"}) == ["tracereplay.machine.zone"]
    assert forbidden("tracereplay.cost.price", {"tracereplay.analysis.x"}) == ["tracereplay.analysis.x"]
    assert imports_of(ast.parse("def f():\n    from tracereplay import cli")) == {"tracereplay", "tracereplay.cli"}


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_module(path: Path) -> None:
    text = path.read_text()
    tree = ast.parse(text)
    module = name_of(path)
    assert forbidden(module, imports_of(tree)) == []
    assert text.count("\n") < MAX_LINES
    assert undocumented(tree) == []


def undocumented(tree: ast.Module) -> list[str]:
    """Public functions, classes and methods without a docstring, and the module itself."""
    missing = [] if ast.get_docstring(tree) else ["<module>"]
    stack: list[tuple[str, ast.stmt]] = [("", node) for node in tree.body]
    while stack:
        prefix, node = stack.pop()
        if not isinstance(node, ast.FunctionDef | ast.ClassDef | ast.AsyncFunctionDef) or node.name.startswith("_"):
            continue
        is_overload = any(isinstance(d, ast.Name) and d.id == "overload" for d in node.decorator_list)
        if not ast.get_docstring(node) and not is_overload:
            missing.append(prefix + node.name)
        if isinstance(node, ast.ClassDef):
            stack += [(f"{node.name}.", child) for child in node.body]
    return missing


def test_only_the_command_line_prints_or_exits() -> None:
    culprits = []
    for path in MODULES:
        if part_of(name_of(path)) == "cli":
            continue
        culprits += [
            f"{name_of(path)}:{node.lineno}"
            for node in ast.walk(ast.parse(path.read_text()))
            if isinstance(node, ast.Call) and ast.unparse(node.func) in {"print", "sys.exit", "exit", "quit"}
        ]
    assert culprits == []


LOADED = """
import json, sys
sys.argv = ["tracereplay", *{args!r}]
from tracereplay.cli.app import main
try:
    main()
except SystemExit as done:
    status = done.code
print(json.dumps([status, sorted(sys.modules)]), file=sys.stderr)
"""


def run_help(*args: str) -> set[str]:
    """Modules that a help text loads, in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-c", LOADED.format(args=args)], capture_output=True, text=True, timeout=120, check=True
    )
    assert "Usage" in done.stdout
    status, modules = json.loads(done.stderr.splitlines()[-1])
    assert status == 0
    return set(modules)


@pytest.mark.parametrize(
    "verb", ["doctor", "capture", "collector", "info", "query", "analyze", "strategies", "replay", "verify", "report"]
)
def test_help_of_a_verb_imports_nothing_heavy(verb: str) -> None:
    assert run_help(verb, "--help") & {"numba", "polars", "pyarrow", "numpy"} == set()


def test_the_list_of_analyses_imports_nothing_heavy() -> None:
    code = "import sys; from tracereplay.analysis.registry import analyses; print(len(analyses()), *sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=True)
    assert set(done.stdout.split()) & {"numba", "polars", "pyarrow", "numpy"} == set()


def test_help_imports_nothing_heavy() -> None:
    started = time.perf_counter()
    assert run_help("--help") & {"numba", "polars", "pyarrow", "numpy", "rich.progress"} == set()
    print(f"tracereplay --help: {time.perf_counter() - started:.3f} s, module list included")
