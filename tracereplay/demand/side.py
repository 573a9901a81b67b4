"""What one bio event does: ends bursts, counts parts, makes and frees the requests of a path (compiled)."""

# mypy: disable-error-code="no-untyped-def, no-untyped-call"

from __future__ import annotations

from tracereplay.compiled import hot, kernel
from tracereplay.demand import state as s
from tracereplay.demand.bursts import K_ACTION, K_COMPLETION, charge
from tracereplay.demand.events import end_all
from tracereplay.demand.ring import put, put_piece, put_request
from tracereplay.demand.stream import FREE, FROM_BIO, OF_BIO, ON_PATH
from tracereplay.kernel.constants import MAX_PAGE_ORDER


@kernel
def on_side(w, e, ti):
    """A bio event."""
    t = e.ts_ns
    what = e.what
    if what == s.ACTION:
        charge(w.tasks, w.cpus, ti, e.cpu, t, K_ACTION, False, w.scalar[s.S_SLACK])
        end_all(w, ti, s.C_CUT_ACTION)
    elif what == s.COMPLETION:
        charge(w.tasks, w.cpus, ti, e.cpu, t, K_COMPLETION, False, w.scalar[s.S_SLACK])
    elif what == s.PARTS:
        n = e.a if e.a < s.SIZES else s.SIZES - 1
        w.parts[0, n] += e.b
        w.scalar[s.S_PART_SIZES] += 1
    elif what == s.PART_DONE:
        n = e.a if e.a < s.SIZES else s.SIZES - 1
        w.parts_done[0, n] += 1
        w.parts_done[1, n] = t
    elif what == s.PATH_ALLOC:
        flags = FROM_BIO | OF_BIO | ON_PATH
        seq = put_request(w, t, e.b, 0, flags, e.cpu, w.scalar[s.S_PATH_GFP], e.c, w.tasks[ti].group, e.a, -1, 0)
        path_extents(w, seq, e.a, e.b)
        w.counts[s.C_BIO_LIVE] += 1
    elif what == s.PATH_PIECE:
        put_piece(w, t, e.a, e.b, e.cpu)
    elif what == s.PATH_FREE:
        left = e.a
        key = e.b
        while left > 0:
            k = floor_order(left)
            put(w, t, key, k, FREE, 0, e.cpu)
            key += 1 << k
            left -= 1 << k
        w.counts[s.C_BIO_LIVE] -= 1


@hot
def floor_order(pages):
    """Largest order that fits."""
    k = 0
    while k < MAX_PAGE_ORDER and (2 << k) <= pages:
        k += 1
    return k


@hot
def path_extents(w, seq, pages, key):
    """Extents of a request made from a bio: the binary digits of its pages, high to low."""
    k = floor_order(pages)
    first = seq & (s.RING - 1)
    w.ring[first].order = k
    if pages >= 2:
        w.ring[first].flags |= 4
    n = 1
    last = seq
    key += 1 << k
    pages -= 1 << k
    while pages > 0:
        k = floor_order(pages)
        extent = put(w, 0, key, k, s.EXTENT, 0, 0)
        w.links[extent & (s.RING - 1)].next = 0
        w.links[last & (s.RING - 1)].next = extent - last
        last = extent
        key += 1 << k
        pages -= 1 << k
        n += 1
    w.links[first].extents = n
