"""Needs and options that analyses of page events share. Imports nothing heavy."""

from __future__ import annotations

from tracereplay.analysis.amounts import AUTO
from tracereplay.analysis.analysis import PAGE_FILTERS, PAGES, Need, Option

ANY_PAGES = Need("page_events", ("alloc", "alloc_failed", "free", "zone_locked", "drain", "bulk"), PAGES.option)
ZONE_LOCKED = Need("page_events", ("zone_locked",), "capture --events page,buddy")
DRAINS = Need("page_events", ("drain",), "capture --events page,buddy")
FALLBACKS = Need("page_events", ("extfrag",), "capture --events page,buddy")
BULK = Need("page_events", ("bulk",), "capture --events page,bulk")
FAILURES = Need("page_events", ("alloc", "alloc_failed"), PAGES.option)
BIN = Option("bin", AUTO, "width of a time bin, such as 100ms; auto: about 200 bins")
__all__ = [
    "ANY_PAGES", "AUTO", "BIN", "BULK", "DRAINS", "FAILURES", "FALLBACKS", "PAGES", "PAGE_FILTERS", "ZONE_LOCKED",
]  # fmt: skip
