"""Keeps the first disagreements between twin and kernel, with the numbers behind each, for ``--explain``."""

# mypy: disable-error-code="no-untyped-def, no-untyped-call"

from __future__ import annotations

from tracereplay.compiled import inner
from tracereplay.verify import layout as at


@inner
def disagree(v, what, cpu, pfn, a, b, c, d):
    """Keep a disagreement of kind ``what`` (:data:`~tracereplay.verify.layout.DISAGREEMENTS`) at the event at hand."""
    n = v[at.VC_LOGGED]
    v[at.VC_LOGGED] = n + 1
    if n < v[at.VC_ROOM]:
        row = v.shape[0] - (v[at.VC_ROOM] - n) * at.LOG_WORDS
        v[row] = v[at.VC_INDEX]
        v[row + 1] = what
        v[row + 2] = cpu
        v[row + 3] = pfn
        v[row + 4] = a
        v[row + 5] = b
        v[row + 6] = c
        v[row + 7] = d
