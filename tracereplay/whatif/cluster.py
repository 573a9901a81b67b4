"""Points on the workers of a Dask cluster. The cluster runs; nothing here starts, stops or resizes it.

What Dask does by itself: a call whose worker died runs again on another one, until so many workers died of it that it
is given up (``distributed.scheduler.allowed-failures``, KilledWorker).
"""

# mypy: disable-error-code="no-untyped-call"

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

from tracereplay.errors import ExecutorError, UsageError
from tracereplay.whatif.executors import PointExecutor

CONNECT_S = 5
"""Seconds until a scheduler counts as unreachable, at the start and when its connection broke."""
LOOK_S = 2.0
WORKERLESS_S = 30.0
"""Seconds that a cluster may be without workers."""


class Cluster(PointExecutor):
    """The workers of a scheduler."""

    def __init__(self, address: str, workers: int | None) -> None:
        """``workers``: calls at once; None: as the cluster has threads, also when that changes.

        Raises ExecutorError where Dask is not installed, or nobody answers at ``address``, or has workers.
        """
        if not address:
            raise UsageError("--executor dask needs a scheduler", hint="its address: --executor dask:tcp://HOST:8786")
        try:
            from distributed import Client
        except ImportError:
            raise ExecutorError(
                "--executor dask needs Dask, which is not installed", hint="pip install 'tracereplay[cluster]'"
            ) from None
        self.name = f"dask:{address}"
        self._address = address
        self._fixed = workers
        self._looked = self._seen = time.monotonic()
        try:
            self._client: Any = Client(address, timeout=CONNECT_S, set_as_default=False)
        except (OSError, ValueError) as error:
            raise ExecutorError(
                f"no Dask scheduler at {address}: {str(error).splitlines()[0]}",
                hint="start one with `dask scheduler`, which tells its address, and workers with `dask worker ADDRESS`",
            ) from None
        self._calls = self._client.get_executor(pure=False)
        try:
            self._look()
            while not self.workers:
                if time.monotonic() - self._seen > CONNECT_S:
                    raise ExecutorError(
                        f"the Dask scheduler at {address} has no workers", hint=f"start some: dask worker {address}"
                    )
                time.sleep(0.1)
                self._look()
        except BaseException:
            self._client.close()
            raise

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """As of ``Executor``. Raises ExecutorError when the cluster is gone."""
        try:
            future: Future[Any] = self._calls.submit(fn, *args, **kwargs)
            return future
        except Exception:
            self.check(lost=True)
            raise

    def death(self, error: BaseException) -> str | None:
        """What a KilledWorker says."""
        from distributed import KilledWorker

        if not isinstance(error, KilledWorker):
            return None
        where = getattr(error.last_worker, "address", "")
        return f"died, and so did {error.allowed_failures} others that it was given to, the last at {where}"

    def again(self) -> bool:
        """Dask has tried."""
        return False

    def check(self, lost: bool = False) -> None:
        """Look at the cluster, every LOOK_S seconds or when a call is lost."""
        deadline = time.monotonic() + CONNECT_S + 1
        while lost and self._client.status == "connecting" and time.monotonic() < deadline:
            time.sleep(0.1)
        if self._client.status not in ("running", "connecting") or (lost and self._client.status != "running"):
            raise self._gone("the connection to the Dask scheduler", "broke")
        if lost or time.monotonic() - self._looked > LOOK_S:
            self._look()
        if not self.workers and time.monotonic() - self._seen > WORKERLESS_S:
            raise self._gone("the Dask cluster", f"has had no workers for {WORKERLESS_S:.0f} s")

    def _look(self) -> None:
        """How many threads the workers have, and the most memory that one has."""
        try:
            found = self._client.sync(self._client.scheduler.identity, n_workers=-1, callback_timeout=CONNECT_S)
        except (OSError, TimeoutError):
            return  # the client sees it too, and tries again
        self._looked = time.monotonic()
        workers = found["workers"].values()
        threads = sum(worker["nthreads"] for worker in workers)
        if threads:
            self._seen = self._looked
        limits = [worker["memory_limit"] for worker in workers]
        self.most = max(limits, default=0) or None  # 0: it has none
        self.workers = min(self._fixed or threads, threads)

    def _gone(self, what: str, how: str) -> ExecutorError:
        return ExecutorError(
            f"{what} at {self._address} {how}",
            hint="finished points are kept: start the cluster again, and the same command with --resume",
        )

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """As of ``Executor``; the cluster goes on running."""
        if self._client.status == "running" and not cancel_futures:
            self._calls.shutdown(wait)
        self._client.close(timeout=CONNECT_S)
