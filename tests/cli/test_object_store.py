"""Traces and results in an S3-compatible store on loopback: every request that it gets is counted."""

from __future__ import annotations

import errno
import json
import logging
import re
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import polars as pl
import pytest
from typer.testing import CliRunner

from tests.trace_samples import write_sample
from tracereplay.analysis.derived import is_ready, key_of
from tracereplay.analysis.ready_tables import READY_TABLES
from tracereplay.cli.app import app
from tracereplay.cost.profile import DEFAULT_PROFILE
from tracereplay.errors import (
    StorageError,
    TraceFormatError,
    TraceNotFoundError,
    TracereplayError,
    TruncatedTraceError,
    UsageError,
)
from tracereplay.trace import remote_cache, store
from tracereplay.trace.outputs import read_bytes
from tracereplay.trace.reader import Trace
from tracereplay.trace.store import Store, asking, store_of
from tracereplay.trace.validate import validate_trace
from tracereplay.whatif.grid import plan
from tracereplay.whatif.table import Table, read_table

TRACES = Path(__file__).parents[2] / "traces"
SHIPPED = TRACES / "pages-6.12"
CRYPT = TRACES / "dmcrypt-6.1-4k"
SECRET = {
    "AWS_ACCESS_KEY_ID": "somebody",
    "AWS_SECRET_ACCESS_KEY": "secret",
    "AWS_DEFAULT_REGION": "us-east-1",
    "AWS_EC2_METADATA_DISABLED": "true",
}


class Requests(logging.Handler):
    """What the server was asked for, as it logs it."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(record.getMessage())

    def take(self) -> list[str]:
        """Objects that were read since the last call."""
        lines, self.lines = self.lines, []
        return [line.split('"')[1].split()[1] for line in lines if '"GET /' in line and "?" not in line]


@pytest.fixture(scope="module")
def requests() -> Iterator[Requests]:
    from moto.server import ThreadedMotoServer

    log, handler = logging.getLogger("werkzeug"), Requests()
    log.addHandler(handler)
    server = ThreadedMotoServer("127.0.0.1", port=0, verbose=False)
    server.start()
    with pytest.MonkeyPatch.context() as patch:
        for name, value in SECRET.items():
            patch.setenv(name, value)
        host, port = server.get_host_and_port()
        patch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
        store_of("s3://bucket").fs.mkdir("bucket")
        yield handler
    server.stop()
    log.removeHandler(handler)


@pytest.fixture
def place(
    requests: Requests, request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., str]:
    """``place(path)`` puts a directory into the store, under a prefix of the test's own; its URL."""
    monkeypatch.setattr(remote_cache, "root", lambda: tmp_path / "cache")
    prefix = f"s3://bucket/{request.node.name.replace('[', '-').replace(']', '')}"

    def put(path: Path, name: str | None = None) -> str:
        target = store_of(f"{prefix}/{name or path.name}")
        for file in sorted(p for p in path.rglob("*") if p.is_file()):
            target.inside(file.relative_to(path).as_posix()).put(file)
        requests.take()
        return target.url

    return put


def test_only_what_is_used_is_fetched_and_once(place: Callable[..., str], requests: Requests) -> None:
    url = place(SHIPPED)
    local, trace = Trace.open(SHIPPED), Trace.open(f"{url}/")
    assert trace.location == url
    assert trace.identity() == {**local.identity(), "path": url}
    assert trace.loss_summary() == local.loss_summary()
    manifest = "/" + url.removeprefix("s3://") + "/manifest.json"
    assert requests.take() == [manifest]
    assert trace.tasks.collect().equals(local.tasks.collect())
    assert [path.split("/")[-2] for path in requests.take()] == ["tasks"]
    assert list(trace.batches("bio_events")) == list(local.batches("bio_events"))
    assert [path.split("/")[-2] for path in requests.take()] == ["bio_events"]
    again = Trace.open(url)
    assert again.tasks.collect().equals(local.tasks.collect())
    assert requests.take() == [manifest]
    report = validate_trace(again)
    assert report.ok
    assert report.files == report.sound_files == sum(len(parts) for parts in local.files.values())


def test_made_tables_are_kept_here(place: Callable[..., str], requests: Requests, tmp_path: Path) -> None:
    trace = Trace.open(place(write_sample(tmp_path / "web.trace")))
    requests.take()
    key = key_of(trace, READY_TABLES["requests"])
    assert not is_ready(trace, "requests")
    assert requests.take() == []  # what it would be made of is known without fetching it
    assert key != key_of(Trace.open(tmp_path / "web.trace"), READY_TABLES["requests"])
    assert trace.derived == trace.path / "derived"
    assert trace.path.is_relative_to(tmp_path / "cache")


