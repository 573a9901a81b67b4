"""The compiled ftrace parser against the slow reference: same rows, refusals, losses, tasks and stacks."""

from __future__ import annotations

import io
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, BinaryIO

import polars as pl
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.reference.ftrace_reference import BIO_COLUMNS, PAGE_COLUMNS, Parsed, Reference
from tracereplay.errors import EmptyTraceError, ImportFormatError
from tracereplay.importers.base import ImportOptions
from tracereplay.importers.ftrace_text import FtraceConversion
from tracereplay.importers.ftrace_vocabulary import BLOCK_FIELDS, FTRACE, NUMBER, REASONS, TextForm
from tracereplay.kernel.gfp import gfp_table
from tracereplay.trace.schema import TABLES

RELEASE = "6.12"
GOOD = b"bash-1 [000] ..... 1.000001: mm_page_free: page=0 pfn=0x1 order=0\n"


class Text:
    """A text in memory as a source."""

    name = "text"

    def __init__(self, data: bytes) -> None:
        self._data = data

    @contextmanager
    def open(self, advance: Callable[[int], None]) -> Iterator[BinaryIO]:
        yield io.BytesIO(self._data)

    def facts(self) -> dict[str, Any]:
        return {}


def convert(data: bytes, block_bytes: int, form: TextForm = FTRACE) -> tuple[dict[str, pl.DataFrame], FtraceConversion]:
    conversion = FtraceConversion(
        Text(data),
        ImportOptions(release=RELEASE, block_bytes=block_bytes, reorder_rows=1 << 20),
        lambda _n: None,
        form=form,
    )
    found: dict[str, list[pl.DataFrame]] = {}
    for table, batch in conversion.batches():
        schema = TABLES[table].schema
        columns = [
            batch.column(f.name).cast(f.type) if f.name in batch.schema.names else pa.nulls(batch.num_rows, f.type)
            for f in schema
        ]
        frame = pl.from_arrow(pa.Table.from_arrays(columns, schema=schema))
        assert isinstance(frame, pl.DataFrame)
        found.setdefault(table, []).append(frame.with_columns(pl.col(pl.Categorical).cast(pl.String)))
    return {table: pl.concat(parts) for table, parts in found.items()}, conversion


def rows_of(frame: pl.DataFrame | None, columns: tuple[str, ...], stacks: dict[int, list[Any]]) -> list[dict[str, Any]]:
    if frame is None:
        return []
    return [
        {name: row[name] for name in columns if name != "stack"} | {"stack": stacks.get(row["stack_id"])}
        for row in frame.to_dicts()
    ]


def stacks_of(frame: pl.DataFrame | None) -> dict[int, list[Any]]:
    stacks: dict[int, list[Any]] = {}
    for row in [] if frame is None else frame.to_dicts():
        stack = stacks.setdefault(row["stack_id"], [])
        assert row["depth"] == len(stack)
        stack.append((row["address"], row["symbol"], row["offset"], row["module"]))
    return stacks


def text(value: str) -> str:
    return value.encode("latin-1").decode("utf-8", "backslashreplace")


