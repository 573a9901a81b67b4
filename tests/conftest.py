"""Options and fixtures of the whole suite. Benchmarks are deselected by ``addopts``; ``make bench`` selects them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import settings

GOLDEN = Path(__file__).parent / "golden" / "data"

# Fixed examples: a failure seen once is seen again, here and in CI.
settings.register_profile("tracereplay", derandomize=True, deadline=None, print_blob=True)
settings.load_profile("tracereplay")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--update-golden", action="store_true", help="rewrite the golden files; review the diff before committing"
    )


@pytest.fixture
def golden(request: pytest.FixtureRequest) -> Callable[[str, str], None]:
    """``golden(name, text)``: text must equal tests/golden/data/NAME; ``--update-golden`` rewrites the file."""

    def check(name: str, text: str) -> None:
        path = GOLDEN / name
        if request.config.getoption("--update-golden"):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        assert path.is_file(), f"no golden file {path}: run pytest --update-golden {request.node.nodeid}"
        expected = path.read_text()
        assert text == expected, f"accept with: pytest --update-golden {request.node.nodeid}"

    return check


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """How many tests of the live capture ran: a run without them says less than one with them."""
    count = {
        outcome: sum("live" in report.keywords for report in terminalreporter.stats.get(outcome, []))
        for outcome in ("passed", "failed", "skipped")
    }
    if any(count.values()):
        terminalreporter.write_line("live tests: " + ", ".join(f"{n} {outcome}" for outcome, n in count.items()))
