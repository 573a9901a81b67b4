"""Names and codes shared by the compiled ftrace parser and its Python side. Imports no Numba."""

from __future__ import annotations

from typing import NamedTuple

from tracereplay.trace.schema import BIO_KINDS, MM_KINDS, PAGE_KINDS

FTRACE_GRAMMAR, PERF_GRAMMAR = range(2)


class TextForm(NamedTuple):
    """A text that the compiled parser reads."""

    format: str
    grammar: int
    line: str
    """What its lines are, for messages."""
    hint: str
    """What to pass when no line is one."""
    record: str
    """How to record events that have a table."""


FTRACE = TextForm(
    "ftrace",
    FTRACE_GRAMMAR,
    "an ftrace event",
    "pass the text of tracefs trace, trace_pipe or trace-cmd report",
    "trace-cmd record -e kmem -e block",
)
BPFTRACE = TextForm(
    "bpftrace",
    FTRACE_GRAMMAR,
    "an event as tracereplay.bt prints it",
    "record with docs/examples/bpftrace/tracereplay.bt; what other programs print means nothing here",
    "bpftrace -f json docs/examples/bpftrace/tracereplay.bt",
)
PERF_SCRIPT = TextForm(
    "perf.script",
    PERF_GRAMMAR,
    "a sample of perf script",
    "pass what perf script --ns prints, with the fields comm, tid, cpu, time, event and trace",
    "perf record -a -k mono -e 'kmem:mm_page_*' -e 'block:*'",
)

MAX_COMM = 64
"""Longest task name looked for, in bytes. The kernel's TASK_COMM_LEN is 16."""
MAX_EVENT = 64
MAX_RWBS = 16
MAX_DEPTH = 1024
"""Frames of one stack that are kept."""
MAX_CPU = 0xFFFF
MAX_TGID = MAX_PID = 0xFFFFFFFF
MAX_SMALL = 254
"""Orders and migratetypes; 255 stands for null."""
MAX_SECONDS = 9_223_372_035
"""Whole seconds whose nanoseconds fit an int64."""
NULL_SMALL = 255
NULL_ERROR = 2**31
MAX_ERROR = 2**31 - 1

# What to do with an event, by the number of its name.
OTHER = 0
PAGE = 1  # + code in PAGE_KINDS
BIO = 16  # + code in BIO_KINDS
MM = 32  # + code in MM_KINDS
KERNEL_STACK = 48
USER_STACK = 49

PAGE_EVENT_KINDS = {
    "mm_page_alloc": "alloc",
    "mm_page_free": "free",
    "mm_page_free_batched": "free_batched",
    "mm_page_alloc_zone_locked": "zone_locked",
    "mm_page_pcpu_drain": "drain",
    "mm_page_alloc_extfrag": "extfrag",
}
BIO_EVENT_KINDS = {
    "block_bio_queue": "queue",
    "block_split": "split",
    "block_bio_remap": "remap",
    "block_bio_backmerge": "backmerge",
    "block_bio_frontmerge": "frontmerge",
    "block_rq_insert": "insert",
    "block_rq_issue": "issue",
    "block_rq_requeue": "requeue",
    "block_rq_complete": "complete",
    "block_bio_complete": "bio_complete",
    "block_rq_error": "error",
}
COMPACTION_EVENT_KINDS = {
    "mm_compaction_begin": "compaction_begin",
    "mm_compaction_end": "compaction_end",
}
RECLAIM_EVENT_KINDS = {
    "mm_vmscan_direct_reclaim_begin": "reclaim_begin",
    "mm_vmscan_direct_reclaim_end": "reclaim_end",
    "mm_vmscan_memcg_reclaim_begin": "reclaim_begin",
    "mm_vmscan_memcg_reclaim_end": "reclaim_end",
}
SYSTEMS = {
    "kmem": PAGE_EVENT_KINDS,
    "block": BIO_EVENT_KINDS,
    "compaction": COMPACTION_EVENT_KINDS,
    "vmscan": RECLAIM_EVENT_KINDS,
}


def known_events() -> dict[str, int]:
    """Name of every event that is understood, with and without its system -> what to do with it."""
    actions: dict[str, int] = {"kernel_stack": KERNEL_STACK, "user_stack": USER_STACK}
    for base, kinds, systems in (
        (PAGE, PAGE_KINDS, ("kmem",)),
        (BIO, BIO_KINDS, ("block",)),
        (MM, MM_KINDS, ("compaction", "vmscan")),
    ):
        for system in systems:
            for event, kind in SYSTEMS[system].items():
                actions[event] = actions[f"{system}:{event}"] = base + kinds.index(kind)
    return actions


def full_name(event: str) -> str:
    """``system:event`` of an event that is understood, others unchanged."""
    for system, events in SYSTEMS.items():
        if event in events:
            return f"{system}:{event}"
    return event


# Why a line was refused.
NO_HEADER = 0
NO_EVENT = 1
NUMBER = 2
PAGE_FIELDS = 3
BLOCK_FIELDS = 4
TIME_FORM = 5
LOOSE_STACK = 6
TOO_LONG = 7
CUT = 8
LATE = 9
REASONS = (
    "no task, CPU and time at its start",
    "no event name after the time",
    "a number is out of range",
    "a field of the page event is missing or no number",
    "not the arguments of this block event",
    "its time stamp has another form than those before",
    "a stack line without a stack before it",
    "the line is too long",
    "the file ends within this line",
    "its time is too far before the lines already read",
)
