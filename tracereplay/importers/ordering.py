"""Rows in the order of lines into rows in the order of time, within a bounded window."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

Columns = dict[str, npt.NDArray[Any]]
"""Equally long arrays by column; ``ts_ns`` among them."""


class Reorder:
    """Holds the latest ``window`` rows back; rows that come later than that out of order are left out.

    Equal times keep the order of their lines.
    """

    def __init__(self, window: int) -> None:
        self._window = max(1, window)
        self._pending: list[Columns] = []
        self._held = 0
        self._emitted = np.iinfo(np.int64).min
        self._newest = np.iinfo(np.int64).min

    def push(self, columns: Columns) -> tuple[list[Columns], Columns | None]:
        """Rows now ready, in order, and those left out (None when there are none)."""
        ts = columns["ts_ns"]
        if not ts.size:
            return [], None
        late = None
        if ts.min() < self._emitted:
            keep = ts >= self._emitted
            late = {name: column[~keep] for name, column in columns.items()}
            columns = {name: column[keep] for name, column in columns.items()}
            ts = columns["ts_ns"]
            if not ts.size:
                return [], late
        in_order = ts[0] >= self._newest and not (ts[1:] < ts[:-1]).any()
        self._pending.append(columns)
        self._held += ts.size
        if not in_order:
            self._sort()
        self._newest = max(self._newest, int(ts.max()))
        return list(self._ready()), late

    def flush(self) -> list[Columns]:
        """Everything still held."""
        ready, self._pending, self._held = self._pending, [], 0
        return ready

    def _sort(self) -> None:
        whole = {name: np.concatenate([part[name] for part in self._pending]) for name in self._pending[0]}
        order = np.argsort(whole["ts_ns"], kind="stable")
        self._pending = [{name: column[order] for name, column in whole.items()}]

    def _ready(self) -> Iterator[Columns]:
        while (excess := self._held - self._window) > 0:
            first = self._pending[0]
            size = first["ts_ns"].size
            if size > excess:
                if 4 * excess < self._window:
                    return
                self._pending[0] = {name: column[excess:] for name, column in first.items()}
                first = {name: column[:excess] for name, column in first.items()}
                size = excess
            else:
                del self._pending[0]
            self._held -= size
            self._emitted = int(first["ts_ns"][-1])
            yield first
