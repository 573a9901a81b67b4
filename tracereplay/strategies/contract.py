"""What a strategy is: parameters that drive everything around it, and a few functions that the engine compiles.

A strategy is one Python file. It holds a frozen dataclass derived from :class:`Params`, and the functions

``init(m, st)``
    Prepare the state words after ``Params.pack`` (which the engine has put at ``st[0:]``).
``allocate(m, st, req, out) -> DONE | WAIT | FAIL``
    Serve the request in ``req`` (REQ_* below): append (first frame, order) pairs to ``out`` and put their number into
    ``req[REQ_BLOCKS]``. A request of contiguity REQUIRED wants one block of ``req[REQ_ORDER]``; any other may be cut at
    will, in page order. On FAIL the strategy has given back all it took. On WAIT it says in ``req[REQ_WAIT]`` what for
    and in ``req[REQ_UNTIL]`` how long at most, and is called again with the same ``req`` and the same first
    ``req[REQ_BLOCKS]`` pairs of ``out``; its progress lives in ``req[REQ_STEP]`` and the words from REQ_OWN on, which
    are 0 at the first call. Other requests, frees and timers run in between, and ``m.w[CFG_NOW]`` is the time of the
    call. A REQUIRED request may not wait, and none may end with the mutex held.
``release(m, st, block, cpu, now)``
    Give back the block ``block[BLOCK_FRAME]``, ``block[BLOCK_ORDER]`` whose last page was freed on ``cpu``.
``timer(m, st, number, now)``
    Optional: a timer that the strategy set (``ops.set_timer``) is due: its workers. Charged to the strategy's own work,
    not to a request. It has no ``req``, so it cannot take the mutex.
``shrink(m, st, pages)``
    Optional: the machine reclaims and asks for ``pages`` back (a shrinker's scan). Charged like a timer.
``finish(m, st)``
    Optional: the end of the trace.

They are plain Python on integers and flat arrays; the engine compiles them together with itself, so they run at the
speed of the machine (engine.md section 2). Functions they call must be marked with :func:`compiled`; machine
operations are reached through ``tracereplay.machine.ops``. Nothing may be allocated, printed or raised inside.
Importing a strategy imports no Numba.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, ClassVar, TypeVar

from tracereplay.errors import ParameterError, nearest

F = TypeVar("F", bound=Callable[..., Any])

# ---- status of allocate
DONE = 0
FAIL = 1
WAIT = 2

# ---- words of req
REQ_CPU = 0
REQ_GFP = 1
"""gfp mask as recorded."""
REQ_PAGES = 2
"""Pages wanted."""
REQ_ORDER = 3
"""Order of the one block wanted when REQ_FLAGS has REQUIRED."""
REQ_FLAGS = 4
"""Flags of the demand stream: REQUIRED, ON_PATH, FROM_BIO ..."""
REQ_NOW = 5
"""Arrival, nanoseconds of trace time."""
REQ_BLOCKS = 6
"""Out: blocks appended to ``out``."""
REQ_ID = 7
"""Number of the request, from 1 on: the owner of a mutex."""
REQ_WAIT = 8
"""Out, on WAIT: WAIT_MUTEX, WAIT_POOL or WAIT_TIME."""
REQ_UNTIL = 9
"""Out, on WAIT: simulated time, ns, at which the request is called again in any case; later than now; NEVER for no
limit."""
REQ_STEP = 10
"""The strategy's own, kept between calls; 0 at the first."""
REQ_OWN = 11
"""First of the words that are the strategy's own, to REQ_CALLER - 1."""
REQ_CALLER = 16
"""Number of the request's caller, in the order in which the demand met them (``DemandReport.callers``)."""
REQ_WORDS = 17

# ---- what a request waits for
WAIT_MUTEX = 1
"""The path's mutex is free (``ops.mutex_lock``): those that wait get it in the order in which they asked."""
WAIT_POOL = 2
"""An element came into the mempool's reserve: all that wait are called, in the order in which they began to wait. Who
got blocks and waits for more begins anew; who got nothing keeps the place."""
WAIT_TIME = 3
"""REQ_UNTIL only."""
NEVER = 1 << 62

# ---- words of block
BLOCK_FRAME = 0
BLOCK_ORDER = 1
BLOCK_FLAGS = 2
"""Flags of the request that the block was given to."""
BLOCK_WORDS = 4

COMPILED = ("init", "allocate", "release")
OPTIONAL = ("timer", "shrink", "finish")
_MARK = "__tracereplay_compiled__"


def compiled(function: F) -> F:
    """Mark a strategy's own function as one that its compiled functions call."""
    setattr(function, _MARK, "called")
    return function


def inlined(function: F) -> F:
    """Like :func:`compiled`, for a small step that each page takes: it is copied into its callers.

    A call hands over the whole machine, some thirty words; per page that is a good part of the work.
    """
    setattr(function, _MARK, "inlined")
    return function


