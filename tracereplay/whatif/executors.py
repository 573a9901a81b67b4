"""Where points run: threads here, processes here, or workers of a Dask cluster."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from tracereplay.errors import UsageError, nearest

KINDS = ("threads", "processes", "dask:ADDRESS")
_stop: ContextVar[threading.Event | None] = ContextVar("_stop", default=None)


class PointExecutor(Executor):
    """An executor that knows what became of its workers."""

    name = ""
    workers = 1
    """Calls at once."""
    memory: int | None = None
    """Bytes that all calls at once may take; None: not known."""
    most: int | None = None
    """Bytes that one call may take; None: not known."""
    overhead = 0
    """Bytes that a worker takes before it does anything."""

    def death(self, error: BaseException) -> str | None:
        """How a worker died, if that is what a call's error means."""
        return None

    def again(self) -> bool:
        """Whether a call whose worker died is worth another try."""
        return True

    def check(self, lost: bool = False) -> None:
        """Look whether it is still there; ``lost``: it gave up a call. Raises ExecutorError."""

    def stop(self) -> None:
        """End at once, whatever runs."""
        self.shutdown(cancel_futures=True)


class Threads(ThreadPoolExecutor, PointExecutor):
    """Threads: compiled code runs without the GIL, and they share a demand."""

    def __init__(self, workers: int) -> None:
        super().__init__(workers, "whatif")
        self.name, self.workers = "threads", workers
        self.memory = self.most = _spare()
        self._stop = threading.Event()

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """As of ``Executor``."""
        return super().submit(self._run, fn, *args, **kwargs)

    def _run(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
        token = _stop.set(self._stop)
        try:
            return fn(*args, **kwargs)
        finally:
            _stop.reset(token)

    def stop(self) -> None:
        """See :func:`go_on`."""
        self._stop.set()
        super().stop()


class StoppedError(Exception):
    """Nobody waits for this call any more."""


def go_on() -> None:
    """Called now and then by what runs in an executor's thread. Raises StoppedError where it is to end."""
    stop = _stop.get()
    if stop is not None and stop.is_set():
        raise StoppedError


@contextmanager
def open_executor(text: str, workers: int | None = None) -> Iterator[PointExecutor]:
    """An executor by ``--executor``; left by an error, it stops at once.

    ``workers``: calls at once; None: as many as there are CPUs, or threads in the cluster. Raises UsageError for a kind
    that is none, ExecutorError where the cluster cannot be reached.
    """
    opened = _opened(text, workers)
    try:
        yield opened
    except BaseException:
        opened.stop()
        raise
    opened.shutdown()


def _opened(text: str, workers: int | None) -> PointExecutor:
    kind, _, address = text.partition(":")
    count = workers or os.cpu_count() or 1
    match kind:
        case "threads":
            return Threads(count)
        case "processes":
            from tracereplay.whatif.processes import Processes

            return Processes(count)
        case "dask":
            from tracereplay.whatif.cluster import Cluster

            return Cluster(address, workers)
    guess = nearest(kind, [k.partition(":")[0] for k in KINDS])
    listing = f"executors: {', '.join(KINDS)}"
    raise UsageError(f"no executor {text!r}", hint=f"did you mean {guess!r}? {listing}" if guess else listing)


def _spare() -> int:
    from tracereplay.trace.sql_run import spare

    return spare()
