"""The accuracy page: its rows by hand, its sections, and that the pages keep up with the code."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tracereplay.cli.accuracy import HEAD, main, row_of, table
from tracereplay.cli.sections import replaced
from tracereplay.errors import UsageError
from tracereplay.verify.layout import REASONS

ROOT = Path(__file__).parents[2]
PAGE = "a\n<!-- shipped:begin -->\nold\n<!-- shipped:end -->\nb\n<!-- captured:begin -->\nmine\n<!-- captured:end -->\n"
BEGIN, END = "<!-- reasons:begin -->\n", "<!-- reasons:end -->"


def checked(**changes: Any) -> dict[str, Any]:
    """A document with round numbers."""
    nothing = {"kernel": 0, "twin": 0, "precision": None, "recall": None}
    return {
        "generation": "6.12",
        "allocations": {"traced": 4000, "unmatched_frees": 1},
        "refill": {"kernel": 1200, "twin": 1000, "precision": 0.75, "recall": 0.625},
        "drain": {"kernel": 0, "twin": 3, "precision": 0.0, "recall": None},
        "extfrag": nothing,
        "pfn": {"eligible": 100, "eligible_share": 0.9, "exact": 99, "share": 0.99},
        "pfn_free_running": None,
        "totals": {"initial_pops": 4, "pcp_allocations": 200},
        "resynchronisations": {"passed_over": 9, "other_cpu": 1},
        "free_blocks": {"l1_share": 0.05, "zones": [{"managed_changed": 0}]},
        "trace": {"kernel": "6.12.9"},
        "initial": {"source": ["page_map", "counts", "counts"]},
    } | changes


def test_a_row_by_hand() -> None:
    row = dict(zip(HEAD, row_of("web", checked()), strict=True))
    assert row == {
        "trace": "web",
        "kernel": "6.12.9",
        "allocations": "4,000",
        "exact frame": "99.00 %",
        "eligible": "90.00 %",
        "pages of the start": "2.00 %",
        "free running": "-",
        "refills: precision, recall": "75.00 %, 62.50 % of 1,200",
        "drains: precision, recall": "0.00 %, - of 0",
        "fallbacks: precision, recall": "none",
        "free blocks off by": "5.00 %",
        "start": "page map and counts",
        "resynchronisations per 1,000 allocations": "2.50",
    }


def test_what_is_not_known_in_a_row() -> None:
    unknown = checked(
        trace={"kernel": None},
        initial={},
        allocations={"traced": 0},
        totals={"initial_pops": 0, "pcp_allocations": 0},
        pfn_free_running={"share": 0.5},
        free_blocks={"l1_share": None, "zones": [{"managed_changed": 0}, {"managed_changed": -5}]},
    )
    row = dict(zip(HEAD, row_of("web", unknown), strict=True))
    assert (row["kernel"], row["start"], row["free running"]) == ("6.12", "-", "50.00 %")
    assert row["free blocks off by"] == "-, a zone changed size"
    assert row["resynchronisations per 1,000 allocations"] == "-"


def test_sections_are_replaced_one_by_one() -> None:
    assert replaced(PAGE, "shipped", "new") == PAGE.replace("old", "new")
    assert replaced(PAGE, "captured", "new\nlines") == PAGE.replace("mine", "new\nlines")
    with pytest.raises(UsageError, match="others:begin"):
        replaced(PAGE, "others", "new")
    assert table([["x"] * len(HEAD)]).splitlines()[2] == "|" + " x |" * len(HEAD)


@pytest.mark.parametrize("text", ["web.trace", "=web.trace"])
def test_a_trace_without_a_label_is_refused(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as refused:
        main([text])
    assert refused.value.code == 2
    assert "LABEL=TRACE" in capsys.readouterr().err


def test_the_page_has_a_line_for_every_shipped_trace() -> None:
    page = (ROOT / "docs" / "accuracy.md").read_text()
    shipped = page.split("<!-- shipped:begin -->")[1].split("<!-- shipped:end -->")[0]
    named = [line.split(" | ")[0].removeprefix("| ") for line in shipped.strip().splitlines()[2:]]
    assert named == sorted(path.parent.name for path in (ROOT / "traces").glob("*/manifest.json")), "make accuracy"


def test_the_docs_name_every_reason(request: pytest.FixtureRequest) -> None:
    page = ROOT / "docs" / "verify.md"
    before, _, rest = page.read_text().partition(BEGIN)
    _, _, after = rest.partition(END)
    rows = [f"| `{name}` | {meaning} |\n" for name, meaning in REASONS.items()]
    wanted = f"{before}{BEGIN}| reason | what happened |\n|---|---|\n{''.join(rows)}{END}{after}"
    if request.config.getoption("--update-golden"):
        page.write_text(wanted)
    assert page.read_text() == wanted, "accept with: pytest --update-golden tests/cli/test_accuracy.py"
