"""Dumps of /sys/kernel/debug/page_owner: what was allocated, and by whom, when the file was read."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TYPE_CHECKING

from tracereplay.errors import ImportFormatError
from tracereplay.importers.base import Confidence, Conversion, Head, ImportOptions

if TYPE_CHECKING:
    from tracereplay.importers.source import Source

_ALLOCATED = re.compile(rb"^Page allocated via order \d+, mask 0x", re.MULTILINE)
_COUNTED = re.compile(rb"^\s?(?:nr_base_pages|stack_count|nr_pages): ?\d+\s*$", re.MULTILINE)
_SORTED = re.compile(
    rb"^\d+ times(?:, \d+ pages)?.*:\r?\n(?:\s*\n)?\s*(?:Page allocated via|PFN |\S+\+0x| )", re.MULTILINE
)


class PageOwnerImporter:
    """Recognises a dump and opens it."""

    name = "page_owner"
    title = "dump of /sys/kernel/debug/page_owner"

    def sniff(self, head: Head) -> Confidence:
        """CERTAIN by the first line of a page, or by what was made of such a dump."""
        found = any(form.search(head.data) for form in (_ALLOCATED, _COUNTED, _SORTED))
        return Confidence.CERTAIN if found else Confidence.NO

    def open(self, source: Source, options: ImportOptions, advance: Callable[[int], None]) -> Conversion:
        """Begin to import. Raises ImportFormatError for files that hold stacks and counts, and no pages."""
        head = source.head().data
        if _SORTED.search(head):
            raise ImportFormatError(
                f"{source.name} is a list of page_owner_sort: pages are summed up in it",
                hint="import the dump that it was made from",
            )
        if not _ALLOCATED.search(head) and _COUNTED.search(head):
            raise ImportFormatError(
                f"{source.name} is page_owner_stacks: it counts pages by stack, without frames, times and tasks",
                hint="import /sys/kernel/debug/page_owner of the same host; it has the same stacks, page by page",
            )
        from tracereplay.importers.page_owner_dump import PageOwnerConversion

        return PageOwnerConversion(source, options, advance)


IMPORTER = PageOwnerImporter()
