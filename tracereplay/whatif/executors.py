"""Where points run: threads here, processes here, or workers of a Dask cluster."""

from __future__ import annotations

import os
from collections.abc import Iterator
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass

from tracereplay.errors import UsageError, nearest

KINDS = ("threads", "processes", "dask:ADDRESS")


@dataclass(frozen=True, slots=True)
class Opened:
    """An executor and how many points it runs at once."""

    name: str
    executor: Executor
    workers: int


@contextmanager
def open_executor(text: str, workers: int | None = None) -> Iterator[Opened]:
    """An executor by ``--executor``. Raises UsageError for a kind that is none."""
    count = workers or os.cpu_count() or 1
    pool: Executor
    match text.partition(":")[0]:
        case "threads":
            pool = ThreadPoolExecutor(count, "whatif")
        case "processes":
            pool = ProcessPoolExecutor(count)
        case kind:
            guess = nearest(kind, [k.partition(":")[0] for k in KINDS])
            listing = f"executors: {', '.join(KINDS)}"
            raise UsageError(f"no executor {text!r}", hint=f"did you mean {guess!r}? {listing}" if guess else listing)
    try:
        yield Opened(text, pool, count)
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
