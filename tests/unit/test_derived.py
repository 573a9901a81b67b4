"""Ready-made tables: their columns, when they are made, and when they are made anew."""

from __future__ import annotations

import shutil
from concurrent.futures import ThreadPoolExecutor
from importlib import import_module
from pathlib import Path

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.trace_samples import metadata, rows_batch, write_sample
from tracereplay import Trace, TraceWriter, compile_cache
from tracereplay.analysis import derived as cache
from tracereplay.analysis.ready_tables import READY_TABLES, REQUESTS, ReadyTable
from tracereplay.analysis.sql_tables import sql_tables
from tracereplay.errors import EmptyTraceError, MissingTableError, QueryError
from tracereplay.trace.sql import Statement
from tracereplay.trace.sql_run import run

TRACES = Path(__file__).parents[2] / "traces"
COUNTED = ReadyTable("refills", "a number", __name__, "numbers", "NUMBERS", (("n", "int64", False, "counted"),))
NUMBERS = pa.schema([pa.field("n", pa.int64(), nullable=False)])
made = 0


def numbers(trace: Trace) -> pa.RecordBatch:
    """The maker of COUNTED: rows of the trace's page events, and how often it was called."""
    global made
    made += 1
    for n in (trace.rows("page_events"), made):
        yield pa.RecordBatch.from_pydict({"n": [n]}, schema=NUMBERS)


@pytest.fixture
def trace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Trace:
    monkeypatch.setitem(READY_TABLES, "refills", COUNTED)
    monkeypatch.setattr(cache, "source_digest", lambda *files: "code")
    return Trace.open(write_sample(tmp_path / "t", files=1))


def read(trace: Trace) -> list[int]:
    return cache.derived(Trace.open(trace.path), "refills").collect()["n"].to_list()


@pytest.mark.parametrize("table", list(READY_TABLES.values()), ids=list(READY_TABLES))
def test_columns_are_those_of_the_maker(table: ReadyTable) -> None:
    schema: pa.Schema = getattr(import_module(table.module), table.schema)

    def plain(field: pa.Field) -> tuple[str, str, bool]:
        kind = field.type.value_type if pa.types.is_dictionary(field.type) else field.type
        return field.name, str(kind), field.nullable

    assert [plain(f) for f in table.arrow_schema()] == [plain(f) for f in schema]


def test_made_once_and_only_when_named(trace: Trace) -> None:
    told: list[str] = []
    extra = sql_tables(trace, note=told.append)
    for sql in (
        "WITH refills AS (SELECT 1 AS n) SELECT n FROM refills",
        "SELECT refills.pid FROM tasks AS refills",
        "SELECT pid AS refills, 'FROM refills' AS text FROM tasks -- refills",
        "WITH a AS (SELECT n FROM refills), b AS (SELECT 1 AS n) SELECT n FROM b",
        "SHOW TABLES",
    ):
        run(trace, sql, extra=extra)
        assert not trace.derived.exists(), sql
    with pytest.raises(QueryError, match="no column 'm'"):
        run(trace, "SELECT m FROM refills", extra=extra)
    asked = Statement(trace, "SELECT r.n FROM (SELECT * FROM refills) AS r JOIN tasks ON r.n = tasks.pid", extra)
    assert asked.tables == ["tasks", "refills"]
    assert "not made yet: refills" in asked.explain(lambda name: cache.is_ready(trace, name))
    assert not trace.derived.exists()
    assert told == []
    first = run(trace, "SELECT n FROM REFILLS", extra=extra)["n"].to_list()
    assert run(trace, "SELECT n FROM refills", extra=extra)["n"].to_list() == first
    assert [t for t in told if "making" in t] == ["making table refills (once; kept for the next time) ..."]
    assert "derived/refills-" in asked.explain(lambda name: cache.is_ready(trace, name))
    assert "refills" in run(trace, "SHOW TABLES", extra=extra)["name"].to_list()


