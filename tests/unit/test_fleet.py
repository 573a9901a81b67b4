"""Many traces as one fleet: which are found, what is left out, how plain Parquet tools read them."""

from __future__ import annotations

import shutil
from pathlib import Path

import polars as pl
import pytest

from tests.fleet_samples import TRACES, copy_of, fleet_in
from tracereplay.errors import FleetError
from tracereplay.trace.fleet import is_fleet, traces_of
from tracereplay.trace.merge import merge_traces
from tracereplay.trace.reader import Trace


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return fleet_in(tmp_path_factory.mktemp("fleet"))


def test_partitions_are_columns(root: Path) -> None:
    fleet = traces_of([str(root)])
    assert fleet.names == ["host", "date", "rack", "trace"]
    assert [tuple(m.columns().values())[:3] for m in fleet.members] == [
        ("a", "2026-11-20", "r1"),
        ("b", "2026-11-21", "r1"),
        ("c", "2026-11-21", "r2"),
    ]
    assert fleet.members[1].location == f"{root}/rack=r1/host=b/date=2026-11-21"
    assert [m.open().metadata.trace_id for m in fleet.members] == [m.trace_id for m in fleet.members]
    assert fleet.failures == ()


def test_what_a_manifest_says_where_no_directory_does() -> None:
    fleet = traces_of([str(TRACES / "mixed-6.12"), str(TRACES / "dmcrypt-6.1-1M")])
    captured, imported = fleet.members
    assert (captured.host, captured.date) == ("guest", "2026-11-21")
    assert imported.date is None, "the day of an import is not that of the capture"


def test_patterns_and_values_as_hive_writes_them(tmp_path: Path) -> None:
    copy_of("dmcrypt-6.1-1M", tmp_path / "site=a%20b" / "host=__HIVE_DEFAULT_PARTITION__" / "x.trace")
    (member,) = traces_of([f"{tmp_path}/site=*/*/x.trace"]).members
    assert dict(member.keys) == {"site": "a b"}
    assert member.host == "guest"


def test_what_cannot_be_used_is_named_and_the_rest_goes_on(root: Path, tmp_path: Path) -> None:
    broken = copy_of("dmcrypt-6.1-1M", tmp_path / "host=d" / "x.trace")
    (broken / "manifest.json").unlink()
    cut = copy_of("dmcrypt-6.1-1M", tmp_path / "host=e" / "x.trace")
    (cut / "manifest.json").write_text("{")
    (tmp_path / "host=f").mkdir()
    (tmp_path / "host=g" / "notes").mkdir(parents=True)
    fleet = traces_of([str(tmp_path), str(root), str(tmp_path / "nowhere"), str(TRACES / "mixed-6.12")])
    assert [m.host for m in fleet.members] == ["a", "b", "c"]
    told = [f.error for f in fleet.failures]
    assert "no manifest.json" in told[0]
    assert "not JSON" in told[1]
    assert "empty" in told[2]
    assert "no manifest.json" in told[3]
    assert "does not exist" in told[4]
    assert told[5] == f"the same trace as {root}/rack=r2/host=c/date=2026-11-21/web.trace"
    assert [f.host for f in fleet.failures] == ["d", "e", "f", "g", None, "guest"]


def test_a_trace_given_twice_counts_once() -> None:
    one = str(TRACES / "mixed-6.12")
    fleet = traces_of([one, one])
    assert len(fleet.members) == 1
    assert [f.error for f in fleet.failures] == [f"the same trace as {one}"]


def test_nothing_to_use(tmp_path: Path) -> None:
    (tmp_path / "host=a").mkdir()
    with pytest.raises(FleetError, match="host=a"):
        traces_of([str(tmp_path)])


def test_one_trace_is_no_fleet(root: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for one in (TRACES / "mixed-6.12", tmp_path / "nowhere", tmp_path / "empty", TRACES / "README.md"):
        assert not is_fleet([str(one)])
    for several in ([str(root)], [f"{root}/*/*"], ["a", "b"]):
        assert is_fleet(several)


def test_a_link_that_leads_back_ends(root: Path, tmp_path: Path) -> None:
    shutil.copytree(root / "rack=r1", tmp_path / "rack=r1")
    (tmp_path / "rack=r1" / "host=z").symlink_to(tmp_path)
    fleet = traces_of([str(tmp_path)])
    assert len(fleet.members) == 2


def test_hosts_of_a_merged_trace_are_members(tmp_path: Path) -> None:
    parts = [Trace.open(TRACES / "mixed-6.12"), Trace.open(TRACES / "mixed-6.18")]
    merge_traces(tmp_path / "both.trace", parts, align=True)
    fleet = traces_of([str(tmp_path / "both.trace"), str(TRACES / "mixed-6.18"), str(TRACES / "mixed-6.1")])
    assert [m.location.rpartition("#")[2] for m in fleet.members[:2]] == ["guest", "vm"]
    assert [m.open().metadata.trace_id for m in fleet.members[:2]] == [p.metadata.trace_id for p in parts]
    assert [f.error for f in fleet.failures] == [f"the same trace as {tmp_path}/both.trace#vm"]


def test_plain_tools_read_it_in_place(root: Path) -> None:
    duckdb = pytest.importorskip("duckdb")
    pattern = f"{root}/**/page_events/*.parquet"
    counted = {m.host: m.open().rows("page_events") for m in traces_of([str(root)]).members}
    found = duckdb.sql(
        f"SELECT host, CAST(date AS VARCHAR), rack, COUNT(*) FROM read_parquet('{pattern}', hive_partitioning = true, "
        "union_by_name = true) GROUP BY ALL ORDER BY host"
    ).fetchall()
    assert found == [
        ("a", "2026-11-20", "r1", counted["a"]),
        ("b", "2026-11-21", "r1", counted["b"]),
        ("c", "2026-11-21", "r2", counted["c"]),
    ]
    scan = pl.scan_parquet(pattern, hive_partitioning=True, missing_columns="insert", extra_columns="ignore")
    assert dict(scan.group_by("host").len().sort("host").collect().rows()) == counted
