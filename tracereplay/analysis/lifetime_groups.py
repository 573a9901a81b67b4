"""What lifetimes are grouped by, as tags of the lifetime pass, and the pass over what a view keeps."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import polars as pl

from tracereplay.demand.lifetime import Lives
from tracereplay.demand.opening import gfp_names, losses
from tracereplay.demand.sites import Sites
from tracereplay.demand.state import CENSORING, NO_STACK
from tracereplay.demand.tags import Numbers
from tracereplay.kernel.gfp import format_gfp

if TYPE_CHECKING:
    import pyarrow as pa

    from tracereplay.analysis.view import View
    from tracereplay.demand.columns import PageBatch
    from tracereplay.demand.lifetime_pass import Rows

Array = npt.NDArray[Any]
NOT_SEEN = "(allocation not seen)"
NO_TASK = "(unknown task)"
_WITHOUT_FACTS = ("none", "order", "cpu")
"""Groups that neither pid nor gfp is needed for."""


class Groups:
    """Numbers allocations by what they are grouped by: ``none order gfp caller process cgroup cpu``.

    Group 0 holds what has no known allocation. Groups are numbered by first sight; two may bear the same label.
    """

    def __init__(self, view: View, by: str) -> None:
        self.by = by
        self.wants_stacks = by == "caller" and view.trace.rows("stacks") > 0
        self._view = view
        self._sites = Sites(view.trace) if by == "caller" else None
        self._numbers = Numbers()

    def __call__(self, batch: PageBatch) -> Array:
        """Tags of a batch's allocations."""
        if self._sites is not None:
            return self._sites(batch)
        if self.by == "none":
            return np.zeros(len(batch), np.uint32)
        if self.by in ("process", "cgroup"):
            keys = self._view.task_index.rows(batch.pid.astype(np.int64), batch.ts) + 1
        else:
            keys = {"order": batch.order, "cpu": batch.cpu, "gfp": batch.gfp}[self.by].astype(np.int64)
        return self._numbers.of(keys, batch.kind)

    def of(self, rows: Rows) -> Array:
        """Groups of lifetimes (int64): 0 where the allocation is not known, else one more than the tag."""
        tag = rows.tag.astype(np.int64)
        if self.by == "none":
            return tag + 1
        return np.where(rows.t_alloc < 0, 0, tag + 1)

    @property
    def tags(self) -> int:
        """How many tags there are by now."""
        if self._sites is not None:
            return self._sites.tags
        return max(len(self._numbers), 1)

    @property
    def labels(self) -> list[Any]:
        """What the groups so far are, from group 0."""
        if self._sites is not None:
            names = self._sites.labels.to_pylist()
            return [NOT_SEEN, *(names[c] for c in self._sites.callers.tolist())]
        if self.by == "none":
            return [NOT_SEEN, "all"]
        keys = self._numbers.keys.tolist()
        if self.by == "gfp":
            table = gfp_names(self._view.trace)
            return [NOT_SEEN, *(format_gfp(key, table) for key in keys)]
        if self.by in ("process", "cgroup"):
            column = "comm" if self.by == "process" else "cgroup"
            names = [NO_TASK, *self._view.task_index.frame[column].to_list()]
            return [NOT_SEEN, *(names[key] or NO_TASK for key in keys)]
        return [NOT_SEEN, *map(str, keys)]

    def merged(self) -> tuple[Array, list[str]]:
        """Groups of one label as one: the new number of each group, and the labels of those."""
        first: dict[str, int] = {}
        numbers = [first.setdefault(label, len(first)) for label in self.labels]
        return np.array(numbers, np.int64), list(first)

    @property
    def stacks(self) -> Array:
        """Of groups by caller: the stack of each (NO_STACK: none)."""
        assert self._sites is not None
        return np.concatenate([np.array([NO_STACK], np.uint32), self._sites.stacks])


