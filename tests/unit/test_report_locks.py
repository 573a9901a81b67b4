"""What reports say of locks: sections with their prices, waits where there are any, a sentence where not."""

from __future__ import annotations

from typing import Any

import pytest

from tests.example_result import example_result
from tracereplay.cost.profile import load_profile
from tracereplay.cost.sections import drain_cost, priced
from tracereplay.machine.layout import SECTION_PARTS
from tracereplay.report.data import build_comparison
from tracereplay.report.html import Report, render
from tracereplay.report.locks import contention_lines, contention_note, section_lines
from tracereplay.report.terminal import comparison

SLOT = {"start_ns": 5, "acquisitions": 9, "cpus": 3.0, "utilisation": 0.5, "wait_mean": 900.0}


def lock(name: str = "Normal, node 0", **more: Any) -> dict[str, Any]:
    return {
        "lock": name, "acquisitions": 1000, "hold_mean": 700.0, "utilisation": 0.2, "contended": 0.12,
        "wait_mean": 150.0, "wait_p99": 2500.0, "spin_total": 150_000.0, "busiest_slot": SLOT,
    } | more  # fmt: skip


def waiting(*locks: dict[str, Any], **more: Any) -> dict[str, Any]:
    spun = sum(one["spin_total"] for one in locks)
    return {
        "unit": "ns", "slot_ns": 100_000, "duration_ns": 10**9, "handover": 100.0, "locks": list(locks),
        "pcp_locks": {"acquisitions": 5, "emptied_by_others": 0}, "spin_total": spun, "spin_targeted": spun / 2,
        "share_of_cost": 0.05,
    } | more  # fmt: skip


QUIET = waiting(lock(contended=0.001, wait_mean=1.0, wait_p99=0.0, spin_total=1000.0))
NONE = waiting(lock(contended=0.0, wait_mean=0.0, wait_p99=0.0, spin_total=0.0, busiest_slot=None))


def test_the_lock_with_most_waiting_is_shown() -> None:
    rows = [{"contention": waiting(lock("DMA32, node 0", spin_total=5.0), lock())}, {"contention": QUIET}]
    lines = {line[0]: line[1:] for line in contention_lines(rows)}
    assert lines["zone lock"] == ("Normal 0", "Normal 0")
    assert lines["in use"] == ("20 %", "20 %")
    assert lines["busiest 100 us"] == ("50 %", "50 %")
    assert lines["found taken"] == ("12 %", "0.1 %")
    assert lines["mean wait"] == ("150 ns", "1.00 ns")
    assert lines["99 % wait less than"] == ("2.50 us", "0 ns")
    assert lines["CPU time spun"] == ("150 us", "1.00 us")
    assert contention_note(rows) == ""


@pytest.mark.parametrize(
    ("found", "says"),
    [
        (QUIET, "no waiting to speak of (at most 0.1 % of acquisitions find one taken; 1.00 us of CPU time)"),
        (NONE, "no waiting to speak of (no acquisition meets another; 0 ns of CPU time)"),
        ({"unit": "instructions", "reason": "profile x is in instructions"}, "not reckoned: profile x is in instr"),
    ],
)
def test_a_sentence_where_nobody_waits(found: dict[str, Any], says: str) -> None:
    rows = [{"contention": found}, {"contention": found}]
    assert contention_lines(rows) == ()
    assert says in contention_note(rows)


def test_old_results_say_nothing() -> None:
    assert contention_lines([{}]) == ()
    assert contention_note([{}]) == ""
    assert section_lines([{}], "ns") == ()
    assert section_lines([], "ns") == ()


def test_sections_have_the_profile_s_unit() -> None:
    parts = {**dict.fromkeys(SECTION_PARTS, 0), "refills": 1, "blocks_refilled": 63, "splits": 60, "unlinked": 1}
    work = {"work": sum(parts.values()), **parts}
    sections = {"pcp": {"lock": "trylock", **work}, "interrupts_off": {**work, "longest_drain_pages": 500}}
    profile = load_profile()
    rows = [{"sections": priced(sections, profile)}]
    price = {c.name: c.value for c in profile.coefficients}
    held = price["zone_lock"] + 63 * price["refill_page"] + 60 * price["split"] + price["pcp_pop"] / 2
    assert rows[0]["sections"]["pcp"]["cost"] == pytest.approx(held)
    drained = price["zone_lock"] + 500 * price["drain_page"]
    assert drain_cost(500, profile) == rows[0]["sections"]["interrupts_off"]["longest_drain_cost"] == drained
    lines = section_lines(rows, "ns")
    assert [line[0] for line in lines] == [
        "pcp lock (trylock)", "  ns", "interrupts off", "  ns", "pages of a drain", "  ns, at least"
    ]  # fmt: skip
    assert lines[0][1] == "125"
    assert lines[-1][1] == "2,550"
    for name in ("linux-6.1", "linux-6.12"):  # fitted profiles have coefficients of other names
        found = priced(sections, load_profile(name))
        assert found["pcp"]["cost"] > 1000
        assert found["interrupts_off"]["longest_drain_cost"] > 1000


def test_copies_are_told() -> None:
    result = example_result()
    assert "copies" not in comparison(result)
    result["demand"]["copies"] = {"copies": 64, "cpus_each": 1, "offsets_ns": [0]}
    assert "pages, in 64 copies; targeted" in " ".join(comparison(result).split())


@pytest.mark.parametrize("found", [waiting(lock()), QUIET])
def test_text_and_page_show_it(found: dict[str, Any]) -> None:
    result = example_result()
    for entry in result["results"]:
        entry["contention"] = found
    text = comparison(result)
    page = str(render(Report(build_comparison(result)), title="t", made="m"))
    if found is QUIET:
        assert "no waiting to speak of" in " ".join(text.split())
        assert "no waiting to speak of" in page
    else:
        assert "waiting at locks" in text
        assert "<caption>Waiting at zone locks</caption>" in page
    assert max(map(len, text.splitlines())) <= 80
