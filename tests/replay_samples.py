"""Random demand streams as the contract of tracereplay/demand/stream.py has them, and both replays of one."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterable
from typing import Any

import numpy as np

from tests.machine_samples import GFPS
from tests.reference import slow_replay, slow_unmapped
from tests.reference.direct_map_driver import slow_map_of
from tests.reference.machine_driver import counters_of, differences, picture_of_compiled, picture_of_slow, slow_twin
from tests.reference.slow_caches import CACHES
from tests.reference.slow_crypt import Pool, Quota
from tests.reference.slow_replay import Request, SlowReplay
from tests.reference.slow_waiting_strategy import SlowWaiting
from tests.waiting_strategy import Waiting
from tracereplay.demand.stream import (
    ALLOC,
    BATCH,
    FIRST,
    FREE,
    FREE_INITIAL,
    OF_BIO,
    ON_PATH,
    OP,
    PIECE,
    REQUIRED,
    TARGETED,
    UNSEEN,
)
from tracereplay.machine.build import build_machine
from tracereplay.machine.config import MachineConfig
from tracereplay.machine.counters import COUNTERS
from tracereplay.machine.layout import CFG_RESERVE_PEAK, NO_QUOTA
from tracereplay.replay import layout as at
from tracereplay.replay.engine import Engine, Outcome, PathConfig
from tracereplay.strategies.contract import Params
from tracereplay.strategies.registry import load_strategy

Ops = np.ndarray[Any, np.dtype[np.void]]
STRATEGIES = slow_replay.STRATEGIES | slow_unmapped.STRATEGIES | CACHES | {"waiting": SlowWaiting}
FACTS = {
    "requests": at.X_REQUESTS,
    "pages": at.X_PAGES,
    "targeted_requests": at.X_TARGETED_REQUESTS,
    "targeted_pages": at.X_TARGETED_PAGES,
    "failed": at.X_FAILED,
    "background_failed": at.X_BACKGROUND_FAILED,
    "orphans": at.X_ORPHANS,
    "held_frees": at.X_HELD_FREES,
    "held_elsewhere": at.X_HELD_ELSEWHERE,
    "held_missing": at.X_HELD_MISSING,
    "unseen_pages": at.X_UNSEEN_PAGES,
}
"""What both replays count, by name."""
WAITS = (at.X_WAITED, at.X_WAIT_NS, at.X_WAIT_LONGEST, at.X_WAITING, at.X_STUCK)


def op(
    kind: int, key: int, order: int = 0, *, ts: int = 0, cpu: int = 0, gfp: int = 0xCC0, pages: int = 0, flags: int = 0
) -> Any:
    """One record, as a tuple in the order of OP's fields."""
    return (ts, key, gfp, pages, 0, cpu, flags, kind, order, 0, 0)


def ops_of(records: Iterable[Any]) -> Ops:
    """Records as an array."""
    return np.array(list(records), OP)


def request(key: int, orders: Iterable[int], *, flags: int = 0, **more: int) -> list[Any]:
    """A request of extents of these orders, keys one after another from ``key`` on (aligned as asked)."""
    records = []
    orders = list(orders)
    pages = sum(1 << order for order in orders)
    for i, order in enumerate(orders):
        first = i == 0
        records.append(
            op(ALLOC, key, order, pages=pages if first else 0, flags=flags | (FIRST if first else 0), **more)
        )
        key += 1 << order
    return records


class Keys:
    """Keys that are free, given out aligned to their order."""

    def __init__(self, frames: int, rng: random.Random) -> None:
        self.free = set(range(frames))
        self.frames = frames
        self.rng = rng

    def take(self, order: int) -> int | None:
        size = 1 << order
        for _ in range(20):
            key = self.rng.randrange(self.frames >> order) << order
            if self.free.issuperset(range(key, key + size)):
                self.free -= set(range(key, key + size))
                return key
        return None


