"""SQL over many traces: tables below each other, with host, date and the other partitions in front."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest

from tests.fleet_samples import TRACES, copy_of, fleet_in
from tracereplay.analysis.sql_fleet import FleetTables
from tracereplay.analysis.sql_tables import sql_tables
from tracereplay.errors import QueryError, TruncatedTraceError, UsageError
from tracereplay.trace.fleet import Fleet, traces_of
from tracereplay.trace.merge import merge_traces
from tracereplay.trace.reader import Trace
from tracereplay.trace.schema import TABLES
from tracereplay.trace.sql_run import run


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Fleet:
    return traces_of([str(fleet_in(tmp_path_factory.mktemp("fleet")))])


def ask(fleet: Fleet, sql: str, *, strict: bool = False) -> pl.DataFrame:
    tables = FleetTables(fleet, strict=strict)
    return run(tables.source, sql, extra=tables.extra)


@pytest.mark.parametrize("table", [*TABLES, "lifetimes", "io", "callers", "metadata"])
def test_tables_are_those_of_the_traces_below_each_other(fleet: Fleet, table: str) -> None:
    found = ask(fleet, f"SELECT * FROM {table}")
    assert found.columns[: len(fleet.names)] == fleet.names
    for member in fleet.members:
        trace = member.open()
        alone = run(trace, f"SELECT * FROM {table}", extra=sql_tables(trace))
        rows = found.filter(trace=member.location)
        assert rows.select(alone.drop("host", strict=False).columns).equals(alone.drop("host", strict=False))
        assert rows.select(fleet.names).unique().rows() in ([tuple(member.columns().values())], [])


def test_hosts_can_be_grouped_filtered_and_joined(fleet: Fleet) -> None:
    counted = {m.host: m.open().rows("page_events") for m in fleet.members}
    assert dict(ask(fleet, "SELECT host, COUNT(*) FROM page_events GROUP BY host").rows()) == counted
    one = ask(fleet, "SELECT COUNT(*) AS n FROM page_events WHERE rack = 'r2' AND date >= '2026-11-21'")
    assert one["n"].to_list() == [counted["c"]]
    joined = ask(
        fleet,
        "SELECT e.host, COUNT(*) AS n FROM page_events e JOIN tasks t ON e.pid = t.pid AND e.trace = t.trace "
        "GROUP BY e.host",
    )
    assert set(joined["host"]) <= set(counted)


def test_refusals(fleet: Fleet, tmp_path: Path) -> None:
    with pytest.raises(QueryError, match="no column 'hots'") as raised:
        ask(fleet, "SELECT hots FROM page_events")
    assert raised.value.hint == "did you mean 'host'?"
    for cpu in (0, 1):
        copy_of("dmcrypt-6.1-1M", tmp_path / f"cpu={cpu}" / "x.trace", anew=True)
    with pytest.raises(UsageError, match="partition cpu="):
        FleetTables(traces_of([str(tmp_path)]))


def test_a_damaged_table_leaves_its_trace_out(fleet: Fleet, tmp_path: Path) -> None:
    bad = copy_of("dmcrypt-6.1-1M", tmp_path / "x.trace", anew=True)
    file = next((bad / "page_events").iterdir())
    file.write_bytes(file.read_bytes()[:-100])
    both = traces_of([str(bad), str(TRACES / "mixed-6.12")])
    tables = FleetTables(both)
    found = run(tables.source, "SELECT DISTINCT trace FROM page_events", extra=tables.extra)
    assert found["trace"].to_list() == [both.members[1].location]
    assert [f.location for f in tables.failures] == [str(bad)]
    with pytest.raises(TruncatedTraceError):
        ask(both, "SELECT COUNT(*) FROM page_events", strict=True)
    assert ask(both, "SELECT COUNT(*) FROM bio_events", strict=True).item() > 0


def test_hosts_of_a_merged_trace(tmp_path: Path) -> None:
    parts = [Trace.open(TRACES / "mixed-6.12"), Trace.open(TRACES / "mixed-6.18")]
    merge_traces(tmp_path / "both.trace", parts, align=True)
    fleet = traces_of([str(tmp_path / "both.trace"), str(TRACES / "mixed-6.1")])
    found = ask(fleet, "SELECT trace, COUNT(*) AS n FROM page_events GROUP BY trace")
    expected = {f"{tmp_path}/both.trace#guest": parts[0], f"{tmp_path}/both.trace#vm": parts[1],
                str(TRACES / "mixed-6.1"): Trace.open(TRACES / "mixed-6.1")}  # fmt: skip
    assert dict(found.rows()) == {name: t.rows("page_events") for name, t in expected.items()}
