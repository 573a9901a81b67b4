"""bpftrace: its JSON records give the text they were printed as, and a real recording what trace-cmd saw."""

from __future__ import annotations

import io
import json
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.reference.compare_tracecmd import compare
from tracereplay.errors import ImportFormatError
from tracereplay.importers.base import Confidence, Head
from tracereplay.importers.bpftrace import IMPORTER
from tracereplay.importers.bpftrace_json import _Text
from tracereplay.importers.convert import import_trace
from tracereplay.importers.ftrace_vocabulary import BIO_EVENT_KINDS, PAGE_EVENT_KINDS
from tracereplay.importers.registry import recognise
from tracereplay.trace.reader import Trace
from tracereplay.trace.validate import validate_trace

DATA = Path(__file__).parents[1] / "data" / "import"
PROGRAM = Path(__file__).parents[2] / "docs" / "examples" / "bpftrace" / "tracereplay.bt"
LINE = "bash-12 (10) [000] 5.000000001: mm_page_free: pfn=0x1 order=0\n"
START = '{"type": "attached_probes", "data": {"probes": 18}}\n'


def record(text: str, kind: str = "printf") -> str:
    return json.dumps({"type": kind, "data": text}) + "\n"


def text_of(records: str | bytes, others: dict[str, int] | None = None) -> bytes:
    data = records.encode() if isinstance(records, str) else records
    return io.BufferedReader(_Text(io.BytesIO(data), {} if others is None else others)).read()


PRINTED = st.text(st.sampled_from('ab \\"{}\n\tü') | st.characters(exclude_categories=("Cs",)), max_size=20)


@given(st.lists(PRINTED | st.just("# os release : ") | st.just('x"}\n') | st.just("x\\")))
def test_records_give_what_was_printed(texts: list[str]) -> None:
    kinds = ("printf", "cat", "time")
    records = [record(text, kinds[i % 3]) for i, text in enumerate(texts)]
    assert text_of("".join(records)).decode() == "".join(texts)


def test_other_records_are_counted_and_broken_ones_passed_on() -> None:
    others: dict[str, int] = {}
    lost = '{"type": "lost_events", "data": {"events": 7}}\n'
    maps = '{"type": "map", "data": {"@x": {"0": 500}}}\n{"type": "hist", "data": {}}\n'
    broken = '{"type": "printf", "data": "x\n{"type": 5}\n{"type"}\n'
    text = text_of(START + lost + maps + record("a\n") + broken + '{"type": "pri', others)
    assert text == b'Lost 7 events\na\nx\n{"type"}\n{"type": "pri'
    assert others == {"map": 1, "hist": 1, "5": 1}


@given(st.lists(st.binary(max_size=30) | st.just(b"\\ud800") | st.just(b'\\"') | st.just(b"\\"), max_size=6))
def test_any_bytes_come_through(parts: list[bytes]) -> None:
    body = b"".join(parts).replace(b"\n", b"")
    text = text_of(b'{"type": "printf", "data": "' + body + b'\\n"}\n')
    if b"\\" not in body and b'"' not in body and not body.startswith(b"{"):
        assert text == body + b"\n"
    assert text_of(b'{"type": "printf", "data": "\xff\\\\\\n"}\n') == b"\xff\\\n"
    assert text_of(b'{"type": "time", "data": "\\ud800\\n"}\n') == b"\\ud800\n"


def test_program_prints_every_event_that_has_a_row() -> None:
    program = PROGRAM.read_text()
    for name in (*PAGE_EVENT_KINDS, *BIO_EVENT_KINDS):
        system = "kmem" if name in PAGE_EVENT_KINDS else "block"
        assert f"\ntracepoint:{system}:{name}\n" in program
        assert f"# event : name = {system}:{name}\\n" in program
        assert f": {name}: " in program


def test_header_losses_and_tasks(tmp_path: Path) -> None:
    head = record("# os release : ") + record("6.1.0-9\n", "cat") + record("# clockid: boot (7)\n")
    head += record("# event : name = kmem:mm_page_alloc\n")
    lines = [LINE.replace("000001:", f"00000{i}:").replace("[000]", f"[00{cpu}]") for i, cpu in enumerate((0, 1, 0, 1))]
    body = [*map(record, lines[:2]), '{"type": "lost_events", "data": {"events": 7}}\n', *map(record, lines[2:])]
    (tmp_path / "run.json").write_text(START + head + "".join(body))
    result = import_trace(tmp_path / "run.json", tmp_path / "out")
    assert result.format == "bpftrace"
    assert result.metadata.host["release"] == "6.1.0-9"
    assert result.metadata.clock == {"name": "boot", "resolution_ns": 1}
    assert result.metadata.events == ["kmem:mm_page_alloc", "kmem:mm_page_free"]
    trace = Trace.open(result.path)
    loss = trace.loss.collect().to_dicts()
    assert [(r["cpu"], r["t0_ns"], r["t1_ns"], r["n"]) for r in loss] == [(None, 5 * 10**9, 5 * 10**9 + 3, 7)]
    assert trace.tasks.select("pid", "tgid", "comm").collect().rows() == [(12, 10, "bash")]

    (tmp_path / "run.txt").write_text(
        "Attaching 18 probes...\n# os release : 6.1.0-9\n" + "".join(lines) + "Lost 3 events\n"
    )
    plain = import_trace(tmp_path / "run.txt", tmp_path / "plain")
    assert (plain.format, plain.summary.rejected, plain.summary.lost) == ("ftrace", 0, 3)
    assert plain.metadata.host["release"] == "6.1.0-9"


def test_what_other_programs_print_is_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text(START + record("hello\n") + '{"type": "map", "data": {"@": 5}}\n')
    assert recognise(Head("x", START.encode(), False)).name == "bpftrace"
    assert IMPORTER.sniff(Head("x", b'{"type": "Feature"}', True)) is Confidence.NO
    with pytest.raises(ImportFormatError, match=r"tracereplay\.bt prints") as caught:
        import_trace(tmp_path / "x.json", tmp_path / "out")
    assert "docs/examples/bpftrace" in str(caught.value.hint)


def test_recording_holds_what_perf_saw_at_the_same_time(tmp_path: Path) -> None:
    """Fifteen milliseconds of bpftrace and perf record on one host at once (tests/data/import/README.md)."""
    ours, theirs = (
        Trace.open(import_trace(DATA / f"both-6.18.{name}.zst", tmp_path / name).path)
        for name in ("bpftrace.json", "perf.script.txt")
    )
    assert validate_trace(ours).errors == []
    first, last = (ours.page_events.select(pl.col("ts_ns")).collect().to_series().sort()[i] for i in (0, -1))
    results = compare(ours, theirs, window=(first + 2_000_000, last - 1_000_000))
    assert [r.kind for r in results if not r.same] == []
    assert sum(r.pairs for r in results) > 500
    assert {r.kind for r in results if r.pairs} >= {"alloc", "free", "queue", "issue", "complete", "split"}
