"""What the longest sections under a pcp lock, and under the zone lock inside it, consisted of.

Gauges, not counters: the longest one of its kind since the start, whoever caused it (replay/sections.py reads them).
"""

# mypy: disable-error-code="no-untyped-def, no-untyped-call"

from __future__ import annotations

from tracereplay.compiled import inner


@inner
def note_section(m, kind, refills, blocks, splits, fallbacks, moves, unlinked, prepared, zeroed):
    """Keep a section's parts (SECTION_PARTS of layout.py) when it is the longest of its kind so far."""
    work = refills + blocks + splits + fallbacks + moves + unlinked + prepared + zeroed
    if work > m.w[kind]:
        m.w[kind] = work
        m.w[kind + 1] = refills
        m.w[kind + 2] = blocks
        m.w[kind + 3] = splits
        m.w[kind + 4] = fallbacks
        m.w[kind + 5] = moves
        m.w[kind + 6] = unlinked
        m.w[kind + 7] = prepared
        m.w[kind + 8] = zeroed
