"""Block traces made from their grammars, and what an import makes of a file."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tracereplay.importers.base import ImportOptions
from tracereplay.importers.block_tables import BLOCK_TABLES, BlockTable
from tracereplay.importers.registry import importer_named
from tracereplay.importers.request_conversion import RequestConversion
from tracereplay.importers.source import Source

TABLES: dict[str, BlockTable] = {table.name: table for table in BLOCK_TABLES}
EPOCH = {"msr": 128_166_385_295_514_663, "alibaba": 1_577_808_000_000_000, "tencent": 1_538_323_200}
UNIT_NS = {"msr": 100, "alibaba": 1000, "tencent": 10**9, "spc": 1000, "mqsim": 1, "libcachesim-csv": 10**9}
"""What a step of a sample's time is."""


@dataclass(frozen=True)
class Request:
    """One request of a sample: ``step`` in the format's unit of time, place and size in sectors."""

    step: int
    volume: int
    sector: int
    sectors: int
    write: bool
    latency: int = 0


def line(name: str, r: Request) -> str:
    """A request as a line of a format."""
    time = EPOCH.get(name, 0) + r.step
    offset, size = r.sector * 512, r.sectors * 512
    letter = "W" if r.write else "R"
    if name == "msr":
        return f"{time},web,{r.volume},{'Write' if r.write else 'Read'},{offset},{size},{r.latency}"
    if name == "alibaba":
        return f"{r.volume},{letter},{offset},{size},{time}"
    if name == "tencent":
        return f"{time},{r.sector},{r.sectors},{int(r.write)},{r.volume}"
    if name == "spc":
        return f"{r.volume},{r.sector},{size},{letter.lower()},{time // 10**6}.{time % 10**6:06}"
    if name == "mqsim":
        return f"{time} {r.volume} {r.sector} {r.sectors} {int(not r.write)}"
    assert name == "libcachesim-csv"
    return f"1,{time},{'2a' if r.write else '28'},{size},{r.sector}"


def text(name: str, requests: list[Request], *, header: bool = False, end: str = "\n") -> bytes:
    """A file of a format."""
    lines = [line(name, r) for r in requests]
    return "".join(part + end for part in ([TABLES[name].header] if header else []) + lines).encode()


def vscsi(version: int, requests: list[Request]) -> bytes:
    """vSCSI records; times are microseconds."""
    parts = []
    for number, r in enumerate(requests):
        command, size = (0x2A if r.write else 0x28), r.sectors * 512
        if version == 1:
            parts.append(struct.pack("<IIIHHQQ", number, size, 1, command, 0x0100, r.sector, r.step))
        else:
            parts.append(struct.pack("<HHIIIQQQ", command, 0x0200, number, size, 1, r.sector, r.step, r.latency))
    return b"".join(parts)


@dataclass
class Read:
    """What an import made of a file."""

    rows: list[tuple[int, str, str, int, int, str | None]]
    conversion: RequestConversion

    @property
    def rejected(self) -> int:
        """Entries refused."""
        return self.conversion.summary.rejected

    @property
    def source(self) -> dict[str, Any]:
        """``metadata.source``."""
        return self.conversion.metadata.source


def read(path: Path, format: str, **options: Any) -> Read:
    """Import a file without writing a trace."""
    with Source(path) as source:
        conversion = importer_named(format).open(source, ImportOptions(**options), lambda _n: None)
        assert isinstance(conversion, RequestConversion)
        batches = [batch for _, batch in conversion.batches()]
    devices = conversion.metadata.source["devices"]
    names = ("ts_ns", "kind", "dev", "sector", "nr_sectors", "op")
    rows = [row for b in batches for row in zip(*(b.column(n).to_pylist() for n in names), strict=True)]
    return Read([(ts, kind, devices[str(dev)], *rest) for ts, kind, dev, *rest in rows], conversion)
