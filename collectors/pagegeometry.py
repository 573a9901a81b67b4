# SPDX-License-Identifier: GPL-2.0-only
"""From a struct page pointer to its frame number: found by watching, not taken from a table.

A raw tap sees pointers where the tracepoint's record has frame numbers. Both are watched for some allocations
of this process; where frames lie in one array (``vmemmap``, ``mem_map``), pointer = base + (pfn << shift).
The other arguments are compared at the same time. Anything that does not fit, and the raw tap is not used.
"""

from __future__ import annotations

import ctypes
import mmap
import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from string import Template
from typing import Any

from collectors.errors import CollectorError
from collectors.programs import args_struct
from collectors.tracepoints import Format

EVENT = "kmem:mm_page_alloc"
PAIRS = 256
WANTED = 32
"""Fewer agreeing pairs than this prove nothing."""
AGREEMENT = 0.9
"""An interrupt between the two programs mixes up a pair now and then."""

_SOURCE = """\
struct seen { u64 page; u64 order; u64 gfp; u64 migratetype; u64 valid; };
struct pair { u64 page; u64 pfn; u64 same; };
BPF_PERCPU_ARRAY(last, struct seen, 1);
BPF_ARRAY(pairs, struct pair, ${pairs});
BPF_ARRAY(count, u32, 1);
${args}
int tr_watch_raw(struct bpf_raw_tracepoint_args *ctx) {
    int zero = 0;
    if (bpf_get_current_pid_tgid() >> 32 != ${pid})
        return 0;
    struct seen *s = last.lookup(&zero);
    if (!s)
        return 0;
    s->page = ctx->args[0];
    s->order = ctx->args[1];
    s->gfp = ctx->args[2];
    s->migratetype = ctx->args[3];
    s->valid = 1;
    return 0;
}
int tr_watch(struct tr_watch_args *args) {
    int zero = 0;
    if (bpf_get_current_pid_tgid() >> 32 != ${pid})
        return 0;
    struct seen *s = last.lookup(&zero);
    u32 *n = count.lookup(&zero);
    if (!s || !n || !s->valid || *n >= ${pairs})
        return 0;
    s->valid = 0;
    u32 at = *n;
    struct pair *p = pairs.lookup(&at);
    if (!p)
        return 0;
    p->page = s->page;
    p->pfn = args->pfn;
    p->same = (u32)s->order == (u32)args->order && (u32)s->gfp == (u32)args->gfp_flags
        && (u32)s->migratetype == (u32)args->migratetype;
    *n = at + 1;
    return 0;
}
"""


@dataclass(frozen=True)
class PageGeometry:
    """``pointer = base + (pfn << shift)``."""

    base: int
    shift: int


def solve(pairs: Sequence[tuple[int, int]]) -> PageGeometry | None:
    """The line through (pointer, pfn) pairs, None when too few lie on one."""
    distinct = sorted(set(pairs), key=lambda pair: pair[1])
    steps: Counter[int] = Counter()
    for index in range(1, len(distinct)):
        (page_a, pfn_a), (page_b, pfn_b) = distinct[index - 1 : index + 1]
        if pfn_b > pfn_a and page_b > page_a and (page_b - page_a) % (pfn_b - pfn_a) == 0:
            steps[(page_b - page_a) // (pfn_b - pfn_a)] += 1
    if not steps:
        return None
    size = steps.most_common(1)[0][0]
    if size & (size - 1):
        return None
    shift = size.bit_length() - 1
    base, agreeing = Counter(page - (pfn << shift) for page, pfn in distinct).most_common(1)[0]
    if agreeing < WANTED or agreeing < AGREEMENT * len(distinct):
        return None
    return PageGeometry(base, shift)


def find_page_geometry(fmt: Format) -> tuple[PageGeometry | None, str]:
    """The geometry, or None and the reason why the raw tap is not to be used."""
    if "vmemmap" not in fmt.text and "mem_map" not in fmt.text:
        return None, "frames of this kernel do not lie in one array"
    from collectors.kernel import compile_programs, import_bcc

    bcc = import_bcc()
    lib = __import__("bcc.libbcc", fromlist=["lib"]).lib
    text = Template(_SOURCE).substitute(pairs=PAIRS, pid=os.getpid(), args=args_struct("tr_watch", fmt))
    try:
        loaded = compile_programs(text)
        raw = loaded.load_func(b"tr_watch_raw", bcc.BPF.RAW_TRACEPOINT)
        # Taps run in the order in which they are attached: the raw one has to come first.
        fd = lib.bpf_attach_raw_tracepoint(raw.fd, b"mm_page_alloc")
        if fd < 0:
            return None, "raw tracepoints cannot be attached"
        try:
            loaded.load_func(b"tr_watch", bcc.BPF.TRACEPOINT)
            loaded.attach_tracepoint(tp=EVENT.encode(), fn_name=b"tr_watch")
            _touch(PAIRS)
            loaded.detach_tracepoint(EVENT.encode())
        finally:
            os.close(fd)
        pairs = _pairs(loaded)
        loaded.cleanup()
    except CollectorError as error:
        return None, error.message
    except Exception as error:  # bcc raises bare Exception
        return None, str(error)
    geometry = solve(pairs)
    if geometry is None:
        return None, f"page pointers and frames do not fit ({len(pairs)} pairs seen)"
    return geometry, ""


def _pairs(loaded: Any) -> list[tuple[int, int]]:
    count = int(loaded[b"count"][ctypes.c_int(0)].value)
    table = loaded[b"pairs"]
    rows = [table[ctypes.c_int(i)] for i in range(min(count, PAIRS))]
    agreeing = [(int(r.page), int(r.pfn)) for r in rows if r.same and r.page]
    return agreeing if len(agreeing) >= AGREEMENT * len(rows) else []


def _touch(pages: int) -> None:
    """Fault pages in, so that there is something to watch."""
    size = pages * mmap.PAGESIZE
    area = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    for at in range(0, size, mmap.PAGESIZE):
        area[at] = 1
    area.close()
