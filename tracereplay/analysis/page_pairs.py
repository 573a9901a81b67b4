"""Blocks by which of their ends a trace shows."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import polars as pl

from tracereplay.analysis.lifetime_groups import Classes, all_rows, lives_of
from tracereplay.demand.state import CENSORING

if TYPE_CHECKING:
    from tracereplay.analysis.view import View

ENDS = {
    "alloc+free": ("complete",),
    "alloc only": ("right_censored", "broken"),
    "free only": ("left_censored", "unseen"),
}
"""Classes of lifetimes (tracereplay.demand.lifetime) by the ends that were seen."""


def paired(view: View) -> tuple[pl.DataFrame, dict[str, int]]:
    """``kind events pages`` for each of ENDS, and blocks by class. Raises TraceError."""
    classes = Classes()
    for rows in all_rows(lives_of(view, None)):
        classes.add(np.zeros(len(rows.how), np.int64), rows)
    blocks, pages = (dict(zip(CENSORING, found[0].tolist(), strict=True)) for found in classes.merged(np.arange(1), 1))
    sums = [(kind, sum(blocks[c] for c in found), sum(pages[c] for c in found)) for kind, found in ENDS.items()]
    frame = pl.DataFrame(sums, schema={"kind": pl.String, "events": pl.Int64, "pages": pl.Int64}, orient="row")
    return frame, classes.account
