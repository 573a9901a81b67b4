"""Memory of a point."""

from __future__ import annotations

from functools import lru_cache

from tracereplay.whatif.task import Task, trace_of

MIB = 1 << 20
POINT_BYTES = 256 * MIB
"""Beside the machine and the frame map: counters and tables of the requests that live, batches, prices. Measured on
5 M events with 290,000 requests live at once: 230 MiB."""
WORKER_BYTES = 450 * MIB
"""A worker process before its first machine: libraries, compiled code, what reconstruction leaves."""


def point_bytes(task: Task) -> int:
    """Bytes that a point needs at most, by its machine's frames and its trace's. Raises TraceError, ParameterError."""
    return _bytes_of(task.trace, task.machine, task.demand.copies)


@lru_cache(maxsize=1024)
def _bytes_of(location: str, machine: tuple[tuple[str, str], ...], copies: int) -> int:
    from tracereplay.demand.opening import frames_of
    from tracereplay.kernel.constants import PAGEBLOCK_ORDER
    from tracereplay.machine.from_trace import configured_machine
    from tracereplay.machine.layout import B_WORDS, NODE_WORDS, machine_words

    trace = trace_of(location)
    frames = max(zone.end for zone in configured_machine(trace, 1, dict(machine), 0).zones)
    blocks = frames >> PAGEBLOCK_ORDER
    records = 4 * (NODE_WORDS * frames + B_WORDS * blocks) + 8 * machine_words(blocks)
    return records + 4 * copies * frames_of(trace) + POINT_BYTES
