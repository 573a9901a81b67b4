"""Which zones a request may use, in which order (page-allocator.md 1.1, 1.2).

Mimics ``gfp_zone``, ``gfp_migratetype`` and the zonelists of a node. Nodes come in a ring from the CPU's own on: their
distances are not recorded.
"""

# mypy: disable-error-code="no-untyped-def, no-untyped-call"

from __future__ import annotations

from tracereplay.compiled import hot, inner
from tracereplay.kernel.constants import MIGRATE_PCPTYPES
from tracereplay.kernel.gfp import GFP_THISNODE
from tracereplay.machine.buddy import zone_of
from tracereplay.machine.layout import (
    CN,
    NR_ZONE_TYPES,
    Z_NODE,
    Z_WORDS,
    ZL,
    ZL_WORDS,
    ZONE_DMA,
    ZONE_DMA32,
    ZONE_MOVABLE,
    ZONE_NORMAL,
)


@hot
def migratetype(gfp):
    """Migratetype that a gfp mask asks for (``gfp_migratetype``)."""
    mt = (gfp >> 3) & 3
    return mt if mt < MIGRATE_PCPTYPES else 0


@hot
def highest_zone(gfp):
    """Highest zone type that a gfp mask allows (``gfp_zone``)."""
    low = gfp & 0xF
    if low & 0x1:
        return ZONE_DMA
    if low & 0x4:
        return ZONE_DMA32
    if low & 0xA == 0xA:
        return ZONE_MOVABLE
    return ZONE_NORMAL


@hot
def zonelist(m, cpu, gfp):
    """Place in ``w`` of the zonelist of a CPU's node for a request."""
    return ZL + (m.w[CN + cpu] * NR_ZONE_TYPES + highest_zone(gfp)) * ZL_WORDS


@inner
def zone_at(m, row, k, gfp):
    """The k-th zone of a zonelist; -1 behind its end, which ``__GFP_THISNODE`` sets to that of the node."""
    z = m.w[row + k]
    if z >= 0 and gfp & GFP_THISNODE and m.w[z * Z_WORDS + Z_NODE] != m.w[m.w[row] * Z_WORDS + Z_NODE]:
        return -1
    return z


@inner
def node_of(m, pfn):
    """Node of a frame's memory; 0 outside every zone."""
    z = zone_of(m, pfn)
    return m.w[z * Z_WORDS + Z_NODE] if z >= 0 else 0
