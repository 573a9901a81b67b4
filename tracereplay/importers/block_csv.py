"""Block traces that are tables of text: MSR, Alibaba, Tencent, SPC, MQSim, and libCacheSim's CSV."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from tracereplay.importers.base import Confidence, Conversion, Head, ImportOptions
from tracereplay.importers.block_tables import BLOCK_TABLES, BlockTable

if TYPE_CHECKING:
    from tracereplay.importers.source import Source


class BlockTableImporter:
    """Recognises one of the formats by its header or the form of its lines, and opens it."""

    def __init__(self, table: BlockTable) -> None:
        self.name, self.title = table.name, table.title
        self.table = table

    def sniff(self, head: Head) -> Confidence:
        """CERTAIN by a header line, POSSIBLE when at least half of the first lines fit."""
        if self.table.has_header(head.data):
            return Confidence.CERTAIN
        data = head.data if head.data.endswith(b"\n") or not head.whole else head.data + b"\n"
        return Confidence.POSSIBLE if self.table.fits(data) else Confidence.NO

    def open(self, source: Source, options: ImportOptions, advance: Callable[[int], None]) -> Conversion:
        """Begin to import; loads the compiled parser."""
        from tracereplay.importers.block_table_reader import BlockTableReader
        from tracereplay.importers.request_conversion import RequestConversion

        return RequestConversion(source, options, advance, BlockTableReader(self.table, source, options))


IMPORTERS = tuple(BlockTableImporter(table) for table in BLOCK_TABLES)