def in_time(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    for row in rows:
        row["stack"] = [
            (a, None if s is None else text(s), o, text(m[0]) if m and m[0] else None)
            for a, s, o, *m in row.get("stack") or ()
        ] or None
        if isinstance(row.get("flags"), str):
            row["flags"] = row["flags"].encode("latin-1").decode("ascii", "backslashreplace")
    return sorted(rows, key=lambda row: row["ts_ns"])


def check(
    data: bytes, block_bytes: int = 1 << 16, *, reference: type[Reference] = Reference, form: TextForm = FTRACE
) -> Parsed:
    expected = reference(gfp_table(RELEASE)).parse(data)
    try:
        found, conversion = convert(data, block_bytes, form)
    except (EmptyTraceError, ImportFormatError):
        if expected.page or expected.bio or expected.mm:
            raise
        return expected
    stacks = stacks_of(found.get("stacks"))
    assert rows_of(found.get("page_events"), PAGE_COLUMNS, stacks) == in_time(expected.page)
    bio = rows_of(found.get("bio_events"), BIO_COLUMNS, stacks)
    for row in expected.bio:  # the operation of a text that is not ASCII is that of its escaped form
        if not row["flags"].isascii():
            row["op"] = next(b["op"] for b in bio if b["ts_ns"] == row["ts_ns"] and b["sector"] == row["sector"])
    assert bio == in_time(expected.bio)
    mm = found["mm_events"].drop("host").to_dicts() if "mm_events" in found else []
    assert mm == sorted(expected.mm, key=lambda row: row["ts_ns"])
    losses = found["loss"].drop("table", "host").to_dicts() if "loss" in found else []
    assert losses == expected.losses
    tasks = {(r["pid"], r["comm"]): [r["tgid"], r["first_ns"], r["last_ns"]] for r in found["tasks"].to_dicts()}
    assert tasks == {(p, None if c == "<...>" else text(c)): v for (p, c), v in expected.tasks.items()}
    rejects = conversion.metadata.rejected
    assert rejects["lines"] == len(expected.rejected)
    reasons = dict(expected.rejected)
    for sample in rejects["samples"]:
        assert same_reason(reasons[sample["line"]], sample["reason"])
    blocks = conversion._blocks
    assert blocks.late_stacks == 0
    assert {
        n.encode("latin-1").decode("utf-8", "backslashreplace"): c for n, c in expected.counts.items()
    } == blocks.counts()
    kept = {tuple(row["stack"]) for row in expected.page + expected.bio if row["stack"]}
    assert len({tuple(s) for s in stacks.values()}) == len(stacks)
    assert kept == {tuple(s) for s in stacks.values()}
    return expected


def same_reason(expected: int, found: str) -> bool:
    if expected == -1:
        return found not in REASONS
    # a block event can be wrong in two ways; which one is told first does not matter
    either = {NUMBER, BLOCK_FIELDS}
    return found in ({REASONS[r] for r in either} if expected in either else {REASONS[expected]})


# ------------------------------------------------------------ generated lines
COMMS = ("bash", "fio", "kworker/u4:1", "a b", "x-y", "a-1 [2]", "[jbd2]", "<...>", "<idle>", "tmux: server", "-", "")
COMMS += (
    "ü",
    "\xff\xfe",
    "-5",
    "a-1",
    "dmcrypt_write/2",
    "comm with (parens)",
    "#x",
    "=> x",
    "CPU:3 [LOST]",
    "n" * 64,
    "n" * 65,
)
FLAGS = ("", "", ".....", "d..3.", "....", "d.h1", "dNs2.", "..", ".......", "......")
HUGE = (2**32, 2**63, 2**64 - 1, 2**64, 10**30)
EDGES = (0, 1, 7, 254, 255, 256, 4095, 4096, 2**20, 2**31, 2**32 - 1)
GFP = (
    "GFP_KERNEL|__GFP_ZERO",
    "GFP_NOWAIT",
    "none",
    "0x1000000",
    "GFP_KERNEL|0x4000000",
    "GFP_WRONG",
    "",
    "GFP_HIGHUSER_MOVABLE|__GFP_COMP",
)
RWBS = ("W", "R", "WS", "FWFS", "D", "DE", "FF", "F", "N", "ZR", "ZRA", "RA", "WSM", "\xff", "X" * 16, "X" * 17)
POINTERS = (
    "(null)",
    "(nil)",
    "0",
    "0x0",
    "0000000000000000",
    "00000000792de21d",
    "0xffffffff8242c9a4",
    "(____ptrval____)",
    "",
)
SYMBOLS = (
    "kmalloc",
    "foo+0x10/0x40",
    "foo+0x1",
    "bar.isra.0",
    "+0x1",
    "x+0xg",
    "ffffffff81234567",
    "0xffff8",
    "deadbee",
    "[mod]",
    "a+0x1+0x2",
)
OTHERS = (
    "# tracer: nop",
    "#",
    "# entries-in-buffer/entries-written: 10/25   #P:2",
    "##### CPU 1 buffer started ####",
    "CPU:3 [LOST 1020 EVENTS]",
    "CPU:1 [LOST EVENTS]",
    "CPU:0 [5 EVENTS DROPPED]",
    "CPU:1 [EVENTS DROPPED]",
    "CPU:99999 [LOST 1 EVENTS]",
    "CPU:1 [nothing]",
    "CPU:1[LOST 7 EVENTS]",
    "CPU:",
    "Lost 12 events",
    "  Lost 99999999999999999999 events ",
    "Lost events",
    "Attaching 18 probes...",
    "cpus=2",
    "version = 6",
    "CPU 3 is empty",
    "",
    "   ",
    "\t",
    "garbage",
    "\x00\x01\x02",
    "=> orphan (ffffffff81000000)",
    "x" * 3000,
    "a-1-2-3-4-5",
    "- - - [0] 1: x:",
    "bash-1 [000] func <-parent",
    "bash-1 [000] ..... 1.5: func <-parent",
    "bash-1 [000] ..... 1.5: <not a stack>",
    "bash-1 [000] ..... 1.5: : x",
)


class Lines:
    """Random lines, most of them right or nearly so."""

    def __init__(self, seed: int, *, ticks: bool = False) -> None:
        self.r = random.Random(seed)
        self.clock = 10**9
        self.ticks = ticks

    def pick(self, choices: tuple[Any, ...]) -> Any:
        return self.r.choice(choices)

    def number(self) -> str:
        roll = self.r.random()
        if roll < 0.9:
            return str(self.r.randrange(0, 12))
        return str(self.pick(EDGES)) if roll < 0.97 else self.pick(("", "x", "-1", "1x", *map(str, HUGE)))

    def time(self) -> str:
        self.clock += self.r.randrange(-2000, 20000)
        seconds, ns = divmod(self.clock, 10**9)
        if self.ticks or self.r.random() < 0.01:
            return str(self.clock)
        roll = self.r.random()
        if roll < 0.01:
            return self.pick(
                ("", "1.", ".5", "9223372036.000000", "9223372035.854775", "1.1234567890", "18446744073709551616")
            )
        return f"{seconds}.{ns // 1000:06}" if roll < 0.6 else f"{seconds}.{ns:09}"

    def header(self) -> str:
        r = self.r
        comm, pid = self.pick(COMMS), self.pick((1, 25, 280, 4194304, 4194304 * 1024, 2**32)) if r.random() < 0.1 else 7
        cpu = self.pick((0, 1, 2, 127, 65535, 65536)) if r.random() < 0.2 else r.randrange(2)
        tgid = self.pick(("", "", "(   12) ", "(-----) ", "(12)", "( ) ", "(x) ", "(4294967296) "))
        if r.random() < 0.1:
            return f"{comm:>16.8}-{pid:<5} {cpu:3}{self.pick(FLAGS)} {self.time():>18}: "
        flags = self.pick(FLAGS)
        gap = " " if r.random() < 0.98 else ""
        return f"{comm:>16}-{pid:<7} {tgid}[{cpu:03}]{gap}{flags}  {self.time():>12}: "

    def page(self) -> str:
        r = self.r
        name = self.pick(
            ("mm_page_alloc", "mm_page_free", "mm_page_free_batched", "mm_page_alloc_zone_locked", "mm_page_pcpu_drain")
        )
        name = "mm_page_alloc_extfrag" if r.random() < 0.1 else name
        pfn = r.randrange(2**22) if r.random() < 0.9 else self.pick((0, 2**64 - 1, 2**64, 2**64 + 5))
        form = r.random()
        fields = [
            f"page={self.pick(POINTERS)}",
            f"pfn={pfn:#x}" if form < 0.8 else f"pfn={pfn}" if form < 0.97 else "pfn=0xzz",
        ]
        if name == "mm_page_alloc_extfrag":
            keys = ("alloc_order", "fallback_order", "pageblock_order", "alloc_migratetype", "fallback_migratetype")
            fields += [f"{key}={self.number()}" for key in (*keys, "fragmenting", "change_ownership")]
        else:
            fields += [f"order={self.number()}"]
            fields += (
                [f"migratetype={self.number()}"]
                if name in ("mm_page_alloc", "mm_page_pcpu_drain") or r.random() < 0.5
                else []
            )
            fields += [f"gfp_flags={self.pick(GFP)}"] if name == "mm_page_alloc" else []
            fields += ["percpu_refill=" + self.number()] if "zone" in name else []
        if r.random() < 0.05:
            fields.insert(
                r.randrange(len(fields)),
                self.pick(
                    (
                        "xfn=1",
                        "orders=3",
                        "migratetypo=1",
                        "=",
                        "pfn",
                        "order=",
                        "gfp_flag=x",
                        "fallback_migratetypes=1",
                    )
                ),
            )
        if r.random() < 0.05:
            del fields[r.randrange(len(fields))]
        gap = self.pick((" ", "        "))
        return f"{self.pick(('', '', '', 'kmem:', 'mm:'))}{name}:{gap}{' '.join(fields)}"

    def bio(self) -> str:
        r = self.r
        dev = (
            self.pick(("8,0", "253,0", "1,0", "254,17", "4096,0", "8,1048576", "8", "8,"))
            if r.random() < 0.2
            else "253,0"
        )
        rwbs = self.pick(RWBS)
        sector = r.randrange(2**40) if r.random() < 0.9 else self.pick(HUGE)
        nr = r.randrange(2048) if r.random() < 0.95 else self.pick(HUGE)
        error = self.pick(("0", "-5", "-2147483647", "2147483648", "x", ""))
        prio = self.pick(("", "be,0,4 ", "0x2,0,4 ", "none,0,0 "))
        where = f"{sector} + {nr}"
        forms = {
            "block_bio_queue": f"{dev} {rwbs} {where} [fio]",
            "block_bio_backmerge": f"{dev} {rwbs} {where} [a ] b]",
            "block_bio_frontmerge": f"{dev} {rwbs} {where} [x]",
            "block_getrq": f"{dev} {rwbs} {where} [x]",
            "block_split": f"{dev} {rwbs} {sector} / {nr} [fio]",
            "block_bio_remap": f"{dev} {rwbs} {where} <- ({dev}) {sector}",
            "block_bio_complete": f"{dev} {rwbs} {where} [{error}]",
            "block_rq_issue": f"{dev} {rwbs} {nr} (2a 00) {where} {prio}[kworker/0:1H]",
            "block_rq_insert": f"{dev} {rwbs} {nr} () {where} {prio}[x]",
            "block_rq_complete": f"{dev} {rwbs} () {where} {prio}[{error}]",
            "block_rq_requeue": f"{dev} {rwbs} () {where} {prio}[{error}]",
            "block_rq_error": f"{dev} {rwbs} (12 34) {where} {prio}[{error}]",
        }
        name = self.pick(tuple(forms))
        line = forms[name]
        if r.random() < 0.05:
            cut = r.randrange(len(line))
            line = line[:cut] + self.pick(("", " ", "x", "+", "[")) + line[cut + r.randrange(2) :]
        return f"{self.pick(('', '', 'block:'))}{name}: {line}"

    def mm(self) -> str:
        return str(
            self.pick(
                (
                    "mm_compaction_begin: zone_start=0x1 migrate_pfn=0x1 free_pfn=0x2 zone_end=0x3, mode=async",
                    "mm_compaction_end: zone_start=0x1 zone_end=0x3, mode=async status=success",
                    "mm_compaction_end: status=what",
                    "mm_vmscan_direct_reclaim_begin: order=9 gfp_flags=GFP_KERNEL|__GFP_ZERO",
                    "vmscan:mm_vmscan_direct_reclaim_begin: order=999 may_writepage=1 gfp_flags=GFP_HUH",
                    "mm_vmscan_direct_reclaim_end: nr_reclaimed=32",
                    "mm_vmscan_direct_reclaim_end: nr_reclaimed=",
                )
            )
        )

    def stack(self) -> list[str]:
        head = self.pick(
            (
                "kernel_stack:         <stack trace >",
                "<stack trace>",
                "user_stack: <user stack trace>",
                "<user stack trace>",
            )
        )
        frames = []
        for _ in range(self.r.randrange(5)):
            symbol = self.pick(SYMBOLS)
            address = self.pick(
                ("", "", " (ffffffff812b73cf)", " <ffffffff812b73cf>", " [ext4]", " (xyz)", " (" + "f" * 17 + ")")
            )
            frames.append(f"{self.pick(('', ' '))}=> {symbol}{address}")
        return [self.header_of_last() + head, *frames]

    def header_of_last(self) -> str:
        last = self.last
        return last if self.r.random() < 0.8 else self.header()

    def some(self, n: int) -> bytes:
        lines: list[str] = []
        self.last = self.header()
        while len(lines) < n:
            roll = self.r.random()
            if roll < 0.08:
                lines.append(self.pick(OTHERS))
                continue
            if roll < 0.16:
                lines += self.stack()
                continue
            self.last = self.header()
            body = self.page if roll < 0.6 else self.bio if roll < 0.9 else self.mm if roll < 0.93 else None
            lines.append(
                self.last + (body() if body else self.pick(("sched_switch: a ==> b", "print: x-1 [0] 1: y:", "x:")))
            )
        ends = [self.pick(("\n", "\n", "\n", "\r\n")) for _ in lines]
        data = "".join(line + end for line, end in zip(lines, ends, strict=True)).encode("latin-1")
        return data if self.r.random() < 0.5 else data[: -self.r.randrange(1, 30)]


@pytest.mark.parametrize("seed", range(60))
def test_generated_lines(seed: int) -> None:
    ticks = seed % 10 == 9
    first = GOOD.replace(b"1.000001", b"1") if ticks else GOOD  # fixes the form of the times
    parsed = check(first + Lines(seed, ticks=ticks).some(600))
    assert parsed.page
    assert parsed.bio
    assert parsed.rejected


@pytest.mark.parametrize("block_bytes", [3300, 4099, 5000, 9001])
def test_blocks_of_any_size_give_the_same(block_bytes: int) -> None:
    """Lines, stacks and losses across the borders of blocks."""
    for seed in range(100, 106):
        check(Lines(seed).some(400), block_bytes)


@settings(max_examples=150)
@given(st.lists(st.sampled_from(OTHERS) | st.text(st.characters(max_codepoint=255), max_size=80), max_size=30))
def test_any_bytes(lines: list[str]) -> None:
    check(GOOD + "\n".join(lines).encode("latin-1"))


@settings(max_examples=200)
@given(st.data())
def test_one_byte_changed(data: st.DataObject) -> None:
    lines = Lines(data.draw(st.integers(0, 50))).some(6)
    at = data.draw(st.integers(0, max(0, len(lines) - 1)))
    byte = data.draw(st.integers(0, 255))
    check(GOOD + lines[:at] + bytes([byte]) + lines[at + 1 :])
