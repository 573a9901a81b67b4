"""Which block events a trace holds, of which devices."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tracereplay.trace.reader import Trace
from tracereplay.trace.schema import BIO_KINDS

_NO_DEVICE = 1 << 32
_REMAP = BIO_KINDS.index("remap")


@dataclass(frozen=True)
class Recorded:
    """What a streaming pass over three columns tells."""

    kinds: dict[int, set[str]]
    """Kinds of events by device."""
    anywhere: set[str]
    """Kinds of events, those without a device too."""
    remaps: set[tuple[int, int]]
    """(device above, device below), partitions and their disks too."""
    longest: int
    """Most sectors of one event."""

    def devices(self, kinds: Iterable[str]) -> list[int]:
        """Devices with an event of one of the kinds, ascending."""
        wanted = set(kinds)
        return sorted(d for d, found in self.kinds.items() if found & wanted)

    @classmethod
    def of(cls, trace: Trace) -> Recorded:
        """Read it. Raises TruncatedTraceError."""
        seen: set[int] = set()
        remaps: set[tuple[int, int]] = set()
        longest = 0
        for batch in trace.batches("bio_events", ["kind", "dev", "nr_sectors", "old_dev"]):
            kind = batch.column(0).indices.to_numpy()
            dev = pc.fill_null(batch.column(1).cast(pa.int64()), _NO_DEVICE)
            seen.update(pc.unique(pa.array(dev.to_numpy() * len(BIO_KINDS) + kind)).to_pylist())
            longest = max(longest, pc.max(batch.column(2)).as_py() or 0)
            if batch.column(3).null_count < batch.num_rows:
                moved = batch.filter(pa.array(kind == _REMAP)).select(["old_dev", "dev"]).drop_null()
                pairs = np.unique(np.stack([c.to_numpy() for c in moved.columns]), axis=1)
                remaps.update(zip(*pairs.tolist(), strict=True))
        kinds: dict[int, set[str]] = {}
        for code in seen:
            device, number = divmod(code, len(BIO_KINDS))
            kinds.setdefault(device, set()).add(BIO_KINDS[number])
        anywhere = set().union(*kinds.values())
        kinds.pop(_NO_DEVICE, None)
        return cls(kinds, anywhere, remaps, longest)
