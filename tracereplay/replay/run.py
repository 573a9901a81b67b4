"""Replay a trace through strategies: demand once, machines side by side, counters, prices.

The demand stream is produced on a thread of its own, one batch ahead; each strategy has its own machine and takes
every batch. All of them run compiled code without the GIL, so two cores are used. Memory does not grow with the trace.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from dataclasses import replace as changed
from typing import TYPE_CHECKING, Any

from tracereplay.demand.copies import CopiedDemand
from tracereplay.demand.loaded import with_loads
from tracereplay.demand.paths import PATHS, PathSpec
from tracereplay.demand.rate import at_rate
from tracereplay.demand.reconstruct import Reconstruction, open_demand
from tracereplay.demand.request_pages import in_pieces
from tracereplay.demand.spec import DemandSpec
from tracereplay.demand.spool import Spool
from tracereplay.errors import ParameterError, TooLittleMemoryError
from tracereplay.kernel.gfp import GFP_NOMEMALLOC, GFP_NORETRY, GFP_NOWARN
from tracereplay.machine.build import notes_of
from tracereplay.machine.config import MachineConfig, percpu_batch
from tracereplay.machine.initial import InitialState
from tracereplay.machine.initial_trace import initial_state
from tracereplay.machine.layout import CFG_ZONES, MAX_CPUS, NO_QUOTA, Z_FREE, Z_MIN, Z_WORDS, Machine
from tracereplay.replay.engine import Engine, Outcome, PathConfig
from tracereplay.replay.remote import RemoteEngine
from tracereplay.trace.ahead import ahead

if TYPE_CHECKING:
    from tracereplay.demand.stream import DemandStream
    from tracereplay.strategies.registry import Choice
    from tracereplay.trace.reader import Trace

CRYPT_MEMORY_PERCENT = 2
CRYPT_MIN_PAGES = 4096
"""dm-crypt's share of memory and that share's floor (strategies.md section 1.1)."""
BINS = 120
START_NOTE = "free pages, pageblock types and per-CPU lists start as the page map and the first events show"
AHEAD = 4
"""Batches that demand may be ahead of the machines."""


@dataclass(frozen=True, slots=True)
class Replayed:
    """What a replay found, before prices."""

    outcomes: list[tuple[Choice, Outcome]]
    report: Any
    machine: MachineConfig
    path: PathConfig | None
    copies: dict[str, Any] | None = None
    """Copies of the demand that ran beside each other (demand/copies.py); None: there was one."""


def path_config(path: PathSpec | None, machine: MachineConfig) -> PathConfig | None:
    """Resources of a path on a machine: the mempool that its options name, and dm-crypt's quota."""
    if path is None:
        return None
    quota = NO_QUOTA
    if path.name == "dm-crypt":
        pages = sum(z.pages for z in machine.zones) * CRYPT_MEMORY_PERCENT // 100
        quota = max(pages // path.number("n_devices"), CRYPT_MIN_PAGES)
    gfp = PATHS[path.name].gfp & ~(GFP_NORETRY | GFP_NOMEMALLOC | GFP_NOWARN)  # which the mempool adds
    return PathConfig(path.name, path.pool_pages, quota, percpu_batch(machine), gfp)


def known_start(trace: Trace, config: MachineConfig) -> InitialState | None:
    """Where a trace's free pages were, if it has a page map and ``config`` is the host that it was read on."""
    if not config.starts_as_recorded or not trace.rows("page_map"):
        return None
    return initial_state(trace, config)


def replay(
    trace: Trace,
    choices: Sequence[Choice],
    machine: Callable[[int], MachineConfig],
    *,
    path: str | None = None,
    target: str | Sequence[str] = "batches",
    device: str | None = None,
    max_write: int | None = None,
    single_ok: Sequence[str] = (),
    loads: Sequence[str] = (),
    rate: float = 1.0,
    request_pages: int | None = None,
    copies: int = 1,
    progress: Callable[[int], None] = lambda _n: None,
) -> Replayed:
    """Feed a trace's demand to each strategy on a machine of its own: :func:`replay_demand` of its reconstruction.

    Options are those of :class:`~tracereplay.demand.spec.DemandSpec`. Raises TraceError, StrategyError, ParameterError,
    TooLittleMemoryError.
    """
    spec = DemandSpec(
        path=path,
        target=(target,) if isinstance(target, str) else tuple(target),
        device=device,
        max_write=max_write,
        single_ok=tuple(single_ok),
        loads=tuple(loads),
        rate=rate,
        request_pages=request_pages,
        copies=copies,
    )
    return replay_demand(trace, recorded_demand(trace, spec), spec, choices, machine, progress=progress)


def recorded_demand(trace: Trace, spec: DemandSpec) -> Reconstruction:
    """A trace's demand before copies and loads. Raises TraceError, UsageError."""
    return open_demand(
        trace,
        path=spec.path,
        target=spec.selectors,
        device=spec.device,
        single_ok=spec.single_ok,
        max_write=spec.max_write,
    )


def replay_demand(
    trace: Trace,
    recorded: Reconstruction | Spool,
    spec: DemandSpec,
    choices: Sequence[Choice],
    machine: Callable[[int], MachineConfig],
    *,
    progress: Callable[[int], None] = lambda _n: None,
) -> Replayed:
    """Feed a demand to each strategy on a machine of its own.

    ``recorded``: what :func:`recorded_demand` found; what ``spec`` makes of it is made here, in this order: rate,
    request_pages, copies, loads. ``machine`` makes the configuration from the number of CPUs that the demand names.
    ``progress`` is called with the number of operations done. Raises TraceError, StrategyError, ParameterError,
    TooLittleMemoryError.
    """
    ready = prepared(trace, recorded, spec, machine)
    stream, config, copied = ready.stream, ready.machine, ready.copied
    engines = [ready.engine(choice) for choice in choices]
    if copied is not None and engines:
        refuse_too_little_memory(copied, engines[0].machine)
    _feed(engines, stream, progress)
    notes = notes_of(engines[0].machine) if engines else ()
    return Replayed(
        outcomes=[(choice, engine.finish()) for choice, engine in zip(choices, engines, strict=True)],
        report=stream.report,
        machine=changed(config, notes=config.notes + notes),
        path=ready.path,
        copies=copied.to_json() if copied else None,
    )


@dataclass(frozen=True, slots=True)
class Prepared:
    """A replay before anything ran: the demand as strategies get it, the machine and where it starts."""

    stream: DemandStream
    machine: MachineConfig
    initial: InitialState | None
    path: PathConfig | None
    copied: CopiedDemand | None

    def engine(self, choice: Choice) -> Engine | RemoteEngine:
        """A strategy on a machine of its own. Raises StrategyError, ParameterError."""
        info = self.stream.info
        return (RemoteEngine if choice.foreign else Engine)(
            choice.params,
            self.machine,
            frames=info.frames,
            start_ns=info.start_ns,
            end_ns=info.end_ns,
            bins=BINS,
            path=self.path,
            initial=self.initial,
        )


def prepared(
    trace: Trace, recorded: Reconstruction | Spool, spec: DemandSpec, machine: Callable[[int], MachineConfig]
) -> Prepared:
    """Demand and machine of :func:`replay_demand`. Raises TraceError, ParameterError."""
    demand = at_rate(recorded, spec.rate)
    demand = in_pieces(demand, spec.request_pages, first_bio=trace.rows("bio_events"))
    copied = None if spec.copies == 1 else copied_demand(demand, spec.copies, machine(demand.info.cpus))
    stream = with_loads(copied or demand, spec.loads)
    config = machine(stream.info.cpus)
    if copied is not None:
        config = changed(config, cpus=stream.info.cpus)
    initial = known_start(trace, config)
    if initial is not None:
        config = changed(config, notes=(*config.notes, START_NOTE))
    return Prepared(stream, config, initial, path_config(recorded.path.spec if recorded.path else None, config), copied)


def _feed(engines: Sequence[Engine | RemoteEngine], stream: DemandStream, progress: Callable[[int], None]) -> None:
    """Replay a stream on all machines."""
    if len(engines) == 1 and isinstance(stream, Spool):  # a point of a sweep, beside others: no thread for one replay
        for ops in stream:
            engines[0].feed(ops)
            progress(len(ops))
        return
    with ThreadPoolExecutor(min(len(engines), os.cpu_count() or 1)) as pool:
        for ops in ahead(stream, AHEAD, "demand"):
            list(pool.map(lambda engine, ops=ops: engine.feed(ops), engines))
            progress(len(ops))


def copied_demand(recorded: DemandStream, copies: int, machine: MachineConfig) -> CopiedDemand:
    """Copies of a demand, each with as many CPUs as the machine of one. Raises ParameterError."""
    if copies * machine.cpus > MAX_CPUS:
        raise ParameterError(
            f"{copies} copies of a machine of {machine.cpus} CPUs have more than {MAX_CPUS}",
            hint=f"at most {MAX_CPUS // machine.cpus} copies, or fewer CPUs each: --machine cpus=...",
        )
    return CopiedDemand(recorded, copies, cpus=machine.cpus, seed=machine.seed)


def refuse_too_little_memory(copied: CopiedDemand, machine: Machine) -> None:
    """Raise TooLittleMemoryError where copies need more pages at one time than the machine has free at the start."""
    zones = range(int(machine.w[CFG_ZONES]))
    free = sum(int(machine.w[z * Z_WORDS + Z_FREE] - machine.w[z * Z_WORDS + Z_MIN]) for z in zones)
    wanted = copied.most_live()
    if wanted > free:
        raise TooLittleMemoryError(
            f"{copied.copies} copies of the demand need {wanted} pages at one time beyond those in use at the start, "
            f"and the machine has {max(free, 0)} above its min watermarks",
            hint="simulate more memory, or less of it in use (--machine memory=..., occupancy=...), or fewer copies",
        )
