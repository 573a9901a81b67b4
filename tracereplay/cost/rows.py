"""Rows of a measurement of a kernel's allocator: what was done, and what it took. Imports no Numba.

The columns are those of the kernel module in docs/measure-a-kernel.md: a row is a case that the kernel went through
many times, each buffer's allocation and its release timed apart.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tracereplay.errors import RowsError, nearest
from tracereplay.kernel.constants import MAX_PAGE_ORDER, NR_PAGE_ORDERS

STRATEGIES = ("per-page", "bulk", "compound-single", "compound")
"""How a buffer of n pages is allocated: n single pages; bulk calls until n are there; one block; blocks of descending
orders (as dm-crypt since 6.5)."""
GFP = ("noio", "nowait")
REQUIRED = ("kernel", "init_on_alloc", "gfp", "strategy", "n_pages", "buffers_held", "alloc_mean", "free_mean")
CASE_COLUMNS = ("kernel", "init_on_alloc", "gfp", "strategy", "n_pages", "buffers_held", "fragmentation", "orders")
MAX_PAGES = 1024
MAX_HELD = 4096


@dataclass(frozen=True, slots=True)
class Row:
    """One case and its measurement. Times are per buffer, those of the time stamps included."""

    number: int
    """Line in the file, from 2."""
    kernel: str
    init_on_alloc: bool
    gfp: str
    strategy: str
    n_pages: int
    buffers_held: int
    fragmentation: int
    """0: as booted. f > 0: all free memory was taken page by page and given back but for frames divisible by 2^f."""
    samples: int
    """Buffers measured; 400 where the table does not say."""
    failed: int
    """Those whose allocation failed."""
    alloc: float
    """Mean of the allocations."""
    free: float
    """Mean of the releases."""
    orders: tuple[int, ...] | None
    """Blocks obtained over all samples, by order; None where the table does not say."""
    free_blocks: tuple[int, ...] | None
    """Free blocks by order before the run; None where the table does not say."""
    unit: str
    """``instructions`` or ``ns``."""

    @property
    def total(self) -> float:
        """Allocation and release together."""
        return self.alloc + self.free

    def case(self) -> dict[str, Any]:
        """The case columns as plain values."""
        return {
            "kernel": self.kernel,
            "init_on_alloc": int(self.init_on_alloc),
            "gfp": self.gfp,
            "strategy": self.strategy,
            "n_pages": self.n_pages,
            "buffers_held": self.buffers_held,
            "fragmentation": self.fragmentation,
        }


def read_rows(path: Path) -> list[Row]:
    """The rows of a CSV file. Raises :class:`RowsError` naming file, line and column."""
    try:
        with path.open(newline="", encoding="utf-8") as source:
            reader = csv.DictReader(source)
            header = list(reader.fieldnames or ())
            _check_header(path, header)
            rows = [_row(fields, f"{path}, line {reader.line_num}", reader.line_num) for fields in reader]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise RowsError(f"{path}: not a readable table: {error}", hint="see docs/measure-a-kernel.md") from None
    if not rows:
        raise RowsError(f"{path}: no rows", hint="see docs/measure-a-kernel.md for how to measure them")
    return rows


def _check_header(path: Path, header: list[str]) -> None:
    missing = [name for name in REQUIRED if name not in header]
    if missing:
        guess = nearest(missing[0], header)
        hint = f"is it {guess!r}? " if guess else ""
        raise RowsError(f"{path}: no column {', '.join(missing)}", hint=f"{hint}columns needed: {', '.join(REQUIRED)}")


def _row(fields: Mapping[str, str | None], where: str, number: int) -> Row:
    """One line as a row; see :class:`Row`."""
    unit = _text(fields, "unit") or "instructions"
    if unit not in ("instructions", "ns"):
        raise RowsError(f"{where}: unit {unit!r} is neither instructions nor ns")
    row = Row(
        number=number,
        kernel=_text(fields, "kernel") or "",
        init_on_alloc=bool(_whole(fields, "init_on_alloc", where, 0, 1)),
        gfp=_choice(fields, "gfp", GFP, where),
        strategy=_choice(fields, "strategy", STRATEGIES, where),
        n_pages=_whole(fields, "n_pages", where, 1, MAX_PAGES),
        buffers_held=_whole(fields, "buffers_held", where, 1, MAX_HELD),
        fragmentation=_whole(fields, "fragmentation", where, 0, MAX_PAGE_ORDER, default=0),
        samples=_whole(fields, "samples", where, 1, 10**9, default=400),
        failed=_whole(fields, "failed", where, 0, 10**9, default=0),
        alloc=_number(fields, "alloc_mean", where),
        free=_number(fields, "free_mean", where),
        orders=_orders(_text(fields, "orders"), where),
        free_blocks=_counts(_text(fields, "free_blocks"), where),
        unit=unit,
    )
    if not row.kernel:
        raise RowsError(f"{where}: kernel is empty", hint="its version, such as 6.1")
    if row.strategy == "compound-single" and row.n_pages & row.n_pages - 1:
        raise RowsError(f"{where}: one block of {row.n_pages} pages", hint="compound-single takes a power of two")
    return row


def _text(fields: Mapping[str, str | None], name: str) -> str | None:
    value = fields.get(name)
    return value.strip() if isinstance(value, str) and value.strip() else None


def _choice(fields: Mapping[str, str | None], name: str, known: tuple[str, ...], where: str) -> str:
    value = _text(fields, name) or ""
    if value not in known:
        guess = nearest(value, known)
        hint = f"did you mean {guess!r}?" if guess else f"it is one of {', '.join(known)}"
        raise RowsError(f"{where}: {name} {value!r} is not known", hint=hint)
    return value


def _whole(
    fields: Mapping[str, str | None], name: str, where: str, low: int, high: int, default: int | None = None
) -> int:
    text = _text(fields, name)
    if text is None and default is not None:
        return default
    try:
        value = int(text or "")
    except ValueError:
        raise RowsError(f"{where}: {name} {text!r} is not a whole number") from None
    if not low <= value <= high:
        raise RowsError(f"{where}: {name} {value} is not between {low} and {high}")
    return value


def _number(fields: Mapping[str, str | None], name: str, where: str) -> float:
    text = _text(fields, name)
    try:
        value = float(text or "")
    except ValueError:
        raise RowsError(f"{where}: {name} {text!r} is not a number") from None
    if not math.isfinite(value) or value < 0:
        raise RowsError(f"{where}: {name} {value} is not a cost")
    return value


def _orders(text: str | None, where: str) -> tuple[int, ...] | None:
    """Blocks by order of ``2:6150 3:25 4:50``."""
    if text is None:
        return None
    found = [0] * NR_PAGE_ORDERS
    for word in text.split():
        order, _, count = word.partition(":")
        if not order.isdigit() or not count.isdigit() or int(order) > MAX_PAGE_ORDER:
            raise RowsError(f"{where}: orders {text!r} is not ORDER:COUNT ...")
        found[int(order)] += int(count)
    return tuple(found)


def _counts(text: str | None, where: str) -> tuple[int, ...] | None:
    """Blocks by order of ``2 0 0 1 0 3 2 2 2 1 464``."""
    if text is None:
        return None
    words = text.split()
    if len(words) != NR_PAGE_ORDERS or not all(word.isdigit() for word in words):
        raise RowsError(f"{where}: free_blocks {text!r} is not {NR_PAGE_ORDERS} counts, orders 0 to {MAX_PAGE_ORDER}")
    return tuple(map(int, words))
