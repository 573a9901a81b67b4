"""page_owner dumps of all generations, generated from the grammar of mm/page_owner.c, against an obvious reader."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tracereplay.errors import ImportFormatError
from tracereplay.importers.base import Confidence, Head, ImportOptions
from tracereplay.importers.convert import import_trace
from tracereplay.importers.page_owner import IMPORTER
from tracereplay.importers.page_owner_dump import merged
from tracereplay.importers.page_owner_pages import MIGRATETYPES, PAGE, frames_of
from tracereplay.trace.reader import Trace
from tracereplay.trace.validate import validate_trace

FRAMES = (
    (" post_alloc_hook+0x228/0x230", (None, "post_alloc_hook", 0x228, None)),
    (" crypt_alloc_buffer+0x10/0x20 [dm_crypt]", (None, "crypt_alloc_buffer", 0x10, "dm_crypt")),
    (" f.isra.0+0x1/0x2 [ext4 0123456789abcdef]", (None, "f.isra.0", 0x1, "ext4")),
    (" [<ffffff9b64989c14>] post_alloc_hook+0x70/0x80", (0xFFFFFF9B64989C14, "post_alloc_hook", 0x70, None)),
    (" 0xffffffffc0123456", (0xFFFFFFFFC0123456, None, None, None)),
    (" 0xffffffff", (0xFFFFFFFF, None, None, None)),
)
COMMS = ("sh", "swapper/0", "a (b) c", "kworker/u4:1", "x), ts 5 ns", "ü", "")


@st.composite
def pages(draw: st.DrawFn) -> tuple[str, dict[str, Any]]:
    """The text of a page as one of the kernels writes it, and what it says."""
    generation = draw(st.sampled_from(["5.10", "5.11", "5.13", "5.18", "6.12"]))
    small = st.integers(0, 40)
    order, gfp = draw(st.integers(0, 10)), draw(st.integers(0, 2**32 - 1))
    pid, tgid, ts = draw(small), draw(small), draw(st.integers(0, 2000) | st.just(2**63 - 1))
    comm, kind, pfn = draw(st.sampled_from(COMMS)), draw(st.sampled_from(MIGRATETYPES)), draw(st.integers(0, 2**52))
    frames = draw(st.lists(st.sampled_from(FRAMES), max_size=4))
    migrated, memcg = draw(st.booleans()), draw(st.sampled_from([None, "user.slice", "a b"]))
    head = f"Page allocated via order {order}, mask {gfp:#x}(GFP_KERNEL|__GFP_COMP)"
    if generation != "5.10":
        named = generation in ("5.18", "6.12")
        head += f", pid {pid}" + (f", tgid {tgid} ({comm})" if named else "") + f", ts {ts} ns"
        head += ", free_ts 17 ns" if generation in ("5.13", "5.18") else ""
    number = f"{pfn:#x}" if generation == "6.12" else str(pfn)
    lines = [head, f"PFN {number} type {kind} Block 1 type CMA Flags 0x17ffffc0000000(lru|node=0)"]
    lines += [text for text, _ in frames]
    lines += ["Page has been migrated, last migrate reason: compaction"] * migrated
    if memcg and generation in ("5.18", "6.12"):
        lines += ["Slab cache page"] * draw(st.booleans())
        lines.append("Charged " + draw(st.sampled_from(["to ", "(via objcg) to ", "to offline "])) + f"memcg {memcg}")
    timed = generation != "5.10"
    row = {
        "ts_ns": ts if timed else 0,
        "pfn": pfn,
        "order": order,
        "gfp": gfp,
        "migratetype": MIGRATETYPES.index(kind),
        "pid": pid if timed else None,
        "stack": [frame for _, frame in frames],
    }
    return "\n".join(lines) + "\n\n", row


def rows_of(trace: Trace) -> list[dict[str, Any]]:
    stacks: dict[int, list[Any]] = {}
    for row in trace.stacks.collect().to_dicts():
        stacks.setdefault(row["stack_id"], []).append((row["address"], row["symbol"], row["offset"], row["module"]))
    names = ("ts_ns", "pfn", "order", "gfp", "migratetype", "pid")
    return [
        {**{n: row[n] for n in names}, "stack": stacks.get(row["stack_id"], [])}
        for row in trace.page_events.collect().to_dicts()
    ]


@settings(max_examples=25, deadline=None)
@given(st.lists(pages(), min_size=1, max_size=12), st.integers(1, 5))
def test_every_page_is_an_allocation_in_the_order_of_time(
    tmp_path_factory: pytest.TempPathFactory, dump: list[tuple[str, dict[str, Any]]], window: int
) -> None:
    tmp = tmp_path_factory.mktemp("dump")
    (tmp / "dump").write_text("".join(text for text, _ in dump))
    result = import_trace(tmp / "dump", tmp / "out", options=ImportOptions(reorder_rows=window))
    assert result.summary.rejected == 0
    assert rows_of(Trace.open(result.path)) == sorted((row for _, row in dump), key=lambda row: row["ts_ns"])


@given(st.lists(st.lists(st.integers(0, 9), max_size=9), max_size=5), st.integers(1, 6))
def test_runs_are_merged_in_bounded_pieces(
    tmp_path_factory: pytest.TempPathFactory, runs: list[list[int]], rows: int
) -> None:
    with (tmp_path_factory.mktemp("runs") / "f").open("w+b") as file:
        for number, run in enumerate(runs):
            array = np.zeros(len(run), PAGE)
            array["ts_ns"], array["pid"] = sorted(run), number
            file.write(array.tobytes())
        pieces = list(merged(file, [len(run) for run in runs], rows))
    found = [(int(t), int(p)) for piece in pieces for t, p in zip(piece["ts_ns"], piece["pid"], strict=True)]
    assert sorted(found) == sorted((t, number) for number, run in enumerate(runs) for t in run)
    assert [t for t, _ in found] == sorted(t for t, _ in found)


DUMP = """\
Page allocated via order 9, mask 0x52dc0(GFP_KERNEL|__GFP_COMP), pid 1, tgid 1 (swapper/0), ts 1065952310 ns
PFN 0x23d200 type Unmovable Block 4585 type CMA Flags 0x4000000000000040(head|zone=1|kasantag=0x0)
 post_alloc_hook+0x228/0x230
 prep_new_page+0x28/0x148
 nf_ct_alloc_hashtable+0x64/0x108

