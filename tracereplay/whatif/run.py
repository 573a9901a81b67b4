"""Points through an executor: a few at a time, rows as they finish."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import FIRST_COMPLETED, Executor, Future, wait

from tracereplay.whatif.task import Row, Task, run_task

AHEAD = 2
"""Points submitted for each worker: one that runs and one that waits."""


def run_tasks(tasks: Iterable[Task], executor: Executor, add: Callable[[Row], None], *, workers: int) -> None:
    """Run points; ``add`` gets each row in this thread. When this is interrupted, points that wait are cancelled."""
    waiting = iter(tasks)
    running: set[Future[Row]] = set()
    try:
        while True:
            while len(running) < AHEAD * workers and (task := next(waiting, None)) is not None:
                running.add(executor.submit(run_task, task))
            if not running:
                return
            finished, running = wait(running, return_when=FIRST_COMPLETED)
            for future in finished:
                add(future.result())
    finally:
        for future in running:
            future.cancel()
