"""Points on threads and processes: what a dead worker, an interrupt, too little memory and an error cost."""

from __future__ import annotations

import math
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import pytest

from tracereplay.errors import ExecutorError, UnknownStrategyError, UsageError
from tracereplay.replay.child import start_child
from tracereplay.strategies.registry import find_strategy
from tracereplay.whatif import processes, run
from tracereplay.whatif.executors import PointExecutor, StoppedError, Threads, go_on, open_executor
from tracereplay.whatif.grid import plan
from tracereplay.whatif.processes import Processes, WorkerDiedError
from tracereplay.whatif.room import POINT_BYTES, point_bytes
from tracereplay.whatif.run import Calls, Lost, run_tasks, run_there
from tracereplay.whatif.task import FAILED, Row, Task, place, run_task

TRACE = "traces/dmcrypt-6.12-4k"
KILLED = r"died of SIGKILL"
REALS = ("cost_total", "cost_low95", "cost_high95", "per_page", "per_request_mean", "per_request_p99")


def tasks_of(*grid: str, trace: str = TRACE) -> list[Task]:
    """Points of two strategies."""
    return list(plan([trace], ["per-page", "bulk"], grid or ["pcp.batch=31,63"], profile="brouer-2021").tasks())


def same(ours: list[Row], theirs: list[Row]) -> None:
    """Counters are identical and prices equal to 1e-12, point by point."""
    assert len(ours) == len(theirs)
    found = {row["key"]: row for row in ours}
    for row in theirs:
        other = found[row["key"]]
        assert {k: v for k, v in row.items() if isinstance(v, int)} == {
            k: v for k, v in other.items() if isinstance(v, int)
        }
        assert row["zone_lock_acquisitions"] > 0
        assert all(math.isclose(row[name], other[name], rel_tol=1e-12) for name in REALS)


@pytest.fixture(scope="module")
def pool() -> Iterator[Processes]:
    """Two worker processes."""
    opened = Processes(2)
    yield opened
    opened.stop()


@pytest.fixture(scope="module")
def alone() -> list[Row]:
    """Rows of the points, run one after another here."""
    return [run_task(task) for task in tasks_of()]


def test_threads_count_what_one_point_after_another_does(alone: list[Row]) -> None:
    rows: list[Row] = []
    with open_executor("threads", 2) as executor:
        run_tasks(tasks_of(), executor, rows.append, workers=2)
    same(rows, alone)


def test_processes_do_too_although_one_is_killed(pool: Processes, alone: list[Row]) -> None:
    rows: list[Row] = []

    def add(row: Row) -> None:
        if not rows:  # each has a point
            os.kill(pool.pids[0], signal.SIGKILL)
        rows.append(row)

    run_tasks(tasks_of(), pool, add, workers=2)
    same(rows, alone)


def test_a_dead_worker_takes_its_own_call_and_no_other(pool: Processes) -> None:
    first = pool.submit(time.sleep, 0.5)
    dead = pool.submit(signal.raise_signal, signal.SIGKILL)
    after = [pool.submit(os.getpid) for _ in range(3)]
    with pytest.raises(WorkerDiedError, match=KILLED):
        dead.result()
    assert first.result() is None
    assert all(f.result() in pool.pids for f in after)
    with pytest.raises(WorkerDiedError, match="status 7"):
        pool.submit(os._exit, 7).result()


def test_an_error_in_a_worker_has_its_traceback(pool: Processes, capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ZeroDivisionError) as caught:
        pool.submit(divmod, 1, 0).result()
    assert "tracereplay/whatif/worker.py" in str(caught.value.__cause__)
    with pytest.raises(UnknownStrategyError, match="bulc") as named:
        pool.submit(find_strategy, "bulc").result()
    assert "bulk" in (named.value.hint or "")
    with pytest.raises(RuntimeError, match="LocalError: 1"):  # one that does not travel as it is
        pool.submit(exec, "class LocalError(Exception): pass\nraise LocalError(1)").result()
    pool.submit(os.write, 1, b"talk\n").result()
    assert capfd.readouterr() == ("", "talk\n")


def test_a_point_that_kills_its_worker_is_tried_once_more_and_given_up(pool: Processes) -> None:
    found = dict(Calls(pool, 2).results(signal.raise_signal, [signal.SIGKILL, signal.SIGCONT]))
    assert found[signal.SIGCONT] is None
    assert isinstance(found[signal.SIGKILL], Lost)
    assert found[signal.SIGKILL].why == "its worker died of SIGKILL, twice"


def test_an_end_of_the_process_ends_its_workers(tmp_path: Path) -> None:
    code = (
        "import os, signal, time; from tracereplay.whatif.processes import Processes; pool = Processes(1);"
        "pool.submit(os.getpid).result(); pool.submit(time.sleep, 60); print(pool.pids[0], flush=True); time.sleep(60)"
    )
    parent = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    worker = int(parent.stdout.readline())
    parent.kill()
    parent.wait()
    parent.stdout.close()
    for _ in range(200):
        if not Path(f"/proc/{worker}").exists() or "\nState:\tZ" in Path(f"/proc/{worker}/status").read_text():
            return
        time.sleep(0.05)
    raise AssertionError("it lives on")


def endless() -> None:
    """Runs until it is stopped."""
    while True:
        go_on()


