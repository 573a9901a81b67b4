"""The collector's tracefs side without a kernel: filters, pages to frames, statistics, names of tasks, the choice."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from collectors import tracer_choice
from collectors.attendance import StopRequest
from collectors.errors import BccUnavailableError, CollectorError, PrivilegeError, ProbeUnavailableError
from collectors.filters import Filters
from collectors.finding import BOTH, EBPF, TRACEFS, Finding
from collectors.options import Options
from collectors.output import Output
from collectors.resolve import FilterError
from collectors.tracefs_drain import BATCH_BYTES, MAX_BATCHES, PageDrain
from collectors.tracefs_filters import UnsupportedOptionError, check_options, condition, note
from collectors.tracefs_instance import parse_stats
from collectors.tracefs_session import event_id
from collectors.tracefs_tasks import living_tasks, tasks_begun_by
from collectors.tracepoints import PROBES
from tests.ftrace_samples import DATA_AT, PAGE_BYTES, Page, all_formats, hello
from tracereplay.trace import frames

FORMATS = all_formats("6.18")


# ---------------------------------------------------------------- filters
def conditions(**given: Any) -> dict[str, str]:
    """kind -> filter text."""
    filters = Filters(**given)
    return {p.kind: condition(p, FORMATS[p.event], filters) for p in PROBES}


def test_without_filters_nothing_is_filtered() -> None:
    assert set(conditions().values()) == {""}


def test_tasks_are_chosen_where_an_event_is_by_itself() -> None:
    told = conditions(pids=[7, 8], comms=["kworker/0:1"])
    both = '(common_pid == 7 || common_pid == 8) && COMM == "kworker/0:1"'
    assert {told[k] for k in ("alloc", "zone_locked", "drain", "extfrag", "queue", "reclaim_begin")} == {both}
    # What follows something recorded cannot be told apart, so all of it is recorded.
    assert {told[k] for k in ("free", "free_batched", "issue", "complete", "remap", "rename")} == {""}


def test_orders_go_by_the_field_that_each_event_has() -> None:
    told = conditions(orders=[0, 9])
    assert told["alloc"] == told["free"] == "(order == 0 || order == 9)"
    assert told["extfrag"] == "(alloc_order == 0 || alloc_order == 9)"
    assert told["free_batched"] == told["queue"] == told["kswapd_wake"] == ""


def test_all_bits_of_a_mask_must_be_set() -> None:
    told = conditions(gfp=0x108, orders=[3])
    assert told["alloc"] == "order == 3 && (gfp_flags & 8) && (gfp_flags & 256)"
    assert told["free"] == "order == 3"


def test_devices_are_looked_for_on_both_sides_of_a_remap() -> None:
    told = conditions(devices=[0xFE00000], min_sectors=16)
    assert told["queue"] == "dev == 266338304 && nr_sector >= 16"
    assert told["issue"] == "dev == 266338304"
    assert told["remap"] == "(dev == 266338304 || old_dev == 266338304)"
    assert told["alloc"] == ""


@pytest.mark.parametrize("name", ['a"b', "a*b", "back\\slash", "[x]"])
def test_a_name_that_a_filter_cannot_spell_is_refused(name: str) -> None:
    with pytest.raises(UnsupportedOptionError, match="cannot be spelled"):
        conditions(comms=[name])


def test_what_is_recorded_beyond_the_filters_is_said() -> None:
    assert note(Filters()) == note(Filters(orders=[1], devices=[2])) == ""
    assert "frees of all pages and what follows the queueing of any bio" in note(Filters(pids=[1]))
    assert "bio" not in note(Filters(gfp=1)).split(":")[1]


@pytest.mark.parametrize(
    ("options", "name"),
    [
        (Options(stacks=True), "--stacks"),
        (Options(cgroups=["/x"]), "--cgroup"),
        (Options(tgids=[1]), "--tgid"),
        (Options(max_overhead=0.1), "--max-overhead"),
        (Options(groups=["page", "bulk"]), "--events bulk"),
    ],
)
def test_options_that_need_ebpf_are_refused_by_name(options: Options, name: str) -> None:
    with pytest.raises(UnsupportedOptionError, match=name) as caught:
        check_options(options)
    assert "--pid, --comm" in caught.value.hint


# ---------------------------------------------------------------- pages to frames
class FakeInstance:
    """Pages by CPU, given out as the kernel does."""

    page_bytes, data_at = PAGE_BYTES, DATA_AT

    def __init__(self, pages: dict[int, list[bytes]], **counters: int) -> None:
        self.left = pages
        self.counters = {"entries": 0, "overrun": 5, "bytes": 0, **counters}

    @property
    def cpus(self) -> list[int]:
        return list(self.left)

    def get(self, name: str) -> str:
        return {"buffer_size_kb": "1024"}[name]

    def read(self, cpu: int, pages: list[memoryview]) -> int:
        given = self.left[cpu][: len(pages)]
        del self.left[cpu][: len(given)]
        for view, page in zip(pages, given, strict=False):
            view[:] = page
        return len(given)

    def stats(self, cpu: int) -> dict[str, int]:
        return self.counters


class FakeGrace:
    floor_ns = 1000


def drained(instance: FakeInstance, folder: Path, steps: int = 1) -> tuple[PageDrain, list[frames.Packet], list[int]]:
    """The drain after some steps, what it sent, and its waits."""
    path = folder / "frames"
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC)
    try:
        output = Output(fd)
        from collectors.protocol import FrameType, json_frame, stream_header

        output.send([stream_header(), json_frame(FrameType.HELLO, hello())])
        drain = PageDrain(instance, output, FakeGrace(), 10.0)  # type: ignore[arg-type]
        waits = []
        for _ in range(steps):
            drain.step()
            waits.append(drain.wait_ns)
        output.send([json_frame(FrameType.CLOSING, {})])
        os.lseek(fd, 0, os.SEEK_SET)
        return drain, list(frames.read_packets(fd)), waits
    finally:
        os.close(fd)


def sent(packets: list[frames.Packet]) -> list[frames.Blob]:
    return [blob for p in packets if isinstance(p, frames.Batches) for blob in p.pages]


def statuses(packets: list[frames.Packet]) -> list[dict[str, Any]]:
    return [p.value for p in packets if isinstance(p, frames.Message) and p.type == frames.STATUS]


def test_pages_go_out_whole_but_for_the_unused_end_of_the_last(tmp_path: Path) -> None:
    pages = [Page(1).event(0, b"abcd" * 9).bytes(), Page(2).event(0, b"efgh").bytes()]
    drain, packets, _ = drained(FakeInstance({0: list(pages), 3: []}), tmp_path)
    (blob,) = sent(packets)
    assert (blob.cpu, blob.mono_ns) == (0, 0)
    assert bytes(blob.payload) == pages[0] + Page(2).event(0, b"efgh").bytes(cut=True)
    assert drain.drained() == {"ftrace": {"0": 2}}
    assert statuses(packets) == []


def test_the_floor_counts_from_the_next_step_on(tmp_path: Path) -> None:
    class Refilled(FakeInstance):
        def read(self, cpu: int, pages: list[memoryview]) -> int:
            if not self.left[cpu]:
                self.left[cpu] = [Page(9).event(0, b"late").bytes()]
                return 0
            return super().read(cpu, pages)

    _, packets, _ = drained(Refilled({0: [Page(1).event(0, b"abcd").bytes()]}), tmp_path, steps=3)
    assert [blob.mono_ns for blob in sent(packets)] == [0, 1000]


def test_a_buffer_that_is_not_emptied_holds_the_floor_back(tmp_path: Path) -> None:
    per_batch = BATCH_BYTES // PAGE_BYTES
    many = [Page(n).event(0, b"abcd").bytes() for n in range(per_batch * MAX_BATCHES + 1)]
    drain, packets, _ = drained(FakeInstance({0: many, 1: [Page(5).event(0, b"abcd").bytes()]}), tmp_path)
    assert drain._sent_floor == 0
    assert {blob.cpu for blob in sent(packets)} == {0, 1}  # the other CPU has had its turn
    assert len(many) == 1


@pytest.mark.parametrize(("unread", "emptied"), [(100, ["0"]), (1 << 20, [])], ids=["emptied", "full again"])
def test_loss_brings_the_counters_along(unread: int, emptied: list[str], tmp_path: Path) -> None:
    pages = [Page(1).event(0, b"abcd").bytes(), Page(2).lost(-1).event(0, b"efgh").bytes()]
    _, packets, _ = drained(FakeInstance({0: pages}, bytes=unread), tmp_path)
    (told,) = statuses(packets)
    assert told["event"] == "overrun"
    assert told["ftrace"]["0"]["overrun"] == 5
    assert told["emptied"] == emptied


def test_the_count_behind_the_last_page_is_not_cut_off(tmp_path: Path) -> None:
    page = Page(1).lost(77).event(0, b"abcd")
    _, packets, _ = drained(FakeInstance({0: [page.bytes()]}), tmp_path)
    assert bytes(sent(packets)[0].payload) == page.bytes(cut=True)


def test_quiet_buffers_are_looked_at_less_often(tmp_path: Path) -> None:
    _, _, quiet = drained(FakeInstance({0: []}), tmp_path, steps=6)
    assert quiet == [20e6, 40e6, 80e6, 160e6, 160e6, 160e6]
    busy = [Page(n).event(0, b"abcd").bytes() for n in range(64)]
    _, _, waits = drained(FakeInstance({0: busy}), tmp_path)
    assert waits == [10e6]


# ---------------------------------------------------------------- small things
def test_statistics_of_a_buffer() -> None:
    text = "entries: 5\noverrun: 7\ncommit overrun: 0\nbytes: 60\noldest event ts:  1.5\n"
    told = parse_stats(text + "dropped events: 2\nread events: 9\n")
    assert told == {"entries": 5, "overrun": 7, "commit overrun": 0, "bytes": 60, "dropped events": 2, "read events": 9}


def test_the_number_of_an_event_is_read_from_its_format() -> None:
    assert len({event_id(fmt) for fmt in FORMATS.values()}) == len(FORMATS)


def test_names_of_tasks_are_those_that_tracepoints_give(tmp_path: Path) -> None:
    names = {
        (9, 9): "kworker/1:1H-kblockd",
        (10, 10): "kworker/u4:3+flush-254:0",
        (11, 11): "kworker/R-mld",
        (12, 12): "a-b",
        (13, 12): "thread",
    }
    for (pid, tgid), comm in names.items():
        folder = tmp_path / str(tgid) / "task" / str(pid)
        folder.mkdir(parents=True)
        (folder / "comm").write_text(comm + "\n")
    (tmp_path / "14").mkdir()  # gone while it was looked at
    (tmp_path / "version").write_text("no task")
    found = {(pid, tgid): comm for pid, tgid, comm in living_tasks(tmp_path)}
    cut = {(9, 9): "kworker/1:1H", (10, 10): "kworker/u4:3"}
    assert found == {**names, **cut}


def test_tasks_born_between_the_scan_and_the_gate_are_found_by_their_age(tmp_path: Path) -> None:
    tick = os.sysconf("SC_CLK_TCK")
    for pid, begun, comm in ((5, 100, "known"), (6, 250, "between"), (7, 301, "later"), (8, 250, "odd) S 1")):
        folder = tmp_path / str(pid) / "task" / str(pid)
        folder.mkdir(parents=True)
        (folder / "comm").write_text(comm + "\n")
        fields = ["S", *["0"] * 18, str(begun * tick // 100), "0"]
        (folder / "stat").write_text(f"{pid} ({comm}) {' '.join(fields)}\n")
    assert sorted(tasks_begun_by(3_000_000_000, {5}, tmp_path)) == [(6, 6, "between"), (8, 8, "odd) S 1")]
    assert tasks_begun_by(3_000_000_000, {5, 6, 7, 8}, tmp_path) == []


# ---------------------------------------------------------------- which way
class Ways:
    """Stand-ins for both ways of capturing, each with the error it fails with."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, ebpf: Exception | None, tracefs: Exception | None) -> None:
        import collectors.session
        import collectors.tracefs_session

        self.went: list[str] = []
        self.reason = ""

        def session(options: Options, output: Output, stop: StopRequest) -> Any:
            class Run:
                def run(inner) -> None:  # noqa: N805
                    self.went.append("ebpf")
                    if ebpf is not None:
                        raise ebpf

            return Run()

        def run_tracefs(options: Options, output: Output, stop: StopRequest, reason: str = "") -> None:
            self.went.append("tracefs")
            self.reason = reason
            if tracefs is not None:
                raise tracefs

        monkeypatch.setattr(collectors.session, "Session", session)
        monkeypatch.setattr(collectors.tracefs_session, "run_tracefs", run_tracefs)
        monkeypatch.setattr(tracer_choice, "ebpf_refused", lambda: "")

    def go(self, tracer: str, sent: int = 0) -> list[str]:
        fd = os.open(os.devnull, os.O_WRONLY)
        try:
            output = Output(fd)
            output.bytes_sent = sent
            tracer_choice.run_chosen(Options(tracer=tracer), output, StopRequest())
        finally:
            os.close(fd)
        return self.went


