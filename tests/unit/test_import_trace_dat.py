"""trace.dat through trace-cmd: a stand-in program shows every way it can end."""

from __future__ import annotations

import gzip
import shutil
import stat
from pathlib import Path

import pytest

from tracereplay.errors import ImporterToolMissingError, ImportFormatError
from tracereplay.importers.base import Confidence, Head
from tracereplay.importers.convert import import_trace
from tracereplay.importers.trace_dat import IMPORTER, MAGIC
from tracereplay.trace.reader import Trace

HEADER = r"""
 Tracing meta data in file x:
		4096	[Page size, bytes]
	[buffer "", "mono" clock, 4096 page size, 1 cpus, 41847 bytes flyrecord data]
		[Option TRACECLOCK, 67 bytes]
local global counter uptime perf [mono] mono_raw boot tai x86-tsc
		[Option UNAME, 34 bytes]
Linux guest 6.1.0-56-amd64 x86_64
		[Option CPUCOUNT, 4 bytes]
2
"""
REPORT = """cpus=2
 fio-229 [000] 50.736923851: mm_page_alloc: page=0xffffffff8241b8f pfn=0x61cc order=1 migratetype=0 gfp_flags=GFP_ATOMIC
CPU:1 [12 EVENTS DROPPED]
             fio-229   [001]    50.736928507: mm_page_free:         page=0xffffffff82432b51 pfn=0x1d421 order=0
"""


def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, report: str) -> None:
    """A trace-cmd that answers ``dump`` and runs ``report`` as shell code."""
    program = tmp_path / "bin" / "trace-cmd"
    program.parent.mkdir()
    (tmp_path / "bin" / "header").write_text(HEADER)
    (tmp_path / "bin" / "text").write_text(REPORT)
    program.write_text(
        f'#!/bin/sh\nhere={program.parent}\nif [ "$1" = dump ]; then cat $here/header; exit 0; fi\n'
        f'[ "$1 $2" = "report -t" ] || exit 9\nfor file; do :; done\n{report}\n'
    )
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{program.parent}:/usr/bin:/bin")


@pytest.fixture
def recording(tmp_path: Path) -> Path:
    path = tmp_path / "trace.dat"
    path.write_bytes(MAGIC + b"7\0" + bytes(100))
    return path


def test_text_and_header_become_a_trace(recording: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(tmp_path, monkeypatch, "cat $here/text")
    result = import_trace(recording, tmp_path / "out")
    assert result.format == "trace.dat"
    assert result.summary.events == {"kmem:mm_page_alloc": 1, "kmem:mm_page_free": 1}
    host = result.metadata.host
    assert [host[k] for k in ("hostname", "release", "arch", "cpus", "page_size")] == [
        "guest",
        "6.1.0-56-amd64",
        "x86_64",
        2,
        4096,
    ]
    assert result.metadata.clock == {"name": "mono", "resolution_ns": 1}
    assert result.metadata.source["format"] == "trace.dat v7"
    assert result.summary.lost == 12
    assert result.metadata.gfp_flags["GFP_ATOMIC"] == 0xA20  # that of 6.1


def test_compressed_recording_is_unpacked_for_trace_cmd(
    recording: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    packed = tmp_path / "trace.dat.gz"
    packed.write_bytes(gzip.compress(recording.read_bytes()))
    install(tmp_path, monkeypatch, f'cmp "$file" {recording} && cat $here/text')
    assert import_trace(packed, tmp_path / "out").metadata.source["compression"] == "gzip"


@pytest.mark.parametrize(
    ("report", "says"),
    [
        ("echo 'error reading header' >&2; exit 3", "exit 3): error reading header"),
        ("cat $here/text; echo 'bad page' >&2; exit 1", "exit 1): bad page"),
        ("exit 0", "it printed nothing"),
        ("kill -9 $$", "exit -9"),
    ],
)
def test_failures_are_named_and_leave_nothing(
    report: str, says: str, recording: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(tmp_path, monkeypatch, report)
    with pytest.raises(ImportFormatError) as caught:
        import_trace(recording, tmp_path / "out")
    assert says in caught.value.message
    assert caught.value.hint
    assert not (tmp_path / "out").exists()


def test_missing_program_names_its_package(recording: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path / "empty"))
    with pytest.raises(ImporterToolMissingError) as caught:
        import_trace(recording, tmp_path / "out")
    assert "apt install trace-cmd" in str(caught.value.hint)
    assert "dnf install trace-cmd" in str(caught.value.hint)


def test_other_versions_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "trace.dat"
    path.write_bytes(MAGIC + b"8\0" + bytes(100))
    assert IMPORTER.sniff(Head("x", path.read_bytes(), True)) is Confidence.CERTAIN
    with pytest.raises(ImportFormatError) as caught:
        import_trace(path, tmp_path / "out")
    assert "version 8" in caught.value.message


def test_named_format_on_another_file(tmp_path: Path) -> None:
    path = tmp_path / "text"
    path.write_text(REPORT)
    with pytest.raises(ImportFormatError) as caught:
        import_trace(path, tmp_path / "out", format="trace.dat")
    assert "is no trace.dat" in caught.value.message


# ------------------------------------------------------------ recordings of an ftrace instance
DATA = Path(__file__).parents[1] / "data" / "import"


def test_clock_of_an_instance_is_its_own_and_its_name_is_no_tasks(
    recording: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(tmp_path, monkeypatch, "sed 's/^ *fio/tctext:    fio/' $here/text")
    (tmp_path / "bin" / "header").write_text((DATA / "instance-6.18-v7.dump.txt").read_text())
    result = import_trace(recording, tmp_path / "out")
    assert result.metadata.clock["name"] == "mono"  # the dump says "local" of the buffer: the top level's
    assert result.metadata.host["release"].startswith("6.18.")
    assert Trace.open(result.path).tasks.select("comm").collect()["comm"].unique().to_list() == ["fio"]


@pytest.mark.skipif(shutil.which("trace-cmd") is None, reason="trace-cmd is not installed")
@pytest.mark.parametrize(("version", "events"), [(6, 1694), (7, 3222)])
def test_real_recordings_of_both_versions(version: int, events: int, tmp_path: Path) -> None:
    result = import_trace(DATA / f"instance-6.18-v{version}.dat.zst", tmp_path / "out")
    assert result.metadata.source["format"] == f"trace.dat v{version}"
    assert sum(result.summary.events.values()) == events
    assert result.summary.rejected == 0
    assert result.metadata.clock == {"name": "mono", "resolution_ns": 1}
    names = Trace.open(result.path).tasks.select("comm").collect()["comm"].to_list()
    assert {"sh", "dd", "ls"} <= set(names)
