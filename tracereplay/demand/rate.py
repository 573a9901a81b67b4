"""A demand stream whose clock runs faster or slower than the recording's.

An operation that came t ns after the stream's start comes t / rate ns after it. All times shrink alike, hold times
among them: the pages in use at one place of the stream are those of the recording, and they are asked for and given
back ``rate`` times as fast. Whoever wants more of them in use at once overlays copies (copies.py). What is not the
recording's keeps its own time: the machine's timers, kswapd, workers and caches of strategies, loads.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from tracereplay.demand.stream import DemandInfo, DemandReport, DemandStream
from tracereplay.errors import ParameterError

LEAST_RATE, MOST_RATE = 1e-3, 1e6

Ops = np.ndarray[tuple[int], np.dtype[np.void]]
I64 = npt.NDArray[np.int64]


class RatedDemand:
    """A demand stream at another rate. Iterate it, then read ``report``, which is the stream's with the rate."""

    def __init__(self, stream: DemandStream, rate: float) -> None:
        """Raises ParameterError: a rate outside LEAST_RATE..MOST_RATE."""
        if not LEAST_RATE <= rate <= MOST_RATE:
            raise ParameterError(f"rate={rate:g}", hint=f"{LEAST_RATE:g} to {MOST_RATE:g} times the recorded one")
        self._stream, self.rate = stream, rate
        start = stream.info.start_ns
        end = int(self._times(np.array([stream.info.end_ns], np.int64))[0])
        self.info: DemandInfo = replace(stream.info, start_ns=start, end_ns=end)
        self.report = DemandReport()

    def _times(
        self, recorded: np.ndarray[tuple[int], np.dtype[np.int64]]
    ) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
        """Times of the recording as times of this stream: rounded down, so that their order stays."""
        start = self._stream.info.start_ns
        return start + np.floor((recorded - start) / self.rate).astype(np.int64)

    def __iter__(self) -> Iterator[Ops]:
        """The stream's batches at their new times."""
        for batch in self._stream:
            made = batch.copy()
            made["ts_ns"] = self._times(batch["ts_ns"])
            yield made
        self.report.take(self._stream.report)
        self.report.rate = self.rate


def at_rate(stream: DemandStream, rate: float) -> DemandStream:
    """The stream at a rate; at 1 it is the stream itself. Raises ParameterError."""
    return stream if rate == 1 else RatedDemand(stream, rate)