def test_ebpf_comes_first_and_either_can_be_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    assert Ways(monkeypatch, None, None).go("auto") == ["ebpf"]
    assert Ways(monkeypatch, None, None).go("ebpf") == ["ebpf"]
    assert Ways(monkeypatch, None, None).go("tracefs") == ["tracefs"]


def test_a_refusal_known_beforehand_or_met_at_the_start_leads_to_tracefs(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    ways = Ways(monkeypatch, BccUnavailableError("no bcc"), None)
    assert ways.go("auto") == ["ebpf", "tracefs"]
    assert ways.reason == "eBPF cannot be used: no bcc"
    ways = Ways(monkeypatch, None, None)
    monkeypatch.setattr(tracer_choice, "ebpf_refused", lambda: "the kernel refuses bpf(): EPERM")
    assert ways.go("auto") == ["tracefs"]
    assert "capturing through tracefs: the kernel refuses bpf()" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("tracer", "sent", "error"),
    [
        ("ebpf", 0, CollectorError("no")),
        ("auto", 100, CollectorError("died while recording")),
        ("auto", 0, FilterError("no such device")),
    ],
)
def test_other_failures_do_not(tracer: str, sent: int, error: CollectorError, monkeypatch: pytest.MonkeyPatch) -> None:
    ways = Ways(monkeypatch, error, None)
    with pytest.raises(type(error), match=error.message):
        ways.go(tracer, sent)
    assert ways.went == ["ebpf"]