def cut(target: Store, *, change: bytes | None = None) -> None:
    """Make an object shorter, or put something else of its size in its place."""
    content = target.read()
    target.fs.pipe_file(target.path, content[:-100] if change is None else change * len(content))


def part_of(url: str, table: str, number: int = 0) -> Store:
    return store_of(url).inside(f"{table}/part-{number:06d}.parquet")


def test_damage_is_told_as_of_local_traces(place: Callable[..., str], requests: Requests, tmp_path: Path) -> None:
    url = place(write_sample(tmp_path / "web.trace"))
    cut(part_of(url, "page_events", 1))
    part_of(url, "loss").remove()
    cut(part_of(url, "tasks"), change=b"x")
    trace = Trace.open(url)
    requests.take()
    with pytest.raises(TruncatedTraceError, match=f"part-000001.parquet of {url} is truncated.*the manifest says") as e:
        trace.table("page_events")
    assert f"tracereplay validate {url}" in str(e.value.hint)
    assert [p.rsplit("/", 1)[-1] for p in requests.take()] == ["part-000000.parquet"]  # the listing tells of the other
    with pytest.raises(TruncatedTraceError, match="missing"):
        trace.loss_summary()
    with pytest.raises(TruncatedTraceError, match=re.escape("tasks/part-000000.parquet")):
        trace.table("tasks")
    assert len(trace.table("page_events", skip_damaged=True).collect()) == 500
    found = {(f.code, f.where) for f in validate_trace(Trace.open(url)).errors}
    damaged = ("loss/part-000000.parquet", "page_events/part-000001.parquet", "tasks/part-000000.parquet")
    assert found == {("damaged", where) for where in damaged}


def test_files_that_the_manifest_does_not_list_count(place: Callable[..., str], tmp_path: Path) -> None:
    path = write_sample(tmp_path / "web.trace", rows=900, files=3)
    manifest = json.loads((path / "manifest.json").read_text())
    del manifest["tables"]["page_events"][2]
    (path / "manifest.json").write_text(json.dumps(manifest))
    (path / "notes.txt").write_text("mine")
    trace = Trace.open(place(path))
    assert trace.rows("page_events") == 900
    assert {f.code for f in validate_trace(trace).findings} == {"not-listed", "foreign-file"}


