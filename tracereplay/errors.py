"""The whole error hierarchy. Each class carries the exit code of the command line (architecture.md 5).

A message says what is wrong and where; ``hint`` says the next step. Anything that is not a
:class:`TracereplayError` is a bug in tracereplay and keeps its traceback.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from difflib import get_close_matches
from typing import Any


class TracereplayError(Exception):
    """Base of every error a user can cause or meet."""

    exit_code = 1

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __reduce__(self) -> tuple[Any, ...]:
        """Errors of all classes, whatever they are made from, travel between processes."""
        return _copied, (type(self), self.args, self.__dict__)


def _copied(kind: type[TracereplayError], args: tuple[Any, ...], state: dict[str, Any]) -> TracereplayError:
    error = kind.__new__(kind, *args)
    error.__dict__.update(state)
    return error


def nearest(name: str, known: Iterable[str]) -> str | None:
    """The known name closest to a misspelt one, or None."""
    matches = get_close_matches(name, list(known), n=1, cutoff=0.5)
    return matches[0] if matches else None


def _unknown_hint(name: str, known: Sequence[str], listing: str) -> str:
    guess = nearest(name, known)
    return f"did you mean {guess!r}? {listing}" if guess else listing


class StorageError(TracereplayError):
    """A disk, directory or store refuses: full, read-only, no permission, not reachable. What was finished is kept."""


class ExecutorError(TracereplayError):
    """What points are submitted to cannot be reached, or went away. Finished points are kept."""


# ---------------------------------------------------------------- usage (exit 2)
class UsageError(TracereplayError):
    """An option or argument that cannot be used as given."""

    exit_code = 2


class OutputExistsError(UsageError):
    """The output is already there; nothing is overwritten without ``--force``."""

    def __init__(self, path: object) -> None:
        super().__init__(f"output exists: {path}", hint="choose another path, or pass --force to replace it")
        self.path = path


class GridError(UsageError):
    """A grid of settings that holds no point, contradicts itself, or varies what nobody has."""


class OnePassError(UsageError):
    """A sweep that counts alone cannot answer: a strategy, or a condition that does not hold."""


class SamplingError(UsageError):
    """A sample of callers that cannot answer: a counter that all callers share, too few callers, scarce memory."""


class QueryError(UsageError):
    """SQL that Polars refuses."""


class QueryMemoryError(QueryError):
    """A query whose result, or a sort or join on the way to it, does not fit in memory."""


# ---------------------------------------------------------------- traces and imports (exit 3)
class TraceError(TracereplayError):
    """A trace that cannot be used."""

    exit_code = 3


class TraceNotFoundError(TraceError):
    """The path is not there, or holds no trace."""


class TraceFormatError(TraceError):
    """The bundle's manifest or a file of it does not follow the format."""


class SchemaTooNewError(TraceFormatError):
    """Written by a newer tracereplay than this one."""


class SchemaTooOldError(TraceFormatError):
    """Written by a tracereplay whose schema this one no longer reads."""


class TruncatedTraceError(TraceError):
    """A Parquet file of the bundle is cut short or unreadable."""


class MissingTableError(TraceError):
    """The trace does not hold a table, or holds none of the events, that the request needs."""

    def __init__(self, table: str, known: Sequence[str], *, hint: str | None = None) -> None:
        listing = f"this trace has: {', '.join(known) or 'no tables'}"
        super().__init__(f"no table {table!r} in this trace", hint=hint or _unknown_hint(table, known, listing))
        self.table = table


class SeveralHostsError(TraceError):
    """A trace of several hosts where one is needed, or a host that it does not hold."""


class MergeError(TraceError):
    """Traces that cannot be put on one clock, or that hold the same events."""


class FleetError(TraceError):
    """Several traces of which none can be used, or with ``--strict`` not all."""


class EmptyTraceError(TraceError):
    """A trace without the events that the request needs."""


class ValidationError(TraceError):
    """``validate`` found the trace inconsistent."""


class ImportFormatError(TraceError):
    """A foreign file that cannot be imported."""


class UnknownFormatError(ImportFormatError):
    """No importer recognises the file."""


class AmbiguousFormatError(UnknownFormatError):
    """Several importers recognise the file equally well."""


class ImporterToolMissingError(ImportFormatError):
    """Reading this format needs a program that is not installed."""


# ---------------------------------------------------------------- capture (exit 4)
class CaptureError(TracereplayError):
    """Capture could not start or did not end well."""

    exit_code = 4


class CalibrationError(CaptureError):
    """The host could not be measured, or what was measured is no calibration."""


class PrivilegeError(CaptureError):
    """Not enough rights to trace."""


class BccUnavailableError(CaptureError):
    """The system Python has no usable BCC."""


class ProbeUnavailableError(CaptureError):
    """The kernel lacks a tracepoint or refuses to attach to it."""


class CollectorError(CaptureError):
    """The collector process failed or died."""


class FilterError(CaptureError):
    """A filter names something that the captured host does not have."""


class UnsupportedOptionError(CaptureError):
    """The way in which this host can be captured cannot do what is asked for."""


class HostUnreachableError(CaptureError):
    """The way to the host that is to be captured does not lead there."""


class ConnectionLostError(CollectorError):
    """The way to the captured host broke in the middle."""


# ---------------------------------------------------------------- strategies (exit 5)
class StrategyError(TracereplayError):
    """A strategy that cannot be used or broke its contract."""

    exit_code = 5


class UnknownStrategyError(StrategyError):
    """No strategy of that name."""

    def __init__(self, name: str, known: Sequence[str]) -> None:
        listing = f"known strategies: {', '.join(sorted(known))}"
        super().__init__(f"no strategy {name!r}", hint=_unknown_hint(name, known, listing))
        self.name = name


class ParameterError(StrategyError):
    """A parameter that does not exist or a value outside its range."""


class TooLittleMemoryError(ParameterError):
    """The simulated machine has less memory than the demand needs."""


class PluginError(StrategyError):
    """A foreign strategy that cannot be loaded."""


# ---------------------------------------------------------------- cost profiles (exit 5)
class ProfileError(TracereplayError):
    """A cost profile that cannot be used: what is wrong and in which table."""

    exit_code = 5


class UnknownProfileError(ProfileError):
    """No shipped profile of that name and no such file."""

    def __init__(self, name: str, known: Sequence[str]) -> None:
        listing = f"shipped profiles: {', '.join(known)}; or give the path of a .toml file"
        super().__init__(f"no cost profile {name!r}", hint=_unknown_hint(name, known, listing))
        self.name = name


class RowsError(ProfileError):
    """A table of measured cases is not one: named with file, line and column."""


# ---------------------------------------------------------------- results (exit 3)
class ResultsError(TracereplayError):
    """A file that holds no results of ``tracereplay replay``."""

    exit_code = 3


class InvariantError(AssertionError):
    """A bug in tracereplay itself."""
