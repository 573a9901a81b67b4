"""Slow, obvious parser of perf script text: the ftrace one with perf's header, event names and call chains."""

from __future__ import annotations

import re
from typing import Any

from tests.reference.ftrace_reference import BLANKS, B, Reference, Refused, W

HEADER = re.compile(
    rf"{B}*+(?:VM:{B}*\d++{B}++(?:VCPU:{B}*\d*{B}*+)?+)?+"
    rf"(?P<comm>|[^\n]{{1,64}}?(?={B})){B}*+(?P<a>-?\d++)(?:/(?P<b>-?\d++))?+{B}++\[(?P<cpu>\d++)\]{B}++"
    rf"(?P<sec>\d+)(?:\.(?P<frac>\d+))?:(?={B}|$){B}*+(?:\d++(?!{W}){B}*+)?+(?P<rest>.*)$",
    re.DOTALL,
)
ADDRESS = re.compile(rf"{B}*+(?P<ip>[0-9a-fA-F]++)(?!{W}){B}*+(?P<rest>.*)$", re.DOTALL)
LOST = re.compile(rf"PERF_RECORD_LOST{B}+lost{B}+(\d+){B}*$")
MODULE = re.compile(r"(?:.*/)?([^/]+?)\.ko\b[^/]*")


class PerfReference(Reference):
    """Parses a whole text; ``gfp`` names the masks."""

    def line(self, line: str) -> None:
        if self.in_stack and line.startswith("\t") and self.frame(line):
            return
        if not line.startswith("#") and (header := HEADER.match(line)):
            self.in_stack, self.stack = True, None
            pids = [header["b"] or header["a"], header["a"] if header["b"] and header["a"][0] != "-" else None]
            pid = str(2**32 - 1) if pids[0][0] == "-" else pids[0]
            self.event({**header.groupdict(), "pid": pid, "tgid": pids[1]})
        elif not (self.in_stack and line[0] in BLANKS and self.frame(line)):
            self.other(line)

    def name_of(self, token: str, rest: str, cpu: int) -> tuple[str | None, str]:
        if token.endswith(":") and 1 < len(token) <= 64:
            name = token[:-1]
            for at in range(max(0, len(name) - 10), len(name)):
                if name[at] == ":" and ":" in name[:at]:
                    return name[:at], ""
            return name, ""
        if token == "PERF_RECORD_LOST":
            match = LOST.match((token + rest)[:1024])
            if match is None:
                raise Refused(-1)
            self.lost(cpu, match[1])
            return None, "lost"
        return (token[:64] if token.startswith("PERF_REC") else None), ""

    def accepted(self, row: dict[str, Any] | None) -> None:
        if row is not None:
            self.stack = row["stack"] = []

    def frame(self, line: str) -> bool:
        match = ADDRESS.match(line)
        if match is None or int(match["ip"], 16) >= 2**64:
            return False
        if self.stack is None or len(self.stack) >= 1024:
            return True
        address, text = int(match["ip"], 16), match["rest"].rstrip(BLANKS)
        opens = [i for i, c in enumerate(text) if c == "(" and (i == 0 or text[i - 1] in BLANKS)]
        dso = opens[-1] if opens else None
        if len(opens) > 1 and text.endswith("))"):
            dso = opens[-2]
        in_kernel = dso is not None and text[dso + 1 :].startswith("[kernel")
        if in_kernel or address >= 2**63:
            symbol = text[:dso].rstrip(BLANKS)
            unknown = not symbol or (len(symbol) == 9 and symbol.startswith("[unknown"))
            name = None if dso is None or in_kernel or len(text) - dso <= 2 else text[dso + 1 : -1]
            module = None if name is None or text[dso:].startswith("(inlined") else module_name(name)
            self.stack.append((address, *((None, None) if unknown else split_offset(symbol)), module))
        return True


def module_name(dso: str) -> str:
    match = MODULE.fullmatch(dso)
    return match[1].replace("-", "_") if match else dso.rpartition("/")[2].strip("[]")


def split_offset(symbol: str) -> tuple[str, int | None]:
    for at in range(max(0, len(symbol) - 19), len(symbol) - 3):
        match = re.fullmatch(r"\+0x([0-9a-fA-F]+)", symbol[at:])
        if match and int(match[1], 16) < 2**64:
            return symbol[:at][:1024], int(match[1], 16)
    return symbol[:1024], None
