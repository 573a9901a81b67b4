"""blkparse text in its default format."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TYPE_CHECKING

from tracereplay.importers.base import Confidence, Conversion, Head, ImportOptions

if TYPE_CHECKING:
    from tracereplay.importers.source import Source

_LINE = re.compile(
    rb"^[ \t]*\d+,\d+[ \t]+\d+[ \t]+-?\d+[ \t]+\d+\.\d{9}[ \t]+\d+[ \t]+(?:[QMFGSRDCPUIXBA]|UT|m|Z[PUM])(?:[ \t]|$)",
    re.MULTILINE,
)


class BlkparseImporter:
    """Recognises blkparse text and opens it."""

    name = "blkparse"
    title = "text of blkparse in its default format"

    def sniff(self, head: Head) -> Confidence:
        """POSSIBLE by a line that is an event's: the text has no header."""
        return Confidence.POSSIBLE if _LINE.search(head.data) else Confidence.NO

    def open(self, source: Source, options: ImportOptions, advance: Callable[[int], None]) -> Conversion:
        """Begin to import; loads the compiled parser."""
        from tracereplay.importers.blkparse_reader import BlkparseReader
        from tracereplay.importers.block_conversion import BlockConversion

        return BlockConversion(
            source.name,
            BlkparseReader(source, options.block_bytes),
            options,
            advance,
            hint="pass what blkparse prints without -f, or the files of blktrace themselves",
        )


IMPORTER = BlkparseImporter()