def test_when_both_ways_fail_both_reasons_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    ways = Ways(monkeypatch, PrivilegeError("bpf() refused", "run as root"), PrivilegeError("no instances"))
    with pytest.raises(PrivilegeError, match=r"bpf\(\) refused; and tracefs cannot be used: no instances") as caught:
        ways.go("auto")
    assert caught.value.hint == "run as root"


def test_an_option_that_needs_ebpf_is_told_with_what_ebpf_lacks(monkeypatch: pytest.MonkeyPatch) -> None:
    ways = Ways(monkeypatch, BccUnavailableError("no bcc"), UnsupportedOptionError("--stacks cannot be done", "x"))
    with pytest.raises(UnsupportedOptionError, match=r"--stacks cannot be done: no bcc"):
        ways.go("auto")


def test_what_neither_way_can_show_is_told_by_the_way_that_works(monkeypatch: pytest.MonkeyPatch) -> None:
    first = ProbeUnavailableError("the bulk allocator cannot be watched", "leave it out")
    ways = Ways(monkeypatch, first, UnsupportedOptionError("--events bulk cannot be done", "x"))
    with pytest.raises(ProbeUnavailableError, match=r"cannot be watched$"):
        ways.go("auto")


# ---------------------------------------------------------------- findings
def test_a_finding_says_what_a_missing_path_costs_and_blocks_only_when_none_is_left() -> None:
    missing = Finding("bpf", "refused", "works", False, "", "allow it", (EBPF,))
    assert missing.stands_in(EBPF)
    assert not missing.stands_in(TRACEFS)
    told = missing.describe(TRACEFS)
    assert told["effect"].startswith("no eBPF: captures go through tracefs")
    assert told["blocks"] is False
    assert missing.describe("")["blocks"] is True
    assert missing.describe("")["effect"] == "no capture"
    there = Finding("tracefs", "mounted", "mounted", True, "", "mount it", BOTH).describe(EBPF)
    assert (there["effect"], there["remedy"], there["blocks"]) == ("", "", False)
