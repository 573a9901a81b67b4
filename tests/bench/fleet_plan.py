"""What a fleet costs to record and to replay, from rates measured here: ``python -m tests.bench.fleet_plan TRACE...``.

Rates are those of the traces given: events a second of their workloads, bytes an event, CPU seconds an event of replay
and analysis on this machine, each run a second time so that compiling is not in it. The rest is arithmetic, which the
functions below are.
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Callable
from dataclasses import dataclass

from tracereplay.analysis.registry import analysis_named
from tracereplay.machine.from_trace import configured_machine
from tracereplay.replay.run import replay
from tracereplay.report.numbers import figure, size_bytes
from tracereplay.strategies.registry import choose
from tracereplay.trace.reader import Trace
from tracereplay.trace.schema import EVENT_TABLES

DAY_S = 86_400
HOSTS = (1, 10, 1_000, 100_000)
STRATEGIES = ("per-page", "bulk", "compound", "unmapped-cache")


@dataclass(frozen=True)
class Rates:
    """Of one workload and of this machine."""

    name: str
    events_per_s: float
    bytes_per_event: float
    other_bytes: float
    """Of a trace beside its events: tasks, stacks, snapshots, page map."""
    replay_s: float
    """CPU seconds an event of demand and one strategy."""
    more_s: float
    """And of each further strategy."""
    analyze_s: float
    """CPU seconds an event of ``analyze callers``."""


@dataclass(frozen=True)
class Load:
    """Of a day."""

    hosts: int
    traces: int
    bytes: float
    replay_hours: float
    """Core hours of one replay of STRATEGIES."""
    analyze_hours: float


def load(rates: Rates, hosts: int, seconds: float, traces: int, strategies: int = len(STRATEGIES)) -> Load:
    """``hosts`` that record so many ``seconds`` of a day, in so many ``traces`` each."""
    events = hosts * rates.events_per_s * seconds
    cpu = rates.replay_s + (strategies - 1) * rates.more_s
    stored = events * rates.bytes_per_event + hosts * traces * rates.other_bytes
    return Load(hosts, hosts * traces, stored, events * cpu / 3600, events * rates.analyze_s / 3600)


def hosts_needed(hosts: int, spread: float, error: float) -> int:
    """Hosts to draw for a mean that is right to ``error`` (95 %), where single hosts differ by ``spread`` (standard
    deviation over mean), of a fleet of ``hosts`` (Cochran, Sampling Techniques, 1977, 4.7)."""
    endless = (1.96 * spread / error) ** 2
    return min(hosts, math.ceil(endless / (1 + endless / hosts)))


def measured(location: str) -> Rates:
    """Rates of a trace."""
    trace = Trace.open(location)
    events = sum(trace.rows(t) for t in EVENT_TABLES)
    seconds = trace.identity()["duration_ns"] / 1e9
    bytes_of = {t: sum(part.bytes for part in parts) for t, parts in trace.files.items()}
    in_events = sum(bytes_of.get(t, 0) for t in EVENT_TABLES)

    def replayed(names: tuple[str, ...]) -> Callable[[], object]:
        return lambda: replay(trace, choose(names), lambda cpus: configured_machine(trace, cpus, {}, 0))

    one, all_of_them = cpu_seconds(replayed(STRATEGIES[:1])), cpu_seconds(replayed(STRATEGIES))
    return Rates(
        location.rstrip("/").rpartition("/")[2],
        events / seconds,
        in_events / events,
        sum(bytes_of.values()) - in_events,
        one / events,
        max(all_of_them - one, 0.0) / (len(STRATEGIES) - 1) / events,
        cpu_seconds(lambda: analysis_named("callers")(trace)) / events,
    )


def cpu_seconds(work: Callable[[], object]) -> float:
    """The least of three, after one that compiles."""
    work()
    taken = []
    for _ in range(3):
        start = time.process_time()
        work()
        taken.append(time.process_time() - start)
    return min(taken)


def row(name: str, found: Load) -> str:
    """A line of a table."""
    cells = (name, f"{found.hosts:,}", f"{found.traces:,}", size_of(found.bytes), figure(found.replay_hours),
             figure(found.analyze_hours))  # fmt: skip
    return "| " + " | ".join(cells) + " |"


def size_of(n: float) -> str:
    """Bytes in the unit that suits them, up to PiB."""
    for unit, factor in (("PiB", 1 << 50), ("TiB", 1 << 40)):
        if n >= factor:
            return f"{figure(n / factor)} {unit}"
    return size_bytes(round(n))


def main() -> None:
    """Print the rates and the plan."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("traces", nargs="+", metavar="TRACE")
    parser.add_argument("--window", type=float, default=60.0, help="seconds that a sampled host records at a time")
    parser.add_argument("--windows", type=int, default=24, help="windows a day")
    parser.add_argument("--spread", type=float, default=0.5, help="standard deviation over mean, from host to host")
    parser.add_argument("--error", type=float, default=0.05, help="error of the fleet's mean that is accepted (95 %%)")
    given = parser.parse_args()
    rates = [measured(location) for location in given.traces]
    print("| trace | events/s | B/event | other KiB | replay events/s | each more | analyze events/s |")
    print("|---|---|---|---|---|---|---|")
    for r in rates:
        speeds = (1 / s if s else None for s in (r.replay_s, r.more_s, r.analyze_s))
        cells = (figure(r.events_per_s), figure(r.bytes_per_event), figure(r.other_bytes / 1024), *map(figure, speeds))
        print(f"| {r.name} | " + " | ".join(cells) + " |")
    for r in rates:
        print(f"\n{r.name}, a day\n")
        print(f"| what is recorded | hosts | traces | bytes | replay of {len(STRATEGIES)}, core h | analyze, core h |")
        print("|---|---|---|---|---|---|")
        for hosts in HOSTS:
            print(row(f"all of {hosts:,}, all day", load(r, hosts, DAY_S, 24)))
            drawn = hosts_needed(hosts, given.spread, given.error)
            seconds = given.window * given.windows
            name = f"{drawn:,} of {hosts:,}, {given.windows} x {given.window:g} s"
            print(row(name, load(r, drawn, seconds, given.windows)))


if __name__ == "__main__":
    main()
