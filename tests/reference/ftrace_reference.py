"""Slow, obvious parser of ftrace text: the oracle of the compiled one. One regular expression per sort of line."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from tracereplay.importers.ftrace_columns import mm_fields
from tracereplay.importers.ftrace_vocabulary import (
    BIO_EVENT_KINDS,
    BLOCK_FIELDS,
    COMPACTION_EVENT_KINDS,
    CUT,
    LOOSE_STACK,
    NO_EVENT,
    NO_HEADER,
    NUMBER,
    PAGE_EVENT_KINDS,
    PAGE_FIELDS,
    RECLAIM_EVENT_KINDS,
    TIME_FORM,
)
from tracereplay.kernel.gfp import parse_gfp
from tracereplay.kernel.rwbs import operation

B = r"[\x00-\x09\x0b-\x20]"  # blanks, as bytes below 33 without newline
BLANKS = "".join(map(chr, range(33)))
W = r"[^\x00-\x20]"
HEADER = re.compile(
    rf"{B}*+(?P<comm>[^\n]{{0,64}}?)-(?P<pid>\d+){B}++"
    rf"(?:\({B}*(?:(?P<tgid>\d+)|-+){B}*\){B}*+)?"
    rf"(?:\[(?P<cpu>\d+)\](?:{B}++(?=\d)|{B}++(?!\d){W}{{3,6}}(?!{W}){B}*+)"
    rf"|(?P<cpu2>\d++){W}{{4,6}}(?!{W}){B}*+)"
    rf"(?P<sec>\d+)(?:\.(?P<frac>\d+))?:(?={B}|$)(?P<rest>.*)$",
    re.DOTALL,
)
LOSS = re.compile(
    rf"{B}*CPU:(?P<cpu>\d+){B}*\[(?:LOST{B}+(?P<n>\d+){B}+EVENTS|LOST{B}+EVENTS"
    rf"|(?P<m>\d+){B}+EVENTS{B}+DROPPED|EVENTS{B}+DROPPED)\]{B}*$"
)
LOSS_LIKE = re.compile(rf"{B}*CPU:(?P<cpu>\d+){B}*\[")
PREAMBLE = re.compile(rf"#|{B}*(?:#|CPU |cpus=|version |Attachin)")
SOMEWHERE = re.compile(rf"{B}*Lost (?P<n>\d+) events{B}*$")
FRAME = re.compile(rf"{B}*=>(?P<rest>.*)$", re.DOTALL)
ENTRIES = re.compile(r"#\s*entries-in-buffer/entries-written:\s*(\d+)/(\d+)")
NULL = re.compile(rf"\((?:nil|null)\)|(?:0x)?0+(?!{W})")
ARGUMENTS = {
    "queue": r"(?P<sector>\d++) *\+ *(?P<nr>\d++)",
    "split": r"(?P<sector>\d++) */ *(?P<new>\d+)",
    "remap": r"(?P<sector>\d++) *\+ *(?P<nr>\d++) *<- *\((?P<omaj>\d+),(?P<omin>\d+)\) *(?P<old>\d+)(?!\S)",
    "bio_complete": r"(?P<sector>\d++) *\+ *(?P<nr>\d++) *\[(?P<error>-?\d+)\]",
    "issue": r"(?P<bytes>\d+) +\([^)]*\) *(?P<sector>\d++) *\+ *(?P<nr>\d++)",
    "complete": r"\([^)]*\) *(?P<sector>\d++) *\+ *(?P<nr>\d++) *(?:(?!\[)\S++ *+)?+\[(?P<error>-?\d+)\]",
}
ARGUMENTS |= {"backmerge": ARGUMENTS["queue"], "frontmerge": ARGUMENTS["queue"], "insert": ARGUMENTS["issue"]}
ARGUMENTS |= {"requeue": ARGUMENTS["complete"], "error": ARGUMENTS["complete"]}
BIO_LINE = {
    kind: re.compile(
        rf" *(?P<maj>\d+),(?P<min>\d+) +(?P<rwbs>\S{{1,16}}+)(?!\S) *{text}".replace(" ", B).replace(r"\S", W)
    )
    for kind, text in ARGUMENTS.items()
}
PAGE_COLUMNS = (
    *("ts_ns", "cpu", "kind", "pfn", "order", "gfp", "migratetype", "pid", "percpu_refill", "alloc_order"),
    *("fallback_order", "fallback_migratetype", "change_ownership", "stack"),
)
BIO_COLUMNS = (
    *("ts_ns", "cpu", "kind", "dev", "sector", "nr_sectors", "nr_bytes", "op", "flags", "pid", "error"),
    *("old_dev", "old_sector", "new_sector", "stack"),
)


class Refused(Exception):  # noqa: N818
    """A line that cannot be used."""


@dataclass
class Parsed:
    """Everything in a text."""

    page: list[dict[str, Any]] = field(default_factory=list)
    bio: list[dict[str, Any]] = field(default_factory=list)
    mm: list[dict[str, Any]] = field(default_factory=list)
    rejected: list[tuple[int, int]] = field(default_factory=list)
    losses: list[dict[str, Any]] = field(default_factory=list)
    tasks: dict[tuple[int, str], list[Any]] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)
    loose_stacks: int = 0


def bounded(text: str, most: int) -> int:
    value = int(text)
    if value > most:
        raise Refused(NUMBER)
    return value


class Reference:
    """Parses a whole text; ``gfp`` names the masks."""

    def __init__(self, gfp: dict[str, int]) -> None:
        self.gfp = gfp
        self.out = Parsed()
        self.fraction: bool | None = None
        self.last: dict[int, tuple[dict[str, Any] | None, int]] = {}
        self.last_ts: dict[int, int] = {}
        self.first_ts: dict[int, int] = {}
        self.stack: list[Any] | None = None
        self.in_stack = False
        self.overwritten = 0
        self.waiting: list[tuple[dict[str, Any], set[int]]] = []
        """Losses on some CPU, and the CPUs that have had no event since."""

    def parse(self, data: bytes) -> Parsed:
        lines = data.decode("latin-1").split("\n")
        for number, line in enumerate(lines[:-1], 1):
            if line.strip(BLANKS):
                try:
                    self.line(line)
                except Refused as refused:
                    self.out.rejected.append((number, refused.args[0]))
        if lines[-1]:
            self.out.rejected.append((len(lines), CUT))
        if self.overwritten:
            started = max(self.first_ts.values(), default=None)
            row = {"cpu": None, "t0_ns": None, "t1_ns": started, "n": self.overwritten, "class": "overwritten"}
            self.out.losses.insert(0, row)
        return self.out

    def line(self, line: str) -> None:
        header = None if line.startswith("#") else HEADER.match(line)
        if header:
            self.in_stack, self.stack = False, None
            self.event(header)
            return
        self.other(line)

    def other(self, line: str) -> None:
        if frame := FRAME.match(line):
            if not self.in_stack:
                raise Refused(LOOSE_STACK)
            if self.stack is not None:
                self.stack.append(frame_of(frame["rest"]))
            return
        self.in_stack, self.stack = False, None
        if (like := LOSS_LIKE.match(line)) and int(like["cpu"]) <= 0xFFFF:
            cpu = int(like["cpu"])
            if (loss := LOSS.match(line)) is None:
                raise Refused(-1)
            self.lost(cpu, loss["n"] or loss["m"])
        elif re.match(rf"{B}*Lost ", line):
            if (loss := SOMEWHERE.match(line)) is None:
                raise Refused(-1)
            self.lost(None, loss["n"])
            self.waiting.append((self.out.losses[-1], set(self.last_ts)))
        elif PREAMBLE.match(line):
            if match := ENTRIES.match(line.lstrip(BLANKS)):
                self.overwritten += max(0, int(match[2]) - int(match[1]))
        else:
            raise Refused(NO_HEADER)

    def lost(self, cpu: int | None, n: str | None) -> None:
        known = int(n) if n and int(n) < 2**64 else None
        t0 = min(self.last_ts.values(), default=None) if cpu is None else self.last_ts.get(cpu)
        row = {"cpu": cpu, "t0_ns": t0, "t1_ns": None, "n": known, "class": "reported"}
        self.out.losses.append(row)

    def event(self, header: Mapping[str, Any]) -> None:
        pid = bounded(header["pid"], 2**32 - 1)
        tgid = None if header["tgid"] is None else bounded(header["tgid"], 2**32 - 1)
        cpu = bounded(header["cpu"] or header["cpu2"], 0xFFFF)
        fraction = header["frac"]
        if fraction is None:
            ts = bounded(header["sec"], 2**63 - 1)
        else:
            ts = bounded(header["sec"], 9_223_372_035) * 10**9
            if len(fraction) > 9:
                raise Refused(NUMBER)
            ts += int(fraction.ljust(9, "0"))
        if self.fraction is None:
            self.fraction = fraction is not None
        elif self.fraction != (fraction is not None):
            raise Refused(TIME_FORM)
        match = re.match(rf"{B}*({W}*)(.*)$", header["rest"], re.DOTALL)
        assert match is not None
        token, rest = match.groups()
        name, kind = self.name_of(token, rest, cpu)
        if kind == "lost":
            return
        if not kind and name is None:
            raise Refused(NO_EVENT)
        row = None
        bare = ""
        if not kind:
            assert name is not None
            system, _, bare = name.rpartition(":")
            row = self.row(system, bare, rest)
        if name:
            self.out.counts[name] = self.out.counts.get(name, 0) + 1
        if kind:
            self.in_stack = True
            if kind == "kernel":
                target, of = self.last.get(cpu, (None, -1))
                if target is None or of != pid:
                    self.out.loose_stacks += 1
                else:
                    self.stack = target["stack"] = []
                    self.last[cpu] = (None, pid)
            return
        if row is not None:
            row |= {"ts_ns": ts, "cpu": cpu, "pid": pid}
            kinds = (PAGE_EVENT_KINDS, BIO_EVENT_KINDS)
            table = self.out.page if bare in kinds[0] else self.out.bio if bare in kinds[1] else self.out.mm
            table.append(row)
        self.last[cpu] = (row if row is not None and table is not self.out.mm else None, pid)
        for loss in self.out.losses:
            if loss["cpu"] == cpu and loss["t1_ns"] is None:
                loss["t1_ns"] = ts
        for loss, cpus in self.waiting:
            if cpu in cpus:
                cpus.remove(cpu)
                loss["t1_ns"] = max(loss["t1_ns"] or 0, ts)
        self.first_ts.setdefault(cpu, ts)
        self.last_ts[cpu] = ts
        task = self.out.tasks.setdefault((pid, header["comm"]), [None, ts, ts])
        task[:] = [tgid if tgid is not None else task[0], min(task[1], ts), max(task[2], ts)]

        self.accepted(self.last[cpu][0])

    def accepted(self, row: dict[str, Any] | None) -> None:
        """An event was taken; ``row`` when it may have a stack."""

    def name_of(self, token: str, rest: str, cpu: int) -> tuple[str | None, str]:
        """The event's name, and what it is if it is none: kernel, user (stacks) or lost."""
        if token.startswith("<"):
            text = token + rest
            return None, "kernel" if text.startswith("<stack t") else "user" if text.startswith("<user st") else ""
        name = token[:-1] if token.endswith(":") and 1 < len(token) <= 64 else None
        return name, {"kernel_stack": "kernel", "user_stack": "user"}.get(name or "", "")

    def row(self, system: str, bare: str, rest: str) -> dict[str, Any] | None:
        if bare in PAGE_EVENT_KINDS and system in ("", "kmem"):
            return self.page_row(PAGE_EVENT_KINDS[bare], rest)
        if bare in BIO_EVENT_KINDS and system in ("", "block"):
            return bio_row(BIO_EVENT_KINDS[bare], rest)
        if bare in COMPACTION_EVENT_KINDS and system in ("", "compaction"):
            return {"kind": COMPACTION_EVENT_KINDS[bare], **mm_fields(rest.encode("latin-1"), self.gfp)}
        if bare in RECLAIM_EVENT_KINDS and system in ("", "vmscan"):
            return {"kind": RECLAIM_EVENT_KINDS[bare], **mm_fields(rest.encode("latin-1"), self.gfp)}
        return None

    def page_row(self, kind: str, rest: str) -> dict[str, Any]:
        fields: dict[str, Any] = {}
        null_page = False
        for token in re.findall(rf"{W}+", rest):
            key, equals, value = token.partition("=")
            if not equals:
                continue
            if key == "page":
                null_page = NULL.match(value) is not None
            elif key == "pfn":
                hexadecimal = re.fullmatch(r"0x([0-9a-fA-F]+)", value)
                if not hexadecimal and not re.fullmatch(r"[0-9]+", value):
                    raise Refused(PAGE_FIELDS)
                pfn = int(hexadecimal[1], 16) if hexadecimal else int(value)
                if pfn >= 2**64:
                    raise Refused(NUMBER)
                fields["pfn"] = pfn
            elif key == "gfp_flags":
                if not 1 <= len(value) <= 1024:
                    raise Refused(PAGE_FIELDS)
                try:
                    fields["gfp"] = parse_gfp(value, self.gfp)
                except (KeyError, ValueError):
                    fields["gfp"] = None
                fields["gfp"] = fields["gfp"] if fields["gfp"] is None or 0 <= fields["gfp"] < 2**32 else None
            elif key in SMALL:
                if not re.fullmatch(r"[0-9]+", value):
                    raise Refused(PAGE_FIELDS)
                fields[SMALL[key]] = bounded(value, 254)
        needed = {"extfrag": ("alloc_order", "fallback_order"), "free_batched": ()}.get(kind, ("order",))
        if "pfn" not in fields or any(n not in fields for n in needed):
            raise Refused(PAGE_FIELDS)
        row: dict[str, Any] = dict.fromkeys(PAGE_COLUMNS) | fields | {"kind": kind}
        if kind == "alloc" and (row["pfn"] == 2**64 - 1 or (null_page and row["pfn"] == 0)):
            row |= {"kind": "alloc_failed", "pfn": None}
        if kind in ("free_batched", "extfrag"):
            row["order"] = None
        for name in ("percpu_refill", "change_ownership"):
            row[name] = None if row[name] is None else row[name] != 0
        return row


