"""perf script text and perf.data: real samples against perf's own totals, and every way a stand-in perf can end."""

from __future__ import annotations

import re
import shutil
import stat
from collections import Counter
from pathlib import Path

import polars as pl
import pytest
import zstandard

from tests.differential.test_import_perf import check_perf
from tracereplay.errors import EmptyTraceError, ImporterToolMissingError, ImportFormatError
from tracereplay.importers.base import Confidence, Head, ImportOptions
from tracereplay.importers.convert import import_trace
from tracereplay.importers.perf_data import IMPORTER
from tracereplay.importers.perf_header import header_facts
from tracereplay.importers.registry import recognise
from tracereplay.trace.reader import Trace
from tracereplay.trace.validate import validate_trace

DATA = Path(__file__).parents[1] / "data" / "import"
SAMPLES = ("perf-6.18.script.txt.zst", "perf-6.18-chains.script.txt.zst", "perf-6.18-lost.script.txt.zst")


def text_of(name: str) -> bytes:
    return zstandard.ZstdDecompressor().decompressobj().decompress((DATA / name).read_bytes())


@pytest.mark.parametrize("name", SAMPLES)
def test_samples_agree_with_the_reference_and_are_valid(name: str, tmp_path: Path) -> None:
    text = text_of(name)
    parsed = check_perf(text)
    assert not parsed.rejected
    result = import_trace(DATA / name, tmp_path / "out")
    assert result.format == "perf.script"
    counts = Counter(m.decode() for m in re.findall(rb": +((?:kmem|block):\w+): ", text))
    assert result.summary.events == counts
    trace = Trace.open(result.path)
    assert validate_trace(trace).errors == []
    stacks = {tuple(row["stack"]) for row in parsed.page + parsed.bio if row["stack"]}
    assert trace.rows("stacks") == sum(map(len, stacks))


def test_totals_are_those_of_perf_kmem_stat(tmp_path: Path) -> None:
    """``perf kmem --page -i perf.data stat`` on the same recording."""
    said = (DATA / "perf-6.18.kmem-stat.txt").read_text()
    totals = {m[1]: (int(m[2]), int(m[3])) for m in re.finditer(r"Total ([\w+ -]+?) *: +(\d+) +\[ +(\d+) KB", said)}
    trace = Trace.open(import_trace(DATA / SAMPLES[0], tmp_path / "out").path)
    events = trace.page_events.with_columns(pl.col("kind").cast(pl.String), kb=4 * (2 ** pl.col("order"))).collect()
    for kind, name in (("alloc", "allocation requests"), ("free", "free requests")):
        rows = events.filter(pl.col("kind") == kind)
        assert (rows.height, rows["kb"].sum()) == totals[name]
    assert totals["allocation failures"][0] == events.filter(pl.col("kind") == "alloc_failed").height == 0
    orders = events.filter(pl.col("kind") == "alloc")["order"].value_counts().sort("order").rows()
    assert orders == [(0, 82 + 412), (4, 32)]  # its table of orders


def test_header_names_host_and_clock(tmp_path: Path) -> None:
    meta = import_trace(DATA / SAMPLES[0], tmp_path / "out").metadata
    assert meta.clock == {"name": "mono", "resolution_ns": 1}
    assert meta.host["release"].startswith("6.18.")
    assert [meta.host[k] for k in ("arch", "cpus")] == ["x86_64", 2]
    assert not any("gfp names" in note for note in meta.notes)


def test_lost_records_are_intervals_of_their_cpu(tmp_path: Path) -> None:
    result = import_trace(DATA / SAMPLES[2], tmp_path / "out")
    lost = [int(n) for n in re.findall(rb"PERF_RECORD_LOST lost (\d+)", text_of(SAMPLES[2]))]
    assert result.summary.lost == sum(lost) == 107
    loss = Trace.open(result.path).loss.collect()
    assert loss["n"].to_list() == lost
    assert (loss["t0_ns"] <= loss["t1_ns"]).all()
    assert result.metadata.clock["name"] == "unknown"


def test_call_chain_is_kept_to_the_kernels_border(tmp_path: Path) -> None:
    trace = Trace.open(import_trace(DATA / SAMPLES[1], tmp_path / "out").path)
    first = trace.page_events.filter(pl.col("kind") == "alloc").select("stack_id").first().collect().item()
    frames = trace.stacks.filter(pl.col("stack_id") == first).sort("depth").collect()
    assert frames["symbol"][0] == "__alloc_frozen_pages_noprof"
    assert frames["symbol"][-1] == "entry_SYSCALL_64_after_hwframe"
    assert (frames["address"] >= 1 << 63).all()
    assert any("user space" in note for note in trace.metadata.notes)


def test_clocks_of_the_header() -> None:
    event = b"# event : name = kmem:mm_page_alloc, , id = { 1 }, type = 2"
    assert header_facts([b"# hostname : vm"]) == ({"hostname": "vm"}, None, [])
    assert header_facts([event])[1:] == ("perf", ["kmem:mm_page_alloc"])
    assert header_facts([event + b", use_clockid = 1, clockid = 4"])[1] == "mono_raw"
    assert header_facts([event, b"# clockid: realtime (0)"])[1] == "realtime"
    assert header_facts([event, b"# clockid: tai (77)"])[1] == "clockid 77"


