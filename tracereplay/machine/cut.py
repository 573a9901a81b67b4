"""A block that a strategy cuts into single pages and keeps by marks of its own, such as the bits of a field.

Pages that are kept are marked CACHED, so that nobody takes them for free or for the initial ones, and lie on no list.
What is not kept, or not in use, is refused and reported: a strategy's marks may be wrong.
"""

# mypy: disable-error-code="no-untyped-def, no-untyped-call"

from __future__ import annotations

from tracereplay.compiled import inner
from tracereplay.machine.buddy import get_info, set_info
from tracereplay.machine.layout import (
    CACHED,
    CFG_FRAMES,
    ERROR_NOT_HELD,
    ERROR_OUTSIDE,
    HELD,
    INFO_CPU_SHIFT,
    INFO_ORDER,
    INFO_STATE,
    USED,
)
from tracereplay.machine.misuse import report_error


@inner
def is_a(m, pfn, order, state):
    """Whether a block of an order starts at a frame and is in a state. Reported when not."""
    if pfn < 0 or pfn + (1 << order) > m.w[CFG_FRAMES]:
        report_error(m, ERROR_OUTSIDE, pfn)
        return False
    if get_info(m, pfn) & (INFO_STATE | INFO_ORDER) != state | order:
        report_error(m, ERROR_NOT_HELD, pfn)
        return False
    return True


@inner
def cut_block(m, pfn, order):
    """Cut a block in use into single pages, all of them kept."""
    if is_a(m, pfn, order, USED):
        for page in range(pfn, pfn + (1 << order)):
            set_info(m, page, CACHED)


@inner
def give_page(m, pfn, cpu):
    """A kept page is in use from now on, allocated on ``cpu``."""
    if is_a(m, pfn, 0, CACHED):
        set_info(m, pfn, USED | (cpu << INFO_CPU_SHIFT))


@inner
def keep_page(m, pfn):
    """A page in use is kept from now on."""
    if is_a(m, pfn, 0, USED):
        set_info(m, pfn, CACHED)


@inner
def join_block(m, pfn, order, cpu):
    """Make the pages of a block one again, all of which are kept; it is in use then and can be freed."""
    for page in range(pfn, pfn + (1 << order)):
        if not is_a(m, page, 0, CACHED):
            return
        set_info(m, page, HELD)
    set_info(m, pfn, USED | (cpu << INFO_CPU_SHIFT) | order)