SMALL = {name: name for name in ("order", "migratetype", "percpu_refill", "alloc_order", "fallback_order")}
SMALL |= {"fallback_migratetype": "fallback_migratetype", "change_ownership": "change_ownership"}
SMALL |= {"alloc_migratetype": "migratetype"}


def bio_row(kind: str, rest: str) -> dict[str, Any]:
    match = BIO_LINE[kind].match(rest)
    if match is None:
        raise Refused(BLOCK_FIELDS)
    found = match.groupdict()
    devices = [("maj", "min"), ("omaj", "omin")] if "omaj" in found else [("maj", "min")]
    for major, minor in devices:
        if int(found[major]) > 0xFFF or int(found[minor]) > 0xFFFFF:
            raise Refused(BLOCK_FIELDS)
    limits = {"bytes": 2**32 - 1, "sector": 2**64 - 1, "new": 2**64 - 1, "nr": 2**32 - 1, "old": 2**64 - 1}
    number = {key: bounded(found[key], most) for key, most in limits.items() if key in found}
    if "error" in found:
        number["error"] = bounded(found["error"].lstrip("-"), 2**31 - 1) * (-1 if found["error"][0] == "-" else 1)
    return {
        "kind": kind,
        "dev": int(found["maj"]) << 20 | int(found["min"]),
        "sector": number["sector"],
        "nr_sectors": number.get("nr"),
        "nr_bytes": number.get("bytes"),
        "op": operation(found["rwbs"]),
        "flags": found["rwbs"],
        "error": number.get("error"),
        "old_dev": int(found["omaj"]) << 20 | int(found["omin"]) if "omaj" in found else None,
        "old_sector": number.get("old"),
        "new_sector": number.get("new"),
        "stack": None,
    }


def frame_of(text: str) -> tuple[int | None, str | None, int | None]:
    """(address, symbol, offset) of the text after ``=>``."""
    address: int | None = None
    symbol: str | None = None
    offset: int | None = None
    for token in re.findall(rf"{W}+", text):
        if match := re.fullmatch(r"[(<]([0-9a-fA-F]+)[)>]", token):
            value = int(match[1], 16)
            address = value if value < 2**64 else address
        elif token[0] in "(<" and token[-1] in ")>":
            continue
        elif symbol is None and address is None:
            bare = re.fullmatch(r"0x([0-9a-fA-F]+)|([0-9a-fA-F]{8,})", token)
            if bare and int(bare[1] or bare[2], 16) < 2**64:
                address = int(bare[1] or bare[2], 16)
                continue
            symbol = token
            if (match := re.match(r"(.*?)\+0x([0-9a-fA-F]+)(?=/|$)", token)) and int(match[2], 16) < 2**64:
                symbol, offset = match[1], int(match[2], 16)
            symbol = symbol[:1024]
    return address, symbol, offset