def lives_of(
    view: View, groups: Groups | None, *, rows: bool = True, by_time: bool = True, levels: bool = False
) -> Lives:
    """The pass over a view. All events are followed; the filters decide which allocations are reported.

    ``by_time``: the time filter is one of the allocation; otherwise the caller looks at a stretch of time itself.
    """
    chosen = view.selection
    facts = bool({"pid", "comm", "cgroup"} & set(chosen.used)) or (
        groups is not None and groups.by not in _WITHOUT_FACTS
    )
    limited = by_time and chosen.time != (None, None)
    if not limited and not set(chosen.used) - {"time"}:
        return Lives(view.trace, groups, rows=rows, levels=levels, facts=facts)

    def keep(batch: pa.RecordBatch) -> Array:
        mask = view.mask(batch)
        kept: Array = np.ones(batch.num_rows, np.bool_) if mask is None else mask
        if limited:
            ts = batch.column(0).to_numpy()
            kept = kept & (ts >= view.start_ns) & (ts < view.end_ns)
        return kept

    return Lives(view.trace, groups, keep=keep, rows=rows, levels=levels, facts=facts)


class Losses:
    """Lifetimes that events were lost in: their free may be that of a later owner."""

    def __init__(self, view: View) -> None:
        self._begin, end, _ = losses(view.trace)
        self._end = np.maximum.accumulate(end) if len(end) else end
        self.spanned = 0

    def add(self, begin: Array, end: Array) -> None:
        """Count the lifetimes with these ends that a loss falls into."""
        if len(self._begin):
            before = np.searchsorted(self._begin, end)
            self.spanned += int(((before > 0) & (self._end[before - 1] > begin)).sum())

    @property
    def account(self) -> dict[str, int]:
        """For the completeness line; nothing where nothing was lost."""
        return {"complete_across_losses": self.spanned} if len(self._begin) else {}


class Sums:
    """Sums of some weights by group."""

    def __init__(self, width: int, kind: type[np.int64] | type[np.float64] = np.int64) -> None:
        self._table = np.zeros((1, width), kind)

    def add(self, group: Array, *weights: Array | None) -> None:
        """Add one weight a column (None: 1 each)."""
        if not len(group):
            return
        n = int(group.max()) + 1
        if n > len(self._table):
            more = np.zeros((n - len(self._table), self._table.shape[1]), self._table.dtype)
            self._table = np.concatenate([self._table, more])
        for column, weight in enumerate(weights):
            self._table[:n, column] += np.bincount(group, weight, n).astype(self._table.dtype)

    def __len__(self) -> int:
        return len(self._table)

    def merged(self, numbers: Array, groups: int) -> Array:
        """[groups, columns]; ``numbers``: what group each one counts as."""
        made = np.zeros((groups, self._table.shape[1]), self._table.dtype)
        np.add.at(made, numbers[: len(self._table)], self._table)
        return made


class Classes:
    """How many blocks and pages ended how, by group."""

    def __init__(self) -> None:
        self._sums = Sums(2)

    def add(self, group: Array, rows: Rows) -> None:
        """Count a batch of lifetimes."""
        self._sums.add(group * len(CENSORING) + rows.how, None, np.int64(1) << rows.order.astype(np.int64))

    def merged(self, numbers: Array, groups: int) -> tuple[Array, Array]:
        """Blocks and pages, as [groups, classes]."""
        n = len(CENSORING)
        cells = (numbers[:, None] * n + np.arange(n)).ravel()
        blocks, pages = self._sums.merged(cells, groups * n).T.reshape(2, groups, n)
        return blocks, pages

    @property
    def account(self) -> dict[str, int]:
        """Blocks by how they ended, for the completeness line."""
        n = len(CENSORING)
        found = self._sums.merged(np.arange(len(self._sums)) % n, n)[:, 0]
        return dict(zip(CENSORING, found.tolist(), strict=True))


def frame_of(labels: list[str], columns: dict[str, Any], used: Array, best: str) -> pl.DataFrame:
    """A frame of the groups that are used, with their labels as ``by``, those with most of a column first."""
    frame = pl.DataFrame({"by": labels, **columns}).filter(pl.Series(used))
    return frame.sort(best, "by", descending=[True, False])


def all_rows(lives: Lives) -> Iterator[Rows]:
    """Every lifetime: those that ended, then those that are live."""
    yield from lives.ended()
    yield from lives.live()
