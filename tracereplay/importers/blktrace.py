"""blktrace: its per-CPU files ``DEVICE.blktrace.CPU``, and what ``blkparse -d`` merges them into."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from tracereplay.errors import ImportFormatError
from tracereplay.importers.base import Confidence, Conversion, Head, ImportOptions
from tracereplay.importers.blktrace_format import MAGIC, VERSIONS

if TYPE_CHECKING:
    from tracereplay.importers.source import Source


def version_of(data: bytes) -> int | None:
    """Version of the record that begins here, in either byte order; None: it is none."""
    for order in ("little", "big"):
        magic = int.from_bytes(data[:4], order)
        if len(data) >= 4 and magic & 0xFFFFFF00 == MAGIC:
            return magic & 0xFF
    return None


class BlktraceImporter:
    """Recognises blktrace records by their magic and opens them."""

    name = "blktrace"
    title = "per-CPU files of blktrace (a directory, or one of them for all), or a dump of blkparse -d"

    def sniff(self, head: Head) -> Confidence:
        """CERTAIN by the magic number; POSSIBLE by a file's name, where a damaged beginning hides it."""
        if version_of(head.data) is not None:
            return Confidence.CERTAIN
        return Confidence.POSSIBLE if ".blktrace." in head.name else Confidence.NO

    def open(self, source: Source, options: ImportOptions, advance: Callable[[int], None]) -> Conversion:
        """Begin to import; loads the compiled parser. Raises ImportFormatError for a version not known."""
        version = version_of(source.head().data)
        if version is not None and version not in VERSIONS:
            raise ImportFormatError(
                f"{source.name} has blktrace records of version {version}; known are 7 and 8",
                hint="print it with the blkparse of the traced system, and import its text",
            )
        from tracereplay.importers.blktrace_reader import BlktraceReader
        from tracereplay.importers.block_conversion import BlockConversion

        name = (
            source.name if len(source.files) < 2 else f"{source.name} and the {len(source.files) - 1} files beside it"
        )
        return BlockConversion(
            name,
            BlktraceReader(source, options.block_bytes),
            options,
            advance,
            hint="name a file that blktrace wrote (DEVICE.blktrace.CPU) or blkparse -d",
        )


IMPORTER = BlktraceImporter()
