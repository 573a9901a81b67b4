"""Bios and the page allocations made on their behalf: what dm-crypt allocates for a write, and how long that takes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tracereplay.analysis.analysis import BIO_FILTERS, PAGES, Analysis, Answer, Need, Option
from tracereplay.analysis.together import Together

if TYPE_CHECKING:
    from tracereplay.analysis.view import View


def bio_pages(view: View, *, by: str) -> Answer:
    """See bio_pages_table.bio_pages_table."""
    from tracereplay.analysis.bio_pages_table import bio_pages_table

    return bio_pages_table(view, by)


_TIMES = ("wait_ns", "alloc_ns", "after_ns", "q2d_ns")
BIO_PAGES = Analysis(
    "bio-pages",
    "page allocations made for dm-crypt's writes, bio by bio, and their share of Q2D",
    "bios",
    bio_pages,
    (Need("bio_events", ("queue",), "capture --events page,bio"), PAGES),
    BIO_FILTERS,
    (Option("by", "size", "what a row is: bios of one size, a bio, or a part of it that got a buffer of its own",
            ("size", "bio", "part")),),
    together=Together(
        ("bytes",), ("bios",), means=dict.fromkeys(("parts", "allocations", "pages", *_TIMES), "bios")
    ),
)  # fmt: skip
ANALYSES = (BIO_PAGES,)