@pytest.mark.parametrize("folder", ["../x/", "/tmp/", "../", "/", "a/b/", ""])
def test_a_manifest_does_not_say_where_files_go(place: Callable[..., str], tmp_path: Path, folder: str) -> None:
    path = write_sample(tmp_path / "web.trace")
    manifest = json.loads((path / "manifest.json").read_text())
    manifest["tables"]["tasks"][0]["file"] = f"{folder}part-000000.parquet"
    (path / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(TraceFormatError, match="which is no data file of a trace"):
        Trace.open(place(path))


def test_a_trace_that_is_replaced_is_fetched_anew(place: Callable[..., str], tmp_path: Path) -> None:
    url = place(write_sample(tmp_path / "1"), "web.trace")
    first = Trace.open(url)
    before = first.tasks.collect()
    write_sample(tmp_path / "2", rows=500)
    assert place(tmp_path / "2", "web.trace") == url
    with pytest.raises(StorageError, match=r"page_events/.* changed while its trace was read"):
        first.table("page_events")
    part_of(url, "bio_events").remove()
    with pytest.raises(StorageError, match=r"bio_events/.* vanished"):
        first.table("bio_events")
    assert first.tasks.collect().equals(before)  # here already
    assert len(Trace.open(url).page_events.collect()) == 500


def test_the_cache_is_bounded_and_keeps_what_is_open(
    place: Callable[..., str], requests: Requests, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    urls = [place(write_sample(tmp_path / str(n))) for n in range(3)]
    monkeypatch.setenv("TRACEREPLAY_REMOTE_CACHE", "1k")
    held = Trace.open(urls[0])
    held.page_events.collect()
    Trace.open(urls[1]).page_events.collect()
    third = Trace.open(urls[2])
    third.page_events.collect()
    assert held.page_events.collect().height == 1000
    slots = {path.parent.parent for path in (tmp_path / "cache").rglob("*.parquet")}
    assert slots == {held.path, third.path}
    monkeypatch.setenv("TRACEREPLAY_REMOTE_CACHE", "much")
    with pytest.raises(UsageError, match="TRACEREPLAY_REMOTE_CACHE=much: no size"):
        Trace.open(urls[1]).page_events.collect()


def test_no_space_and_no_place(place: Callable[..., str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    url = place(write_sample(tmp_path / "web.trace"))
    trace = Trace.open(url)

    def full(self: Store, target: Path) -> None:
        with asking(self.url, target):
            target.write_bytes(b"half of it")
            raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(Store, "get", full)
        with pytest.raises(StorageError, match=f"no space for {url}/page_events") as refused:
            trace.table("page_events")
    assert "TRACEREPLAY_CACHE_DIR" in str(refused.value.hint)
    assert list((tmp_path / "cache").rglob("*.tmp")) == []
    assert Trace.open(url).page_events.collect().height == 1000
    (tmp_path / "file").touch()
    monkeypatch.setattr(remote_cache, "root", lambda: tmp_path / "file" / "cache")
    with pytest.raises(StorageError, match=r"cannot use .*Not a directory"):
        Trace.open(url)


@pytest.mark.parametrize(
    ("url", "kind", "said", "next_step"),
    [
        (
            "s3://bucket/nothing",
            TraceNotFoundError,
            "no trace at s3://bucket/nothing: there is no",
            "prefix",
        ),
        ("s3://no-bucket/web.trace", TraceNotFoundError, "no trace at s3://no-bucket", "bucket"),
        ("s3://bucket/half", TraceFormatError, "no manifest.json", "last"),
        ("s3://bucket/text", TraceFormatError, "s3://bucket/text/manifest.json is not JSON", "copy"),
        ("s3://no_bucket?/x", StorageError, "Invalid bucket name", "store"),
        ("s4://bucket/web.trace", StorageError, "no protocol s4://", "did you mean s3://"),
        ("gs://bucket/web.trace", StorageError, "needs the package gcsfs", "pip install gcsfs"),
    ],
)
def test_what_is_not_there(
    requests: Requests, url: str, kind: type[TracereplayError], said: str, next_step: str
) -> None:
    files = store_of("s3://bucket").fs
    files.pipe_file("bucket/half/page_events/part-000000.parquet", b"PAR1")
    files.pipe_file("bucket/text/manifest.json", b"not json")
    with pytest.raises(kind, match=re.escape(said)) as refused:
        Trace.open(url)
    assert next_step in str(refused.value.hint)


def test_stores_that_refuse(requests: Requests, monkeypatch: pytest.MonkeyPatch) -> None:
    """No answer, no rights, no credentials: each is an error at once."""
    from s3fs import S3FileSystem

    with monkeypatch.context() as patch, socket.create_server(("127.0.0.1", 0)) as silent:
        patch.setattr(store, "READ_TIMEOUT_S", 0.2)
        patch.setattr(store, "ATTEMPTS", 1)
        for port, said in ((1, "Could not connect"), (silent.getsockname()[1], "Read timeout")):
            patch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{port}")
            S3FileSystem.clear_instance_cache()
            with pytest.raises(
                StorageError, match=f"cannot reach the store of s3://bucket/x/manifest.json: {said}"
            ) as e:
                Trace.open("s3://bucket/x")
            assert "AWS_ENDPOINT_URL" in str(e.value.hint)
    S3FileSystem.clear_instance_cache()
    with monkeypatch.context() as patch:
        patch.delenv("AWS_ACCESS_KEY_ID")
        with pytest.raises(StorageError, match="no credentials for s3://bucket/x") as e:
            Trace.open("s3://bucket/x")
        assert "AWS_PROFILE" in str(e.value.hint)
    S3FileSystem.clear_instance_cache()


def test_other_protocols(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """file:// is a path; over HTTP nothing can be listed, and the manifest says what there is."""
    path = write_sample(tmp_path / "web.trace")
    monkeypatch.setattr(remote_cache, "root", lambda: tmp_path / "cache")
    local = Trace.open(f"file://{path}")
    assert local.path == path
    handler = partial(SimpleHTTPRequestHandler, directory=str(tmp_path))
    handler.log_message = lambda *_: None  # type: ignore[attr-defined]
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        url = f"http://127.0.0.1:{server.server_port}/web.trace"
        trace = Trace.open(url)
        (path / "tasks" / "part-000000.parquet").write_bytes(b"PAR1")
        assert trace.page_events.collect().equals(local.page_events.collect())
        assert {f.where for f in validate_trace(trace).findings} == {"tasks/part-000000.parquet"}
        with pytest.raises(TruncatedTraceError, match="4 bytes long, the manifest says"):
            trace.table("tasks")
        with pytest.raises(TraceNotFoundError, match=re.escape("no manifest.json")):
            Trace.open(f"{url}/no")
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


# ------------------------------------------------------------ the command line
def tracereplay(*arguments: object) -> tuple[int, str, str]:
    result = CliRunner().invoke(app, list(map(str, arguments)))
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, result.stdout, result.stderr


@pytest.mark.parametrize(
    "verb",
    [
        ["info", "{}", "--format", "json"],
        ["validate", "{}"],
        ["query", "{}", "SELECT kind, COUNT(*) AS n FROM page_events GROUP BY kind ORDER BY kind"],
        ["analyze", "callers", "{}", "--format", "csv"],
    ],
    ids=lambda verb: verb[0],
)
def test_verbs_say_what_they_say_of_a_local_trace(place: Callable[..., str], verb: list[str]) -> None:
    url = place(SHIPPED)
    code, out, err = tracereplay(*(word.format(url) for word in verb))
    assert "fetched: " in err
    local = tracereplay(*(word.format(SHIPPED) for word in verb))
    assert (code, out.replace(url, str(SHIPPED))) == local[:2]
    said = [line for line in err.splitlines() if not line.startswith("fetched: ")]
    assert "\n".join(said).replace(url, str(SHIPPED)) == local[2].rstrip("\n")


def test_a_query_moves_its_table_only(place: Callable[..., str], requests: Requests, tmp_path: Path) -> None:
    url = place(SHIPPED)
    out = f"{url}-tasks.parquet"
    asked = ("query", url, "SELECT pid, comm FROM tasks", "-o", out)
    code, _, err = tracereplay(*asked)
    assert (code, f"wrote {out}" in err) == (0, True)
    assert [p.split("/")[-2] for p in requests.take() if p.endswith(".parquet")] == ["tasks"]
    expected = Trace.open(SHIPPED).tasks.select("pid", "comm").cast({"comm": pl.String}).collect()
    assert pl.read_parquet(read_bytes(out)).equals(expected)
    assert tracereplay(*asked)[0] == 2  # it is there
    assert tracereplay(*asked, "--force")[0] == 0
    code, _, err = tracereplay(*asked[:-1], "s3://no-bucket/tasks.parquet")
    assert (code, "no bucket no-bucket" in err) == (1, True)
    code, _, err = tracereplay(*asked[:-1], "https://example.com/tasks.parquet")
    assert (code, "HTTP is for reading" in err) == (1, True)


def test_a_fleet_in_a_store(place: Callable[..., str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for host in ("web1", "web2"):
        write_sample(tmp_path / "fleet" / f"host={host}" / "a.trace", rows=10 * len(host), host={"hostname": host})
    url = place(tmp_path / "fleet")
    monkeypatch.setenv("TRACEREPLAY_REMOTE_CACHE", "0")  # what a statement needs stays
    asked = "SELECT host, COUNT(*) AS n FROM page_events GROUP BY host ORDER BY host"
    for places in ([url], [f"{url}/host=*/*.trace"], [f"{url}/host=web{n}/a.trace" for n in (1, 2)]):
        code, out, _ = tracereplay("query", *places, asked, "--format", "csv")
        assert (code, out) == (0, "host,n\nweb1,40\nweb2,40\n")


def test_paths_never_load_fsspec() -> None:
    code = (
        "import sys; from tracereplay.cli.app import main; sys.argv[1:] = {}\ntry: main()\nfinally: print(*sys.modules)"
    )
    words = ["query", str(SHIPPED), "SELECT COUNT(*) FROM tasks"]
    done = subprocess.run([sys.executable, "-c", code.format(words)], capture_output=True, text=True, check=True)
    assert set(done.stdout.split()) & {"polars", "fsspec", "s3fs", "tracereplay.trace.remote"} == {"polars"}


def test_replays_sweeps_and_reports_go_there_and_back(place: Callable[..., str], tmp_path: Path) -> None:
    url = place(CRYPT)
    results, sweep = f"{url}-results.json", f"{url}-sweep.parquet"
    assert tracereplay("replay", url, "-s", "bulk", "-o", results)[0] == 0
    assert tracereplay("replay", CRYPT, "-s", "bulk", "-o", tmp_path / "results.json")[0] == 0
    far, near = json.loads(read_bytes(results)), json.loads((tmp_path / "results.json").read_text())
    assert far["trace"].pop("path") == url
    assert near["trace"].pop("path") == str(CRYPT)
    assert {k: v for k, v in far.items() if k != "command"} == {k: v for k, v in near.items() if k != "command"}
    code, out, _ = tracereplay("compare", results, tmp_path / "results.json", "--format", "csv")
    assert (code, len(out.splitlines())) == (0, 1 + 1)
    page = f"{url}-page.html"
    code, out, err = tracereplay("report", results, "-o", page, "--svg", f"{url}-plots", "--check", "0")
    assert (code, out.splitlines()[0]) == (0, page)
    assert "without the charts" not in err  # its trace is there
    assert url in read_bytes(page).decode()
    assert all(read_bytes(name).startswith(b"<svg") for name in out.splitlines()[1:])

    grid = ("whatif", url, "-s", "bulk", "--grid", "pcp.batch=31,63", "-o", sweep, "--executor", "threads")
    assert tracereplay(*grid)[0] == 0
    first = read_table(sweep)
    assert first.height == 2
    assert tracereplay(*grid)[0] == 2  # it is there
    assert tracereplay(*grid[:-4], *grid[-2:], "-o", sweep, "--resume")[0] == 0
    assert read_table(sweep)["seconds"].to_list() == first["seconds"].to_list()  # nothing ran again


def test_traces_are_written_there(place: Callable[..., str], requests: Requests, tmp_path: Path) -> None:
    one, two = (write_sample(tmp_path / n, host={"hostname": n, "release": "6.12.95"}) for n in ("web1", "web2"))
    target = f"{place(one).rsplit('/', 1)[0]}/fleet.trace"
    merge = ("merge", target, one, two, "--align", "start")
    assert tracereplay(*merge)[0] == 0
    trace = Trace.open(f"{target}#web2")
    assert trace.identity()["path"] == f"{target}#web2"
    assert trace.rows("page_events") == 1000
    log = [line.split('"')[1].split()[:2] for line in requests.lines if '"PUT /' in line]
    assert log[-1] == ["PUT", "/" + target.removeprefix("s3://") + "/manifest.json"]
    code, _, err = tracereplay("info", f"{target}#web3")
    assert (code, "did you mean" in err) == (3, True)
    assert tracereplay(*merge)[0] == 2
    assert tracereplay("merge", target, one, "--force")[0] == 0  # in its place, without what it had besides
    names = store_of(target).listing()
    assert names is not None
    assert set(names) == {
        "manifest.json",
        *(part.name for parts in Trace.open(target).files.values() for part in parts),
    }

    (tmp_path / "disk.iolog").write_text("fio version 2 iolog\n/dev/sda add\n/dev/sda open\n/dev/sda write 4096 4096\n")
    code, _, err = tracereplay("import", tmp_path / "disk.iolog", f"{target}-imported")
    assert (code, f"next: tracereplay info {target}-imported" in err) == (0, True)
    assert Trace.open(f"{target}-imported").bio_events.collect()["sector"].to_list() == [8]
    assert tracereplay("import", one / "manifest.json", f"{target}-no")[0] == 3
    assert store_of(f"{target}-no").listing() == {}

    store_of(f"{target}x/thesis.tex").fs.pipe_file(f"{target}x/thesis.tex", b"mine")
    code, _, err = tracereplay("merge", f"{target}x", one, two, "--force")
    assert (code, "is not a trace" in err) == (2, True)


def test_what_a_store_refuses_in_the_end_is_kept(
    place: Callable[..., str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_sample(tmp_path / "web.trace")
    url = place(path)
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", None)

    def refuse(self: Store, source: Path) -> None:
        with asking(self.url):
            raise PermissionError("Access Denied")

    monkeypatch.setattr(Store, "put", refuse)
    for words, kept in (
        (("query", path, "SELECT pid FROM tasks", "-o", f"{url}.csv"), "web.trace.csv"),
        (("merge", f"{url}2", path), "web.trace2"),
    ):
        code, _, err = tracereplay(*words)
        assert (code, "Access Denied" in err, "AWS_PROFILE" in err) == (1, True, True)
        (there,) = tmp_path.glob(f"tracereplay-out-*/{kept}")
        assert f"kept in {there}" in err
    assert Trace.open(there).rows("page_events") == 1000

    table = Table(plan([str(CRYPT)], ["bulk"], ["pcp.batch=31,63"], profile=DEFAULT_PROFILE), f"{url}.parquet")
    before = sorted(tmp_path.iterdir())
    assert "Access Denied" in str(table.save_meanwhile())  # it goes on, the next one may be taken
    assert sorted(tmp_path.iterdir()) == before
    with pytest.raises(StorageError) as refused:
        table.save()
    (there,) = tmp_path.glob("tracereplay-out-*/web.trace.parquet")
    assert f"kept in {there}" in str(refused.value.hint)
