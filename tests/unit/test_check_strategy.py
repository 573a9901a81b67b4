"""The conformance kit: every way of being broken is told in words, with the line; what is right passes."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.broken_strategies import BROKEN, NOT_COMPILED, RIGHT, broken_file
from tracereplay.errors import PluginError, StrategyError, UnknownStrategyError
from tracereplay.testing import RULES, Verdict, check_strategy

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "docs" / "examples" / "llfree.py"


@pytest.fixture(scope="module")
def verdicts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Future[Verdict]]]:
    """Verdicts on all that is broken as plain Python: processes of their own, two at a time."""
    with ThreadPoolExecutor(2) as pool:
        yield {
            name: pool.submit(
                check_strategy,
                f"{broken_file(tmp_path_factory.mktemp('broken'), (old, new))}:Mine",
                compiled=False,
            )
            for name, (old, new, *_) in BROKEN.items()
        }


@pytest.mark.parametrize("name", BROKEN)
def test_what_is_broken_is_named_with_its_line(name: str, verdicts: dict[str, Future[Verdict]]) -> None:
    *_, rule, words, line = BROKEN[name]
    verdict = verdicts[name].result()
    assert not verdict.ok
    first = verdict.findings[0]
    assert (first.rule, words in str(first)) == (rule, True), str(first)
    assert line in ("", first.source), first
    assert rule in RULES
    assert rule not in verdict.passed
    with pytest.raises(StrategyError) as caught:
        verdict.raise_for_findings()
    assert caught.value.exit_code == 5
    assert words in caught.value.message


def test_a_file_that_ends_the_process_is_a_finding(tmp_path: Path) -> None:
    path = broken_file(tmp_path, ("    # done\n", "    import os; os._exit(3)\n"))
    (finding,) = check_strategy(f"{path}:Mine", compiled=False).findings
    assert (finding.rule, "ended with status 3" in finding.message) == ("raises", True)


def test_a_file_that_crashes_python_is_a_finding(tmp_path: Path) -> None:
    path = broken_file(tmp_path, ("    # done\n", "    import ctypes; ctypes.string_at(0)\n"))
    (finding,) = check_strategy(f"{path}:Mine", compiled=False).findings
    assert "died of SIGSEGV" in finding.message
    assert finding.source == "import ctypes; ctypes.string_at(0)"


@pytest.mark.parametrize("name", NOT_COMPILED)
def test_what_numba_refuses_has_its_line(name: str, tmp_path: Path) -> None:
    old, new, words, line = NOT_COMPILED[name]
    verdict = check_strategy(f"{broken_file(tmp_path, (old, new))}:Mine")
    (finding,) = verdict.findings
    assert (finding.rule, words in finding.message) == ("compiles", True), str(finding)
    assert line in ("", finding.source)
    assert "leaks" in verdict.passed


def test_what_is_right_passes_every_rule(tmp_path: Path) -> None:
    path = tmp_path / "mine.py"
    path.write_text(RIGHT)
    verdict = check_strategy(path)  # the only strategy in it
    assert [str(f) for f in verdict.findings] == []
    assert verdict.passed == tuple(RULES)
    assert Verdict.from_json(verdict.to_json() | {}).passed == verdict.passed


def test_the_example_passes_every_rule() -> None:
    verdict = check_strategy(f"{EXAMPLE}:LLFree")
    assert [str(f) for f in verdict.findings] == []
    assert verdict.passed == tuple(RULES)


@pytest.mark.parametrize("name", ["per-page", "bulk", "compound", "unmapped-cache"])
def test_ours_pass(name: str) -> None:
    verdict = check_strategy(name, compiled=False)
    assert [str(f) for f in verdict.findings] == []


def test_names_that_nobody_has() -> None:
    with pytest.raises(UnknownStrategyError, match="bluk"):
        check_strategy("bluk")
    with pytest.raises(PluginError, match=r"no strategy file 'nowhere\.py'"):
        check_strategy("nowhere.py:X")
