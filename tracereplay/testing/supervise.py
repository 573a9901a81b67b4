"""A strategy under supervision, as plain Python: every call of it and every operation it asks for is looked at.

Its functions are replaced in their module by ones that count lines (fuel), hand over arrays that refuse indexes outside
of them, and compare what was done with the contract (strategies/contract.py). What does not hold is raised as
:class:`BrokenRuleError` where it happens, so the traceback has the line.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable
from types import FrameType, ModuleType
from typing import Any

import numpy as np

from tracereplay.demand.stream import REQUIRED
from tracereplay.kernel.constants import MAX_PAGE_ORDER
from tracereplay.machine import layout as at
from tracereplay.machine import ops
from tracereplay.machine.counters import PAGES_ALLOCATED, PAGES_FREED
from tracereplay.strategies import contract as c

FUEL = 2_000_000
"""Lines that one call of a strategy may run. The largest request has 16384 pages."""
TIMER_CALLS = 10_000
"""Calls of timers at one and the same time."""
STATE_NAMES = {at.BUDDY: "free in the page allocator", at.PCP: "free on a per-CPU list"}
LOOKS = {"cache_free_order", "cache_list", "taken_on", "is_local", "node_of", "unmapped_pages"}
"""Operations on a frame that change nothing of who holds it."""


class BrokenRuleError(Exception):
    """A rule of findings.RULES is broken."""

    def __init__(self, rule: str, message: str) -> None:
        super().__init__(message)
        self.rule = rule


class OutOfFuelError(Exception):
    """A call ran too many lines."""


class Guarded(np.ndarray[Any, Any]):
    """An array that refuses negative indexes too, which Python and Numba take from the end."""

    called = "array"

    def _look(self, i: Any) -> None:
        if isinstance(i, int | np.integer) and not 0 <= i < self.shape[0]:
            raise BrokenRuleError(
                "bounds", f"index {int(i)} is outside of {self.called}, which has {self.shape[0]} words"
            )

    def __getitem__(self, i: Any) -> Any:
        self._look(i)
        return super().__getitem__(i)

    def __setitem__(self, i: Any, value: Any) -> None:
        self._look(i)
        super().__setitem__(i, value)


class State(Guarded):
    """``st``."""

    called = "st"


class Request(Guarded):
    """``req``."""

    called = "req"


class Out(Guarded):
    """``out``."""

    called = "out"


class Block(Guarded):
    """``block``."""

    called = "block"


class Supervisor:
    """Watches one strategy; ``watch`` tells it about each new run."""

    def __init__(self, module: ModuleType, files: set[str]) -> None:
        self.files = files
        self.where: tuple[str, int] | None = None
        """The line of the strategy that ran last."""
        self.suspect: tuple[str, tuple[str, int] | None] | None = None
        """The first call after which a strategy held more or less than it should, in words, and where it returned."""
        self.waited: tuple[str, int] | None = None
        """Where a request was told to wait last."""
        self._carried: dict[int, int] = {}
        self.traced = False
        """Whether lines are followed, which takes three times as long: to find the line of what was found."""
        self.requests = 0
        self._fuel = 0
        self._timer = (-1, 0)
        self._holder = np.zeros(0, np.int32)
        self._background: Callable[[int], bool] = lambda frame: False
        self._listed: set[int] = set()
        for name, watched in (
            ("init", self._plain),
            ("allocate", self._allocate),
            ("release", self._release),
            ("timer", self._timed),
            ("shrink", self._plain),
            ("finish", self._plain),
        ):
            if function := getattr(module, name, None):
                setattr(module, name, watched(name, function))
        module.print = self._print  # type: ignore[attr-defined]
        for name in ops._HOMES:
            setattr(ops, name, self._operation(name, getattr(ops, name)))

    def watch(self, frames: int, background: Callable[[int], bool]) -> None:
        """A new run begins on a machine of ``frames``; ``background``: whether the background holds a frame."""
        self._holder = np.zeros(frames, np.int32)
        self._background = background
        self._listed = set()
        self.where = self.waited = None
        self._carried = {}
        self.requests = 0
        self.suspect = None
        self._timer = (-1, 0)

    def _print(self, *_what: object, **_how: object) -> None:
        raise BrokenRuleError("raises", "print: a strategy runs a million times a second and has no output")

    # ---------------------------------------------------------------- lines
    def _trace(self, frame: FrameType, event: str, _argument: object) -> Any:
        return self._line if frame.f_code.co_filename in self.files else None

    def _line(self, frame: FrameType, event: str, _argument: object) -> Any:
        self.where = (frame.f_code.co_filename, frame.f_lineno)
        self._fuel -= 1
        if self._fuel < 0:
            raise OutOfFuelError
        return self._line

    def _run(self, function: Callable[..., Any], *arguments: Any) -> Any:
        if not self.traced:
            return function(*arguments)
        self._fuel = FUEL
        sys.settrace(self._trace)
        try:
            return function(*arguments)
        finally:
            sys.settrace(None)

    # ---------------------------------------------------------------- the strategy's functions
    def _plain(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(m: Any, st: Any, *more: Any) -> None:
            self._run(function, m, st.view(State), *more)

        return call

    def _timed(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(m: Any, st: Any, number: int, now: int) -> None:
            before, calls = self._timer
            self._timer = (now, calls + 1 if now == before else 1)
            if calls > TIMER_CALLS:
                raise BrokenRuleError(
                    "ends", f"timer {number} is set again and again for a time that has passed ({now} ns)"
                )
            self._run(function, m, st.view(State), number, now)

        return call

    def _release(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(m: Any, st: Any, block: Any, cpu: int, now: int) -> None:
            first, size = int(block[c.BLOCK_FRAME]), 1 << int(block[c.BLOCK_ORDER])
            self._holder[first : first + size] = 0
            before = _held(m)
            self._run(function, m, st.view(State), block.view(Block), cpu, now)
            self._compare("release", _held(m) - before, -size)

        return call

    def _allocate(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(m: Any, st: Any, req: Any, out: Any) -> int:
            self.requests = int(req[c.REQ_ID]) or self.requests + 1
            asked = req[: c.REQ_BLOCKS].copy()
            before = _held(m)
            status = self._run(function, m, st.view(State), req.view(Request), out.view(Out))
            if status is None or status not in (c.DONE, c.FAIL, c.WAIT):
                raise BrokenRuleError(
                    "status", f"allocate returned {status}; every way through it returns DONE, FAIL or WAIT"
                )
            if (req[: c.REQ_BLOCKS] != asked).any():
                raise BrokenRuleError("status", "allocate changed the words of the request that say what is asked for")
            number = int(req[c.REQ_ID])
            held = _held(m) - before + self._carried.pop(number, 0)
            if status == c.WAIT:
                self.waited = self.where
                self._carried[number] = held
                self._waiting(m, req)
            elif status == c.DONE:
                self._given(m, req, out)
                given = int((1 << out[1 : 2 * int(req[c.REQ_BLOCKS]) : 2]).sum())
                self._compare("allocate, DONE", held, given)
            else:
                self._compare("allocate, FAIL", held, 0)
            return int(status)

        return call

    def _compare(self, what: str, held: int, should: int) -> None:
        """Keep the first call that took or gave back other than it should; a later one may make up for it."""
        if held != should and self.suspect is None:
            self.suspect = (f"after {what} it holds {held:+d} pages beside its reserve, not {should:+d}", self.where)

    def _waiting(self, m: Any, req: Any) -> None:
        kind, until, now = int(req[c.REQ_WAIT]), int(req[c.REQ_UNTIL]), int(m.w[at.CFG_NOW])
        if req[c.REQ_FLAGS] & REQUIRED:
            raise BrokenRuleError("waits", "a request that needs contiguity may not wait")
        if kind not in (c.WAIT_MUTEX, c.WAIT_POOL, c.WAIT_TIME):
            raise BrokenRuleError("waits", f"allocate said WAIT and not for what: REQ_WAIT is {kind}")
        if kind == c.WAIT_TIME and not now < until < c.NEVER:
            raise BrokenRuleError("waits", f"allocate waits until {until} ns and it is {now} ns: that time never comes")
        if until < c.NEVER and until <= now:
            raise BrokenRuleError(
                "waits", f"allocate waits until {until} ns at most and it is {now} ns: it waits for nothing"
            )
        if kind == c.WAIT_MUTEX and m.w[at.CFG_MUTEX_OWNER] in (0, req[c.REQ_ID]) and until >= c.NEVER:
            raise BrokenRuleError("waits", "allocate waits for the mutex, which is free: mutex_lock was not asked")
        if kind == c.WAIT_POOL and m.w[at.POOL_MIN] == 0 and until >= c.NEVER:
            raise BrokenRuleError("waits", "allocate waits for the reserve, and there is none: no path, no mempool")

    def _given(self, m: Any, req: Any, out: Any) -> None:
        blocks, pages = int(req[c.REQ_BLOCKS]), int(req[c.REQ_PAGES])
        if not 0 < blocks <= pages:
            raise BrokenRuleError("blocks", f"allocate gave {blocks} blocks for a request of {pages} pages")
        given = 0
        for b in range(blocks):
            frame, order = int(out[2 * b]), int(out[2 * b + 1])
            what = f"block {b} of {blocks}, frame {frame:#x} of order {order},"
            if not 0 <= order <= MAX_PAGE_ORDER or not 0 <= frame < len(self._holder):
                raise BrokenRuleError("blocks", f"{what} does not exist")
            if frame & ((1 << order) - 1):
                raise BrokenRuleError("blocks", f"{what} is not aligned to its size")
            state = info_of(m, frame)
            if state & (at.INFO_STATE | at.INFO_ORDER) != at.USED | order:
                raise BrokenRuleError("blocks", f"{what} {state_in_words(state)}")
            others = self._holder[frame : frame + (1 << order)]
            if others.any():
                other = int(others[others > 0][0])
                who = "this request already" if other == self.requests else f"request {other}, which still uses it"
                raise BrokenRuleError("blocks", f"{what} was given to {who}")
            if self._background(frame):
                raise BrokenRuleError("blocks", f"{what} is in use by somebody whom the strategy does not serve")
            others[:] = self.requests
            given += 1 << order
        if given < pages:
            raise BrokenRuleError("blocks", f"allocate said DONE and gave {given} of {pages} pages")
        if req[c.REQ_FLAGS] & REQUIRED and (blocks != 1 or out[1] != req[c.REQ_ORDER]):
            raise BrokenRuleError(
                "blocks", f"a request for one block of order {int(req[c.REQ_ORDER])} got something else"
            )

    # ---------------------------------------------------------------- the machine's operations
    def _operation(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        names = list(inspect.signature(function).parameters)
        frame_at = next((i for i, n in enumerate(names) if n in ("pfn", "frame")), None)
        order_at = names.index("order") if "order" in names else None
        cpu_at = names.index("cpu") if "cpu" in names else None
        list_at = names.index("lst") if "lst" in names else None

        def call(m: Any, *more: Any) -> Any:
            if cpu_at and not 0 <= more[cpu_at - 1] < m.w[at.CFG_CPUS]:
                raise BrokenRuleError("bounds", f"{name} on CPU {more[cpu_at - 1]}, which the machine does not have")
            if order_at and not 0 <= more[order_at - 1] <= MAX_PAGE_ORDER:
                raise BrokenRuleError(
                    "bounds", f"{name} of order {more[order_at - 1]}; orders go from 0 to {MAX_PAGE_ORDER}"
                )
            if list_at and not 0 <= more[list_at - 1] < at.STRATEGY_LISTS:
                raise BrokenRuleError("bounds", f"{name} of list {more[list_at - 1]}; there are {at.STRATEGY_LISTS}")
            if frame_at and name not in LOOKS:
                self._holds(m, name, int(more[frame_at - 1]))
            self._list(m, name, more)
            result = function(m, *more)
            if m.w[at.CFG_ERROR]:
                raise BrokenRuleError("frees", self._misuse(m, name))
            return result

        return call

    def _holds(self, m: Any, name: str, frame: int) -> None:
        if not 0 <= frame < len(self._holder):
            raise BrokenRuleError("bounds", f"{name} of frame {frame:#x}, which the machine does not have")
        if self._holder[frame]:
            raise BrokenRuleError(
                "frees", f"{name} of frame {frame:#x}, which request {self._holder[frame]} still uses"
            )
        if self._background(frame):
            raise BrokenRuleError("frees", f"{name} of frame {frame:#x}, which somebody else uses")
        state = info_of(m, frame) & at.INFO_STATE
        if name.startswith("cache_") and state in STATE_NAMES:
            raise BrokenRuleError("frees", f"{name} of frame {frame:#x}, which is {STATE_NAMES[state]}")

    def _list(self, m: Any, name: str, arguments: tuple[Any, ...]) -> None:
        """Which blocks are on the strategy's lists: none is put on one twice or taken from none."""
        if name == "cache_put":
            frame = int(arguments[1])
            if frame in self._listed:
                raise BrokenRuleError("frees", f"cache_put of frame {frame:#x}, which is on a list already")
            self._listed.add(frame)
        elif name in ("cache_take", "cache_join"):
            frame = int(arguments[0]) ^ (1 << int(arguments[1]) if name == "cache_join" else 0)
            if frame not in self._listed and not linked(m, frame):  # the free path puts captured blocks on lists
                raise BrokenRuleError("frees", f"{name} of frame {frame:#x}, which is on no list")
            self._listed.discard(frame)

    def _misuse(self, m: Any, name: str) -> str:
        frame = int(m.w[at.CFG_ERROR_FRAME])
        code = int(m.w[at.CFG_ERROR])
        if code == at.ERROR_NO_BULK:
            return "alloc_pages_bulk, which this kernel does not have"
        if code == at.ERROR_BAD_FREE and 0 <= frame < len(self._holder):
            return f"{name} of frame {frame:#x}, not as it is: it {state_in_words(info_of(m, frame))}"
        return f"{name} of {frame:#x}, which does not exist"


