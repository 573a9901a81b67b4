"""Strategy files that are broken, each in one way: one that is right, and what is changed in it."""

from __future__ import annotations

from pathlib import Path

RIGHT = """from __future__ import annotations

import random
from dataclasses import dataclass

from tracereplay.demand.stream import REQUIRED
from tracereplay.machine import ops
from tracereplay.strategies.contract import *


@dataclass(frozen=True)
class Mine(Params):
    name = "mine"
    summary = "single pages"
    mimics = "nothing"
    depth: int = param(4, unit="pages", low=1, high=64, doc="not used", source="a test")


def init(m, st):
    pass


def plus_one(a):
    return a + 1


@compiled
def block(m, req, out):
    out[0] = ops.alloc_pages(m, req[REQ_CPU], req[REQ_ORDER], req[REQ_GFP])
    out[1] = req[REQ_ORDER]
    req[REQ_BLOCKS] = 1
    return DONE if out[0] >= 0 else FAIL


def allocate(m, st, req, out):
    if req[REQ_FLAGS] & REQUIRED:
        return block(m, req, out)
    pages = req[REQ_PAGES]
    for i in range(pages):
        frame = ops.alloc_pages(m, req[REQ_CPU], 0, req[REQ_GFP])
        if frame < 0:
            for k in range(i):
                ops.free_pages(m, req[REQ_CPU], out[2 * k], 0)  # undo
            return FAIL
        out[2 * i] = frame
        out[2 * i + 1] = 0
    st[3] = out[0] + 1  # a page that is in use
    # done
    req[REQ_BLOCKS] = pages
    return DONE


def release(m, st, block, cpu, now):
    # release
    if st[3] == block[BLOCK_FRAME] + 1:
        st[3] = 0
    ops.free_pages(m, cpu, block[BLOCK_FRAME], block[BLOCK_ORDER])
"""

UNDO = "                ops.free_pages(m, req[REQ_CPU], out[2 * k], 0)  # undo\n"
DONE_HERE = "    # done\n"
USED = "    st[3] = out[0] + 1  # a page that is in use\n"
RELEASE = "    # release\n"
FREE = "    ops.free_pages(m, cpu, block[BLOCK_FRAME], block[BLOCK_ORDER])\n"

