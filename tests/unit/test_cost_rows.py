"""Tables of measured cases: what is read, and what is refused with its place."""

from __future__ import annotations

from pathlib import Path

import pytest

from tracereplay.cost.rows import REQUIRED, read_rows
from tracereplay.errors import RowsError

ROWS = Path(__file__).parents[1] / "data" / "cost" / "microbenchmark.csv"
LINE = "6.1,1,nowait,compound,64,16,3,200,1947.5,25.5,2:10 5:3"
HEADER = "kernel,init_on_alloc,gfp,strategy,n_pages,buffers_held,fragmentation,samples,alloc_mean,free_mean,orders"


def written(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "rows.csv"
    path.write_text(text)
    return path


def test_the_table_of_debians_kernels() -> None:
    rows = read_rows(ROWS)
    assert len(rows) == 190
    assert {row.kernel for row in rows} == {"6.1", "6.12"}
    first = rows[0]
    assert (first.number, first.strategy, first.n_pages, first.total) == (2, "per-page", 1, 498 + 293)
    assert rows[-1].orders == (0, 0, 6150, 25, 50, 0, 0, 0, 0, 0, 0)


def test_a_line(tmp_path: Path) -> None:
    (row,) = read_rows(written(tmp_path, f"{HEADER}\n{LINE}\n"))
    assert row.init_on_alloc
    assert (row.samples, row.failed, row.unit, row.free_blocks) == (200, 0, "instructions", None)
    assert row.total == 1973.0
    assert row.case()["fragmentation"] == 3


def test_columns_that_may_be_missing(tmp_path: Path) -> None:
    (row,) = read_rows(written(tmp_path, ",".join(REQUIRED) + "\n5.10,0,noio,per-page,4,1,100,50\n"))
    assert (row.fragmentation, row.samples, row.orders) == (0, 400, None)


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("compound", "componud", "strategy 'componud'"),
        ("nowait", "atomic", "gfp 'atomic'"),
        (",64,", ",0,", "n_pages 0"),
        (",64,", ",many,", "n_pages 'many'"),
        (",64,", ",48,", None),
        ("1947.5", "nan", "alloc_mean"),
        ("1947.5", "-3", "alloc_mean"),
        ("2:10", "12:10", "orders"),
        ("2:10", "2;10", "orders"),
        ("6.1,1", ",1", "kernel"),
        ("6.1,1", "6.1,2", "init_on_alloc 2"),
    ],
)
def test_what_is_wrong_is_named_with_its_line(tmp_path: Path, old: str, new: str, told: str | None) -> None:
    path = written(tmp_path, f"{HEADER}\n{LINE}\n{LINE.replace(old, new, 1)}\n")
    if told is None:
        assert len(read_rows(path)) == 2
        return
    with pytest.raises(RowsError, match=f"rows.csv, line 3.*{told}"):
        read_rows(path)


def test_one_block_is_a_power_of_two(tmp_path: Path) -> None:
    with pytest.raises(RowsError, match="48 pages"):
        read_rows(
            written(tmp_path, f"{HEADER}\n{LINE.replace('compound', 'compound-single').replace(',64,', ',48,')}\n")
        )


@pytest.mark.parametrize("text", ["", HEADER, "a,b\n1,2\n"])
def test_no_rows(tmp_path: Path, text: str) -> None:
    with pytest.raises(RowsError):
        read_rows(written(tmp_path, text))


def test_a_binary_file(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_bytes(b"\xff\xfe\x00" * 100)
    with pytest.raises(RowsError, match="not a readable table"):
        read_rows(path)