def random_stream(rng: random.Random, n: int, *, frames: int = 4096, cpus: int = 4, path: bool = False) -> Ops:
    """About ``n`` records: background, targeted and unseen requests of all shapes; frees in pieces and of several."""
    keys = Keys(frames, rng)
    live: set[int] = set()
    records: list[Any] = []
    bios: list[list[int]] = []  # number, pieces to come
    ts = 0
    while len(records) < n:
        ts += rng.choice((0, 1, 50, 3000))
        cpu = rng.randrange(cpus + 1)  # one more than the machine may have
        draw = rng.random()
        if draw < 0.02:
            records.append(op(FREE_INITIAL, rng.randrange(frames), rng.choice((0, 0, 1, 3, 10)), ts=ts, cpu=cpu))
        elif draw < 0.5 and live:
            for _ in range(min(rng.randint(1, 40), len(live))):
                records.append(free_some(rng, live, keys, ts, cpu))
                if not live:
                    break
        else:
            flags = rng.choice((0, 0, TARGETED, TARGETED, TARGETED, UNSEEN))
            if flags == TARGETED:
                flags |= rng.choice((0, BATCH, BATCH, REQUIRED)) | (ON_PATH if path and rng.random() < 0.7 else 0)
            if flags & TARGETED and rng.random() < 0.5:
                flags |= OF_BIO
            if flags == 0 and rng.random() < 0.1:
                flags = OF_BIO
            shape = rng.choice(((0,) * rng.randint(1, 40), (rng.randint(0, 6),), (2, 1, 0), (3, 3), (0, 1, 2, 0), (8,)))
            if flags == UNSEEN:
                shape = (0,) * rng.randint(1, 20)
            taken = [(order, keys.take(order)) for order in shape]
            found = [(order, key) for order, key in taken if key is not None]
            pages = sum(1 << order for order, _ in found)
            gfp = rng.choice(GFPS)
            if flags & OF_BIO and found and rng.random() < 0.5:
                bios.append([len(bios), rng.randint(1, 4)] if rng.random() < 0.5 or not bios else rng.choice(bios))
                bio = bios[-1]
                if bio[1] > 0:
                    bio[1] -= 1
                    records.append(op(PIECE, bio[0], ts=ts, cpu=cpu, pages=bio[1]))
            for i, (order, key) in enumerate(found):
                mark = FIRST if i == 0 else 0
                records.append(
                    op(ALLOC, key, order, ts=ts, cpu=cpu, gfp=gfp, pages=0 if i else pages, flags=flags | mark)
                )
                live |= set(range(key, key + (1 << order)))
    return ops_of(records)


def free_some(rng: random.Random, live: set[int], keys: Keys, ts: int, cpu: int) -> Any:
    """Free an aligned run of live keys, whatever requests they belong to."""
    key = rng.choice(tuple(live)) if len(live) < 50 else next(iter(live))
    order = 0
    for wider in range(rng.choice((0, 0, 1, 2, 3, 5, 8)) + 1):
        head = key >> wider << wider
        if live.issuperset(range(head, head + (1 << wider))):
            order = wider
    head = key >> order << order
    pages = set(range(head, head + (1 << order)))
    live -= pages
    keys.free |= pages
    return op(FREE, head, order, ts=ts, cpu=cpu)


def params_of(strategy: str, params: dict[str, str] | None) -> Params:
    """Parameters of a strategy, those of tests included."""
    return (Waiting if strategy == "waiting" else load_strategy(strategy)).from_text(params or {})


def run_engine(
    ops: Ops,
    config: MachineConfig,
    strategy: str = "per-page",
    params: dict[str, str] | None = None,
    *,
    frames: int = 4096,
    end_ns: int | None = None,
    bins: int = 6,
    path: PathConfig | None = None,
    batch: int | None = None,
) -> Outcome:
    """The compiled replay of a stream, in batches that cut no request."""
    engine = Engine(
        params_of(strategy, params),
        config,
        frames=frames,
        start_ns=0,
        end_ns=int(ops["ts_ns"].max()) if end_ns is None else end_ns,
        bins=bins,
        path=path,
    )
    starts = np.flatnonzero((ops["kind"] != ALLOC) | (ops["flags"] & FIRST != 0))
    cuts = starts[::batch].tolist() if batch else [0]
    for first, last in zip(cuts, [*cuts[1:], len(ops)], strict=True):
        engine.feed(ops[first:last])
    return engine.finish()


def run_slow(
    ops: Ops,
    config: MachineConfig,
    strategy: str = "per-page",
    params: dict[str, str] | None = None,
    *,
    bins: int = 6,
    path: PathConfig | None = None,
) -> SlowReplay:
    """The slow replay of the same."""
    built = build_machine(config)
    machine = slow_twin(built, config)
    pool = Pool(
        machine,
        path.pool_pages if path else 0,
        Quota(None if path is None or path.quota == NO_QUOTA else path.quota, path.counter_batch if path else 0),
        path.gfp if path else 0,
    )
    pool.fill(0, 0xCC0)
    chosen = STRATEGIES[strategy](machine, pool, params_of(strategy, params).values())
    machine.counters.clear()
    machine.by_order.clear()
    if isinstance(chosen, slow_unmapped.Unmapped):
        chosen.direct_map = slow_map_of(built, machine)
    replay = SlowReplay(
        machine=machine,
        strategy=chosen,
        cpus=config.cpus,
        start_ns=0,
        bin_ns=at.time_bins(int(ops["ts_ns"].max()), bins)[1],
        bins=bins,
    )
    replay.feed(ops)
    replay.wind_up()
    return replay


def vectors_of(outcome: Outcome) -> Counter[frozenset[tuple[str, int]]]:
    """How many requests have which counters."""
    return counters_by_row(outcome.vectors, outcome.counts)


