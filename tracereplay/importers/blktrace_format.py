"""Names and codes of blktrace, shared by its compiled parsers and their Python sides. Imports no Numba.

Records are those of include/uapi/linux/blktrace_api.h: ``struct blk_io_trace`` (version 7, 48 bytes) and ``struct
blk_io_trace2`` (version 8, 64 bytes, kernels that trace zone operations), each followed by ``pdu_len`` bytes.
"""

from __future__ import annotations

from tracereplay.kernel.rwbs import operation
from tracereplay.trace.schema import BIO_KINDS

MAGIC = 0x65617400
"""BLK_IO_TRACE_MAGIC; the version is in the low byte."""
VERSIONS = (7, 8)
MAX_CPU = 0xFFFF

# Categories (enum blktrace_cat), as bits of ``action >> 16``.
TC_WRITE, TC_FLUSH, TC_SYNC, TC_COMPLETE = 1 << 1, 1 << 2, 1 << 3, 1 << 7
TC_FS, TC_PC, TC_NOTIFY, TC_AHEAD = 1 << 8, 1 << 9, 1 << 10, 1 << 11
TC_META, TC_DISCARD, TC_FUA = 1 << 12, 1 << 13, 1 << 15
TC_ZONES = 16
"""First of six bits for zone operations, in the order of ZONE_OPERATIONS; then write zeroes."""
TC_WRITE_ZEROES = 1 << 22
TA_CGROUP = 1 << 8
"""In the low half of an action: the record's payload begins with the u64 id of a cgroup."""
TN_PROCESS, TN_TIMESTAMP, TN_MESSAGE = range(3)

# Actions (enum blktrace_act).
TA_COMPLETE, TA_UNPLUG_IO, TA_UNPLUG_TIMER, TA_SPLIT, TA_REMAP = 8, 10, 11, 13, 15
_KINDS = {
    1: "queue",
    2: "backmerge",
    3: "frontmerge",
    6: "requeue",
    7: "issue",
    8: "complete",
    12: "insert",
    13: "split",
    15: "remap",
}
OTHER_ACTIONS = {
    4: "G (getrq)",
    5: "S (sleeprq)",
    9: "P (plug)",
    10: "U (unplug)",
    11: "UT (unplug timer)",
    14: "B (bounce)",
    16: "abort",
    17: "driver data",
    18: "ZP (zone plug)",
    19: "ZU (zone unplug)",
    20: "ZM (zone management)",
}
ACTIONS = 32
"""Actions that are told apart; later ones are counted together."""
LETTERS = {"Q": 1, "M": 2, "F": 3, "G": 4, "S": 5, "R": 6, "D": 7, "C": 8, "P": 9, "U": 10, "UT": 11, "I": 12}
LETTERS |= {"X": 13, "B": 14, "A": 15, "ZP": 18, "ZU": 19, "ZM": 20}
"""How blkparse prints an action."""
NO_KIND = -1


def actions_by_letter() -> list[int]:
    """Number of the action by its letter (A to Z, then UT, ZP, ZU, ZM); NO_KIND: there is none."""
    names = [chr(ord("A") + i) for i in range(26)] + ["UT", "ZP", "ZU", "ZM"]
    return [LETTERS.get(name, NO_KIND) for name in names]


# Places in the counts of a parser: actions on bios, then on requests, then notes.
REQUEST = ACTIONS
"""Added to an action whose record is a request's."""
NOTES = 2 * ACTIONS
ZONE_APPENDED = NOTES + 3
NR_COUNTS = NOTES + 4

# Problems of records, as indices into REASONS.
NO_MAGIC, VERSION, CUT, CHAIN, TIME, RANGE, LINE_HEADER, LINE_FLAGS, LINE_FIELDS, LINE_NUMBER = range(10)
REASONS = (
    "no record begins here",
    "a record of an unknown version",
    "the record is cut short",
    "the record's length does not lead to another record",
    "the record's time is out of line with those around it",
    "the record's CPU or time is out of range",
    "no device, CPU, sequence, time, pid and action of blkparse's default format at its start",
    "its flags are none that blkparse writes",
    "its fields are not those of its action",
    "a number is out of range",
)


def kinds_by_action() -> list[int]:
    """Code in BIO_KINDS by action; NO_KIND: only counted."""
    return [BIO_KINDS.index(_KINDS[act]) if act in _KINDS else NO_KIND for act in range(ACTIONS)]


ZONE_OPERATIONS = ("ZA", "ZR", "ZRA", "ZF", "ZO", "ZC")
OPERATIONS = ("R", "W", "D", "N", *ZONE_OPERATIONS, "WZ")
"""Operations by code (fill_rwbs, kernel/trace/blktrace.c; zone operations as in the tracepoints' rwbs)."""
OP_READ, OP_WRITE, OP_DISCARD, OP_NONE, OP_ZONE = range(5)
OP_WRITE_ZEROES = OP_ZONE + len(ZONE_OPERATIONS)
FLAGS = "FFASM"
"""Preflush (before the operation), FUA, readahead, sync, meta: bits 0 to 4 of a code of flags."""
NR_FLAGS = len(OPERATIONS) << 5


def flags_text(code: int) -> str:
    """``rwbs`` of a code: ``operation << 5 | flags``."""
    after = "".join(letter for bit, letter in enumerate(FLAGS) if bit and code >> bit & 1)
    return "F" * (code & 1) + OPERATIONS[code >> 5] + after


_EVENTS = {
    1: "block_bio_queue",
    2: "block_bio_backmerge",
    3: "block_bio_frontmerge",
    6: "block_rq_requeue",
    7: "block_rq_issue",
    8: "block_bio_complete",
    12: "block_rq_insert",
    13: "block_split",
    15: "block_bio_remap",
    REQUEST + 2: "block_rq_merge",
    REQUEST + 8: "block_rq_complete",
}


def count_names(counts: list[int]) -> tuple[dict[str, int], dict[str, int]]:
    """What was counted: tracepoint -> rows, and what has no table -> records."""
    events: dict[str, int] = {}
    other: dict[str, int] = {}
    for place, n in enumerate(counts):
        act = place % ACTIONS
        if not n:
            continue
        if place >= NOTES:
            names = ("process names", "clock", "m (message)", "C of a zone append's place")
            name, into = names[place - NOTES], other
        elif act in _KINDS:
            name, into = "block:" + _EVENTS.get(place, _EVENTS[act]), events
        else:
            name, into = OTHER_ACTIONS.get(act, "unknown actions"), other
        into[name] = into.get(name, 0) + n
    return events, other


def flags_operation(flags: str) -> str:
    """``op`` of a text of flags. blktrace writes FN for what tracepoints write F or FF: a flush and nothing else."""
    return "F" if flags.startswith("FN") else operation(flags)
