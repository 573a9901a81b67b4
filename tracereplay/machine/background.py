"""What the kernel does beside the requests, as simulated time goes by.

The replay loop calls ``run_background`` once ``w[CFG_TIMER]`` is reached: one comparison an event is all that it costs.
Whoever has background work sets ``CFG_TIMER`` no later than that.
"""

# mypy: disable-error-code="no-untyped-def, no-untyped-call"

from __future__ import annotations

from tracereplay.compiled import entry
from tracereplay.machine.kswapd import KSWAPD_PERIOD_NS
from tracereplay.machine.layout import (
    CFG_NOW,
    CFG_TIMER,
    CFG_TIMER_DUE,
    KS_RUNNING,
    KS_SINCE,
    KS_WORDS,
    MAX_NODES,
    Machine,
)
from tracereplay.machine.reclaim import run_kswapd


@entry(Machine)
def run_background(m):
    """Do what is due at ``w[CFG_NOW]`` and set ``w[CFG_TIMER]`` anew. Charged to ``m.c``: give it the background."""
    due = m.w[CFG_TIMER_DUE]
    for node in range(MAX_NODES):
        k = node * KS_WORDS
        if m.w[k + KS_RUNNING] and m.w[CFG_NOW] >= m.w[k + KS_SINCE] + KSWAPD_PERIOD_NS:
            run_kswapd(m, node)
        if m.w[k + KS_RUNNING]:
            due = min(due, m.w[k + KS_SINCE] + KSWAPD_PERIOD_NS)
    m.w[CFG_TIMER] = due
