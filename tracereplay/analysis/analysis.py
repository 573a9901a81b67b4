"""What an analysis is: what it needs, what it can be told, what it gives. Imports nothing heavy."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from tracereplay.analysis.together import Together
from tracereplay.errors import EmptyTraceError, UsageError, nearest

if TYPE_CHECKING:
    import polars as pl

    from tracereplay.analysis.view import View
    from tracereplay.trace.reader import Trace

PAGE_FILTERS = frozenset({"time", "pid", "comm", "cgroup", "cpu", "order"})
BIO_FILTERS = frozenset({"time", "pid", "comm", "cgroup", "cpu", "device"})
Value = str | int | float


@dataclass(frozen=True, slots=True)
class Need:
    """Events that an analysis cannot do without: any of ``kinds`` of a table."""

    table: str
    kinds: tuple[str, ...]
    option: str
    """What records them: ``capture --events page``."""

    def met_by(self, trace: Trace) -> bool:
        """The trace holds such an event, or was recorded so that it would."""
        recorded = _recorded(trace, self.table, self.kinds)
        return recorded or (bool(trace.rows(self.table)) and _holds(trace, self.table, self.kinds))


PAGES = Need("page_events", ("alloc",), "capture --events page")
FREES = Need("page_events", ("free",), "capture --events page")


@dataclass(frozen=True, slots=True)
class Option:
    """Something that an analysis can be told. Its type is that of the default."""

    name: str
    default: Value
    help: str
    choices: tuple[str, ...] = ()

    def value(self, given: Value) -> Value:
        """A value given by a user, in the option's type. Raises UsageError."""
        kind = type(self.default)
        try:
            made = kind(given)
        except ValueError:
            wanted = {int: "a whole number", float: "a number"}.get(kind, "a text")
            raise UsageError(f"{self.name}={given}: not {wanted}", hint=self.help) from None
        if self.choices and made not in self.choices:
            guess = nearest(str(made), self.choices)
            said = f"did you mean {guess!r}? " if guess else ""
            raise UsageError(f"{self.name}={given} is none of them", hint=f"{said}one of: {', '.join(self.choices)}")
        return made


@dataclass(frozen=True, slots=True)
class Picture:
    """How a frame is best looked at. ``x y value group`` are names of its columns."""

    kind: str
    """``bars`` (y by x, best first), ``histogram`` (y over low edges x, in powers of two), ``lines`` (y over x by
    group), ``heat`` (value over x and y), ``flame`` (value of stacks x, functions from the outermost joined by ``;``).
    """
    x: str
    y: str = ""
    value: str = ""
    group: str = ""
    title: str = ""
    unit: str = ""
    """Of y, or of value: ns, pages, bytes, 1/s; empty: a count."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What an analysis found."""

    frame: pl.DataFrame
    """A row a thing; integer ns, bytes, pages, with the unit in the column's name."""
    method: str
    """How: exact, or with which error."""
    account: Mapping[str, int] = field(default_factory=dict)
    """What could not be counted as whole: censored, broken, unmatched ..."""
    notes: tuple[str, ...] = ()
    """Cautions."""


@dataclass(frozen=True, slots=True)
class Analysis:
    """A question that can be put to a trace: call it with a trace or a view for its data frame."""

    name: str
    title: str
    """One line."""
    group: str
    """``pages``, ``lifetimes``, ``bios`` or ``memory``."""
    compute: Callable[..., Answer]
    """Of a view, and the options by their names. Is told ``top`` when it has such a parameter."""
    needs: tuple[Need, ...]
    filters: frozenset[str]
    """Those that have a meaning here."""
    options: tuple[Option, ...] = ()
    ranked: bool = False
    """Rows are best first, and may be cut."""
    picture: Picture | None = None
    together: Together | str = ""
    """What adds up over several hosts; or why nothing does."""

    def __call__(self, trace: Trace | View, *, top: int | None = None, **options: Value) -> pl.DataFrame:
        """The data frame of a trace, or of a view of it. Raises as :meth:`answer`."""
        return self.answer(trace, top=top, **options).frame

    def answer(self, trace: Trace | View, *, top: int | None = None, **options: Value) -> Answer:
        """The frame with its accounting. ``top``: that many rows, of a ranked analysis.

        Raises EmptyTraceError when the trace lacks the events, UsageError for a filter or an option that has no
        meaning here.
        """
        from tracereplay.analysis.view import View
        from tracereplay.trace.hosts import one_host

        view = View.of(trace)
        one_host(view.trace, f"analysis {self.name}")
        self._check(view)
        told: dict[str, Any] = self.told(options)
        if "top" in inspect.signature(self.compute).parameters:
            told["top"] = top
        found = self.compute(view, **told)
        if top is not None and self.ranked and len(found.frame) > top:
            said = f"the first {top:,} of {len(found.frame):,} rows"
            found = replace(found, frame=found.frame.head(top), notes=(*found.notes, said))
        return found

    def told(self, options: Mapping[str, Value]) -> dict[str, Value]:
        """Values of all options. Raises UsageError for one that there is not, or a value that cannot be."""
        known = {o.name: o for o in self.options}
        for name in options.keys() - known.keys():
            guess = nearest(name, known)
            listing = f"{self.name} has: {', '.join(known) or 'none'}"
            raise UsageError(
                f"{self.name} has no option {name!r}", hint=f"did you mean {guess!r}? {listing}" if guess else listing
            )
        return {name: o.value(options.get(name, o.default)) for name, o in known.items()}

    def _check(self, view: View) -> None:
        for name in view.selection.used:
            if name not in self.filters:
                raise UsageError(
                    f"{self.name} cannot be filtered by {name}",
                    hint=f"it can by: {', '.join(sorted(self.filters)) or 'nothing'}",
                )
        for need in self.needs:
            if not need.met_by(view.trace):
                source = view.trace.metadata.source
                said = f"the {source.get('format', '')} file that was imported did not hold them; "
                raise EmptyTraceError(
                    f"{self.name} needs {' or '.join(need.kinds)} events, and this trace has none",
                    hint=f"{said if source.get('kind') == 'import' else ''}record them with: tracereplay {need.option}",
                )


def _recorded(trace: Trace, table: str, kinds: tuple[str, ...]) -> bool:
    """The trace says that it recorded one of the kinds."""
    from tracereplay.importers.ftrace_vocabulary import SYSTEMS

    if table == "page_events" and "bulk" in kinds and any(e.startswith("kprobe:") for e in trace.metadata.events):
        return True
    for event in trace.metadata.events:
        system, _, name = event.partition(":")
        if SYSTEMS.get(system, {}).get(name) in kinds:
            return True
    return False


def _holds(trace: Trace, table: str, kinds: tuple[str, ...]) -> bool:
    """The trace has an event of one of the kinds; reads until it finds one."""
    import numpy as np

    from tracereplay.trace.columns import KINDS

    wanted = [KINDS[table].index(kind) for kind in kinds]
    return any(
        bool(np.isin(batch.column(0).indices.to_numpy(), wanted).any()) for batch in trace.batches(table, ["kind"])
    )
