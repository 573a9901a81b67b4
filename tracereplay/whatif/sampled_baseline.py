"""The full replay that sampled points are measured against: exact counters block by block, and where to begin anew.

A demand is cut into blocks of equally many operations. A block is *measured* from a little behind its start, the
warm-up, to the same place in the next one, so that measured blocks follow each other without a gap. Checkpoints lie
at the starts.
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, cast
from zlib import crc32

import numpy as np
import numpy.typing as npt

from tracereplay.demand.spool import Rows, Spool
from tracereplay.demand.stream import ALLOC, FIRST
from tracereplay.errors import StorageError
from tracereplay.machine.counters import NR_COUNTERS
from tracereplay.replay.charged import charged
from tracereplay.replay.checkpoint import Checkpoint, Part, save, twin
from tracereplay.replay.run import Prepared, refuse_too_little_memory
from tracereplay.whatif.executors import go_on

if TYPE_CHECKING:
    from tracereplay.replay.engine import Engine, Outcome
    from tracereplay.strategies.registry import Choice

MOST_BLOCKS = 256
BLOCK_OPS = 1 << 14
"""Operations of a block, at least. To take up a checkpoint takes as long as some ten thousand."""
LEAST_BLOCKS = 80
"""With fewer, not much is saved: a point is replayed whole."""
LEAD = 16
"""Blocks at the start of the trace that every point replays from the start on."""
JUDGED = range(LEAD // 2, LEAD)
"""Those of them that are also replayed from the baseline's checkpoints."""
WARMUP = 8
"""The warm-up is a block's operations over this."""
MOST_DRAWN = 0.5
"""Share of the blocks that are drawn at most."""
HEAVY = 12
BURST = 2.5
"""A block that holds so many times the mean of some counter is heavy."""
CHUNK_OPS = 1 << 17

I64 = npt.NDArray[np.int64]


class Shelf:
    """Checkpoints in a file without a name."""

    def __init__(self) -> None:
        self._bytes = Rows(np.dtype(np.uint8))
        self._places: dict[int, list[tuple[int, int, int]]] = {}

    def put(self, block: int, checkpoint: Checkpoint) -> None:
        """Keep the checkpoint at a block's start. Raises StorageError."""
        places = self._places[block] = []
        for part in checkpoint:
            places.append((part.words, len(self._bytes), len(part.data)))
            try:
                self._bytes.write(np.frombuffer(part.data, np.uint8))
            except OSError as error:
                raise StorageError(
                    f"checkpoints need room in {tempfile.gettempdir()}: {error.strerror}",
                    hint="set TMPDIR to a directory on a larger disk",
                ) from error

    def get(self, block: int) -> Checkpoint:
        """That of a block; from any thread."""
        return tuple(Part(words, self._bytes.read(at, n).tobytes()) for words, at, n in self._places[block])


@dataclass(frozen=True, slots=True)
class Baseline:
    """A finished full replay of one strategy."""

    ready: Prepared
    choice: Choice
    spool: Spool
    starts: list[int]
    """First operation of each block."""
    measured: list[int]
    """Where each block's measure begins."""
    counters: I64
    """So far, where each block's measure begins, [block, NR_COUNTERS]."""
    shelf: Shelf
    heavy: list[int]
    """Blocks that every point replays, since they may differ most."""
    order: list[int]
    """Others in the order in which they are drawn; no more are."""
    state: I64
    """The strategy's words at the start."""
    engine: Engine
    """Without a state of its own; for its twins."""
    outcome: Outcome

    @property
    def blocks(self) -> int:
        """How many there are. Every point replays the first LEAD, the last, and the heavy ones."""
        return len(self.starts)

    @property
    def drawable(self) -> int:
        """How many there are beside these."""
        return self.blocks - LEAD - 1 - len(self.heavy)

    @property
    def drawable_known(self) -> I64:
        """What was paid in these, [NR_COUNTERS]."""
        heavy = np.array([self.known(k) for k in self.heavy], np.int64).reshape(-1, NR_COUNTERS)
        return np.asarray(self.counters[-1] - self.counters[LEAD] - heavy.sum(axis=0))

    def known(self, block: int) -> I64:
        """What was paid in a block but the last, [NR_COUNTERS]."""
        return np.asarray(self.counters[block + 1] - self.counters[block])


