"""Many traces as one fleet: which there are, of which host and day, and which cannot be used.

A fleet is named by traces, by patterns, or by a directory that is laid out as Hive-partitioned datasets are::

    ROOT/host=web1/date=2026-11-21/web.trace/manifest.json

The names before ``=`` are columns of every answer; an innermost directory is a trace, or holds traces. Finding them
reads manifests only, and what is kept of each is a line.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from glob import glob
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote

from tracereplay.errors import FleetError, TracereplayError
from tracereplay.trace.fleet_places import folders, listing
from tracereplay.trace.manifest import MANIFEST_NAME
from tracereplay.trace.metadata import TraceMetadata
from tracereplay.trace.reader import Trace
from tracereplay.trace.store import is_url

if TYPE_CHECKING:
    from tracereplay.trace.fleet_places import Entry

HOST, DATE, TRACE = "host", "date", "trace"
"""Columns that every answer about a fleet begins with; ``trace`` is where it lies."""
WHOLE = "(fleet)"
"""Value of ``host`` in the rows of the fleet as a whole."""
NO_VALUE = "__HIVE_DEFAULT_PARTITION__"
"""What Hive writes for a null."""
DEEPEST = 16
"""Directories below each other that are looked into: no fleet is deeper, and a link that leads back ends here."""
OPENED_AT_ONCE = 8
_PARTITION = re.compile(r"([A-Za-z_]\w*)=(.*)")
_PATTERN = re.compile(r"[*?\[]")


@dataclass(frozen=True, slots=True)
class Member:
    """One trace of a fleet."""

    location: str
    """What :meth:`Trace.open` takes."""
    host: str
    """By its directory, else by its manifest."""
    date: str | None
    """By its directory, else the day (UTC) on which its capture began; None where the trace does not know."""
    keys: tuple[tuple[str, str | None], ...]
    """The other partitions that it lies in."""
    trace_id: str

    def columns(self) -> dict[str, str | None]:
        """What its rows begin with."""
        return {HOST: self.host, DATE: self.date, **dict(self.keys), TRACE: self.location}

    def open(self) -> Trace:
        """The trace. Raises as :meth:`Trace.open`."""
        return Trace.open(self.location)


@dataclass(frozen=True, slots=True)
class Failure:
    """A trace of a fleet that an answer is without."""

    location: str
    error: str
    host: str | None = None

    def to_json(self) -> dict[str, str | None]:
        """Plain values."""
        return {"trace": self.location, "host": self.host, "error": self.error}


@dataclass(frozen=True, slots=True)
class Fleet:
    """The traces of a fleet, and those that could not be opened."""

    members: tuple[Member, ...]
    failures: tuple[Failure, ...] = ()

    @property
    def names(self) -> list[str]:
        """Columns that say which trace a row is of: ``host date``, other partitions, ``trace``."""
        keys = dict.fromkeys(name for m in self.members for name, _ in m.keys)
        return [HOST, DATE, *keys, TRACE]

    @property
    def hosts(self) -> list[str]:
        """Names of the hosts, each once."""
        return list(dict.fromkeys(m.host for m in self.members))


def is_fleet(arguments: Sequence[str]) -> bool:
    """Whether arguments name a fleet; else they are one trace, which may not be there."""
    if len(arguments) != 1:
        return True
    (text,) = arguments
    if _is_pattern(text):
        return True
    found = listing(text)
    return found is not None and not _is_bundle(found) and any(e.folder for e in found)


def traces_of(arguments: Sequence[str]) -> Fleet:
    """The traces that arguments name: traces, ``TRACE#HOST``, patterns, directories of a fleet, also as URLs.

    Of a trace of several hosts each host is a member. What cannot be opened, and what is there twice, is a failure.
    Raises FleetError where nothing can be used.
    """
    members: list[Member] = []
    failures: list[Failure] = []
    seen: dict[str, str] = {}
    with ThreadPoolExecutor(OPENED_AT_ONCE, "fleet") as pool:
        for found in pool.map(_members, _places(arguments)):
            for one in found:
                if isinstance(one, Failure):
                    failures.append(one)
                    continue
                identity = one.trace_id or one.location
                if identity in seen:
                    failures.append(Failure(one.location, f"the same trace as {seen[identity]}", one.host))
                    continue
                seen[identity] = one.location
                members.append(one)
    if not members:
        said = f": {failures[0].location}: {failures[0].error}" if failures else ""
        raise FleetError(
            f"no trace that can be used in {' '.join(arguments) or 'nothing'}{said}",
            hint="name traces, or a directory of host=NAME/date=YYYY-MM-DD/TRACE",
        )
    return Fleet(tuple(members), tuple(failures))


# ---------------------------------------------------------------- where they lie
def _places(arguments: Sequence[str]) -> Iterator[str]:
    """Locations that are, or should be, a trace."""
    for text in arguments:
        for place in _matches(text) if _is_pattern(text) else [text]:
            found = listing(place)
            if found is None or _is_bundle(found):
                yield place
            else:
                yield from _below(place, found, DEEPEST)


def _is_pattern(text: str) -> bool:
    return bool(_PATTERN.search(text)) and (is_url(text) or not os.path.lexists(text))


def _matches(text: str) -> list[str]:
    if is_url(text):
        return folders(text) or [text]
    found = glob(text)  # noqa: PTH207  (a pattern may be absolute)
    return sorted(p for p in found if Path(p).is_dir()) or [text]


def _below(place: str, found: Sequence[Entry], depth: int) -> Iterator[str]:
    """Traces below a directory, by name; an innermost partition without one stands for what is missing."""
    empty = True
    for entry in found if depth else ():
        if not entry.folder or entry.name.startswith((".", "_")):
            continue
        path = f"{place.rstrip('/')}/{entry.name}"
        entries = listing(path)
        whole = entries is None or _is_bundle(entries)
        for trace in [path] if whole else _below(path, entries or (), depth - 1):
            empty = False
            yield trace
    if empty and _PARTITION.fullmatch(place.rpartition("/")[2]):
        yield place


def _is_bundle(entries: Sequence[Entry]) -> bool:
    """A directory with a manifest; or one whose tables are there while the manifest is lost, to be told as broken."""
    names = {e.name for e in entries}
    return MANIFEST_NAME in names or "page_events" in names or "bio_events" in names


# ---------------------------------------------------------------- what they are
def _members(location: str) -> list[Member | Failure]:
    """A trace, or the hosts of a trace of several."""
    keys = _partitions(location)
    host = keys.pop(HOST, None)
    date = keys.pop(DATE, None)
    try:
        trace = Trace.open(location)
        inside = trace.hosts
        opened = [trace.select_host(name) for name in inside] or [trace]
    except TracereplayError as error:
        return [Failure(location, error.message, host)]
    return [
        Member(
            location=f"{location}#{name}" if name else location,
            host=name or host or _host_of(one),
            date=date or _day(one.metadata),
            keys=tuple(keys.items()),
            trace_id=one.metadata.trace_id,
        )
        for name, one in zip(inside or [""], opened, strict=True)
    ]


def _partitions(location: str) -> dict[str, str | None]:
    """``name=value`` directories of a path, as plain Parquet tools read them."""
    found: dict[str, str | None] = {}
    for part in location.split("/"):
        if match := _PARTITION.fullmatch(part):
            value = unquote(match[2])
            found[match[1]] = None if value in (NO_VALUE, "") else value
    return found


def _host_of(trace: Trace) -> str:
    named = trace.host or trace.metadata.host.get("hostname")
    return str(named or trace.location.rstrip("/").rpartition("/")[2].partition(".")[0])


def _day(metadata: TraceMetadata) -> str | None:
    """Day on which a capture began; of an imported file nothing says it."""
    triples = metadata.clock.get("triples") or []
    if triples:
        return datetime.fromtimestamp(min(t[2] for t in triples) / 1e9, UTC).date().isoformat()
    return metadata.created[:10] or None if metadata.source.get("kind") == "capture" else None
