"""Kernel stacks of a capture: events name them by a 64-bit hash, the trace by a small number.

The collector sends the frames of a stack once, at first sight, before the event that has it (collectors/
cstacks.py), and names of addresses at the end. So ids are given while events are written, in order of first
sight, and table ``stacks`` is written last. Memory is bounded: stacks beyond MAX_STACKS get no id.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from tracereplay.errors import CollectorError
from tracereplay.trace.decode import Loss, Records

if TYPE_CHECKING:
    import polars as pl

U64 = npt.NDArray[np.uint64]
U32 = npt.NDArray[np.uint32]
Mask = npt.NDArray[np.bool_]

MAX_STACKS = 1 << 18
"""Distinct stacks that are kept, about 400 bytes each."""

TRACING = (
    "__bpf_trace_",
    "__traceiter_",
    "bpf_prog_",
    "bpf_trace_run",
    "bpf_trampoline_",
    "ftrace_trampoline",
    "perf_trace_",
    "trace_call_bpf",
    "trace_event_raw_event_",
)
"""How functions between an event and its recording begin: dropped from the inner end of a stack."""

UNKNOWN_STACK = "[lost]"

_Symbol = tuple[str, int, str]


class StackTable:
    """Hashes of stacks -> ids, and table ``stacks``."""

    def __init__(self) -> None:
        self._ids: dict[int, int] = {}
        """Hash -> id."""
        self._of_address: dict[int, int] = {}
        """Address -> id of the stack that has this one frame."""
        self._frames: list[bytes | None] = []
        """By id: the addresses, innermost first; None: not seen (yet)."""
        self._symbols: dict[int, _Symbol] = {}
        self.collisions = 0
        """Stacks of one hash whose frames differ; the first one is kept."""
        self.refused = 0
        """Events whose stack got no id because there were too many."""

    def __len__(self) -> int:
        return len(self._frames)

    @property
    def missing(self) -> int:
        """Stacks that events have and whose frames never came."""
        return sum(frames is None for frames in self._frames)

    # ------------------------------------------------------------ while it runs
    def ids(self, hashes: U64) -> tuple[U32, Mask]:
        """Ids of stacks by hash, and which of them have one: hash 0 is no stack."""
        return self._ids_of(hashes, self._ids)

    def ids_of_addresses(self, addresses: U64) -> tuple[U32, Mask]:
        """The same for stacks of one frame: callers of which only the address is known (0: none)."""
        return self._ids_of(addresses, self._of_address)

    def id_of_address(self, address: int) -> int | None:
        """Id of the stack of this one frame; None when there are too many stacks."""
        ids, known = self.ids_of_addresses(np.array([address], np.uint64))
        return int(ids[0]) if known[0] else None

    def _ids_of(self, keys: U64, table: dict[int, int]) -> tuple[U32, Mask]:
        encoded = pa.array(keys).dictionary_encode()
        distinct = encoded.dictionary.to_numpy().tolist()
        codes = encoded.indices.to_numpy()
        numbers = np.zeros(len(distinct), np.uint32)
        known = np.ones(len(distinct), np.bool_)
        for code, key in enumerate(distinct):
            number = self._number(key, table)
            if number is None:
                known[code] = False
                if key:
                    self.refused += int(np.count_nonzero(codes == code))
            else:
                numbers[code] = number
        return numbers[codes], known[codes]

    def _number(self, key: int, table: dict[int, int]) -> int | None:
        number = table.get(key)
        if number is None and key and len(self._frames) < MAX_STACKS:
            number = table[key] = len(self._frames)
            self._frames.append(np.uint64(key).tobytes() if table is self._of_address else None)
        return number

    def add(self, records: Records) -> None:
        """Take records of the ring ``stack``. A repeated one is compared, and left out."""
        frames = np.ascontiguousarray(records.column("frames"))
        depths = np.minimum(records.column("depth"), frames.shape[1])
        for row, (key, depth) in enumerate(zip(records.column("hash").tolist(), depths.tolist(), strict=True)):
            number = self._number(key, self._ids)
            if number is None:
                continue
            seen, came = self._frames[number], frames[row, :depth].tobytes()
            if seen is None:
                self._frames[number] = came
            elif seen != came:
                self.collisions += 1

    def frames(self, number: int) -> tuple[int, ...]:
        """Return addresses of a stack by its id, innermost first; empty when they have not come (yet)."""
        packed = self._frames[number] if number < len(self._frames) else None
        return tuple(np.frombuffer(packed, np.uint64).tolist()) if packed else ()

    def symbols(self, value: Mapping[str, Any]) -> None:
        """Take a SYMBOLS frame. Raises CollectorError for one that makes no sense."""
        try:
            for address, (name, offset, module) in value["symbols"].items():
                self._symbols[int(address)] = (str(name), int(offset), str(module))
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise CollectorError(f"the collector's symbols are damaged: {error!r}") from None

    # ------------------------------------------------------------ at the end
    def notes(self) -> list[str]:
        """What the reader of the trace has to know, if anything."""
        said = []
        if self.missing:
            said.append(
                f"{self.missing} of {len(self)} stacks came without their frames: one row each, without address"
            )
        if self.collisions:
            said.append(f"{self.collisions} stacks have the hash of another one, whose frames stand for both")
        if self.refused:
            said.append(f"{self.refused} events have no stack: more than {MAX_STACKS:,} different ones")
        return said

    def batch(self) -> pa.RecordBatch:
        """Table ``stacks``: a row for each frame, by id and depth.

        Functions of tracing itself at the inner end are left out, so that depth 0 is where the event is. A
        stack whose frames were lost has one row, depth 0, without address. Symbol, offset and module are null
        where the address has no name; module is null for the kernel itself.
        """
        lengths = np.array([len(f) // 8 if f is not None else 0 for f in self._frames], np.int64)
        addresses = np.frombuffer(b"".join(f for f in self._frames if f), np.uint64)
        distinct, codes = np.unique(addresses, return_inverse=True)
        found = [self._symbols.get(address) for address in distinct.tolist()]
        owner = np.repeat(np.arange(len(lengths)), lengths)
        depth = np.arange(len(addresses)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
        first = _first_outside_tracing(owner, depth, codes, found, len(lengths))
        keep = depth >= first[owner]
        lost = np.flatnonzero(lengths == 0)
        where = np.searchsorted(owner[keep], lost)
        owner, depth, codes = owner[keep], (depth - first[owner])[keep], codes[keep]
        columns = {
            "stack_id": pa.array(np.insert(owner, where, lost).astype(np.uint32)),
            "depth": pa.array(np.insert(depth, where, 0).astype(np.uint16)),
        }
        rows = pa.array(np.insert(codes, where, -1), mask=np.insert(np.zeros(len(codes), np.bool_), where, True))
        text, number = pa.string(), pa.uint64()
        columns["address"] = pa.array(distinct).take(rows)
        columns["symbol"] = _dictionary((f[0] if f else None for f in found), text).take(rows)
        columns["offset"] = pa.array([f[1] if f else None for f in found], number).take(rows)
        columns["module"] = _dictionary(((f[2] or None) if f else None for f in found), text).take(rows)
        return pa.RecordBatch.from_pydict(columns)


def _dictionary(values: Iterable[str | None], kind: pa.DataType) -> pa.DictionaryArray:
    return pa.array(list(values), kind).dictionary_encode()


def _first_outside_tracing(
    owner: npt.NDArray[np.int64],
    depth: npt.NDArray[np.int64],
    codes: npt.NDArray[np.int64],
    found: list[_Symbol | None],
    stacks: int,
) -> npt.NDArray[np.int64]:
    """By stack: the depth of the first frame that does not belong to tracing.

    The inner end is followed through tracing functions and addresses without a name (programs may have none),
    to the last tracing function of that run. A stack of nothing else is kept whole.
    """
    tracing = np.array([f is not None and f[0].startswith(TRACING) for f in found], np.bool_)
    passing = tracing | np.array([f is None for f in found], np.bool_)
    run = np.full(stacks, np.iinfo(np.int64).max)
    outside = ~passing[codes]
    np.minimum.at(run, owner[outside], depth[outside])
    first = np.zeros(stacks, np.int64)
    inner = tracing[codes] & (depth < run[owner])
    np.maximum.at(first, owner[inner], depth[inner] + 1)
    size = np.bincount(owner, minlength=stacks)
    first[first >= size] = 0
    return first


def stack_errors(counters: Mapping[str, Any], started_ns: int, stopped_ns: int) -> list[Loss]:
    """Stacks that were due and that the kernel could not take, by CPU, from the counters of a closing frame. Their
    events were recorded, without a stack."""
    found: dict[str, int] = {}
    for of_ring in counters.values():
        for cpu, of_cpu in of_ring.items():
            n = sum(int(counted.get("stack_errors", 0)) for counted in of_cpu.values())
            found[cpu] = found.get(cpu, 0) + n
    return [Loss("stacks", int(cpu), started_ns, stopped_ns, n, "stack") for cpu, n in sorted(found.items()) if n]


def folded_stacks(stacks: pl.LazyFrame) -> pl.LazyFrame:
    """``stack_id``, ``stack``: the functions of each stack, outermost first, joined by ``;`` as flame graphs
    want them. ``stacks``: that table of a trace.

    An address without a name stands for itself, in hexadecimal; a stack whose frames were lost is ``[lost]``.
    """
    import polars as pl

    unnamed = pl.when(pl.col("symbol").is_null()).then(pl.col("address"))
    address = unnamed.map_elements(hex, pl.String)
    name = pl.coalesce(pl.col("symbol").cast(pl.String), address, pl.lit(UNKNOWN_STACK))
    ordered = stacks.select("stack_id", "depth", name=name).sort("stack_id", "depth", descending=[False, True])
    return ordered.group_by("stack_id", maintain_order=True).agg(stack=pl.col("name").str.join(";"))