LINE = b"  bash  12 [000] 5.000001: kmem:mm_page_free: page=0x1 pfn=0x1 order=0\n"


@pytest.mark.parametrize(
    ("data", "name"),
    [
        (LINE, "perf.script"),
        (LINE.replace(b"12 [", b"12/12 [").replace(b"free:", b"free:u:"), "perf.script"),
        (b"# ========\n# captured on    : today\n", "perf.script"),
        (b"bash-12 [000] ..... 5.000001: mm_page_free: page=0x1 pfn=0x1 order=0\n", "ftrace"),
        (b"PERFILE2" + bytes(60), "perf.data"),
        (b"2ELIFREP" + bytes(60), "perf.data"),
    ],
)
def test_each_is_recognised(data: bytes, name: str) -> None:
    assert recognise(Head("x", data, True)).name == name


def test_texts_without_an_event_are_named(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"  bash 12 [000] 5.1: sched:sched_switch: x\n")
    with pytest.raises(EmptyTraceError, match="sched:sched_switch") as empty:
        import_trace(tmp_path / "a", tmp_path / "out")
    assert "perf record" in str(empty.value.hint)
    (tmp_path / "b").write_bytes(b"nothing\n")
    with pytest.raises(ImportFormatError, match="a sample of perf script"):
        import_trace(tmp_path / "b", tmp_path / "out", format="perf.script")
    (tmp_path / "no-cpu").write_bytes(LINE.replace(b"[000] ", b""))
    with pytest.raises(ImportFormatError, match="1 refused") as no_cpu:
        import_trace(tmp_path / "no-cpu", tmp_path / "out")
    assert "fields comm, tid, cpu" in str(no_cpu.value.hint)
    (tmp_path / "c").write_bytes(LINE + b"garbage\n")
    with pytest.raises(ImportFormatError, match="line 2"):
        import_trace(tmp_path / "c", tmp_path / "out", options=ImportOptions(strict=True))
    assert not (tmp_path / "out").exists()


# ------------------------------------------------------------ perf.data
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str, evlist: str = "") -> Path:
    """A perf that answers ``evlist`` and runs ``script`` as shell code; the perf.data to import."""
    program = tmp_path / "bin" / "perf"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nif [ "$1" = evlist ]; then echo "{evlist}"; exit 0; fi\nall="$*"\n{script}\n')
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    (tmp_path / "bin" / "text").write_bytes(text_of(SAMPLES[0]))
    monkeypatch.setenv("PATH", f"{program.parent}:/usr/bin:/bin")
    data = tmp_path / "perf.data"
    data.write_bytes(b"PERFILE2" + bytes(96))
    return data


def test_perf_data_is_read_through_perf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = install(tmp_path, monkeypatch, f'echo "$all" > {tmp_path}/asked; cat {tmp_path}/bin/text')
    result = import_trace(data, tmp_path / "out")
    assert result.summary.events == {"kmem:mm_page_alloc": 526, "kmem:mm_page_free": 559}
    assert result.metadata.source["format"] == "perf.data"
    asked = (tmp_path / "asked").read_text()
    assert "--ns" in asked
    assert "--show-lost-events" in asked
    assert "symoff" not in asked


def test_chains_are_asked_for_where_there_are_some(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script = f'echo "$all" > {tmp_path}/asked; cat {tmp_path}/bin/text'
    data = install(tmp_path, monkeypatch, script, "kmem:mm_page_alloc: sample_type: IP|TID|TIME|CALLCHAIN|CPU")
    import_trace(data, tmp_path / "out")
    assert "trace,ip,sym,symoff,dso" in (tmp_path / "asked").read_text()


@pytest.mark.parametrize(
    ("script", "says"),
    [
        (
            "echo \"'trace' not valid for hardware events. Ignoring.\" >&2; echo 'bad file' >&2; exit 255",
            "255): bad file",
        ),
        ("exit 0", "it printed nothing"),
    ],
)
def test_failures_are_named(script: str, says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ImportFormatError) as caught:
        import_trace(install(tmp_path, monkeypatch, script), tmp_path / "out")
    assert says in caught.value.message
    assert not (tmp_path / "out").exists()


def test_missing_perf_names_its_packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = install(tmp_path, monkeypatch, "exit 0")
    monkeypatch.setenv("PATH", str(tmp_path / "empty"))
    with pytest.raises(ImporterToolMissingError) as caught:
        import_trace(data, tmp_path / "out")
    assert "apt install linux-perf" in str(caught.value.hint)
    with pytest.raises(ImportFormatError, match=r"is no perf\.data"):
        import_trace(tmp_path / "bin" / "text", tmp_path / "out", format="perf.data")
    assert IMPORTER.sniff(Head("x", b"PERFFILE", True)) is Confidence.NO


@pytest.mark.skipif(shutil.which("perf") is None, reason="perf is not installed")
def test_real_recording_gives_the_same_as_its_text(tmp_path: Path) -> None:
    data, text = (
        Trace.open(import_trace(DATA / name, tmp_path / name).path)
        for name in ("perf-6.18.data.zst", "perf-6.18.script.txt.zst")
    )
    assert data.page_events.collect().equals(text.page_events.collect())
    assert data.metadata.host == text.metadata.host
    assert data.metadata.clock == text.metadata.clock
