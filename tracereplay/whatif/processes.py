"""Worker processes, each with a pipe of its own: one that dies takes with it what it was doing, and nothing else.

``concurrent.futures.ProcessPoolExecutor`` gives up all its work when one of its processes is killed, and does not say
which call did it. Here a thread serves each worker, knows what it was given, and replaces it when it dies.
"""

from __future__ import annotations

import pickle
import queue
import subprocess
import threading
from collections.abc import Callable
from concurrent.futures import Future
from multiprocessing.connection import Connection
from typing import Any

from tracereplay.errors import ExecutorError
from tracereplay.replay.child import ending, start_child
from tracereplay.trace.sql_run import spare
from tracereplay.whatif.executors import PointExecutor
from tracereplay.whatif.room import WORKER_BYTES

END_S = 10.0
"""How long a worker without work may take to end."""

_Call = tuple[Future[Any], bytes]


class WorkerDiedError(Exception):
    """A worker process ended in the middle of a call. Its text says how."""


class Processes(PointExecutor):
    """Calls in worker processes (whatif/worker.py). Functions, arguments and results are pickled."""

    overhead = WORKER_BYTES

    def __init__(self, workers: int) -> None:
        self.name, self.workers = "processes", workers
        self.memory = self.most = spare()
        self._calls: queue.SimpleQueue[_Call | None] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._running: set[subprocess.Popen[bytes]] = set()
        self._closed = self._killed = False
        self._threads = [threading.Thread(target=self._serve, name=f"worker {i}", daemon=True) for i in range(workers)]
        for thread in self._threads:
            thread.start()

    @property
    def pids(self) -> list[int]:
        """Of the workers that run."""
        with self._lock:
            return [process.pid for process in self._running]

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """As of ``Executor``. The future raises what ``fn`` raises, WorkerDiedError, ExecutorError if none starts."""
        if self._closed:
            raise RuntimeError("cannot schedule new futures after shutdown")
        future: Future[Any] = Future()
        self._calls.put((future, pickle.dumps((fn, args, kwargs))))
        return future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """As of ``Executor``: workers end when nothing is left to do."""
        if cancel_futures:
            self._cancel_waiting()
        if not self._closed:
            self._closed = True
            for _ in self._threads:
                self._calls.put(None)
        if wait:
            for thread in self._threads:
                thread.join()

    def death(self, error: BaseException) -> str | None:
        """The text of a WorkerDiedError."""
        return str(error) if isinstance(error, WorkerDiedError) else None

    def stop(self) -> None:
        """End the workers at once."""
        self._cancel_waiting()
        with self._lock:
            self._killed = True
            for process in self._running:
                process.kill()
        self.shutdown()

    def _cancel_waiting(self) -> None:
        while True:
            try:
                call = self._calls.get_nowait()
            except queue.Empty:
                return
            if call is not None:
                call[0].cancel()
                call[0].set_running_or_notify_cancel()

    def _serve(self) -> None:
        """Hand calls to one worker, and to those that take its place."""
        worker: _Worker | None = None
        while (call := self._calls.get()) is not None:
            future, message = call
            if not future.set_running_or_notify_cancel():
                continue
            try:
                worker = worker or self._start()
                future.set_result(worker.ask(message))
            except BaseException as error:  # whatever it is, who waits for the call gets it
                if worker is not None and worker.dead:
                    self._end(worker)
                    worker = None
                future.set_exception(error)
            del future, call  # the next may be long in coming, and a result is large
        if worker is not None:
            self._end(worker)

    def _start(self) -> _Worker:
        with self._lock:
            if self._killed:
                raise ExecutorError("the worker processes were ended")
            try:
                worker = _Worker(*start_child("tracereplay.whatif.worker"))
            except OSError as error:
                raise ExecutorError(
                    f"cannot start a worker process: {error.strerror}", hint="fewer of them: --workers 1"
                ) from error
            self._running.add(worker.process)
        try:
            worker.begin()
        except ExecutorError:
            self._end(worker)
            raise
        return worker

    def _end(self, worker: _Worker) -> None:
        worker.end()
        with self._lock:
            self._running.discard(worker.process)


class _Worker:
    """A worker process and our end of its pipe."""

    def __init__(self, process: subprocess.Popen[bytes], pipe: Connection) -> None:
        self.process = process
        self.dead = False
        self._pipe = pipe

    def begin(self) -> None:
        """Wait until it can work. Raises ExecutorError."""
        try:
            self._pipe.recv()
        except (EOFError, OSError):
            how = ending(self.process.wait())
            raise ExecutorError(
                f"a worker process {how} before it could work", hint="what it says above may tell more"
            ) from None

    def ask(self, message: bytes) -> Any:
        """The result of a call. Raises what the call raised, or WorkerDiedError."""
        try:
            self._pipe.send_bytes(message)
            good, value, told = pickle.loads(self._pipe.recv_bytes())
        except (EOFError, OSError):
            self.dead = True
            raise WorkerDiedError(ending(self.process.wait())) from None
        if not good:
            value.__cause__ = _InWorkerError(told)
            raise value
        return value

    def end(self) -> None:
        """End it, at the latest after END_S."""
        self._pipe.close()
        try:
            self.process.wait(END_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


class _InWorkerError(Exception):
    """The traceback that an error had in its worker."""

    def __str__(self) -> str:
        return f"\n{self.args[0]}"