@pytest.mark.parametrize(("kind", "how"), [("processes", WorkerDiedError), ("threads", StoppedError)])
def test_stopping_waits_for_nothing(kind: str, how: type[Exception]) -> None:
    futures: list[Future[Any]] = []

    def interrupt() -> None:
        with open_executor(kind, 1) as executor:
            executor.submit(os.getpid).result()  # it has a worker
            futures.extend(executor.submit(endless if kind == "threads" else signal.pause) for _ in range(2))
            while not futures[0].running():
                time.sleep(0.01)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupt()
    assert isinstance(futures[0].exception(), how)
    assert futures[1].cancelled()
    go_on()  # stops nobody else


def test_workers_that_do_not_start_are_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "start_child", lambda _module: start_child("json.tool"))
    executor = Processes(1)
    with pytest.raises(ExecutorError, match=r"ended its process with status \d+ before it could work"):
        executor.submit(os.getpid).result()

    def refused(_module: str) -> None:
        raise OSError(11, "Resource temporarily unavailable")

    monkeypatch.setattr(processes, "start_child", refused)
    with pytest.raises(ExecutorError, match="Resource temporarily unavailable"):
        executor.submit(os.getpid).result()
    executor.stop()


# ---------------------------------------------------------------- how many at a time
class Slow(PointExecutor):
    """Calls end when asked to; the most that were there at once is kept."""

    def __init__(self, workers: int, memory: int | None = None, overhead: int = 0) -> None:
        self.workers, self.memory, self.most, self.overhead = workers, memory, memory, overhead
        self.there: list[tuple[Future[Any], Any]] = []
        self.peak = 0

    def submit(self, fn: Any, /, *args: Any, **_more: Any) -> Future[Any]:
        """Keep the call."""
        future: Future[Any] = Future()
        self.there.append((future, args[0]))
        self.peak = max(self.peak, len(self.there))
        return future

    def check(self, lost: bool = False) -> None:
        """End the call that came first."""
        if self.there:
            future, value = self.there.pop(0)
            future.set_result(value)


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Executors are looked at all the time."""
    monkeypatch.setattr(run, "LOOK_S", 0)


@pytest.mark.usefixtures("impatient")
def test_a_bounded_number_is_in_flight() -> None:
    executor, taken = Slow(3), list[int]()
    results = Calls[int](executor, 3).results(abs, (taken.append(i) or i for i in range(50)))  # type: ignore[func-returns-value]
    next(results)
    assert len(taken) <= run.AHEAD * 3 + 1
    assert sorted(value for _, value in results) == list(range(1, 50))
    assert executor.peak == run.AHEAD * 3


@pytest.mark.usefixtures("impatient")
def test_memory_limits_how_many_run_and_refuses_what_never_fits() -> None:
    told: list[str] = []
    executor = Slow(8, memory=10 << 30, overhead=1 << 30)
    calls = Calls[int](executor, 8, told.append, size=lambda gib: gib << 30)
    found = dict(calls.results(abs, [2, 1, 1, 12, 0, 2]))
    assert executor.peak == 3
    assert told == ["3 points at a time: one needs up to 3.0 GiB of memory, and 10.0 are free"]
    assert {k: v for k, v in found.items() if k != 12} == {0: 0, 1: 1, 2: 2}
    assert found[12].why.startswith("it needs up to 13.0 GiB of memory, and 10.0 are free")


def test_memory_of_a_point_is_that_of_its_machine() -> None:
    small, large = tasks_of("memory=4GiB,64GiB")[::2]
    frames = (60 << 30) // 4096
    assert 12 * frames < point_bytes(large) - point_bytes(small) < 15 * frames
    assert point_bytes(small) > POINT_BYTES


@pytest.mark.usefixtures("impatient")
def test_what_finished_is_kept_when_another_call_fails_beside_it() -> None:
    class Both(Slow):
        def check(self, lost: bool = False) -> None:
            for future, value in self.there:
                future.set_exception(OSError("broke")) if value == 0 else future.set_result(value)
            self.there = []

    kept: list[int] = []

    def keep() -> None:
        for item, _ in Calls[int](Both(2), 2).results(abs, [0, 1, 2, 3]):
            kept.append(item)

    with pytest.raises(OSError, match="broke"):
        keep()
    assert sorted(kept) == [1, 2, 3]


# ---------------------------------------------------------------- named errors
def test_a_kind_that_is_none() -> None:
    with pytest.raises(UsageError) as caught, open_executor("proceses"):
        pass
    assert "processes" in (caught.value.hint or "")
    with pytest.raises(UsageError, match="needs a scheduler"), open_executor("dask"):
        pass


def test_a_worker_that_lacks_the_trace_or_has_other_code(tmp_path: Path) -> None:
    (task, *_) = tasks_of()
    assert "another version" in run_there(task, "0000")["error"]
    away = tasks_of(trace=str(tmp_path / "away.trace"))[0]
    row = run_there(away, run.code_digest())
    assert row["status"] == FAILED
    assert "same path or URL" in row["error"]
    other = run._kept(place(task), run_task(tasks_of(trace="traces/dmcrypt-6.12-128k")[0]))
    assert "another trace" in other["error"]


def test_threads_end_when_left() -> None:
    with open_executor("threads", 3) as executor:
        assert isinstance(executor, Threads)
        assert executor.submit(len, "abc").result() == 3
    with pytest.raises(RuntimeError):
        executor.submit(len, "abc")
