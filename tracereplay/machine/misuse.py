"""What a strategy did wrong, kept until the engine looks: compiled code cannot raise."""

# mypy: disable-error-code="no-untyped-def, no-untyped-call"

from __future__ import annotations

from tracereplay.compiled import hot, inner
from tracereplay.kernel.constants import MAX_PAGE_ORDER
from tracereplay.machine.layout import (
    CFG_CPUS,
    CFG_ERROR,
    CFG_ERROR_FRAME,
    CFG_FRAMES,
    ERROR_NO_SUCH,
    ERROR_NONE,
    ERROR_OUTSIDE,
    STRATEGY_LISTS,
)


@inner
def report_error(m, code, pfn):
    """Keep the first misuse of the machine; the engine turns it into a named error."""
    if m.w[CFG_ERROR] == ERROR_NONE:
        m.w[CFG_ERROR] = code
        m.w[CFG_ERROR_FRAME] = pfn


@hot
def has_order(m, order):
    """Whether blocks have an order; else misuse is reported."""
    if order < 0 or order > MAX_PAGE_ORDER:
        report_error(m, ERROR_NO_SUCH, order)
        return False
    return True


@hot
def has_block(m, pfn, order):
    """Whether the machine has a block of an order at a frame; else misuse is reported."""
    return has_order(m, order) and has_pages(m, pfn, 1 << order)


@hot
def has_pages(m, pfn, pages):
    """Whether the machine has so many pages at a frame; else misuse is reported."""
    if pfn < 0 or pfn + pages > m.w[CFG_FRAMES]:
        report_error(m, ERROR_OUTSIDE, pfn)
        return False
    return True


@hot
def has_cpu(m, cpu):
    """Whether the machine has a CPU; else misuse is reported."""
    if cpu < 0 or cpu >= m.w[CFG_CPUS]:
        report_error(m, ERROR_NO_SUCH, cpu)
        return False
    return True


@hot
def has_list(m, lst):
    """Whether a strategy may use a list; else misuse is reported."""
    if lst < 0 or lst >= STRATEGY_LISTS:
        report_error(m, ERROR_NO_SUCH, lst)
        return False
    return True
