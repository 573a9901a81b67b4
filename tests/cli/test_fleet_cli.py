"""Verbs that take many traces: what they show of hosts and of the fleet, what they leave out and say so."""

from __future__ import annotations

import json
from pathlib import Path

import polars as pl
import pytest
from typer.testing import CliRunner

from tests.fleet_samples import TRACES, fleet_in
from tracereplay.cli.app import app


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three hosts, and one without a trace."""
    made = fleet_in(tmp_path_factory.mktemp("fleet"))
    (made / "rack=r2" / "host=d").mkdir()
    return made


def run(*args: str) -> tuple[int, str, str]:
    done = CliRunner().invoke(app, args)
    return done.exit_code, done.stdout, done.stderr


def test_analyze_shows_hosts_then_the_fleet(root: Path) -> None:
    code, out, err = run("analyze", "orders", str(root))
    assert code == 0
    lines = out.splitlines()
    assert lines[0].split()[:5] == ["host", "date", "rack", "order", "migratetype"]
    assert [line.split()[0] for line in lines[2:]] == sorted(
        line.split()[0] for line in lines[2:] if line[0] != "("
    ) + ["(fleet)"] * sum(line.startswith("(fleet)") for line in lines)
    assert "fleet: 3 traces of 3 hosts, 1 left out" in err
    assert f"left out: {root}/rack=r2/host=d: no trace at" in err
    assert run("analyze", "orders", str(root), "--strict")[0] == 3


def test_analyze_writes_every_form(root: Path, tmp_path: Path) -> None:
    code, out, _ = run(
        "analyze", "callers", str(root), "--top", "1", "--format", "json", "-o", str(tmp_path / "x.json")
    )
    assert (code, out) == (0, "")
    said = json.loads((tmp_path / "x.json").read_text())
    assert said["fleet"]["traces"] == 3
    assert said["fleet"]["adds_up"]
    assert [f["host"] for f in said["fleet"]["failed"]] == ["d"]
    assert [t["host"] for t in said["traces"]] == ["a", "b", "c"]
    assert [r["host"] for r in said["rows"]] == ["a", "b", "c", "(fleet)"]
    for suffix in ("parquet", "csv", "svg"):
        assert run("analyze", "callers", str(root), "-o", str(tmp_path / f"x.{suffix}"))[0] == 0
    assert pl.read_parquet(tmp_path / "x.parquet").height == pl.read_csv(tmp_path / "x.csv").height
    assert (tmp_path / "x.svg").read_text().startswith("<svg")
    code, _, err = run("analyze", "peak", str(root), "--svg", str(tmp_path / "y.svg"))
    assert code == 2
    assert "different moments" in err


def test_a_table_of_many_rows_is_cut_and_says_so(root: Path) -> None:
    code, out, err = run("analyze", "rate", str(root))
    assert code == 0
    assert len(out.splitlines()) < 110
    assert "not all are shown" in err
    assert "no rows of the fleet: times count" in err
    one, _, _ = run("analyze", "orders", str(TRACES / "mixed-6.12"))
    assert one == 0


def test_query_is_put_to_all_traces(root: Path, tmp_path: Path) -> None:
    sql = "SELECT host, COUNT(*) AS n FROM page_events GROUP BY host ORDER BY host"
    code, out, err = run("query", str(root), str(TRACES / "mixed-6.1"), sql, "--format", "csv")
    assert code == 0
    assert [line.split(",")[0] for line in out.splitlines()] == ["host", "a", "b", "c", "guest"]
    assert "fleet: 4 traces of 4 hosts, 1 left out" in err
    (tmp_path / "q.sql").write_text(sql)
    code, out, _ = run("query", str(root), "--file", str(tmp_path / "q.sql"), "--rows", "1")
    assert (code, len(out.splitlines())) == (0, 3)
    code, out, _ = run("query", f"{root}/*/host=[ab]", sql, "-o", str(tmp_path / "q.parquet"))
    assert (code, pl.read_parquet(tmp_path / "q.parquet")["host"].to_list()) == (0, ["a", "b"])
    code, out, err = run("query", str(root), "SELECT host, class FROM lifetimes", "--explain")
    assert code == 0
    assert "table lifetimes is not made yet" in err
    assert run("query", str(root), sql, "--strict")[0] == 3
    for args in (["query", str(root)], ["query", str(root), sql, "--file", str(tmp_path / "q.sql")]):
        code, _, err = run(*args)
        assert code == 2
        assert "either as an argument or with --file" in err


def test_replay_compares_on_each_host_and_on_the_fleet(root: Path, tmp_path: Path) -> None:
    chosen = ["-s", "per-page", "-s", "bulk"]
    code, out, err = run("replay", str(root), *chosen, "-o", str(tmp_path / "x.json"))
    assert code == 0
    rows = [line.split() for line in out.split("\n\n")[0].splitlines()[2:]]
    assert [row[0] for row in rows] == ["a", "a", "b", "b", "c", "c", "(fleet)", "(fleet)"]
    assert "cheapest on so many of 3 hosts: per-page 0, bulk 3" in out
    assert "3 hosts, too few to draw from" in out
    assert "fleet: 3 traces of 3 hosts, 1 left out" in err
    said = json.loads((tmp_path / "x.json").read_text())
    assert [t["host"] for t in said["traces"]] == ["a", "b", "c"]
    assert said["fleet"]["failed"][0]["host"] == "d"
    for k, result in enumerate(said["fleet"]["results"]):
        parts = [t["results"][k] for t in said["traces"]]
        assert result["counters"] == {n: sum(p["counters"][n] for p in parts) for n in parts[0]["counters"]}
        assert result["cost"]["total"] == pytest.approx(sum(p["cost"]["total"] for p in parts), rel=1e-12)
    code, out, _ = run("replay", str(TRACES / "dmcrypt-6.1-1M"), *chosen, "--format", "json")
    alone = json.loads(out)
    of_fleet = next(t for t in said["traces"] if t["host"] == "b")
    assert of_fleet["trace"] != alone["trace"]
    assert of_fleet["results"] == alone["results"]
    for option in ("--tornado", "--distribution"):
        assert run("replay", str(root), option)[0] == 2
    assert run("replay", str(root), "--strict")[0] == 3
    assert run("replay", str(root), "--executor", "thread")[0] == 2


def test_what_cannot_be_replayed_is_left_out(root: Path, tmp_path: Path) -> None:
    args = ["replay", str(root), "-s", "per-page", "--path", "dm-crypt", "--device", "253,7", "--format", "csv"]
    code, _, err = run(*args)
    assert code == 3
    assert "no trace can be replayed" in err
    code, out, _ = run("replay", str(root), "-s", "per-page", "--format", "csv", "--target", "all")
    table = pl.read_csv(out.encode())
    assert table["host"].to_list() == ["a", "b", "c", "(fleet)"]
    assert table["pages_allocated"][-1] == table["pages_allocated"][:-1].sum()


def test_whatif_has_rows_of_the_fleet(root: Path, tmp_path: Path) -> None:
    table = tmp_path / "sweep.parquet"
    args = ["whatif", f"{root}/rack=r1", "-s", "per-page", "-s", "bulk", "--grid", "pcp.batch=15,63", "-o", str(table)]
    code, out, err = run(*args)
    assert code == 0, err
    assert "(fleet)" in out
    assert "fleet: 2 traces of 2 hosts" in err
    frame = pl.read_parquet(table)
    assert frame["host"].to_list() == ["a"] * 4 + ["b"] * 4 + ["(fleet)"] * 4
    assert frame["date"].to_list() == ["2026-11-20"] * 4 + ["2026-11-21"] * 4 + [None] * 4
    assert frame["rack"].to_list() == ["r1"] * 8 + [None] * 4
    assert frame["rank"].null_count() == 0
    code, _, err = run(*args, "--resume")
    assert code == 0, err
    again = pl.read_parquet(table)
    for name in frame.columns:
        assert again[name].to_list() == frame[name].to_list(), name