Page allocated via order 0, mask 0x140cca(GFP_HIGHUSER_MOVABLE|__GFP_COMP), pid 12, tgid 10 (sh), ts 965952310 ns
PFN 0x1234 type Movable Block 2 type Movable Flags 0x17(lru)
 post_alloc_hook+0x177/0x1a0
 crypt_alloc+0x10/0x20 [dm_crypt]
Page has been migrated, last migrate reason: compaction
Charged to memcg user.slice

Page allocated via order 0, mask 0x140cca(GFP_HIGHUSER_MOVABLE|__GFP_COMP), pid 12, tgid 10 (sh), ts 965952311 ns
PFN 0x1235 type Movable Block 2 type Movable Flags 0x17(lru)
 post_alloc_hook+0x177/0x1a0
 crypt_alloc+0x10/0x20 [dm_crypt]
Charged to memcg other

"""


def test_snapshot_answers_who_holds_memory(tmp_path: Path) -> None:
    from tracereplay.analysis.registry import analysis_named

    (tmp_path / "dump").write_text(DUMP)
    trace = Trace.open(import_trace(tmp_path / "dump", tmp_path / "out").path)
    assert validate_trace(trace).errors == []
    assert trace.metadata.source["snapshot"] is True
    assert any("snapshot" in note for note in trace.metadata.notes)
    assert trace.tasks.select("pid", "tgid", "comm", "cgroup").collect().rows() == [
        (1, 1, "swapper/0", None),
        (12, 10, "sh", "user.slice"),
    ]
    callers = analysis_named("callers")(trace)
    assert dict(callers.select("by", "pages").rows()) == {"nf_ct_alloc_hashtable": 512, "crypt_alloc": 2}
    peak = analysis_named("peak")(trace)
    assert peak["pages"].sum() == 514
    lifetimes = analysis_named("lifetimes")(trace)
    assert (lifetimes["right_censored"].sum(), lifetimes["complete"].sum()) == (3, 0)


def test_bad_pages_are_refused_with_their_line(tmp_path: Path) -> None:
    bad = DUMP + "PFN 0x1 type Movable\n\nPage allocated via order 0, mask 0x1, pid 1, ts 2 ns\n no frame\n\n"
    bad += DUMP.split("\n\n")[0].replace("order 9", "order 99") + "\n\n" + DUMP[:90]
    (tmp_path / "dump").write_text(bad)
    result = import_trace(tmp_path / "dump", tmp_path / "out")
    lines = bad.split("\n")
    assert [s["line"] for s in result.summary.samples] == [
        lines.index("PFN 0x1 type Movable") + 1,
        lines.index(" no frame"),
        next(i for i, line in enumerate(lines, 1) if "order 99" in line),
        len(lines),
    ]
    assert result.summary.events == {"kmem:mm_page_alloc": 3}
    with pytest.raises(ImportFormatError, match="line 20"):
        import_trace(tmp_path / "dump", tmp_path / "strict", options=ImportOptions(strict=True))
    (tmp_path / "none").write_text("Page allocated via order 0, mask 0xfffffffff, pid 1, ts 2 ns\nPFN 1\n\n")
    with pytest.raises(ImportFormatError, match="holds no page"):
        import_trace(tmp_path / "none", tmp_path / "strict")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (
            " prep_new_page+0xa9/0x120\n get_page_from_freelist+0x801/0x2210\n nr_base_pages: 16\n\n\n",
            "page_owner_stacks",
        ),
        (" prep_new_page+0xa9/0x120\n stack_count: 16\n\n", "page_owner_stacks"),
        ("4819 times:\nPage allocated via order 0, mask 0x50\n f+25\n\n", "page_owner_sort"),
        ("1 times, 2 pages, PID 1:\n\n f+0x1/0x2\n\n", "page_owner_sort"),
    ],
)
def test_sums_are_refused_by_name(text: str, says: str, tmp_path: Path) -> None:
    (tmp_path / "x").write_text(text)
    assert IMPORTER.sniff(Head("x", text.encode(), True)) is Confidence.CERTAIN
    with pytest.raises(ImportFormatError, match=re.escape(says)):
        import_trace(tmp_path / "x", tmp_path / "out")


def test_frame_that_has_no_known_form_keeps_its_text() -> None:
    assert frames_of(b" a b c") == [(None, "a b c", None, None)]
    assert frames_of(b"") == []
    assert pl.DataFrame(frames_of(b" 0x1ffffffffffffffff"), orient="row").row(0)[0] is None