def blocks_of(ops: int) -> int:
    """Blocks that so many operations are cut into; 0 where they are too few to be sampled."""
    blocks = min(MOST_BLOCKS, ops // BLOCK_OPS)
    return blocks if blocks >= LEAST_BLOCKS else 0


def run_baseline(ready: Prepared, choice: Choice, seed: int, *, most: float = MOST_DRAWN) -> Baseline | None:
    """Replay a strategy whole, with checkpoints. None where the demand has too few operations to be cut into blocks.

    ``seed``: of the order in which blocks are drawn; ``most``: share of them that may be. Raises StrategyError,
    ParameterError, TooLittleMemoryError, StorageError.
    """
    spool = ready.stream if isinstance(ready.stream, Spool) else Spool(ready.stream)
    if not (blocks := blocks_of(len(spool))):
        return None
    size = len(spool) // blocks
    starts = [boundary(spool, k * len(spool) // blocks) for k in range(blocks)]
    measured = [boundary(spool, start + size // WARMUP) for start in starts]
    engine = cast("Engine", ready.engine(choice))
    if ready.copied is not None:
        refuse_too_little_memory(ready.copied, engine.machine)
    state, shelf, seen = engine.state.copy(), Shelf(), []
    for k, (start, begin) in enumerate(zip(starts, measured, strict=True)):
        if k >= JUDGED.start:
            shelf.put(k, save(engine))
        feed(engine, spool, start, begin)
        seen.append(charged(engine))
        feed(engine, spool, begin, starts[k + 1] if k + 1 < blocks else len(spool))
    like, counters = twin(engine), np.array(seen).reshape(-1, NR_COUNTERS)
    heavy = heavy_blocks(counters)
    shuffled = np.random.default_rng([seed, crc32(b"blocks")]).permutation(np.arange(LEAD, blocks - 1)).tolist()
    order = [k for k in shuffled if k not in heavy]
    return Baseline(
        ready=replace(ready, stream=spool),
        choice=choice,
        spool=spool,
        starts=starts,
        measured=measured,
        counters=counters,
        shelf=shelf,
        heavy=heavy,
        order=order[: round(len(order) * most)],
        state=state,
        engine=like,
        outcome=engine.finish(),
    )


def heavy_blocks(counters: I64) -> list[int]:
    """Of the blocks that could be drawn those that hold most of some counter, at most HEAVY of them.

    Where a counter's events come in few bursts, few draws may miss them all, and then nothing tells. Counters of fewer
    events than there are blocks are left to chance.
    """
    paid = np.diff(counters[LEAD:], axis=0).astype(np.float64)
    mean = paid.mean(axis=0)
    weights = np.divide(paid, mean, out=np.zeros_like(paid), where=mean >= 1).max(axis=1)
    order = np.argsort(-weights, kind="stable")[:HEAVY]
    return sorted(int(k) + LEAD for k in order if weights[k] > BURST)


def boundary(spool: Spool, at: int) -> int:
    """The first operation from ``at`` on that does not go on with the request before it."""
    while len(ops := spool.read(at, 64)):
        ends = np.flatnonzero((ops["kind"] != ALLOC) | (ops["flags"] & FIRST != 0))
        if len(ends):
            return at + int(ends[0])
        at += len(ops)
    return at


def feed(engine: Engine, spool: Spool, start: int, end: int) -> None:
    """Replay operations from ``start`` to before ``end``, both boundaries. Raises StoppedError when it is to end."""
    while start < end:
        stop = end if end - start <= CHUNK_OPS else boundary(spool, start + CHUNK_OPS)
        go_on()
        engine.feed(spool.read(start, stop - start))
        start = stop
