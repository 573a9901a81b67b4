"""An analysis of many traces: rows of each, then rows of the fleet where the answer's columns add up."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import polars as pl

from tracereplay.analysis.selection import Selection
from tracereplay.analysis.together import Together
from tracereplay.analysis.view import View
from tracereplay.errors import EmptyTraceError, FleetError, TracereplayError, UsageError
from tracereplay.trace.completeness import completeness
from tracereplay.trace.fleet import DATE, HOST, WHOLE, Failure, Fleet, Member

if TYPE_CHECKING:
    from tracereplay.analysis.analysis import Analysis, Answer, Value

_WEIGHTED = "weighted of "
_WEIGHT = "weight of "
_BASE = "whole of "
NONE_BY_OPTION = "nothing adds up with these options"


@dataclass(slots=True)
class FleetAnswer:
    """What an analysis found in a fleet."""

    frame: pl.DataFrame
    """Rows of traces, in the order of the fleet, then those of the fleet; before the answer's columns stand those of
    :attr:`Fleet.names`."""
    whole: pl.DataFrame
    """Rows of the fleet alone, with the answer's columns; empty where nothing adds up."""
    apart: str = ""
    """Why there are no rows of the fleet; empty: there are."""
    traces: list[dict[str, Any]] = field(default_factory=list)
    """Of each trace in the answer: its columns, id, method, account, notes and completeness."""
    failures: list[Failure] = field(default_factory=list)
    account: Counter[str] = field(default_factory=Counter)


def analyze_fleet(
    fleet: Fleet,
    analysis: Analysis,
    selection: Selection,
    *,
    top: int | None = None,
    options: Mapping[str, Value] | None = None,
    strict: bool = False,
    progress: Callable[[int], None] = lambda _n: None,
) -> FleetAnswer:
    """Put a question to each trace of a fleet, one after the other. ``top``: that many rows of each, and of the fleet.

    A trace without the events, or with a damaged file, is a failure and the others go on; ``strict``: it ends the
    analysis. Raises UsageError as :meth:`Analysis.answer`, FleetError when no trace has an answer.
    """
    told = analysis.told(options or {})
    together = analysis.together
    apart = together if isinstance(together, str) else ""
    if isinstance(together, Together) and any(told[name] != _default(analysis, name) for name in together.unless):
        apart = NONE_BY_OPTION
    sums = Sums(together) if isinstance(together, Together) and not apart else None
    found = FleetAnswer(pl.DataFrame(), pl.DataFrame(), apart, failures=list(fleet.failures))
    rows: list[pl.DataFrame] = []
    first: TracereplayError | None = None
    for member in fleet.members:
        try:
            view = View(member.open(), selection)
            # rows of the fleet need all rows of each trace
            answer = analysis.answer(view, top=None if sums else top, **told)
            if sums is not None and not sums.add(answer.frame):
                sums, found.apart = None, NONE_BY_OPTION
            found.traces.append(_entry(member, view, answer))
        except UsageError:
            raise
        except TracereplayError as error:
            if strict:
                raise
            first = first or error
            found.failures.append(Failure(member.location, error.message, member.host))
        else:
            cut = answer.frame if top is None or not analysis.ranked else answer.frame.head(top)
            rows.append(_led(cut, fleet, member.columns()))
            found.account.update(answer.account)
        progress(1)
    if not rows:
        kind = EmptyTraceError if isinstance(first, EmptyTraceError) else FleetError
        said = first.message if first else "the fleet is empty"
        raise kind(f"no trace of the fleet has an answer: {said}", hint=first.hint if first else None)
    if sums is not None:
        found.whole = sums.frame()
        cut = found.whole if top is None or not analysis.ranked else found.whole.head(top)
        rows.append(_led(cut, fleet, {HOST: WHOLE}))
    found.frame = _joined(rows)
    return found


def _default(analysis: Analysis, name: str) -> Value:
    return next(o.default for o in analysis.options if o.name == name)


def _entry(member: Member, view: View, answer: Answer) -> dict[str, Any]:
    return member.columns() | {
        "id": member.trace_id,
        "method": answer.method,
        "account": dict(answer.account),
        "notes": list(answer.notes),
        "completeness": completeness(view.trace).to_json(),
    }


def _led(frame: pl.DataFrame, fleet: Fleet, columns: Mapping[str, str | None]) -> pl.DataFrame:
    """A frame with the columns of the fleet in front. Raises UsageError where a partition is named like a column."""
    for name in fleet.names:
        if name in frame.columns and name not in (HOST, DATE):
            raise UsageError(
                f"partition {name}= of the fleet has the name of a column of the answer",
                hint="name its directories otherwise",
            )
    lead = [pl.lit(columns.get(name), pl.String).alias(name) for name in fleet.names]
    return frame.select(*lead, pl.exclude(HOST, DATE))


