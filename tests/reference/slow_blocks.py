"""What block accesses mean, slowly: a list as LRU stack, an ordered dictionary as LRU cache, sets as working sets."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable, Iterable, Sequence


def stack_distances(accesses: Iterable[Hashable]) -> list[int | None]:
    """For each access, how many other blocks were accessed since the last access of the same; None: never before."""
    stack: list[Hashable] = []
    found: list[int | None] = []
    for block in accesses:
        if block in stack:
            found.append(len(stack) - 1 - stack.index(block))
            stack.remove(block)
        else:
            found.append(None)
        stack.append(block)
    return found


def lru_misses(accesses: Iterable[Hashable], size: int) -> int:
    """Misses of an LRU cache of ``size`` blocks."""
    cache: OrderedDict[Hashable, None] = OrderedDict()
    misses = 0
    for block in accesses:
        if block in cache:
            cache.move_to_end(block)
        else:
            misses += 1
            cache[block] = None
            if len(cache) > size:
                cache.popitem(last=False)
    return misses


def working_sets(
    accesses: Sequence[tuple[int, int, Hashable, bool]],
) -> dict[tuple[int, int], tuple[int, int, int, int]]:
    """Distinct blocks read, written, either, and new, by device and window, of (device, window, block, write)."""
    found: dict[tuple[int, int], tuple[int, int, int, int]] = {}
    for line in sorted({(device, window) for device, window, _, _ in accesses}):
        mine = [a for a in accesses if (a[0], a[1]) == line]
        read = {a[2] for a in mine if not a[3]}
        written = {a[2] for a in mine if a[3]}
        before = {a[2] for a in accesses if a[0] == line[0] and a[1] < line[1]}
        found[line] = (len(read), len(written), len(read | written), len((read | written) - before))
    return found