def test_other_data_or_code_makes_it_anew(trace: Trace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = read(trace)
    assert read(trace) == first
    part = trace.files["page_events"][0].path
    before = cache.key_of(trace, COUNTED)
    pq.write_table(pq.read_table(part).slice(0, 999), part)  # the manifest is as it was
    assert cache.key_of(Trace.open(trace.path), COUNTED) != before
    shutil.rmtree(trace.path)
    write_sample(trace.path, files=1, rows=500)
    assert read(trace)[0] == 500
    known = read(trace)
    monkeypatch.setattr(cache, "source_digest", lambda *files: "other code")
    assert read(trace)[1] > known[1]


def test_the_digest_of_code_sees_what_is_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    package = compile_cache.PACKAGE
    maker, below = package / "analysis" / "requests.py", package / "demand" / "frames.py"
    assert below in compile_cache.sources_of(maker)
    before = compile_cache.source_digest(maker)
    real = compile_cache._digest_of
    monkeypatch.setattr(compile_cache, "_digest_of", lambda path: b"changed" if path == below else real(path))
    assert compile_cache.source_digest(maker) != before


@pytest.mark.parametrize("damage", ["cut", "empty", "foreign", "other columns"])
def test_a_damaged_or_foreign_file_is_made_anew(trace: Trace, damage: str) -> None:
    first = read(trace)
    (path,) = trace.derived.glob("*.parquet")
    if damage == "cut":
        path.write_bytes(path.read_bytes()[:-5])
    elif damage == "empty":
        path.write_bytes(b"")
    elif damage == "foreign":
        pl.DataFrame({"n": [1, 2]}).write_parquet(path)
    else:
        pq.write_table(pa.table({"m": [1]}).replace_schema_metadata({cache._KEY: path.stem.encode()}), path)
    again = read(trace)
    assert again[0] == first[0]
    assert again[1] == first[1] + 1


def test_a_failure_leaves_nothing(trace: Trace, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(_trace: Trace) -> pa.RecordBatch:
        yield pa.RecordBatch.from_pydict({"n": [1]}, schema=NUMBERS)
        raise EmptyTraceError("no such events")

    monkeypatch.setitem(globals(), "numbers", fails)
    with pytest.raises(EmptyTraceError):
        read(trace)
    assert [p.name for p in trace.derived.iterdir()] == [".refills.lock"]


def test_builders_of_one_table_wait_for_each_other(trace: Trace) -> None:
    before = made
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda _: read(trace), range(4)))
    assert found == [found[0]] * 4
    assert made == before + 1


def test_stale_files_go_when_unused(trace: Trace, monkeypatch: pytest.MonkeyPatch) -> None:
    read(trace)
    monkeypatch.setattr(cache, "source_digest", lambda *files: "newer")
    read(trace)
    assert len(list(trace.derived.glob("*.parquet"))) == 2  # another process may read the older one
    monkeypatch.setattr(cache, "STALE_AFTER_S", -1)
    monkeypatch.setattr(cache, "source_digest", lambda *files: "newest")
    read(trace)
    assert len(list(trace.derived.glob("*.parquet"))) == 1


def test_a_bundle_that_cannot_be_written(trace: Trace, monkeypatch: pytest.MonkeyPatch) -> None:
    trace.derived.write_text("in the way")  # as root, permissions do not stop anybody
    told: list[str] = []
    opened = Trace.open(trace.path)
    first = cache.derived(opened, "refills", note=told.append).collect()["n"].to_list()
    assert any("cannot be written" in t for t in told)
    assert read(trace) == first  # this process keeps it
    assert cache.is_ready(opened, "refills")


def test_errors(trace: Trace, tmp_path: Path) -> None:
    with pytest.raises(MissingTableError, match="lifetime"):
        cache.derived(trace, "lifetime")
    with TraceWriter(tmp_path / "bios", metadata()) as writer:
        writer.write("tasks", rows_batch("tasks", [{"pid": 1}]))
    bare = Trace.open(tmp_path / "bios")
    with pytest.raises(EmptyTraceError, match="no page events"):
        run(bare, "SELECT * FROM requests", extra=sql_tables(bare))


def test_real_tables_agree(tmp_path: Path) -> None:
    shutil.copytree(TRACES / "dmcrypt-6.12-1M", tmp_path / "t", ignore=shutil.ignore_patterns("derived"))
    trace = Trace.open(tmp_path / "t")
    extra = sql_tables(trace)
    events = run(trace, "SELECT COUNT(*) AS n FROM page_events WHERE kind = 'alloc'")["n"].item()
    seen = run(
        trace,
        "SELECT COUNT(*) AS n FROM lifetimes WHERE t_alloc_ns IS NOT NULL AND class <> 'broken'",
        extra=extra,
    )["n"].item()
    assert seen >= events  # a block that comes back in pieces is a row a piece
    by_class = run(trace, "SELECT class, SUM(pages) AS pages FROM lifetimes GROUP BY class", extra=extra)
    freed = dict(by_class.rows())
    asked = run(trace, "SELECT SUM(pages) AS pages, SUM(pages_freed) AS freed FROM requests", extra=extra).row(0)
    assert asked == (freed["complete"] + freed["right_censored"], freed["complete"])
    assert REQUESTS.name in {p.stem.split("-")[0] for p in trace.derived.glob("*.parquet")}
