"""Which formats there are, and which one a source is in."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module

from tracereplay.errors import AmbiguousFormatError, UnknownFormatError, nearest
from tracereplay.importers.base import Confidence, Head, Importer

MODULES = (
    "ftrace",
    "trace_dat",
    "collector_frames",
    "blktrace",
    "blkparse",
    "fio_iolog",
    "block_csv",
    "block_records",
    "perf_script",
    "perf_data",
    "bpftrace",
    "page_owner",
)
"""Modules of this package that hold an ``IMPORTER`` or several ``IMPORTERS``, most specific format first."""


def importers() -> list[Importer]:
    """One importer of each format. Their modules import nothing heavy until a source is opened."""
    modules = [import_module(f"tracereplay.importers.{name}") for name in MODULES]
    return [importer for m in modules for importer in getattr(m, "IMPORTERS", None) or (m.IMPORTER,)]


def importer_named(name: str) -> Importer:
    """The importer of a format. Raises UnknownFormatError with the nearest name."""
    known = importers()
    for importer in known:
        if importer.name == name:
            return importer
    guess = nearest(name, [i.name for i in known])
    raise UnknownFormatError(
        f"no import format {name!r}", hint=(f"did you mean {guess!r}? " if guess else "") + _listing(known)
    )


def recognise(head: Head) -> Importer:
    """The importer that is surest of a source.

    Raises UnknownFormatError that says what the source looks like, AmbiguousFormatError when it may as well be of
    another format of the same kind (two tables of numbers differ in their values only).
    """
    known = importers()
    best = max(known, key=lambda importer: importer.sniff(head))
    if best.sniff(head) is Confidence.NO:
        raise UnknownFormatError(f"{head.name} is {looks_like(head)}; no importer knows it", hint=_listing(known))
    rivals = [i for i in known if type(i) is type(best) and i.sniff(head) is best.sniff(head)]
    if len(rivals) > 1:
        raise AmbiguousFormatError(
            f"{head.name} may be {' or '.join(i.name for i in rivals)}: its lines fit each of them",
            hint=f"say which with --from ({', '.join(f'{i.name}: {i.title}' for i in rivals)})",
        )
    return best


def _listing(known: Sequence[Importer]) -> str:
    return "formats: " + ", ".join(f"{i.name} ({i.title})" for i in known) + "; name one with --from"


def looks_like(head: Head) -> str:
    """What a source that nobody knows seems to be, for an error message."""
    data = head.data
    if not data:
        return "empty"
    magics = {
        b"PAR1": "a Parquet file",
        b"\x7fELF": "an ELF file",
        b"PK\x03\x04": "a zip archive",
    }
    for magic, name in magics.items():
        if data.startswith(magic):
            return name
    if data[257:262] == b"ustar":
        return "a tar archive (tar xOf ARCHIVE | tracereplay import - OUT)"
    control = sum(byte < 9 or 13 < byte < 32 for byte in data[:4096])
    if control * 20 > len(data[:4096]):
        return f"binary (it begins with {data[:8].hex(' ')})"
    first = next((line for line in data.splitlines() if line.strip()), b"")
    text = first[:60].decode("utf-8", "backslashreplace")
    return f"text that is no trace (its first line: {text!r})"
