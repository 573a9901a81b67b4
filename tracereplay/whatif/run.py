"""Points through an executor: a few at a time, rows as they finish, and none lost with a worker."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, BrokenExecutor, Executor, Future, wait
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

from tracereplay.errors import ExecutorError, TracereplayError
from tracereplay.whatif.executors import PointExecutor
from tracereplay.whatif.task import FAILED, Row, Task, code_digest, place, run_task

AHEAD = 2
"""Calls submitted for each worker: one that runs and one that waits."""
LOOK_S = 1.0
"""Seconds after which an executor is looked at that has not been heard of."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Lost:
    """In the place of a result: there is none, and why."""

    why: str


def run_tasks(
    tasks: Iterable[Task],
    executor: Executor,
    add: Callable[[Row], None],
    *,
    workers: int,
    note: Callable[[str], None] = lambda _text: None,
) -> None:
    """Run points; ``add`` gets each row in this thread. What this is interrupted by, points that wait are cancelled.

    A point whose worker dies twice, or that has no room in memory, becomes a row with status ``failed``. ``note`` hears
    of fewer points at once than asked for. Raises ExecutorError when the executor goes away.
    """
    from tracereplay.whatif.room import point_bytes

    calls = Calls(executor, workers, note, size=point_bytes)
    for task, row in calls.results(run_there, tasks, code_digest()):
        add(_kept(place(task), row))


def _kept(known: Row, found: Row | Lost) -> Row:
    """A row from what is known here and what the worker found."""
    if isinstance(found, Lost):
        return known | {"status": FAILED, "error": found.why}
    if found.get("key", known["key"]) != known["key"]:
        what = "its worker has another trace or cost profile at the same place"
        return known | {"status": FAILED, "error": f"{what}: {known['trace']}, {known['profile']}"}
    return known | found


def run_there(task: Task, code: str) -> Row:
    """Run a point in a worker, which may be on another host and have other code. Columns of its row, or their end."""
    if code_digest() != code:
        return {"status": FAILED, "error": f"worker {_worker()} has another version of tracereplay; install the same"}
    try:
        return run_task(task)
    except TracereplayError as error:  # not even its key is known there
        told = error.message
        if "://" not in task.trace and not Path(task.trace).exists():
            told += "; workers need the trace at the same path or URL"
        return {"status": FAILED, "error": f"worker {_worker()}: {told}"}


def _worker() -> str:
    return f"{socket.gethostname()} (pid {os.getpid()})"


class Calls(Generic[T]):
    """Calls of a function with many arguments, some at a time."""

    def __init__(
        self,
        executor: Executor,
        workers: int,
        note: Callable[[str], None] = lambda _text: None,
        *,
        size: Callable[[T], int] = lambda _item: 0,
    ) -> None:
        """``size``: bytes that a call takes; may raise TracereplayError."""
        self._executor = executor
        self._known = executor if isinstance(executor, PointExecutor) else PointExecutor()
        self._workers = workers
        self._note = note
        self._size = size
        self._noted = False
        self._running: dict[Future[Any], tuple[T, int]] = {}

    def results(self, function: Callable[..., Any], items: Iterable[T], *more: Any) -> Iterator[tuple[T, Any]]:
        """Each item with ``function(item, *more)`` as it finishes, or with Lost.

        Raises what a call raises, and ExecutorError when the executor goes away. When this ends early, calls that wait
        are cancelled.
        """
        waiting, again = iter(items), list[T]()
        held: tuple[T, int] | None = None
        try:
            while True:
                while (held := held or self._next(waiting)) is not None:
                    if self._known.most is not None and held[1] > self._known.most:
                        yield held[0], Lost(_too_large(held[1], self._known.most))
                    elif self._fits(held[1]):
                        self._running[self._submit(function, held[0], *more)] = held
                    else:
                        break
                    held = None
                if not self._running:
                    break
                for item, result in self._finished():
                    if isinstance(result, _Again):
                        again.append(item)
                    else:
                        yield item, result
            for item in again:  # by itself: it may have been too much beside another
                self._running[self._submit(function, item, *more)] = (item, 0)
                while self._running:
                    for _, result in self._finished():
                        yield item, Lost(f"its worker {result.why}, twice") if isinstance(result, _Again) else result
        finally:
            for future in self._running:
                future.cancel()

    def _next(self, waiting: Iterator[T]) -> tuple[T, int] | None:
        item = next(waiting, None)
        if item is None:
            return None
        try:
            return item, self._size(item) + self._known.overhead
        except TracereplayError:  # the call itself will say it
            return item, 0

    def _fits(self, size: int) -> bool:
        """Whether one more call may be submitted."""
        if not self._running:
            return True
        workers = self._known.workers if self._known is self._executor else self._workers
        memory = self._known.memory
        if memory is None:
            return len(self._running) < AHEAD * workers
        each = max(size, *(other for _, other in self._running.values()))
        fitting = max(memory // each, 1) if each else workers
        if fitting < workers and not self._noted:
            self._noted = True
            need, free = each / (1 << 30), memory / (1 << 30)
            self._note(f"{fitting} points at a time: one needs up to {need:.1f} GiB of memory, and {free:.1f} are free")
        most = AHEAD * workers if fitting >= workers else fitting
        return len(self._running) < most

    def _submit(self, function: Callable[..., Any], *arguments: Any) -> Future[Any]:
        try:
            return self._executor.submit(function, *arguments)
        except BrokenExecutor as error:
            raise _broken(error) from error

    def _finished(self) -> Iterator[tuple[T, Any]]:
        """Calls that have finished since; none, if that takes long."""
        done, _ = wait(self._running, timeout=LOOK_S, return_when=FIRST_COMPLETED)
        for future in sorted(done, key=lambda f: f.cancelled() or f.exception() is not None):  # what is good is kept
            item, _ = self._running.pop(future)
            yield item, self._result(future)
        self._known.check()

    def _result(self, future: Future[Any]) -> Any:
        if future.cancelled():  # not by us
            self._known.check(lost=True)
            return _Again("gave it up")
        error = future.exception()
        if error is None:
            return future.result()
        if isinstance(error, MemoryError):
            return Lost("there is not enough memory for it")
        if isinstance(error, BrokenExecutor):
            raise _broken(error) from error
        how = self._known.death(error)
        if how is None:
            raise error
        return _Again(how) if self._known.again() else Lost(f"its worker {how}")


@dataclass(frozen=True, slots=True)
class _Again:
    """In the place of a result: its worker died."""

    why: str


def _too_large(size: int, most: int) -> str:
    need, free = size / (1 << 30), most / (1 << 30)
    return f"it needs up to {need:.1f} GiB of memory, and {free:.1f} are free (simulate less memory, or fewer copies)"


def _broken(error: BaseException) -> ExecutorError:
    return ExecutorError(f"the executor broke: {error}", hint="finished points are kept: go on with --resume")
