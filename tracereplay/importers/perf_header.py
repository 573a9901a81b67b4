"""What the header of a perf recording tells: the comment lines of ``perf script --header`` or ``perf report``."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

_FACT = re.compile(r"^#\s*([a-z][a-z ]*?)\s*:\s*(\S.*?)\s*$")
_FACTS = {"hostname": "hostname", "os release": "release", "arch": "arch", "nrcpus online": "cpus"}
_CLOCK_ID = re.compile(r"\bclockid\s*[=:]\s*(?:\w+ \()?(\d+)")
_EVENT = re.compile(r"^#\s*event : name = ([\w-]+:[\w-]+)")
CLOCKS = {0: "realtime", 1: "mono", 4: "mono_raw", 7: "boot", 11: "tai"}
"""Names that ftrace gives to the clocks of clock_gettime(2); perf record -k takes one of them."""


def header_facts(lines: Sequence[bytes]) -> tuple[dict[str, Any], str | None]:
    """Host facts and the clock's name, None where the lines name no event.

    Without ``-k`` a recording is on perf's own clock (``local_clock``), which ftrace calls ``perf``.
    """
    host: dict[str, Any] = {}
    clock = None
    for line in lines:
        text = line.decode("utf-8", "replace")
        if (fact := _FACT.match(text)) and fact[1] in _FACTS:
            host[_FACTS[fact[1]]] = int(fact[2]) if fact[1] == "nrcpus online" and fact[2].isdecimal() else fact[2]
        if found := _CLOCK_ID.search(text):
            clock = CLOCKS.get(int(found[1]), f"clockid {found[1]}")
        elif _EVENT.match(text):
            clock = clock or "perf"
    return host, clock
