"""Stacks of a capture: ids by hash, frames at first sight, names at the end."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from collectors.layout import RING_HEADER, STACK, STACK_FRAMES
from tracereplay.errors import CollectorError
from tracereplay.trace import sql_run, stacks
from tracereplay.trace.decode import Records, RingLayout
from tracereplay.trace.metadata import TraceMetadata
from tracereplay.trace.reader import Trace
from tracereplay.trace.stacks import StackTable, folded_stacks
from tracereplay.trace.writer import TraceWriter

LAYOUT = RingLayout.from_hello({**STACK.describe(), "bytes_per_cpu": 4096})


def stack_records(*rows: tuple[int, Sequence[int]]) -> Records:
    """Records of the ring, as two CPUs would have sent them: (hash, addresses)."""
    made = np.zeros(len(rows), LAYOUT.dtype)
    made["header"] = LAYOUT.record_bytes
    for row, (key, frames) in zip(made, rows, strict=True):
        row["hash"], row["depth"] = key, len(frames)
        row["frames"][: len(frames)] = frames
    half = len(rows) // 2
    parts = [(cpu, part) for cpu, part in enumerate((made[:half], made[half:])) if len(part)]
    return Records(parts, np.arange(len(rows)), None)


def u64(*values: int) -> np.ndarray[Any, np.dtype[np.uint64]]:
    return np.array(values, np.uint64)


def rows_of(table: StackTable, *names: str) -> list[tuple[Any, ...]]:
    """Rows of the finished table."""
    columns = table.batch().select(list(names)).to_pydict().values()
    return list(zip(*columns, strict=True))


def named(*symbols: tuple[int, str, int, str]) -> dict[str, Any]:
    return {"symbols": {str(a): [n, o, m] for a, n, o, m in symbols}, "note": ""}


def test_the_layout_leaves_room_for_the_frames() -> None:
    assert LAYOUT.dtype["frames"].shape == (STACK_FRAMES,)
    assert LAYOUT.stride == RING_HEADER + STACK.size


def test_ids_are_dense_and_in_order_of_first_sight() -> None:
    table = StackTable()
    ids, known = table.ids(u64(0, 1 << 63, 7, 1 << 63, 0))
    assert ids[known].tolist() == [0, 1, 0]
    assert known.tolist() == [False, True, True, True, False]
    table.add(stack_records((9, [1]), (7, [2])))
    assert table.ids(u64(9, 7, 5))[0].tolist() == [2, 1, 3]
    assert ids.dtype == np.uint32


@given(st.lists(st.lists(st.sampled_from([0, 1, 2, 3, 2**63, 2**64 - 1]), max_size=40), max_size=6))
def test_ids_agree_with_a_dictionary(batches: list[list[int]]) -> None:
    table = StackTable()
    plain: dict[int, int] = {}
    for batch in batches:
        ids, known = table.ids(u64(*batch))
        for key in batch:
            if key:
                plain.setdefault(key, len(plain))
        assert known.tolist() == [key != 0 for key in batch]
        assert ids[known].tolist() == [plain[key] for key in batch if key]
    assert len(table) == len(plain)


def test_a_row_for_each_frame_innermost_first() -> None:
    table = StackTable()
    table.add(stack_records((7, [0x1010, 0x2020, 0x3030]), (8, [0x2020])))
    table.symbols(named((0x1010, "submit_bio", 0x10, ""), (0x2020, "crypt_map", 0x20, "dm_crypt")))
    assert rows_of(table, "stack_id", "depth", "address", "symbol", "offset", "module") == [
        (0, 0, 0x1010, "submit_bio", 0x10, None),
        (0, 1, 0x2020, "crypt_map", 0x20, "dm_crypt"),
        (0, 2, 0x3030, None, None, None),
        (1, 0, 0x2020, "crypt_map", 0x20, "dm_crypt"),
    ]


def test_a_repeated_stack_adds_nothing_and_a_collision_is_counted() -> None:
    table = StackTable()
    table.add(stack_records((7, [1, 2]), (7, [1, 2]), (7, [1, 3])))
    table.add(stack_records((7, [1, 2])))
    assert rows_of(table, "stack_id", "address") == [(0, 1), (0, 2)]
    assert table.collisions == 1
    assert "1 stacks have the hash of another" in table.notes()[0]


def test_a_stack_that_never_came_has_one_empty_row() -> None:
    table = StackTable()
    table.ids(u64(5, 6, 7, 4))
    table.add(stack_records((6, [0x10, 0x20])))
    assert table.missing == 3
    assert rows_of(table, "stack_id", "depth", "address", "symbol") == [
        (0, 0, None, None),
        (1, 0, 0x10, None),
        (1, 1, 0x20, None),
        (2, 0, None, None),
        (3, 0, None, None),
    ]
    assert "3 of 4 stacks came without their frames" in table.notes()[0]


def test_no_stacks_make_an_empty_table() -> None:
    table = StackTable()
    assert table.batch().num_rows == 0
    assert table.notes() == []


def test_tracing_is_cut_off_at_the_inner_end_only() -> None:
    table = StackTable()
    own, raw, iterate, alloc, fault, unnamed = 0x100, 0x200, 0x300, 0x400, 0x500, 0x600
    table.symbols(
        named(
            (own, "bpf_prog_6a943a7f6fe45eba_tr_alloc", 1, "bpf"),
            (raw, "bpf_trace_run4", 1, ""),
            (iterate, "__traceiter_mm_page_alloc", 1, ""),
            (alloc, "__alloc_frozen_pages_noprof", 1, ""),
            (fault, "handle_mm_fault", 1, ""),
        )
    )
    table.add(
        stack_records(
            (1, [own, raw, iterate, alloc, fault]),
            (2, [unnamed, raw, iterate, alloc, fault]),
            (3, [alloc, own, raw, iterate, alloc]),
            (4, [unnamed, alloc, fault]),
            (5, [own, raw]),
        )
    )
    found = {
        number: [a for i, a in rows_of(table, "stack_id", "address") if i == number] for number in range(len(table))
    }
    assert found == {
        0: [alloc, fault],
        1: [alloc, fault],
        2: [alloc, own, raw, iterate, alloc],
        3: [unnamed, alloc, fault],
        4: [own, raw],
    }
    assert rows_of(table, "depth")[:4] == [(0,), (1,), (0,), (1,)]


def test_an_address_alone_is_a_stack_apart_from_hashes() -> None:
    table = StackTable()
    assert table.id_of_address(0x42) == 0
    assert table.ids(u64(0x42))[0].tolist() == [1]
    assert table.ids_of_addresses(u64(0x43, 0x42, 0))[0].tolist() == [2, 0, 0]
    assert table.ids_of_addresses(u64(0))[1].tolist() == [False]
    table.symbols(named((0x42, "alloc_pages_bulk_noprof", 2, "")))
    assert rows_of(table, "stack_id", "address", "symbol") == [
        (0, 0x42, "alloc_pages_bulk_noprof"),
        (1, None, None),
        (2, 0x43, None),
    ]


def test_memory_is_bounded_and_what_is_left_out_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stacks, "MAX_STACKS", 2)
    table = StackTable()
    ids, known = table.ids(u64(5, 6, 7, 7, 5))
    assert known.tolist() == [True, True, False, False, True]
    assert ids[known].tolist() == [0, 1, 0]
    table.add(stack_records((8, [1]), (5, [2])))
    assert table.id_of_address(9) is None
    assert len(table) == 2
    assert table.refused == 3
    assert any("3 events have no stack" in note for note in table.notes())


@pytest.mark.parametrize("wrong", [{}, {"symbols": []}, {"symbols": {"1": ["x"]}}, {"symbols": {"x": ["a", 1, ""]}}])
def test_damaged_symbols_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(CollectorError, match="symbols are damaged"):
        StackTable().symbols(wrong)


@pytest.fixture
def trace(tmp_path: Path) -> Trace:
    table = StackTable()
    table.add(stack_records((7, [0x1010, 0x2020]), (8, [0x3030, 0x2020])))
    table.symbols(named((0x1010, "submit_bio", 0x10, ""), (0x2020, "do_syscall_64", 1, "")))
    ids, known = table.ids(u64(8, 7, 0, 7, 6))
    with TraceWriter(tmp_path / "t", TraceMetadata()) as writer:
        import pyarrow as pa

        writer.write(
            "page_events",
            pa.RecordBatch.from_pydict(
                {
                    "ts_ns": pa.array(range(5), pa.int64()),
                    "cpu": pa.array([0] * 5, pa.uint16()),
                    "kind": ["alloc"] * 5,
                    "pfn": pa.array(range(5), pa.uint64()),
                    "order": pa.array([0, 1, 0, 2, 0], pa.uint8()),
                    "stack_id": pa.array(ids, mask=~known),
                }
            ),
        )
        writer.write("stacks", table.batch())
    return Trace.open(tmp_path / "t")


def test_folded_stacks_are_outermost_first(trace: Trace) -> None:
    assert folded_stacks(trace.stacks).collect().rows() == [
        (0, "do_syscall_64;submit_bio"),
        (1, "do_syscall_64;0x3030"),
        (2, "[lost]"),
    ]


def test_folded_stacks_join_with_events(trace: Trace) -> None:
    pages = trace.page_events.group_by("stack_id").agg(pages=pl.lit(2).pow(pl.col("order")).sum())
    joined = pages.join(folded_stacks(trace.stacks), on="stack_id", how="left").sort("pages", descending=True)
    assert joined.select("stack", "pages").collect().row(0) == ("do_syscall_64;submit_bio", 6)


def test_the_tables_join_in_sql(trace: Trace) -> None:
    """The query of docs/capture.md."""
    found = sql_run.run(
        trace,
        "SELECT s.symbol, count(*) AS events FROM page_events e JOIN stacks s ON e.stack_id = s.stack_id "
        "WHERE s.depth = 0 AND e.kind = 'alloc' GROUP BY s.symbol ORDER BY events DESC, s.symbol",
    )
    assert dict(found.rows()) == {"submit_bio": 2, None: 2}