def counters_by_row(vectors: Any, counts: Any) -> Counter[frozenset[tuple[str, int]]]:
    """How often which counters are there."""
    found: Counter[frozenset[tuple[str, int]]] = Counter()
    for vector, count in zip(vectors.tolist(), counts.tolist(), strict=True):
        found[frozenset((k, v) for k, v in zip(COUNTERS, vector, strict=True) if v)] += count
    return found


def cells_of(outcome: Outcome) -> dict[tuple[int, tuple[tuple[str, int], ...]], int]:
    """The same by time bin of the arrival."""
    names = [tuple(sorted((k, v) for k, v in zip(COUNTERS, row, strict=True) if v)) for row in outcome.vectors.tolist()]
    return {(time_bin, names[vector]): requests for vector, time_bin, requests in outcome.cells.tolist()}


def summary_of_engine(outcome: Outcome) -> dict[str, Any]:
    """What a compiled replay found, in plain values."""
    x = outcome.scalars
    return {
        "facts": {name: int(x[place]) for name, place in FACTS.items()} | {"censored": int(x[at.X_CENSORED])},
        "vectors": {tuple(sorted(k)): n for k, n in vectors_of(outcome).items()},
        "cells": cells_of(outcome),
        "targeted": counters_of(outcome.totals),
        "background": counters_of(outcome.background),
        "worker": counters_of(outcome.worker),
        "waits": tuple(
            int(x[place]) for place in (at.X_WAITED, at.X_WAIT_NS, at.X_WAIT_LONGEST, at.X_WAITING, at.X_STUCK)
        ),
        "waste": (int(x[at.X_WASTE]), int(x[at.X_WASTE_PEAK])),
        "reserve_peak": int(outcome.machine.w[CFG_RESERVE_PEAK]),
        "bios": {tuple(sorted(k)): n for k, n in counters_by_row(outcome.bio_vectors, outcome.bio_counts).items()},
        "bio_pieces": outcome.bio_pieces,
        "series": [dict(zip(COUNTERS, row, strict=True)) for row in outcome.series.tolist()],
        "background_series": [dict(zip(COUNTERS, row, strict=False)) for row in outcome.background_series.tolist()],
        "machine": picture_of_compiled(outcome.machine) | {"counters": None, "used": None},
    }


def summary_of_slow(replay: SlowReplay) -> dict[str, Any]:
    """The same of the slow one."""
    requests: list[Request] = replay.ended + replay.live
    series: list[Counter[str]] = [Counter() for _ in range(replay.bins)]
    totals: Counter[str] = Counter()
    for r in requests:
        series[r.time_bin] += r.counters
        totals += r.counters
        for (name, order), n in r.by_order.items():
            totals[f"{name}[{order}]"] += n
    background, worker = replay.background.copy(), replay.worker.copy()
    for row, by_order in ((background, replay.background_by_order), (worker, replay.worker_by_order)):
        for (name, order), n in by_order.items():
            row[f"{name}[{order}]"] += n
    waits = replay.waits
    cells = Counter((r.time_bin, tuple(sorted((k, v) for k, v in r.counters.items() if v))) for r in requests)
    vectors: Counter[Any] = Counter()
    for (_, vector), n in cells.items():
        vectors[vector] += n
    whole = [r.counters for r in requests if r.flags & OF_BIO and r.bio is None]
    pieces = [r for r in requests if r.bio is not None]
    in_pieces: dict[int, Counter[str]] = {r.bio: Counter() for r in pieces if r.bio is not None}
    for r in pieces:
        if r.bio is not None:
            in_pieces[r.bio] += r.counters
    cut = {bio for bio in in_pieces if replay.to_come[bio]}
    return {
        "facts": {name: replay.facts[name] for name in FACTS} | {"censored": len(replay.live)},
        "vectors": dict(vectors),
        "cells": dict(
            Counter((r.time_bin, tuple(sorted((k, v) for k, v in r.counters.items() if v))) for r in requests)
        ),
        "targeted": {k: v for k, v in totals.items() if v},
        "background": {k: v for k, v in background.items() if v},
        "worker": {k: v for k, v in worker.items() if v},
        "waits": (len(waits), sum(waits), max(waits, default=0), len(replay.waiting), len(replay.stuck)),
        "waste": (replay.waste, replay.waste_peak),
        "reserve_peak": replay.strategy.pool.idle_peak,
        "bios": dict(Counter(tuple(sorted((k, v) for k, v in c.items() if v)) for c in [*whole, *in_pieces.values()])),
        "bio_pieces": (len(pieces), len(in_pieces), len(cut)),
        "series": [{name: row[name] for name in COUNTERS} for row in series],
        "background_series": [{name: replay.series[b][name] for name in COUNTERS} for b in range(replay.bins)],
        "machine": picture_of_slow(replay.machine) | {"counters": None, "used": None},
    }


def compare(outcome: Outcome, replay: SlowReplay) -> list[str]:
    """Where the two differ."""
    return differences(summary_of_engine(outcome), summary_of_slow(replay))
