"""fio iologs, versions 2 and 3: what ``fio --write_iolog`` records and ``--read_iolog`` replays."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TYPE_CHECKING

from tracereplay.errors import ImportFormatError
from tracereplay.importers.base import Confidence, Conversion, Head, ImportOptions

if TYPE_CHECKING:
    from tracereplay.importers.source import Source

_MAGIC = re.compile(rb"\Afio version (\d+) iolog[ \t\r]*(?:\n|\Z)")
VERSIONS = (2, 3)


class FioImporter:
    """Recognises an iolog by its first line and opens it."""

    name = "fio"
    title = "fio iolog, version 2 or 3"

    def sniff(self, head: Head) -> Confidence:
        """CERTAIN by the first line."""
        return Confidence.CERTAIN if _MAGIC.match(head.data) else Confidence.NO

    def open(self, source: Source, options: ImportOptions, advance: Callable[[int], None]) -> Conversion:
        """Begin to import; loads the compiled parser. Raises ImportFormatError for a version not known."""
        match = _MAGIC.match(source.head().data)
        if match is None:
            raise ImportFormatError(
                f"{source.name} does not begin with 'fio version N iolog'",
                hint="leave --from out to have the format recognised",
            )
        version = int(match[1])
        if version not in VERSIONS:
            raise ImportFormatError(
                f"{source.name} is a fio iolog of version {version}; known are 2 and 3",
                hint="record it again: fio 3.31 and later write version 3 with --write_iolog",
            )
        from tracereplay.importers.fio_reader import FioReader
        from tracereplay.importers.request_conversion import RequestConversion

        return RequestConversion(source, options, advance, FioReader(version, options))


IMPORTER = FioImporter()