def mark_of(function: object) -> str | None:
    """How a function was marked: ``called``, ``inlined``, or not at all."""
    return getattr(function, _MARK, None)


@dataclass(frozen=True, slots=True)
class ParamInfo:
    """One parameter as users see it."""

    name: str
    default: Any
    kind: type
    unit: str
    low: int | None
    high: int | None
    choices: tuple[str, ...]
    doc: str
    source: str

    @property
    def range_text(self) -> str:
        """Allowed values in words."""
        if self.choices:
            return "|".join(self.choices)
        if self.kind is bool:
            return "true|false"
        return f"{self.low if self.low is not None else ''}..{self.high if self.high is not None else ''}"

    def parse(self, text: str) -> Any:
        """Value of a text. Raises ParameterError with what is allowed."""
        value: Any = text
        if self.kind is bool:
            if text.lower() not in ("true", "false", "1", "0", "on", "off", "yes", "no"):
                raise self._refusal(text)
            value = text.lower() in ("true", "1", "on", "yes")
        elif not self.choices:
            try:
                value = int(text)
            except ValueError:
                raise self._refusal(text) from None
        self.check(value)
        return value

    def check(self, value: Any) -> None:
        """Raises ParameterError when the parameter does not take ``value``."""
        if self.choices:
            good = value in self.choices
        elif self.kind is int:
            good = isinstance(value, int) and not isinstance(value, bool)
            good = good and (self.low is None or value >= self.low) and (self.high is None or value <= self.high)
        else:
            good = isinstance(value, self.kind)
        if not good:
            raise self._refusal(value)

    def _refusal(self, value: Any) -> ParameterError:
        return ParameterError(
            f"parameter {self.name!r} cannot be {value!r}", hint=f"it takes {self.range_text} ({self.unit})"
        )


def param(
    default: Any,
    *,
    unit: str,
    doc: str,
    source: str,
    low: int | None = None,
    high: int | None = None,
    choices: tuple[str, ...] = (),
) -> Any:
    """Declare a parameter: default, unit, range or choices, what it does, and where the default comes from."""
    return dataclasses.field(
        default=default,
        metadata=MappingProxyType(
            {"unit": unit, "doc": doc, "source": source, "low": low, "high": high, "choices": choices}
        ),
    )


@dataclass(frozen=True)
class Params:
    """Base of every strategy's parameters. Subclasses are frozen dataclasses with ``param`` fields."""

    name: ClassVar[str]
    summary: ClassVar[str]
    """One line, shown by ``tracereplay strategies``."""
    mimics: ClassVar[str]
    """The kernel code or thread it follows."""
    leaves_out: ClassVar[str] = ""
    docs: ClassVar[str] = ""
    """Where more is written about it; for ours it follows from the name."""

    @classmethod
    def docs_page(cls) -> str:
        """Path or address of its documentation; empty when it has none."""
        ours = cls.__module__.startswith("tracereplay.")
        return cls.docs or (f"docs/strategies/{cls.name}.md" if ours else "")

    def __post_init__(self) -> None:
        """Refuse values outside what their parameter allows (ParameterError)."""
        for info in self.infos().values():
            info.check(getattr(self, info.name))

    @classmethod
    def infos(cls) -> dict[str, ParamInfo]:
        """Parameters by name."""
        found = {}
        for f in dataclasses.fields(cls):
            meta = f.metadata
            kind = bool if isinstance(f.default, bool) else str if isinstance(f.default, str) else int
            found[f.name] = ParamInfo(
                f.name,
                f.default,
                kind,
                meta["unit"],
                meta["low"],
                meta["high"],
                meta["choices"],
                meta["doc"],
                meta["source"],
            )
        return found

    @classmethod
    def from_text(cls, options: Mapping[str, str]) -> Params:
        """Parameters from ``key=value`` texts. Raises ParameterError: unknown name (with the nearest) or bad value."""
        infos = cls.infos()
        values = {}
        for key, text in options.items():
            if key not in infos:
                guess = nearest(key, infos)
                listing = f"parameters of {cls.name}: {', '.join(infos) or 'none'}"
                raise ParameterError(
                    f"{cls.name} has no parameter {key!r}",
                    hint=f"did you mean {guess!r}? {listing}" if guess else listing,
                )
            values[key] = infos[key].parse(text)
        return cls(**values)

    def values(self) -> dict[str, Any]:
        """Parameter values, for provenance."""
        return {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}

    def pack(self) -> list[int]:
        """State words that the parameters become, from ``st[0]`` on, in field order; choices as their index."""
        words = []
        for info in self.infos().values():
            value = getattr(self, info.name)
            words.append(info.choices.index(value) if info.choices else int(value))
        return words

    def state_words(self) -> int:
        """Words of state the compiled functions use, parameters included."""
        return len(self.pack()) + 16