def _held(m: Any) -> int:
    """Pages taken from the machine in the row now charged, without those declared as reserve."""
    return int(m.c[PAGES_ALLOCATED] - m.c[PAGES_FREED] - m.w[at.CFG_RESERVE])


def info_of(m: Any, frame: int) -> int:
    """Info word of a frame (machine/layout.py)."""
    return int(m.pg[at.NODE_WORDS * (m.w[at.CFG_NODES] + frame) + at.INFO])


def linked(m: Any, frame: int) -> bool:
    """Whether a frame's neighbours on a list know it."""
    node = int(m.w[at.CFG_NODES]) + frame
    after, before = (int(m.pg[at.NODE_WORDS * node + word]) for word in (at.NEXT, at.PREV))
    back, forth = m.pg[at.NODE_WORDS * after + at.PREV], m.pg[at.NODE_WORDS * before + at.NEXT]
    return bool(back == node and forth == node)


def state_in_words(info: int) -> str:
    """What a block is, from its info word."""
    state = info & at.INFO_STATE
    if state == at.USED:
        return f"is in use as a block of order {info & at.INFO_ORDER}"
    if state == at.CACHED:
        return "is kept by the strategy: take it with cache_take before giving it"
    return f"is {STATE_NAMES.get(state, 'no block that the machine handed out')}"