BROKEN: dict[str, tuple[str, str, str, str, str]] = {
    # name: (what is replaced, by what, rule, words of the finding, text of the line that is named)
    "syntax": ("def init(m, st):", "def init(m, st)", "declared", "expected ':'", "def init(m, st)"),
    "import error": ("def init", "1 / 0\n\n\ndef init", "declared", "ZeroDivisionError", "1 / 0"),
    "leaves at import": (
        "def init",
        "raise SystemExit(3)\n\n\ndef init",
        "declared",
        "SystemExit",
        "raise SystemExit(3)",
    ),
    "no function": ("def release(", "def rilease(", "declared", "no function release(m, st, block, cpu, now)", ""),
    "arguments": ("def init(m, st):", "def init(m):", "declared", "init must be a function of (m, st)", ""),
    "not frozen": ("@dataclass(frozen=True)", "@dataclass", "declared", "", ""),
    "default outside its range": ("param(4,", "param(400,", "declared", "1..64", ""),
    "plain field": (
        'depth: int = param(4, unit="pages", low=1, high=64, doc="not used", source="a test")',
        "depth: int = 4",
        "declared",
        "not declared with param",
        "",
    ),
    "unknown operation": (
        FREE,
        "    ops.free_page(m, cpu, block[BLOCK_FRAME])\n",
        "raises",
        "no operation 'free_page'",
        "ops.free_page(m, cpu, block[BLOCK_FRAME])",
    ),
    "index beyond the state": (DONE_HERE, "    st[pages + 17] = 1\n", "bounds", "outside of st", "st[pages + 17] = 1"),
    "index before the state": (DONE_HERE, "    st[-1] = 1\n", "bounds", "index -1 is outside of st", "st[-1] = 1"),
    "order too high": (
        DONE_HERE,
        "    ops.alloc_pages(m, 0, 11, 0xCC0)\n",
        "bounds",
        "order 11",
        "ops.alloc_pages(m, 0, 11, 0xCC0)",
    ),
    "no such cpu": (
        DONE_HERE,
        "    ops.alloc_pages(m, 99, 0, 0xCC0)\n",
        "bounds",
        "CPU 99",
        "ops.alloc_pages(m, 99, 0, 0xCC0)",
    ),
    "says nothing": ("    return DONE\n\n\ndef release", "\n\ndef release", "status", "returned None", ""),
    "says something else": (
        "    return DONE\n\n\ndef release",
        "    return 7\n\n\ndef release",
        "status",
        "returned 7",
        "return 7",
    ),
    "changes the request": (DONE_HERE, "    req[REQ_PAGES] = 1\n", "status", "changed the words", "return DONE"),
    "a page short": (
        "    req[REQ_BLOCKS] = pages\n    return DONE",
        "    req[REQ_BLOCKS] = pages - 1\n    return DONE",
        "blocks",
        "",
        "return DONE",
    ),
    "a page it does not own": (DONE_HERE, "    out[0] = 5\n", "blocks", "frame 0x5 of order 0", "return DONE"),
    "the same page twice": (
        DONE_HERE,
        "    out[2 * (pages - 1)] = out[0]\n",
        "blocks",
        "given to this request already",
        "return DONE",
    ),
    "another request's page": (
        USED,
        "    if st[3] > 0:\n        out[0] = st[3] - 1\n" + USED,
        "blocks",
        "which still uses it",
        "return DONE",
    ),
    "an invented order": (DONE_HERE, "    out[1] = 3\n", "blocks", "", "return DONE"),
    "frees twice": (RELEASE, FREE, "frees", "free_pages of frame", FREE.strip()),
    "frees a live page": (
        USED,
        "    if st[3] > 0:\n        ops.free_pages(m, 0, st[3] - 1, 0)\n" + USED,
        "frees",
        "still uses",
        "ops.free_pages(m, 0, st[3] - 1, 0)",
    ),
    "frees what is not there": (
        RELEASE,
        "    ops.free_pages(m, cpu, 1 << 28, 0)\n",
        "bounds",
        "does not have",
        "ops.free_pages(m, cpu, 1 << 28, 0)",
    ),
    "wrong order": (
        FREE,
        "    ops.free_pages(m, cpu, block[BLOCK_FRAME], 1)\n",
        "frees",
        "in use as a block of order 0",
        "ops.free_pages(m, cpu, block[BLOCK_FRAME], 1)",
    ),
    "leaks on release": (FREE, "    return\n", "leaks", "keeps", "return"),
    "leaks on failure": (UNDO, "                pass\n", "leaks", "after allocate, FAIL", "return FAIL"),
    "hoards": (
        DONE_HERE,
        "    if ops.alloc_pages(m, 0, 0, 0xCC0) >= 0:\n        ops.reserve_add(m, 1)\n",
        "leaks",
        "",
        "",
    ),
    "loops": (DONE_HERE, "    while st[0] > 0:\n        st[1] += 1\n", "ends", "does not come to an end", ""),
    "waits for nothing": (DONE_HERE, "    return WAIT\n", "waits", "not for what", "return WAIT"),
    "waits for the past": (
        DONE_HERE,
        "    req[REQ_WAIT] = WAIT_TIME\n    req[REQ_UNTIL] = 0\n    return WAIT\n",
        "waits",
        "never comes",
        "return WAIT",
    ),
    "waits for a free mutex": (
        DONE_HERE,
        "    req[REQ_WAIT] = WAIT_MUTEX\n    req[REQ_UNTIL] = NEVER\n    return WAIT\n",
        "waits",
        "the mutex, which is free",
        "return WAIT",
    ),
    "waits for no reserve": (
        DONE_HERE,
        "    req[REQ_WAIT] = WAIT_POOL\n    req[REQ_UNTIL] = NEVER\n    return WAIT\n",
        "waits",
        "still wait when everything else was freed",
        "return WAIT",
    ),
    "by chance": (
        DONE_HERE,
        "    ops.count(m, 8, random.randrange(1000))\n",
        "repeats",
        "count differently",
        "import random",
    ),
    "prints": (DONE_HERE, "    print(pages)\n", "raises", "print", "print(pages)"),
    "raises": (DONE_HERE, "    raise ValueError(pages)\n", "raises", "ValueError", "raise ValueError(pages)"),
    "only with a parameter": (
        DONE_HERE,
        "    if st[0] == 64:\n        st[99] = 1\n",
        "bounds",
        "depth=64",
        "st[99] = 1",
    ),
}

NOT_COMPILED: dict[str, tuple[str, str, str, str]] = {
    # name: (what is replaced, by what, words of the reason, text of the line that is named)
    "a function without a mark": (
        DONE_HERE,
        "    st[1] = plus_one(pages)\n",
        "write @compiled above it",
        "st[1] = plus_one(pages)",
    ),
    "text": (DONE_HERE, "    a = 'x' + str(pages)\n    st[1] = len(a)\n", "", ""),
}


def broken_file(directory: Path, change: tuple[str, str]) -> Path:
    """The right file with one change in it."""
    old, new = change
    assert RIGHT.count(old) == 1, old
    path = directory / "mine.py"
    path.write_text(RIGHT.replace(old, new))
    return path
