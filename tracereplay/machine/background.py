"""What the kernel does beside the requests, as simulated time goes by.

The replay loop calls ``run_background`` once ``w[CFG_TIMER]`` is reached: one comparison an event is all that it costs.
Whoever has background work sets ``CFG_TIMER`` no later than that.
"""

# mypy: disable-error-code="no-untyped-def, no-untyped-call"

from __future__ import annotations

from tracereplay.compiled import inner
from tracereplay.machine.layout import CFG_TIMER, NEVER


@inner
def run_background(m):
    """Do what is due at ``w[CFG_NOW]`` and set ``w[CFG_TIMER]`` anew. Charged to ``m.c``: give it the background."""
    m.w[CFG_TIMER] = NEVER
