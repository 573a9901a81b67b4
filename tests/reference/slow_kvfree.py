"""kvfree_rcu of one CPU, pointer by pointer: the oracle for demand/load_kvfree.py.

One list of blocks, one timer, two batches, as mm/slab_common.c has them. A pointer that is queued at the very time of
the monitor is there before it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass
class Block:
    """A page of pointers."""

    first: int
    last: int
    pointers: int = 1
    freed: int = -1


def kvfree_blocks(times: Sequence[int], *, size: int, drain: int, jiffy: int, grace: int) -> list[tuple[int, int]]:
    """When each block took its page and gave it back, for pointers queued at ``times``."""
    made: list[Block] = []
    attached: list[Block] = []
    batches = [0, 0]  # when each is free again
    timer: int | None = None
    queue = list(times)

    def delay() -> int:
        return jiffy if sum(b.pointers for b in attached) >= size else drain

    while queue or timer is not None:
        if queue and (timer is None or queue[0] <= timer):
            now = queue.pop(0)
            if attached and attached[-1].pointers < size:
                attached[-1].pointers += 1
                attached[-1].last = now
            else:
                attached.append(Block(now, now))
                made.append(attached[-1])
            timer = now + delay() if timer is None else min(timer, now + delay())
            continue
        assert timer is not None
        now, timer = timer, None
        while attached and attached[0].last + grace <= now:
            attached.pop(0).freed = now
        if attached:
            for i, busy in enumerate(batches):
                if busy <= now:
                    batches[i] = now + grace
                    for block in attached:
                        block.freed = now + grace
                    attached = []
                    break
        if attached:
            timer = now + delay()
    return [(b.first, b.freed) for b in made]
