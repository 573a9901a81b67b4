"""A strategy in a process of its own: whatever it does there, this process lives and says what happened.

:class:`RemoteEngine` is used like :class:`~tracereplay.replay.engine.Engine`. Batches and the loop's scalars lie in
memory that both processes map, so handing over a batch is one copy, and the number of the request being served is known
even after the other process has died. Nothing heard of it for STALL_S seconds counts as a strategy that loops.
"""

from __future__ import annotations

import mmap
import os
import time
from typing import Any

import numpy as np

from tracereplay import errors
from tracereplay.errors import StrategyError
from tracereplay.machine.config import MachineConfig
from tracereplay.machine.initial import InitialState
from tracereplay.machine.layout import I64, Machine
from tracereplay.replay import layout as at
from tracereplay.replay.child import ending, start_child
from tracereplay.replay.engine import Outcome, PathConfig
from tracereplay.strategies.contract import Params
from tracereplay.strategies.foreign import reference_of

SLOT_BYTES = 8 << 20
"""Room for one batch in shared memory; larger ones go through the pipe."""
SLOTS = 2
STALL_S = float(os.environ.get("TRACEREPLAY_STALL_S", "60"))
"""Seconds without a request begun after which a strategy counts as looping."""
START_S = 900
"""Seconds that compiling may take."""


def shared_bytes(bins: int) -> int:
    """Size of the shared memory: slots, then the scalars of the loop."""
    return SLOTS * SLOT_BYTES + 8 * (at.X_BINS + bins * at.BIN_WORDS)


class RemoteEngine:
    """One strategy on one machine, in another process. Feed it batches of the demand stream, then ``finish``."""

    def __init__(
        self,
        params: Params,
        config: MachineConfig,
        *,
        frames: int,
        start_ns: int,
        end_ns: int,
        bins: int = 120,
        path: PathConfig | None = None,
        initial: InitialState | None = None,
    ) -> None:
        """As of :class:`Engine`. Raises StrategyError, with the line, when the strategy does not compile."""
        self.params = params
        memory = os.memfd_create("tracereplay")
        os.ftruncate(memory, shared_bytes(bins))
        self._memory = mmap.mmap(memory, 0)
        self._x: I64 = np.frombuffer(self._memory, np.int64, offset=SLOTS * SLOT_BYTES)
        self._process, self._pipe = start_child("tracereplay.replay.worker", [memory])
        os.close(memory)
        self._fed = 0
        self._done = 0
        options = {
            "frames": frames,
            "start_ns": start_ns,
            "end_ns": end_ns,
            "bins": bins,
            "path": path,
            "initial": initial,
        }
        self._send((reference_of(type(params)), params.values(), config, options))
        self.machine: Machine = self._receive(START_S)

    def feed(self, ops: np.ndarray[Any, Any]) -> None:
        """Hand over one batch. Raises StrategyError for this batch or one before when the strategy failed."""
        while self._fed - self._done >= SLOTS:
            self._receive(STALL_S)
            self._done += 1
        if ops.nbytes <= SLOT_BYTES:
            slot = self._fed % SLOTS
            view = np.frombuffer(self._memory, ops.dtype, len(ops), offset=slot * SLOT_BYTES)
            view[:] = ops
            self._send((slot, len(ops)))
        else:
            self._send(ops)
        self._fed += 1

    def finish(self) -> Outcome:
        """Account what is still live and gather the counters; the machine's page records stay behind."""
        while self._done < self._fed:
            self._receive(STALL_S)
            self._done += 1
        self._send(None)
        outcome: Outcome = self._receive(START_S)
        self.close()
        return outcome

    def close(self) -> None:
        """End the process."""
        self._pipe.close()
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait()

    def __del__(self) -> None:
        if hasattr(self, "_process"):
            self.close()

    def _send(self, message: Any) -> None:
        try:
            self._pipe.send(message)
        except OSError:
            raise self._dead() from None

    def _receive(self, patience_s: float) -> Any:
        """The next answer. Raises the error that it is, or what its absence means."""
        seen, since = -1, time.monotonic()
        while not self._pipe.poll(0.5):
            if self._process.poll() is not None:
                break
            requests = int(self._x[at.X_REQUESTS])
            if requests != seen:
                seen, since = requests, time.monotonic()
            if time.monotonic() - since > patience_s:
                self.close()
                raise self._error(f"did not come to an end within {patience_s:g} s", "it loops, or it is very slow")
        try:
            kind, value = self._pipe.recv()
        except (EOFError, OSError):
            raise self._dead() from None
        if kind == "error":
            self.close()
            name, message, hint = value
            raise getattr(errors, name, StrategyError)(message, hint=hint)
        return value

    def _dead(self) -> StrategyError:
        code = self._process.wait()
        self.close()
        return self._error(ending(code), "what it says above may tell more")

    def _error(self, what: str, hint: str) -> StrategyError:
        return StrategyError(
            f"strategy {self.params.name!r} {what} {request_in_words(self._x)}",
            hint=f"{hint}; try: tracereplay strategies --check {reference_of(type(self.params))}",
        )


def request_in_words(x: I64) -> str:
    """Which request was being served, from the loop's scalars."""
    number = int(x[at.X_REQUESTS])
    return f"at request {number} of the demand" if number else "before the first request"
