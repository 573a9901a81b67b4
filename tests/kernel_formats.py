"""tracefs ``format`` texts of several kernels, for generating programs without those kernels.

Fields as include/trace/events/{kmem,block,task}.h of each release declare them; offsets follow from C
alignment.
"""

from __future__ import annotations

KERNELS = ("5.10", "6.1", "6.12", "6.18")

_COMMON = """\
\tfield:unsigned short common_type;\toffset:0;\tsize:2;\tsigned:0;
\tfield:unsigned char common_flags;\toffset:2;\tsize:1;\tsigned:0;
\tfield:unsigned char common_preempt_count;\toffset:3;\tsize:1;\tsigned:0;
\tfield:int common_pid;\toffset:4;\tsize:4;\tsigned:1;
"""
_SIZES = {
    "unsigned long": 8,
    "sector_t": 8,
    "int": 4,
    "unsigned int": 4,
    "dev_t": 4,
    "gfp_t": 4,
    "pid_t": 4,
    "__data_loc char[]": 4,
    "unsigned short": 2,
    "short": 2,
    "bool": 1,
}


def format_text(name: str, *fields: str) -> str:
    """The file's text for fields such as ``int order`` or ``char rwbs[8]``."""
    lines = []
    at = 8
    for text in fields:
        if "[" in text and not text.startswith("__data_loc"):
            size, align, signed = int(text[text.index("[") + 1 : -1]), 1, 0
        else:
            kind = text.rsplit(" ", 1)[0]
            size = align = _SIZES[kind]
            signed = int(kind in ("int", "pid_t", "short"))
        at = (at + align - 1) // align * align
        lines.append(f"\tfield:{text};\toffset:{at};\tsize:{size};\tsigned:{signed};")
        at += size
    return f"name: {name}\nID: 1\nformat:\n{_COMMON}\n" + "\n".join(lines) + '\n\nprint fmt: "x"\n'


def formats(kernel: str) -> dict[str, str]:
    """event -> format text of one of KERNELS."""
    number = tuple(int(p) for p in kernel.split("."))
    gfp = "unsigned long gfp_flags" if number >= (6, 0) else "gfp_t gfp_flags"
    refill = ["int percpu_refill"] if number >= (6, 0) else []
    rwbs = "char rwbs[10]" if number >= (6, 18) else "char rwbs[8]"
    prio = ["unsigned short ioprio"] if number >= (6, 5) else []
    place = ["dev_t dev", "sector_t sector"]
    sized = [*place, "unsigned int nr_sector"]
    comm, cmd = "char comm[16]", "__data_loc char[] cmd"
    page = ["unsigned long pfn", "unsigned int order"]
    mask = gfp.replace("gfp_flags", "gfp_mask")
    zone = [f"unsigned long {name}" for name in ("zone_start", "migrate_pfn", "free_pfn", "zone_end")]
    fields = {
        "kmem:mm_page_alloc": [*page, gfp, "int migratetype"],
        "kmem:mm_page_free": page,
        "kmem:mm_page_alloc_zone_locked": [*page, "int migratetype", *refill],
        "kmem:mm_page_pcpu_drain": [*page, "int migratetype"],
        "kmem:mm_page_alloc_extfrag": [
            "unsigned long pfn",
            "int alloc_order",
            "int fallback_order",
            "int alloc_migratetype",
            "int fallback_migratetype",
            "int change_ownership",
        ],
        "kmem:mm_page_free_batched": ["unsigned long pfn"],
        "compaction:mm_compaction_try_to_compact_pages": ["int order", mask, "int prio"],
        "compaction:mm_compaction_begin": [*zone, "bool sync"],
        "compaction:mm_compaction_end": [*zone, "bool sync", "int status"],
        "vmscan:mm_vmscan_direct_reclaim_begin": ["int order", gfp],
        "vmscan:mm_vmscan_direct_reclaim_end": ["unsigned long nr_reclaimed"],
        "vmscan:mm_vmscan_wakeup_kswapd": ["int nid", "int zid", "int order", gfp],
        "vmscan:mm_vmscan_kswapd_wake": ["int nid", "int zid", "int order"],
        "vmscan:mm_vmscan_kswapd_sleep": ["int nid"],
        "block:block_bio_queue": [*sized, rwbs, comm],
        "block:block_bio_backmerge": [*sized, rwbs, comm],
        "block:block_bio_frontmerge": [*sized, rwbs, comm],
        "block:block_rq_insert": [*sized, "unsigned int bytes", *prio, rwbs, comm, cmd],
        "block:block_rq_requeue": [*sized, *prio, rwbs, cmd],
        "block:block_rq_error": [*sized, "int error", *prio, rwbs, cmd],
        "block:block_bio_remap": [*sized, "dev_t old_dev", "sector_t old_sector", rwbs],
        "block:block_split": [*place, "sector_t new_sector", rwbs, comm],
        "block:block_bio_complete": [*sized, "int error", rwbs],
        "block:block_rq_issue": [*sized, "unsigned int bytes", *prio, rwbs, comm, cmd],
        "block:block_rq_complete": [*sized, "int error", *prio, rwbs, cmd],
        "task:task_rename": ["pid_t pid", "char oldcomm[16]", "char newcomm[16]", "short oom_score_adj"],
    }
    return {event: format_text(event.split(":")[1], *listed) for event, listed in fields.items()}
