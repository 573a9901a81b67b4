"""The first part of a demand stream: for questions that an answer from less than the whole trace serves.

Pages that were freed later than the part ends stay in use at its end, like those in use when a trace ends.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np

from tracereplay.demand.stream import ALLOC, FIRST, TARGETED, DemandInfo, DemandReport, DemandStream


class Prefix:
    """A demand stream of the first operations of another. Iterate once; ``whole`` and ``report`` are right after that.

    ``report`` has the totals of the part; accounting and callers only where the part is the whole.
    """

    def __init__(self, stream: DemandStream, operations: int) -> None:
        self.info: DemandInfo = stream.info
        self.path: Any = getattr(stream, "path", None)
        self.report: DemandReport = stream.report
        self.whole = True
        self._stream = stream
        self._most = operations

    def __iter__(self) -> Iterator[np.ndarray[tuple[int], np.dtype[np.void]]]:
        """Batches up to so many operations; those of one time stay together."""
        left, latest = self._most, self.info.start_ns
        requests = pages = targeted_requests = targeted_pages = 0
        for batch in self._stream:
            if left <= 0:
                self.whole = False
                break
            if len(batch) > left:
                times = np.maximum.accumulate(batch["ts_ns"])
                end = int(np.searchsorted(times, times[left - 1], "right"))
                self.whole &= end == len(batch)
                batch = batch[:end]
            left -= len(batch)
            latest = max(latest, int(batch["ts_ns"].max(initial=latest)))
            asked = batch[batch["kind"] == ALLOC]
            sizes = np.int64(1) << asked["order"].astype(np.int64)
            first, ours = asked["flags"] & FIRST != 0, asked["flags"] & TARGETED != 0
            requests, pages = requests + int(first.sum()), pages + int(sizes.sum())
            targeted_requests += int((first & ours).sum())
            targeted_pages += int(sizes[ours].sum())
            yield batch
        if not self.whole:
            self.info = replace(self.info, end_ns=max(latest, self.info.start_ns + 1))
            self.report = replace(
                self.report,
                requests=requests,
                pages=pages,
                targeted_requests=targeted_requests,
                targeted_pages=targeted_pages,
            )