def _joined(rows: list[pl.DataFrame]) -> pl.DataFrame:
    """Frames below each other; a column that is empty in one may have another type there."""
    return pl.concat([f for f in rows if len(f)] or rows[:1], how="diagonal_relaxed")


class Sums:
    """Rows of a fleet in the making: as many as there are distinct keys, however many traces are added."""

    def __init__(self, together: Together) -> None:
        self._how = together
        self._held: pl.DataFrame | None = None
        self._wholes: pl.DataFrame | None = None
        self._schema: dict[str, pl.DataType] = {}

    def add(self, frame: pl.DataFrame) -> bool:
        """Add the rows of one trace. False: the columns that add up are not among its own."""
        how = self._how
        if not {*how.sums, *how.shares, *how.means, *how.most, *how.ratios} <= set(frame.columns):
            return False
        if not len(frame) and self._schema:
            return True
        self._schema = dict(frame.schema)
        if how.shares:
            wholes = self._whole(frame)
            self._wholes = _added(self._wholes, wholes, self._within(), [pl.exclude(self._within()).sum()])
        parts = frame.select(
            *(pl.col(k) for k in self._keys()),
            *(pl.col(name).cast(pl.Int64 if frame.schema[name].is_integer() else pl.Float64) for name in how.sums),
            *((pl.col(mean) * pl.col(of)).cast(pl.Float64).alias(_WEIGHTED + mean) for mean, of in how.means.items()),
            *(
                pl.when(pl.col(mean).is_not_null()).then(of).otherwise(0).cast(pl.Float64).alias(_WEIGHT + mean)
                for mean, of in how.means.items()
            ),
            *how.most,
        )
        most = pl.col(*how.most).max() if how.most else None
        added = pl.exclude(*self._keys(), *how.most).sum()
        self._held = _added(self._held, parts, self._keys(), [added] if most is None else [added, most])
        return True

    def _keys(self) -> list[str]:
        return [k for k in self._how.keys if k in self._schema]

    def _within(self) -> list[str]:
        return [k for k in self._how.within if k in self._schema]

    def _whole(self, frame: pl.DataFrame) -> pl.DataFrame:
        """What the shares of a trace are of: a share and its part tell it, also where rows overlap or are missing."""
        # of the largest row: parts may be rounded
        wholes = [
            (pl.col(of) / pl.col(share)).filter(pl.col(share) > 0).sort_by(pl.col(of).filter(pl.col(share) > 0)).last()
            .alias(_BASE + share)
            for share, of in self._how.shares.items()
        ]  # fmt: skip
        within = self._within()
        return frame.group_by(within).agg(wholes) if within else frame.select(wholes)

    def frame(self) -> pl.DataFrame:
        """Rows of what was added, with the columns of the answer."""
        how, keys = self._how, self._keys()
        if self._held is None:
            return pl.DataFrame()
        made = self._held
        if self._wholes is not None:
            within = self._within()
            on: dict[str, Any] = {"on": within, "how": "left", "nulls_equal": True} if within else {"how": "cross"}
            made = made.join(self._wholes, **on)
        made = made.with_columns(
            *((pl.col(of) / pl.col(_BASE + share)).fill_nan(0.0).alias(share) for share, of in how.shares.items()),
            *(self._ratio(name, pl.col(a), pl.col(b)) for name, (a, b) in how.ratios.items()),
            *(self._ratio(mean, pl.col(_WEIGHTED + mean), pl.col(_WEIGHT + mean)) for mean in how.means),
        )
        if how.rank:
            made = made.sort(how.rank, *keys, descending=[True, *(False for _ in keys)], nulls_last=True)
        else:
            made = made.sort(keys, nulls_last=True)
        return made.select(
            pl.col(name) if name in made.columns else pl.lit(None, kind).alias(name)
            for name, kind in self._schema.items()
        )

    def _ratio(self, name: str, part: pl.Expr, of: pl.Expr) -> pl.Expr:
        found = pl.when(of != 0).then(part / of)
        return (found.round().cast(pl.Int64) if self._schema[name].is_integer() else found).alias(name)


def _added(held: pl.DataFrame | None, rows: pl.DataFrame, keys: list[str], sums: list[pl.Expr]) -> pl.DataFrame:
    both = rows if held is None else pl.concat([held, rows], how="vertical_relaxed")
    return both.group_by(keys).agg(sums) if keys else both.select(sums)
