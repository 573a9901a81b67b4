"""The table of a sweep: types of its columns, its order, what is kept when it is written and read again."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest

from tracereplay.errors import OutputExistsError, ResultsError, UsageError
from tracereplay.whatif.grid import Plan, plan
from tracereplay.whatif.table import Table, read_axes, read_table
from tracereplay.whatif.task import FAILED, OK, Task, place

TRACE = str(Path(__file__).parents[2] / "traces" / "pages-6.12")
GRID = ("pcp.batch=31,63", "occupancy=0.5,0.75", "generation=6.1,6.12")


@pytest.fixture(scope="module")
def asked() -> Plan:
    return plan([TRACE], ["per-page", "bulk"], GRID, profile="brouer-2021", command="tracereplay whatif ...")


def row_of(task: Task, cost: float) -> dict[str, object]:
    return place(task) | {"per_page": cost, "alloc_calls": 7, "sample": "{}", "seconds": 0.5}


def test_rows_come_in_the_order_of_the_grid_with_typed_axes(asked: Plan, tmp_path: Path) -> None:
    table = Table.create(asked, tmp_path / "sweep.parquet")
    tasks = list(asked.tasks())
    for i, task in reversed(list(enumerate(tasks))):
        table.add(row_of(task, float(i)))
    table.save()
    frame = read_table(tmp_path / "sweep.parquet")
    assert frame["per_page"].to_list() == list(range(len(tasks)))
    assert (frame.schema["pcp.batch"], frame.schema["occupancy"]) == (pl.Int64, pl.Float64)
    assert frame["generation"].unique(maintain_order=True).to_list() == ["6.1", "6.12"]
    assert frame.columns[:8] == ["key", "status", "error", "method", "trace", "host", "kernel", "label"]
    assert frame["key"].n_unique() == len(tasks)
    assert read_axes(tmp_path / "sweep.parquet") == dict(asked.axes)
    assert [p.name for p in tmp_path.iterdir()] == ["sweep.parquet"]


def test_what_is_resumed_keeps_what_is_ok(asked: Plan, tmp_path: Path) -> None:
    path, tasks = tmp_path / "sweep.parquet", list(asked.tasks())
    table = Table.create(asked, path)
    table.add(row_of(tasks[0], 1.0) | {"status": OK})
    table.add(place(tasks[1]) | {"status": FAILED, "error": "too small"})
    table.save()
    again = Table.resume(asked, path)
    assert again.done == {tasks[0].key}
    assert Table.resume(asked, tmp_path / "none.parquet").done == set()


def test_a_key_follows_what_a_point_is(asked: Plan) -> None:
    first = next(iter(asked.tasks()))
    other = plan([TRACE], ["per-page", "bulk"], GRID, profile="brouer-2021", command="another").task(
        TRACE, first.label, dict(first.settings)
    )
    assert other.key == first.key
    seeded = plan([TRACE], ["per-page"], GRID, profile="brouer-2021", seed=1)
    assert seeded.task(TRACE, first.label, dict(first.settings)).key != first.key


def test_files_that_are_in_the_way_or_none(asked: Plan, tmp_path: Path) -> None:
    path = tmp_path / "sweep.parquet"
    path.write_text("no table")
    with pytest.raises(OutputExistsError):
        Table.create(asked, path)
    with pytest.raises(ResultsError, match="not readable"):
        Table.resume(asked, path)
    pl.DataFrame({"a": [1]}).write_parquet(path)
    with pytest.raises(ResultsError, match="no sweep"):
        Table.resume(asked, path)
    with pytest.raises(UsageError, match="no directory"):
        Table.create(asked, tmp_path / "no" / "sweep.parquet")
