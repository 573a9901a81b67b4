"""A receive queue's refills as a load: what a driver takes from its page_pool (strategies.md section 8).

Each CPU serves one queue and polls evenly. A poll refills the receive ring with ``batch`` pages, a packet each, in one
request. A page comes back ``hold_us`` after its packet's turn: pages of one poll one after another, as evenly as the
packets come. ``remote_percent`` of them are freed on the next CPU, as when the reader runs elsewhere. All of this is
stated, not recorded: no trace says which page a packet used.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from tracereplay.demand.load import SECOND, Asked, Load, load_field, share_of
from tracereplay.kernel.gfp import GFP_ATOMIC, GFP_NOWARN

US = 1_000
CHUNK = 4096
"""Pages handed on at a time, about."""


@dataclass(frozen=True)
class NetworkLoad(Load):
    """Packets received at a rate."""

    name = "network"
    gfp = GFP_ATOMIC | GFP_NOWARN

    packets_per_s: int = load_field(
        1_000_000, unit="packets/s", low=1, high=10**10, doc="packets received a second on all its CPUs together"
    )
    batch: int = load_field(64, unit="packets", low=1, high=16384, doc="pages of one refill (the NAPI budget)")
    hold_us: int = load_field(
        1000, unit="us", low=1, high=10**9, doc="time from the refill to the end of its first page: an assumption"
    )
    remote_percent: int = load_field(0, unit="%", low=0, high=100, doc="pages freed on the next CPU")

    def pages_per_s(self) -> int:
        """A page for each packet."""
        return self.packets_per_s

    def most_live(self, cpu: int, start_ns: int, end_ns: int) -> int:
        """The refills of the time that the last page of one stays out, and one more at each end."""
        period = max(self.batch * SECOND * self.cpus // self.packets_per_s, 1)
        longest = self.hold_us * US + period
        return (longest // period + 2) * self.batch

    def asked(self, cpu: int, start_ns: int, end_ns: int) -> Iterator[Asked]:
        """One request of ``batch`` pages for each poll."""
        after = self.hold_us * US + np.arange(self.batch, dtype=np.int64) * SECOND * self.cpus // self.packets_per_s
        polls = max(CHUNK // self.batch, 1)
        step = self.batch * SECOND  # between polls of two CPUs, in units of 1 / packets_per_s ns
        number = 0
        while True:
            base, rest = divmod(step * (number * self.cpus + cpu), self.packets_per_s)
            ts = start_ns + base + (rest + step * self.cpus * np.arange(polls, dtype=np.int64)) // self.packets_per_s
            ts = ts[ts < end_ns]
            if not len(ts):
                return
            away = share_of(len(ts) * self.batch, self.remote_percent, number * self.batch)
            home = ((cpu + away) % self.cpus).astype(np.int16)
            yield Asked(ts, ts[:, None] + after, home.reshape(-1, self.batch))
            number += len(ts)
