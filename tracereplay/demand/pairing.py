"""Which allocation a free belongs to: the one set of rules, for demand and for lifetimes (compiled).

Frees may cover part of a block, several blocks, or frames whose allocation nobody saw. What happens to a block that
ends, and to frames that are freed without one, differs between the two passes; so :func:`pairing` makes the rules
around the functions that do it.
"""

# mypy: disable-error-code="no-untyped-def, no-untyped-call"

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tracereplay.compiled import hot, inner
from tracereplay.demand.frames import carve, known_since
from tracereplay.demand.state import (
    BROKEN,
    C_COVERING_FREES,
    C_INCONSISTENT,
    C_LEFT_CENSORED,
    C_LEFT_CENSORED_PAGES,
    C_LOST_FREES,
    C_LOST_PAGES,
    C_MATCHED,
    C_MATCHED_PAGES,
    C_PARTIAL_FREES,
    C_REUSED,
    C_REUSED_LOST,
    C_REUSED_PAGES,
    C_UNSEEN_FREES,
    C_UNSEEN_PAGES,
    COMPLETE,
    HEAD,
    KNOWN,
    LEFT_CENSORED,
    NEVER,
    S_LOSS_END,
    S_LOSS_I,
    STATE_MASK,
    TAIL,
    UNSEEN_LIFE,
)
from tracereplay.kernel.constants import MAX_PAGE_ORDER


@hot
def pass_losses(w, t):
    """Note the losses that began before ``t``."""
    k = w.scalar[S_LOSS_I]
    while k < w.loss0.shape[0] and w.loss0[k] < t:
        if w.loss1[k] > w.scalar[S_LOSS_END]:
            w.scalar[S_LOSS_END] = w.loss1[k]
        cpu = w.loss_cpu[k]
        if cpu >= 0 and cpu < w.lost_until.shape[0] and w.loss1[k] > w.lost_until[cpu]:
            w.lost_until[cpu] = w.loss1[k]
        k += 1
    w.scalar[S_LOSS_I] = k


@hot
def lost_since(w, t):
    """Whether events were lost between ``t`` and now."""
    return w.scalar[S_LOSS_I] > 0 and w.scalar[S_LOSS_END] > t


def pairing(free_block: Callable[..., Any], unpaired: Callable[..., Any]) -> tuple[Any, Any]:
    """``reuse(w, pfn, order, t, cpu)`` and ``free_range(w, t, cpu, ti, pfn, order)``, compiled.

    ``free_block(w, pfn, t, cpu, ended)`` ends the live block at ``pfn``; ``unpaired(w, t, cpu, ti, pfn, order,
    how)`` gets a run of frames that are freed without a block: LEFT_CENSORED, UNSEEN_LIFE or BROKEN.
    """

    @inner
    def reuse(w, pfn, order, t, cpu):
        """Close whatever is live in a range that is being allocated again: its free was not seen."""
        oldest = -1
        p = pfn
        end = pfn + (1 << order)
        while p < end:
            st = w.frames[p].state & STATE_MASK
            if st == TAIL:
                if not carve(w, p, 0 if p != pfn else order) and not carve(w, p, 0):
                    p += 1
                    continue
            elif st != HEAD:
                p += 1
                continue
            elif p + (1 << w.frames[p].order) > end:
                carve(w, p, order if p == pfn else 0)
            f = w.frames[p]
            if oldest < 0 or f.ts < oldest:
                oldest = f.ts
            pages = 1 << f.order
            w.counts[C_REUSED_PAGES] += pages
            free_block(w, p, t, cpu, BROKEN)
            p += pages
        if oldest >= 0:
            w.counts[C_REUSED_LOST if lost_since(w, oldest) else C_REUSED] += 1

    @inner
    def free_range(w, t, cpu, ti, pfn, order):
        """A free that is not exactly one live block; whether all of it was live."""
        end = pfn + (1 << order)
        matched = 0
        never = 0
        unseen = 0
        lost = 0
        partial = False
        blocks = 0
        p = pfn
        while p < end:
            f = w.frames[p]
            st = f.state & STATE_MASK
            if st in (HEAD, TAIL):
                fit = order if p == pfn else 0
                if st == TAIL or p + (1 << f.order) > end:
                    partial = True
                    if not carve(w, p, fit) and (fit == 0 or not carve(w, p, 0)):
                        w.counts[C_INCONSISTENT] += 1  # a page whose block is not found: a bug
                        p += 1
                        continue
                pages = 1 << w.frames[p].order
                free_block(w, p, t, cpu, COMPLETE)
                matched += pages
                blocks += 1
                p += pages
                continue
            # a run of frames in the same condition, cut into aligned blocks
            q = p + 1
            since = known_since(f)
            while q < end:
                g = w.frames[q]
                if g.state & STATE_MASK != st or (st == KNOWN and (g.cpu != f.cpu or known_since(g) != since)):
                    break
                q += 1
            how = LEFT_CENSORED
            if st != NEVER:
                how = BROKEN if lost_since(w, since) else UNSEEN_LIFE
            while p < q:
                k = 0
                while k < MAX_PAGE_ORDER and not p & ((2 << k) - 1) and p + (2 << k) <= q:
                    k += 1
                pages = 1 << k
                if how == LEFT_CENSORED:
                    never += pages
                elif how == BROKEN:
                    lost += pages
                else:
                    unseen += pages
                unpaired(w, t, cpu, ti, p, k, how)
                p += pages
        w.counts[C_MATCHED_PAGES] += matched
        w.counts[C_LEFT_CENSORED_PAGES] += never
        w.counts[C_UNSEEN_PAGES] += unseen
        w.counts[C_LOST_PAGES] += lost
        if partial:
            w.counts[C_PARTIAL_FREES] += 1
        if blocks > 1:
            w.counts[C_COVERING_FREES] += 1
        if lost:
            w.counts[C_LOST_FREES] += 1
        elif unseen:
            w.counts[C_UNSEEN_FREES] += 1
        elif never:
            w.counts[C_LEFT_CENSORED] += 1
        else:
            w.counts[C_MATCHED] += 1
        return lost + unseen + never == 0

    return reuse, free_range
