"""Primitives that a kernel module times alone, one after another: what mempools, quotas and the direct map take.

The table is the module's second one (docs/measure-a-kernel.md): ``primitive`` and ``mean``, each without the loop
around it. What strategies do with them is a sum of counters, as everywhere.
"""

from __future__ import annotations

import csv
import math
from dataclasses import dataclass
from pathlib import Path

from tracereplay.cost.formula import evaluate, names
from tracereplay.errors import RowsError

_NAME = str.maketrans("-", "_")


@dataclass(frozen=True, slots=True)
class Alone:
    """A coefficient made from timed primitives."""

    name: str
    counters: tuple[str, ...]
    group: str
    formula: str
    """Over the table's names, with ``_`` for ``-``."""
    meaning: str


_CALL = "mempool_alloc_around_callback + mempool_free_around_callback"
_RESERVE = "mempool_alloc_from_reserve + mempool_free_to_reserve"
ALONE = (
    Alone("callback", ("callbacks",), "calls", "indirect_call", "an indirect call"),
    Alone(
        "mempool_call", ("mempool_calls",), "mempool and quota", f"({_CALL}) / 2",
        "mempool_alloc or mempool_free around its callback, mean of both",
    ),
    Alone(
        "mempool_lock", ("mempool_lock_acquisitions",), "mempool and quota", "spin_lock_irqsave_restore",
        "spin_lock_irqsave and its release",
    ),
    Alone(
        "mempool_element", ("mempool_takes", "mempool_puts"), "mempool and quota",
        f"({_RESERVE} - ({_CALL})) / 2 - spin_lock_irqsave_restore",
        "an element from or to the reserve, beyond the call and the lock, mean of both",
    ),
    Alone("mutex", ("mutex_acquisitions",), "mempool and quota", "mutex_lock_unlock", "mutex_lock and mutex_unlock"),
    Alone(
        "percpu_counter", ("percpu_counter_ops",), "mempool and quota",
        "(percpu_counter_read + 2 * percpu_counter_add) / 3", "one read and two adds a page, mean of the three",
    ),
    Alone(
        "cache_lock", ("cache_hits", "cache_puts"), "direct map and cache", "spin_lock_irqsave_restore",
        "the lock of a strategy's cache; its list apart",
    ),
    Alone(
        "direct_map_split", ("direct_map_splits",), "direct map and cache",
        "direct_map_remove_first_of_2MiB - direct_map_remove_next", "split of a 2 MiB entry of the direct map",
    ),
    Alone(
        "direct_map_unmap", ("direct_map_unmaps",), "direct map and cache", "direct_map_remove_next",
        "one page out of the direct map",
    ),
    Alone(
        "direct_map_remap", ("direct_map_remaps",), "direct map and cache", "direct_map_restore",
        "one page back into the direct map",
    ),
    Alone(
        "tlb_flush", ("tlb_flushes",), "direct map and cache", "flush_tlb_one_page",
        "flush_tlb_kernel_range on one CPU: no other one is interrupted or waited for",
    ),
    Alone("bio", ("bios",), "bio", "bio_alloc_1 + bio_put_1", "bio_alloc_bioset and bio_put"),
    Alone(
        "bvec_array", ("bvec_arrays",), "bio", "bio_alloc_256 + bio_put_256 - bio_alloc_1 - bio_put_1",
        "the array of a bio of 256 vecs",
    ),
    Alone("bio_vec", ("bio_vecs",), "bio", "bio_add_page", "bio_add_page"),
    Alone(
        "worker_wakeup", ("worker_wakeups",), "workers", "wake_up_sleeping", "wake_up_process of a sleeping thread"
    ),
)  # fmt: skip


def read_alone(path: Path) -> dict[str, float]:
    """Mean of each timed primitive, by name with ``_``. Raises :class:`RowsError` naming file and line."""
    found: dict[str, float] = {}
    try:
        with path.open(newline="", encoding="utf-8") as source:
            reader = csv.DictReader(source)
            if not {"primitive", "mean"} <= {*(reader.fieldnames or ())}:
                raise RowsError(f"{path}: no columns primitive and mean", hint="see docs/measure-a-kernel.md")
            for fields in reader:
                try:
                    mean = float(fields["mean"])
                except (TypeError, ValueError):
                    mean = math.nan
                if not math.isfinite(mean) or mean < 0:
                    raise RowsError(f"{path}, line {reader.line_num}: mean {fields['mean']!r} is not a cost")
                found[str(fields["primitive"]).translate(_NAME)] = mean
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise RowsError(f"{path}: not a readable table: {error}", hint="see docs/measure-a-kernel.md") from None
    return found


def known_alone(means: dict[str, float]) -> dict[str, float]:
    """Coefficients that a table's primitives give, by name; never below 0."""
    return {a.name: max(float(evaluate(a.formula, means)), 0.0) for a in ALONE if names(a.formula) <= means.keys()}
