"""Points on a real Dask scheduler with two workers, processes of their own on loopback."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.unit.test_whatif_executors import TRACE, same, tasks_of
from tracereplay.errors import ExecutorError
from tracereplay.whatif import cluster
from tracereplay.whatif.executors import open_executor
from tracereplay.whatif.run import Calls, Lost, run_tasks
from tracereplay.whatif.task import Row, run_task

ENVIRONMENT = os.environ | {"PYTHONPATH": str(Path.cwd()), "DASK_DISTRIBUTED__SCHEDULER__ALLOWED_FAILURES": "1"}


@dataclass
class Scheduler:
    """A scheduler and its workers."""

    process: subprocess.Popen[bytes]
    address: str
    scratch: Path

    def start_worker(self) -> subprocess.Popen[bytes]:
        """One more worker, of one thread."""
        return start(
            "dask_worker",
            self.address,
            "--nthreads=1",
            "--no-nanny",
            "--no-dashboard",
            f"--local-directory={self.scratch}",
        )


def start(program: str, *options: str) -> subprocess.Popen[bytes]:
    """A program of distributed's."""
    command = [sys.executable, "-m", f"distributed.cli.{program}", *options]
    return subprocess.Popen(command, env=ENVIRONMENT, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)


@pytest.fixture(scope="module")
def scheduler(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scheduler]:
    """A scheduler without workers."""
    scratch = tmp_path_factory.mktemp("dask")
    told = scratch / "scheduler.json"
    process = start("dask_scheduler", "--host=127.0.0.1", "--port=0", "--no-dashboard", f"--scheduler-file={told}")
    while not told.exists() or '"address"' not in told.read_text():
        assert process.poll() is None
        time.sleep(0.05)
    import json

    yield Scheduler(process, json.loads(told.read_text())["address"], scratch)
    process.kill()
    process.wait()


@pytest.fixture(scope="module")
def workers(scheduler: Scheduler) -> Iterator[list[subprocess.Popen[bytes]]]:
    """Its two workers."""
    started = [scheduler.start_worker() for _ in range(2)]
    yield started
    for process in started:
        process.kill()
        process.wait()


def test_nobody_there(scheduler: Scheduler, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster, "CONNECT_S", 0.3)
    with pytest.raises(ExecutorError, match="no Dask scheduler") as caught, open_executor("dask:tcp://127.0.0.1:1"):
        pass
    assert "tcp://127.0.0.1:1:" in caught.value.message
    assert caught.value.exit_code == 1
    assert "dask scheduler" in (caught.value.hint or "")
    with pytest.raises(ExecutorError, match="has no workers") as caught, open_executor(f"dask:{scheduler.address}"):
        pass
    assert f"dask worker {scheduler.address}" in (caught.value.hint or "")
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(ExecutorError, match="not installed") as caught, open_executor("dask:tcp://127.0.0.1:1"):
        pass
    assert "pip install" in (caught.value.hint or "")


def test_rows_are_those_of_this_process_although_a_worker_is_killed(
    scheduler: Scheduler, workers: list[subprocess.Popen[bytes]]
) -> None:
    rows: list[Row] = []

    def add(row: Row) -> None:
        if not rows:
            workers[0].send_signal(signal.SIGKILL)
        rows.append(row)

    with open_executor(f"dask:{scheduler.address}") as executor:
        while executor.workers < 2:
            executor.check()
            time.sleep(0.05)
        run_tasks(tasks_of("pcp.batch=31,63,127"), executor, add, workers=executor.workers)
    same(rows, [run_task(task) for task in tasks_of("pcp.batch=31,63,127")])


def test_a_point_that_kills_workers_is_given_up_and_the_rest_kept(
    scheduler: Scheduler, workers: list[subprocess.Popen[bytes]]
) -> None:
    workers.append(scheduler.start_worker())
    workers.append(scheduler.start_worker())
    with open_executor(f"dask:{scheduler.address}") as executor:
        while executor.workers < 3:
            executor.check()
            time.sleep(0.05)
        found = dict(Calls(executor, 2).results(signal.raise_signal, [signal.SIGCONT, signal.SIGKILL, signal.SIGWINCH]))
    lost = found.pop(signal.SIGKILL)
    assert isinstance(lost, Lost)
    assert "its worker died" in lost.why
    assert set(found.values()) == {None}


def test_a_scheduler_that_goes_away_is_an_error_and_what_finished_is_kept(
    scheduler: Scheduler,
    workers: list[subprocess.Popen[bytes]],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(cluster, "CONNECT_S", 1)
    rows: list[Row] = []

    def add(row: Row) -> None:
        rows.append(row)
        scheduler.process.kill()

    with (
        caplog.at_level(logging.CRITICAL, "distributed"),
        pytest.raises(ExecutorError, match="broke") as caught,
        open_executor(f"dask:{scheduler.address}") as executor,
    ):
        run_tasks(tasks_of("pcp.batch=31:300:3", trace=TRACE), executor, add, workers=1)
    assert rows
    assert "--resume" in (caught.value.hint or "")
