"""What comment lines tell about a recording: those of ``perf script --header``, and of tracereplay.bt alike."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, NamedTuple

_FACT = re.compile(r"^#\s*([a-z][a-z ]*?)\s*:\s*(\S.*?)\s*$")
_FACTS = {"hostname": "hostname", "os release": "release", "arch": "arch", "nrcpus online": "cpus"}
_CLOCK_ID = re.compile(r"\bclockid\s*[=:]\s*(?:\w+ \()?(\d+)")
_EVENT = re.compile(r"^#\s*event : name = ([\w-]+:[\w-]+)")
CLOCKS = {0: "realtime", 1: "mono", 4: "mono_raw", 7: "boot", 11: "tai"}
"""Names that ftrace gives to the clocks of clock_gettime(2); perf record -k takes one of them."""


class HeaderFacts(NamedTuple):
    """What comment lines tell."""

    host: dict[str, Any]
    clock: str | None
    """None where the lines name no event and no clock."""
    events: list[str]
    """Those that were recorded, ``system:name``."""


def header_facts(lines: Sequence[bytes]) -> HeaderFacts:
    """Read comment lines.

    Without ``-k`` a recording is on perf's own clock (``local_clock``), which ftrace calls ``perf``.
    """
    host: dict[str, Any] = {}
    clock = None
    events: list[str] = []
    for line in lines:
        text = line.decode("utf-8", "replace")
        if (fact := _FACT.match(text)) and fact[1] in _FACTS:
            host[_FACTS[fact[1]]] = int(fact[2]) if fact[1] == "nrcpus online" and fact[2].isdecimal() else fact[2]
        if found := _CLOCK_ID.search(text):
            clock = CLOCKS.get(int(found[1]), f"clockid {found[1]}")
        if event := _EVENT.match(text):
            clock = clock or "perf"
            events.append(event[1])
    return HeaderFacts(host, clock, events)
