"""Options and needs that bio analyses share. Imports nothing heavy."""

from __future__ import annotations

from dataclasses import replace

from tracereplay.analysis.amounts import AUTO
from tracereplay.analysis.analysis import BIO_FILTERS, Need, Option

AT = Option(
    "at", AUTO, "the stage at which an I/O counts; auto: the first recorded", (AUTO, "queue", "issue", "complete")
)
OP = Option("op", "data", "which operations; data: reads and writes", ("data", "read", "write", "all"))
OP_ALL = replace(OP, default="all")
BIN = Option("bin", AUTO, "width of a time bin, such as 100ms; auto: about 100 bins")
BIOS = Need("bio_events", ("queue", "issue", "complete", "bio_complete"), "capture --events bio")
FILTERS = BIO_FILTERS
