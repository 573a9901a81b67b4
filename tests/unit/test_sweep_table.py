"""A finished sweep in 80 columns."""

from __future__ import annotations

import json
from typing import Any

import polars as pl

from tracereplay.cost.profile import DEFAULT_PROFILE
from tracereplay.report.sweep_table import sweep_table


def row(label: str, cost: float | None, spread: float = 0.1, **settings: Any) -> dict[str, Any]:
    known = {
        "status": "failed" if cost is None else "ok",
        "error": "too little memory" if cost is None else None,
        "method": "replay",
        "trace": "web.trace",
        "label": label,
        "profile": DEFAULT_PROFILE,
        "seed": 3,
    }
    measured = {
        "trace_id": "0123456789abcdef",
        "host": "web1",
        "kernel": "6.12",
        "requests": 1000,
        "pages": 8000,
        "demand_pages": 16000,
        "unseen_pages": 5,
        "lost": 0,
        "failed": 0,
        "waiting": 0,
        "target": "batches",
        "unit": "ns",
        "per_page": cost,
        "per_page_low95": None if cost is None else cost - spread,
        "per_page_high95": None if cost is None else cost + spread,
        "accounting": json.dumps({"events": 99, "matched": 40}),
        "sample": None,
    }
    return known | (dict.fromkeys(measured) if cost is None else measured) | settings


def test_one_axis_is_a_line_a_value_with_the_cheapest_marked() -> None:
    rows = [row("a", c, batch=b) for c, b in ((50.0, 7), (30.0, 31), (20.0, 63), (None, 127))]
    rows += [row("b", c, batch=b) for c, b in ((25.0, 7), (29.9, 31), (31.0, 63), (32.0, 127))]
    text = sweep_table(pl.DataFrame(rows, infer_schema_length=None), ["batch"])
    lines = text.splitlines()
    assert max(map(len, lines)) <= 80
    cells = [line.split() for line in lines]
    for line in (["7", "50.0", "25.0*"], ["31", "30.0", "29.9~"], ["63", "20.0*", "31.0"], ["127", "failed", "32.0*"]):
        assert line in cells
    said = " ".join(text.split())
    assert "batch 31.3: b is cheaper below, a above; between the points 31 and 63" in said
    assert "failed: too little memory" in said
    assert "targeted 8,000 pages in 1,000 requests, 50 % of all pages; --target batches" in said
    assert "lost events 0, unseen pages 5" in said
    assert "seed 3" in said
    assert "8 by replay, 1 of them failed" in said


def test_an_axis_of_one_strategy_is_ranked_line_by_line() -> None:
    rows = [row("a", 10.0, 0.1, **{"b.cap": None})]
    rows += [row("b", cost, 0.1, **{"b.cap": cap}) for cap, cost in ((1, 12.0), (2, 10.1), (4, 8.0), (8, 7.0))]
    lines = [line.split() for line in sweep_table(pl.DataFrame(rows), ["b.cap"]).splitlines()]
    for line in (["1", "10.0*", "12.0"], ["2", "10.0~", "10.1"], ["4", "10.0", "8.00*"], ["8", "10.0", "7.00*"]):
        assert line in lines


def test_long_curves_are_thinned_where_lines_agree() -> None:
    rows = [row(label, 500.0 if label == "a" else float(i), 0.0, x=i) for i in range(1000) for label in "ab"]
    lines = sweep_table(pl.DataFrame(rows), ["x"]).splitlines()
    cells = [line.split() for line in lines]
    assert ["499", "500", "499*"] in cells
    assert ["501", "500*", "501"] in cells
    assert len(lines) < 70
    assert any("values more, between lines that agree" in line for line in lines)


def test_who_leaves_requests_unserved_is_marked() -> None:
    rows = [row("a", 3.0, x=1), row("b", 1.0, x=1) | {"failed": 500}]
    text = sweep_table(pl.DataFrame(rows), ["x"])
    assert ["1", "3.00*", "1.00!"] in [line.split() for line in text.splitlines()]
    assert "! leaves more requests unserved" in text
    assert "~" not in text


def test_points_without_a_price_show_what_was_counted() -> None:
    rows = [
        row("bulk", None, batch=b, high=h) | {"status": "ok", "error": None, "pcp_refills": 100 * b, "trace_id": "t"}
        for b in range(20)
        for h in range(3)
    ]
    text = sweep_table(pl.DataFrame(rows, infer_schema_length=None), ["batch", "high"])
    assert ["7", "2", "bulk", "700"] in [line.split() for line in text.splitlines()]
    assert "... 20 points more in the table" in text
    assert "failed" not in text


def test_more_axes_are_the_cheapest_at_each_setting() -> None:
    rows = [
        row(label, cost, batch=batch, copies=copies, **{"b.cap": cap})
        for batch, copies, label, cap, cost in (
            (7, 1, "a", None, 10.0),
            (7, 1, "b", 8, 12.0),
            (7, 1, "b", 16, 9.0),
            (7, 4, "a", None, 8.0),
            (7, 4, "b", 8, 12.0),
            (7, 4, "b", 16, 9.0),
        )
    ]
    text = sweep_table(pl.DataFrame(rows), ["batch", "copies", "b.cap"])
    assert max(map(len, text.splitlines())) <= 80
    cells = [line.split() for line in text.splitlines()]
    assert ["7", "1", "b[cap=16]", "9.00*", "8.90", "-", "9.10", "a", "1.00"] in cells
    assert ["7", "4", "a", "8.00*", "7.90", "-", "8.10", "b[cap=16]", "1.00"] in cells
    assert "copies 2.50: b[cap=16] is cheaper below, a above" in " ".join(text.split())


def test_long_names_and_many_settings_stay_in_80_columns() -> None:
    rows = [
        row(f"a-strategy-with-a-long-name-{s}", 10.0 + s + i, **{"watermark_boost_factor": i, "direct_map.4k": j / 10})
        for s in range(7)
        for i in range(9)
        for j in range(9)
    ]
    text = sweep_table(pl.DataFrame(rows), ["watermark_boost_factor", "direct_map.4k"])
    assert max(map(len, text.splitlines())) <= 80
    assert "... 41 settings more in the table" in text
    one = sweep_table(pl.DataFrame([r for r in rows if r["direct_map.4k"] == 0]), ["watermark_boost_factor"])
    assert max(map(len, one.splitlines())) <= 80


def test_traces_are_an_axis_of_names() -> None:
    rows = [row("a", 1.0, batch=7), row("b", 2.0, batch=7)]
    rows += [r | {"trace": "db.trace", "trace_id": "other"} for r in (row("a", 3.0, batch=7), row("b", 2.0, batch=7))]
    text = sweep_table(pl.DataFrame(rows), ["batch"])
    cells = [line.split() for line in text.splitlines()]
    assert ["web.trace", "7", "a", "1.00*", "0.900", "-", "1.10", "b", "1.00"] in cells
    assert ["db.trace", "7", "b", "2.00*", "1.90", "-", "2.10", "a", "1.00"] in cells
    assert "is cheaper below" not in text
    rows[3] |= {"demand_pages": 64000}
    assert "12.5 % to 50 % of all pages" in " ".join(sweep_table(pl.DataFrame(rows), ["batch"]).split())
