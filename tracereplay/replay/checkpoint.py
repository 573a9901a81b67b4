"""A replay put down between two operations and taken up again there, as often as one likes.

All of a replay's state lies in its arrays (machine/layout.py, replay/layout.py) and the strategy's words. Most of these
are zeros, so a checkpoint is a small part of them: 40 KiB for a machine of 2 GiB that begins.
"""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from tracereplay.replay import layout as at

if TYPE_CHECKING:
    from tracereplay.replay.engine import Engine

LEVEL = 1
"""Of zstandard: the fastest."""


class Part(NamedTuple):
    """One array of a checkpoint."""

    words: int
    data: bytes
    """Compressed."""


Checkpoint = tuple[Part, ...]
"""State of a replay: for its own engine and for its like."""


def save(engine: Engine) -> Checkpoint:
    """The state of a replay that is between two operations."""
    import zstandard

    packer = zstandard.ZstdCompressor(level=LEVEL)
    return tuple(Part(len(array), packer.compress(array.view(np.uint8).data)) for array in _arrays(engine))


def twin(engine: Engine) -> Engine:
    """An engine for the same strategy, machine and demand, without a state: restore one before anything else."""
    made = copy.copy(engine)
    nothing = [np.empty(0, array.dtype) for array in _arrays(engine)]
    nothing[-1] = engine.arrays.x[: at.X_BINS]  # where the strategy's functions lie
    _take(made, nothing)
    return made


def restore(engine: Engine, checkpoint: Checkpoint) -> None:
    """Take a replay up again where ``checkpoint`` was made; its parameters and settings are the checkpoint's too."""
    import zstandard

    unpacker = zstandard.ZstdDecompressor()
    addresses = engine.arrays.x[at.X_INIT : at.X_FINISH + 1].copy()  # other in every process
    arrays = []
    for array, part in zip(_arrays(engine), checkpoint, strict=True):
        room = array if len(array) == part.words else np.empty(part.words, array.dtype)
        with unpacker.stream_reader(part.data) as reader:
            reader.readinto(room.view(np.uint8).data)
        arrays.append(room)
    arrays[-1][at.X_INIT : at.X_FINISH + 1] = addresses
    _take(engine, arrays)


def _arrays(engine: Engine) -> list[np.ndarray[Any, Any]]:
    m = engine.machine
    return [m.pg, m.pb, m.w, engine.background, engine.state, *engine.arrays]


def _take(engine: Engine, arrays: list[np.ndarray[Any, Any]]) -> None:
    pg, pb, w, background, state, *loop = arrays
    engine.background, engine.state = background, state
    engine.machine = engine.machine._replace(pg=pg, pb=pb, w=w, c=background)
    engine.arrays = at.Loop(*loop)
