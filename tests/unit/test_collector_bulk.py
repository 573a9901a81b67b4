"""The probe of the bulk allocator: which function, how its arguments are found, and the C that comes of it."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from pathlib import Path

import pytest

from collectors import btf, bulkprobe, programs
from collectors.bulkprobe import BulkProbe, Host, choose, find_target
from collectors.cbulk import FENTRY, KPROBE, Target
from collectors.filters import Filters
from collectors.kernel import describe_lanes
from collectors.tracepoints import chosen, parse_format
from tests.real_formats import real_formats

WITH_LIST = ("gfp", "preferred_nid", "nodemask", "nr_pages", "page_list", "page_array")
WITHOUT_LIST = ("gfp", "preferred_nid", "nodemask", "nr_pages", "page_array")
V6_1 = """\
ffffffff81030000 T arch_rethook_trampoline
ffffffff81030040 T other
ffffffff812f9230 T __alloc_pages
ffffffff812f9560 T __alloc_pages_bulk
ffffffff812f9a80 T __folio_alloc
ffffffff8131da10 T alloc_pages_bulk_array_mempolicy
ffffffff8131dc10 T alloc_pages
ffffffff824712e8 r __ksymtab___alloc_pages_bulk
"""
V6_12 = """\
ffffffff813c2950 T __pfx_alloc_pages_bulk_noprof
ffffffff813c2960 T alloc_pages_bulk_noprof
ffffffff813c2ec0 T __pfx_page_frag_cache_drain
ffffffff813fa8e0 T alloc_pages_bulk_array_mempolicy_noprof
ffffffff813fab90 T bpf_trampoline_link_prog
ffffffff813fac00 T next
"""
V6_14 = V6_12.replace("_array_mempolicy_noprof", "_mempolicy_noprof")


def btf_of(function: str, names: Sequence[str]) -> bytes:
    """BTF of one function, behind types of every kind that has a length of its own."""
    strings = b"\0"

    def text(name: str) -> int:
        nonlocal strings
        strings += name.encode() + b"\0"
        return len(strings) - len(name) - 1

    def record(name: str, kind: int, members: int, size: int, *words: int) -> bytes:
        return struct.pack(f"={3 + len(words)}I", text(name) if name else 0, kind << 24 | members, size, *words)

    types = record("int", 1, 0, 4, 0x20)
    types += record("", 3, 0, 0, 1, 1, 4)  # array
    types += record("page", 4, 2, 16, *range(6))
    types += record("zone_type", 6, 1, 4, text("ZONE_DMA"), 0)
    types += record("big", 19, 1, 8, text("BIG"), 1, 2)
    types += record("counter", 14, 0, 1, 1)
    types += record(".data", 15, 1, 8, 6, 0, 8)
    types += record("tag", 17, 0, 1, 0)
    types += record("", 13, 1, 1, text("other"), 1)
    types += record("other_function", 12, 1, 9)
    types += record("", 13, len(names), 1, *(w for n in names for w in (text(n), 1)))
    types += record(function, 12, 1, 11)
    header = struct.pack("=HBBIIIII", 0xEB9F, 1, 0, 24, 0, len(types), len(types), len(strings))
    return header + types + strings


def host(
    path: Path,
    kallsyms: str,
    *,
    names: Sequence[str] | None = None,
    kprobes: bool = True,
    traceable: str = "",
    machine: str = "x86_64",
) -> Host:
    """A host made of files."""
    (path / "kallsyms").write_text(kallsyms)
    if names is not None:
        symbol = "__alloc_pages_bulk" if "T __alloc_pages_bulk" in kallsyms else "alloc_pages_bulk_noprof"
        (path / "btf").write_bytes(btf_of(symbol, names))
    if kprobes:
        (path / "type").write_text("8\n")
    (path / "available_filter_functions").write_text(traceable)
    return Host(path / "kallsyms", path / "btf", path / "type", machine, path)


# ------------------------------------------------------------ BTF
def test_parameters_are_read_from_btf(tmp_path: Path) -> None:
    file = tmp_path / "btf"
    file.write_bytes(btf_of("alloc_pages_bulk_noprof", WITHOUT_LIST))
    assert btf.parameters("alloc_pages_bulk_noprof", file) == WITHOUT_LIST
    assert btf.parameters("other_function", file) == ("other",)
    assert btf.parameters("page", file) is None  # a struct
    assert btf.parameters("pages_bulk_noprof", file) is None  # part of a name


@pytest.mark.parametrize("cut", [0, 10, 24, 60, 200])
def test_damaged_btf_tells_nothing(tmp_path: Path, cut: int) -> None:
    file = tmp_path / "btf"
    file.write_bytes(btf_of("f", ("gfp", "nr_pages"))[:cut])
    assert btf.parameters("f", file) is None
    assert btf.parameters("f", tmp_path / "absent") is None


# ------------------------------------------------------------ which function
def test_functions_come_with_their_ends(tmp_path: Path) -> None:
    assert host(tmp_path, V6_12).functions() == {
        "alloc_pages_bulk_noprof": (0xFFFFFFFF813C2960, 0xFFFFFFFF813C2EC0),
        "alloc_pages_bulk_array_mempolicy_noprof": (0xFFFFFFFF813FA8E0, 0xFFFFFFFF813FAB90),
        "bpf_trampoline_link_prog": (0xFFFFFFFF813FAB90, 0xFFFFFFFF813FAC00),
    }


@pytest.mark.parametrize(
    ("kallsyms", "names", "symbol", "array", "known_by"),
    [
        (V6_1, WITH_LIST, "__alloc_pages_bulk", 5, "BTF"),
        (V6_1, None, "__alloc_pages_bulk", 5, "name"),
        (V6_12, WITH_LIST, "alloc_pages_bulk_noprof", 5, "BTF"),
        (V6_12, None, "alloc_pages_bulk_noprof", 5, "name"),
        (V6_14, WITHOUT_LIST, "alloc_pages_bulk_noprof", 4, "BTF"),
        (V6_14, None, "alloc_pages_bulk_noprof", 4, "name"),
        # Neither BTF nor a wrapper (no NUMA) tells where the array is: it is not guessed.
        ("1 T alloc_pages_bulk_noprof\n2 T x\n", None, "alloc_pages_bulk_noprof", None, "name"),
        # The first parameters were turned around: BTF is believed, not the position.
        (V6_12, ("nr_pages", "gfp", "page_array"), "alloc_pages_bulk_noprof", 2, "BTF"),
    ],
)
def test_the_function_and_its_arguments(
    tmp_path: Path, kallsyms: str, names: Sequence[str] | None, symbol: str, array: int | None, known_by: str
) -> None:
    here = host(tmp_path, kallsyms, names=names)
    target = find_target(here, here.functions())
    assert target is not None
    assert (target.symbol, target.array, target.known_by) == (symbol, array, known_by)
    assert list(target.trampolines) == ([(0xFFFFFFFF81030000, 0xFFFFFFFF81030040)] if kallsyms == V6_1 else [])
    expected = (names.index("gfp"), names.index("nr_pages")) if names else (0, 3)
    assert (target.gfp, target.wanted) == expected


def test_hidden_addresses_leave_no_ranges(tmp_path: Path) -> None:
    here = host(tmp_path, "0 T alloc_pages_bulk_noprof\n0 T next\n")
    target = find_target(here, here.functions())
    assert target is not None
    assert target.inside == []
    assert "return 0;" in BulkProbe(KPROBE, target, "x86_64").source(0)


# ------------------------------------------------------------ how
def test_kprobes_come_first(tmp_path: Path) -> None:
    tap, reason, target = choose(host(tmp_path, V6_12, names=WITH_LIST, traceable="alloc_pages_bulk_noprof\n"))
    assert (tap, reason) == (KPROBE, "kprobes on alloc_pages_bulk_noprof")
    assert target is not None


def test_fentry_where_there_are_no_kprobes(tmp_path: Path) -> None:
    here = host(tmp_path, V6_12, names=WITH_LIST, kprobes=False, traceable="alloc_pages_bulk_noprof [mm]\nx\n")
    assert choose(here)[0] == FENTRY


@pytest.mark.parametrize(
    ("kallsyms", "names", "machine", "traceable", "reason"),
    [
        ("1 T __alloc_pages\n2 T y\n", None, "x86_64", "", "the kernel has no function alloc_pages_bulk"),
        (V6_12, WITH_LIST, "ppc64le", "", "registers of ppc64le are not known"),
        (V6_12, None, "x86_64", "alloc_pages_bulk_noprof\n", "no BTF that describes alloc_pages_bulk_noprof"),
        (V6_12, WITH_LIST, "x86_64", "", "no function tracing of alloc_pages_bulk_noprof"),
        (V6_1, WITH_LIST, "x86_64", "__alloc_pages_bulk\n", "no BPF trampolines"),
    ],
)
def test_why_it_cannot_be_watched(
    tmp_path: Path, kallsyms: str, names: Sequence[str] | None, machine: str, traceable: str, reason: str
) -> None:
    here = host(tmp_path, kallsyms, names=names, kprobes=False, traceable=traceable, machine=machine)
    tap, said, target = choose(here)
    assert (tap, target) == ("", None)
    assert reason in said
    probe, why = bulkprobe.bulk_probe(here)
    assert probe is None
    assert why == said


def test_no_symbols_at_all(tmp_path: Path) -> None:
    tap, reason, _ = choose(Host(tmp_path / "none", tracefs=None))
    assert tap == ""
    assert "none not read: No such file" in reason


# ------------------------------------------------------------ C
TARGET = Target(
    "alloc_pages_bulk_noprof", [(0x1000, 0x1100), (0x2000, 0x2040)], [(0x3000, 0x3010)], array=5, arguments=6
)


def plan_of(probe: BulkProbe, filters: Filters | None = None) -> programs.Plan:
    parsed = {event: parse_format(text) for event, text in real_formats("6.12").items()}
    lanes = programs.lanes_of(chosen(["page", "bulk"]), raw=True, bulk=probe)
    return programs.Plan(lanes, parsed, filters or Filters(), bulk=probe)


def part(text: str, start: str) -> str:
    return text[text.index(start) :].split("\n}", 1)[0]


@pytest.mark.parametrize(
    ("machine", "wanted", "mask", "array", "result", "frames"),
    [
        ("x86_64", "ctx->cx", "ctx->di", "ctx->r9", "ctx->ax", ("ctx->sp", "ctx->sp - 8")),
        ("aarch64", "ctx->x[3]", "ctx->x[0]", "ctx->x[5]", "ctx->x[0]", ("ctx->sp", "ctx->sp - 0")),
    ],
)
def test_registers_of_the_machine(
    machine: str, wanted: str, mask: str, array: str, result: str, frames: tuple[str, str]
) -> None:
    text = BulkProbe(KPROBE, TARGET, machine).source(7)
    entry, leave = part(text, "int tr_bulk_entry("), part(text, "int tr_bulk(")
    assert f"call.wanted = {wanted};" in entry
    assert f"call.gfp = {mask};" in entry
    assert f"u64 array = {array};\n    call.filled = bulk_filled(array, call.wanted);" in entry
    assert f"u64 frame = {frames[0]};" in entry
    assert f"u64 frame = {frames[1]};" in leave
    assert f"u32 returned = {result}," in leave
    assert "address - 0x1000ULL < 0x100 || address - 0x2000ULL < 0x40" in text


def test_the_caller_is_not_another_tracers_trampoline() -> None:
    leave = part(BulkProbe(KPROBE, TARGET, "x86_64").source(0), "int tr_bulk(")
    assert "u64 back = ctx->ip;" in leave
    assert "!in_trampoline(back) && !in_allocator(back)" in leave
    unknown = Target("alloc_pages_bulk_noprof", TARGET.inside)
    assert "u64 back" not in BulkProbe(KPROBE, unknown, "x86_64").source(0)


def test_fentry_reads_the_arguments_of_the_trampoline() -> None:
    text = BulkProbe(FENTRY, TARGET, "x86_64").source(0)
    assert "(char *)ctx + 40);" in text  # argument 5, as memory
    assert "call.wanted = ctx[3];" in part(text, "KFUNC_PROBE(alloc_pages_bulk_noprof)")
    assert "u32 returned = ctx[6]," in part(text, "KRETFUNC_PROBE(alloc_pages_bulk_noprof)")
    with pytest.raises(ValueError, match="number of arguments"):
        BulkProbe(FENTRY, Target("alloc_pages_bulk_noprof"), "x86_64").source(0)


def test_entries_filled_before_are_left_alone_where_the_array_is_not_known() -> None:
    assert "call.filled =" not in BulkProbe(KPROBE, Target("alloc_pages_bulk_noprof"), "x86_64").source(0)


def test_it_is_a_lane_of_the_plan() -> None:
    probe = BulkProbe(KPROBE, TARGET, "x86_64")
    plan = plan_of(probe)
    kind = len(plan.lanes) - 1
    assert plan.lanes[kind].probe is probe.probe
    assert plan.rings[-1].name == "bulk"
    assert f"reserve_bulk(&s->lane[{kind}])" in programs.source(plan)
    told = describe_lanes(plan, {})[kind]
    assert told["event"] == "kprobe:alloc_pages_bulk_noprof"
    assert (told["kind"], told["ring"], told["format"]) == ("bulk", len(plan.rings) - 1, "")
    assert "bulk" not in [ring.name for ring in programs.Plan(plan.lanes[:-1], plan.formats).rings]


@pytest.mark.parametrize(
    ("filters", "condition"),
    [
        (Filters(comms=["fio"]), "if (!s->task_ok) return 0;"),
        (Filters(gfp=0x400), "if (found && (gfp & 0x400u) != 0x400u) return 0;"),
        (Filters(orders=[3]), "if (1) return 0;"),
    ],
)
def test_filters_hold_for_bulk_calls(filters: Filters, condition: str) -> None:
    probe = BulkProbe(KPROBE, TARGET, "x86_64")
    leave = part(programs.source(plan_of(probe, filters)), "int tr_bulk(")
    assert condition in leave
    assert leave.index(condition) < leave.index("reserve_bulk")


def test_order_0_is_what_the_bulk_allocator_gives() -> None:
    probe = BulkProbe(KPROBE, TARGET, "x86_64")
    assert "if (1)" not in part(programs.source(plan_of(probe, Filters(orders=[0, 3]))), "int tr_bulk(")


# ------------------------------------------------------------ life
class FakeBpf:
    """What bcc.BPF does for the probe, written down."""

    def __init__(self, counts: Sequence[tuple[int, int]] = ()) -> None:
        self.calls: list[str] = []
        self.funcs = {n: type("F", (), {"fd": fd}) for fd, n in enumerate((b"tr_bulk_entry", b"tr_bulk"), 3)}
        self.cpus = [type("C", (), {"entries": a, "exits": b}) for a, b in counts]

    def __getitem__(self, name: bytes) -> FakeBpf:
        if name == b"bulk_counts":
            return FakeTable(self.cpus)  # type: ignore[return-value]
        raise KeyError(name)

    def __getattr__(self, name: str) -> object:
        if not name.startswith(("attach_", "detach_")):
            raise AttributeError(name)
        return lambda *args, **named: self.calls.append(name)


class FakeTable:
    def __init__(self, cpus: Sequence[object]) -> None:
        self.cpus = cpus

    def __getitem__(self, _key: object) -> Sequence[object]:
        return self.cpus


def test_the_return_is_attached_first() -> None:
    # Handlers run from the newest to the oldest: the entry has to read the return address before it is replaced.
    probe, bpf = BulkProbe(KPROBE, TARGET, "x86_64"), FakeBpf()
    assert probe.attach(bpf) == 4
    assert bpf.calls == ["attach_kretprobe", "attach_kprobe"]
    probe.detach()
    assert set(bpf.calls[2:]) == {"detach_kprobe", "detach_kretprobe"}


def test_missed_returns_are_entries_without_one() -> None:
    probe = BulkProbe(KPROBE, TARGET, "x86_64")
    assert probe.missed((0, 0)) == 0  # never attached
    probe.attach(FakeBpf([(10, 9), (5, 3)]))
    assert probe.counts() == (15, 12)
    assert probe.missed((4, 4)) == 3
    assert probe.missed((15, 10)) == 0  # a call that had begun before
