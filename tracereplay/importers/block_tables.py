"""Public block traces that are tables of text: what each column holds, in which unit, on which clock.

Sources: MSR Cambridge and Tencent CBS: the README of their SNIA IOTTA sets 388 and 27917 (Narayanan et al., FAST 2008;
Zhang et al., ATC 2020); Alibaba: github.com/alibaba/block-traces; SPC: Storage Performance Council, "SPC Trace File
Format Specification", revision 1.0.1; MQSim: ``ASCII_Trace_Definition.h`` of github.com/CMU-SAFARI/MQSim; the CSV of
libCacheSim: its ``data/cloudPhysicsIO.csv``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tracereplay.importers.scsi import SCSI_OPERATIONS

READ, WRITE, DISCARD, FLUSH = range(4)
"""Codes of ``requests.OPERATIONS``."""
SNIFFED_LINES = 64
FITTING_SHARE = 0.5


@dataclass(frozen=True, slots=True)
class Column:
    """One field of a line."""

    kind: str
    """``integer``, ``seconds`` (with decimals), ``hex``, ``text`` or ``skip``."""
    role: str = ""
    """``time``, ``host``, ``device``, ``op``, ``offset``, ``size`` or ``latency``; empty: not used."""


@dataclass(frozen=True, slots=True)
class BlockTable:
    """A format."""

    name: str
    title: str
    header: str
    """Its columns as a header line names them, in lower case."""
    columns: tuple[Column, ...]
    line: str
    """Regular expression of a whole line, for sniffing."""
    operations: Mapping[Any, int]
    """Values of the operation (texts in lower case) -> READ, WRITE, DISCARD, FLUSH."""
    device_name: str
    """With ``{host}`` and ``{n}``."""
    clock: Mapping[str, Any]
    separator: str = ","
    extra: bool = False
    """Lines may have more fields; they are ignored."""
    time_unit_ns: int = 1
    epoch: int = 0
    """What stands for 1970 in the time column, in its unit."""
    latency_unit_ns: int = 0
    offset_unit: int = 1
    size_unit: int = 1
    cautions: tuple[str, ...] = ()
    hosts: tuple[str, ...] = ()
    """Hosts that the set is known to have, in order: their volumes have the same device numbers in every file."""

    def has_header(self, data: bytes) -> bool:
        """Whether the first line names the columns."""
        first = data.split(b"\n", 1)[0].decode("utf-8", "replace").strip("\ufeff \r").lower().replace(" ", "")
        return first == self.header

    def fits(self, data: bytes) -> bool:
        """Whether this is text, and at least half of its first whole lines are of this form."""
        if b"\0" in data:  # an archive of such files
            return False
        lines = [line.rstrip(b"\r") for line in data.split(b"\n")[:-1][: SNIFFED_LINES + 1]]
        lines = [line for line in lines[1 if self.has_header(data) else 0 :] if line.strip()]
        pattern = re.compile(self.line.encode())
        return bool(lines) and sum(bool(pattern.fullmatch(line)) for line in lines) >= FITTING_SHARE * len(lines)


_LETTERS = {"r": READ, "w": WRITE, "read": READ, "write": WRITE}
_REALTIME = {"name": "realtime", "epoch": "1970-01-01 UTC"}

BLOCK_TABLES = (
    BlockTable(
        name="msr",
        title="MSR Cambridge block trace (CSV)",
        header="timestamp,hostname,disknumber,type,offset,size,responsetime",
        columns=(
            Column("integer", "time"),
            Column("text", "host"),
            Column("integer", "device"),
            Column("text", "op"),
            Column("integer", "offset"),
            Column("integer", "size"),
            Column("integer", "latency"),
        ),
        line=r"\d{17,19},[^,]+,\d+,(?i:read|write),\d+,\d+,\d+",
        operations=_LETTERS,
        device_name="{host}_{n}",
        clock={**_REALTIME, "resolution_ns": 100, "source_unit": "100 ns since 1601-01-01 (Windows filetime)"},
        time_unit_ns=100,
        epoch=116_444_736_000_000_000,
        hosts=("hm", "mds", "prn", "proj", "prxy", "rsrch", "src1", "src2", "stg", "ts", "usr", "wdev", "web"),
        latency_unit_ns=100,
    ),
    BlockTable(
        name="alibaba",
        title="Alibaba block trace of 2020 (CSV)",
        header="device_id,opcode,offset,length,timestamp",
        columns=(
            Column("integer", "device"),
            Column("text", "op"),
            Column("integer", "offset"),
            Column("integer", "size"),
            Column("integer", "time"),
        ),
        line=r"\d+,[RWrw],\d+,\d+,\d+",
        operations=_LETTERS,
        device_name="device {n}",
        clock={**_REALTIME, "resolution_ns": 1000, "source_unit": "us since 1970-01-01"},
        time_unit_ns=1000,
    ),
    BlockTable(
        name="tencent",
        title="Tencent CBS block trace of 2018 (CSV)",
        header="timestamp,offset,size,iotype,volumeid",
        columns=(
            Column("integer", "time"),
            Column("integer", "offset"),
            Column("integer", "size"),
            Column("integer", "op"),
            Column("integer", "device"),
        ),
        line=r"1[0-9]{9},\d+,\d+,[01],\d+",
        operations={0: READ, 1: WRITE},
        device_name="volume {n}",
        clock={**_REALTIME, "resolution_ns": 10**9, "source_unit": "s since 1970-01-01"},
        time_unit_ns=10**9,
        offset_unit=512,
        size_unit=512,
        cautions=("times are whole seconds: requests of one second keep the order of their lines, not their distance",),
    ),
    BlockTable(
        name="spc",
        title="SPC trace as of the UMass repository (text)",
        header="asu,lba,size,opcode,timestamp",
        columns=(
            Column("integer", "device"),
            Column("integer", "offset"),
            Column("integer", "size"),
            Column("text", "op"),
            Column("seconds", "time"),
        ),
        line=r"\s*\d+\s*,\s*\d+\s*,\s*\d+\s*,\s*[RWrw]\s*,\s*\d+(\.\d+)?\s*(,.*)?",
        operations=_LETTERS,
        device_name="ASU {n}",
        clock={"name": "trace start", "resolution_ns": 1000, "source_unit": "s since the start of the trace"},
        extra=True,
        offset_unit=512,
    ),
    BlockTable(
        name="mqsim",
        title="MQSim disk trace (text)",
        header="time device address size type",
        columns=(
            Column("integer", "time"),
            Column("integer", "device"),
            Column("integer", "offset"),
            Column("integer", "size"),
            Column("integer", "op"),
        ),
        line=r"\s*\d+\s+\d+\s+\d+\s+\d+\s+[01]\s*",
        operations={0: WRITE, 1: READ},
        device_name="device {n}",
        clock={"name": "simulation", "resolution_ns": 1, "source_unit": "ns"},
        separator=" ",
        offset_unit=512,
        size_unit=512,
    ),
    BlockTable(
        name="libcachesim-csv",
        title="libCacheSim's CSV of a vSCSI trace",
        header="version,time,op,size,lbn",
        columns=(
            Column("integer"),
            Column("integer", "time"),
            Column("hex", "op"),
            Column("integer", "size"),
            Column("integer", "offset"),
        ),
        line=r"[12],\d+,[0-9a-fA-F]{1,2},\d+,\d+",
        operations={**SCSI_OPERATIONS},
        device_name="disk {n}",
        clock={"name": "traced host", "resolution_ns": 10**9, "source_unit": "s of the traced host's clock"},
        time_unit_ns=10**9,
        offset_unit=512,
        cautions=("times are whole seconds: requests of one second keep the order of their lines, not their distance",),
    ),
)
