"""``--machine KEY=VALUE``: what can be changed about a machine by name. Imports no Numba."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from tracereplay.errors import ParameterError, nearest
from tracereplay.kernel.constants import MAX_PAGE_ORDER, PAGE_SIZE
from tracereplay.kernel.generations import GENERATIONS, PCP_LOCKS
from tracereplay.machine.config import MachineConfig, default_zones, pcp_batch
from tracereplay.machine.directmap_start import DirectMap
from tracereplay.machine.free_start import Asked, restarted

CMA_UNIT = PAGE_SIZE << MAX_PAGE_ORDER
"""Bytes: areas are aligned so that their free pages merge with no others."""
LEAST_MEMORY = 64 << 20
MOST_CPUS = 1024
MOST_NODES = 8

Apply = Callable[[MachineConfig, Any], MachineConfig]


@dataclass(frozen=True, slots=True)
class Key:
    """One key: what it takes in words, how its text is read (ValueError, KeyError), and what it does."""

    takes: str
    parse: Callable[[str], Any]
    apply: Apply | None
    """None: a field of ``free_start.Asked``; these are settled together, last."""
    turn: int = 2
    """Keys of a lower turn are applied first: zones are made anew before anything is said of them."""


# ---------------------------------------------------------------- values
def parse_size(text: str) -> int:
    """Bytes of ``16GiB``, ``512MiB``, ``4096``. Raises ValueError."""
    units = {"kib": 1 << 10, "mib": 1 << 20, "gib": 1 << 30, "tib": 1 << 40, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30}
    lowered = text.strip().lower()
    for unit, factor in units.items():
        if lowered.endswith(unit):
            return int(float(lowered.removesuffix(unit)) * factor)
    return int(lowered)


def _whole(low: int, high: int | None = None) -> Callable[[str], int]:
    """A whole number within bounds, both included."""

    def parse(text: str) -> int:
        value = int(text)
        if value < low or (high is not None and value > high):
            raise ValueError(text)
        return value

    return parse


def _real(low: float, high: float) -> Callable[[str], float]:
    """A number within bounds, both included."""

    def parse(text: str) -> float:
        value = float(text)
        if not low <= value <= high:
            raise ValueError(text)
        return value

    return parse


def _share_below_1(text: str) -> float:
    value = float(text)
    if not 0 <= value < 1:
        raise ValueError(text)
    return value


def _memory(text: str) -> int:
    size = parse_size(text)
    if size < LEAST_MEMORY:
        raise ValueError(text)
    return size


def _cma(text: str) -> int:
    size = parse_size(text)
    if size < 0 or size % CMA_UNIT:
        raise ValueError(text)
    return size


def _generation(text: str) -> str:
    return GENERATIONS[text].name


def _pcp_lock(text: str) -> str:
    if text not in PCP_LOCKS:
        raise ValueError(text)
    return text


def _flag(text: str) -> bool:
    if text.lower() in ("1", "true", "yes", "on"):
        return True
    if text.lower() in ("0", "false", "no", "off"):
        return False
    raise ValueError(text)


# ---------------------------------------------------------------- what keys do
def _sets(name: str) -> Apply:
    """A field of the configuration."""
    return lambda config, value: replace(config, **{name: value})


def _direct_map(name: str) -> Apply:
    """A share of the direct map; the recorded sizes no longer count."""
    return lambda config, value: replace(
        config, direct_map=replace(config.direct_map, **{name: value}, recorded_kib=None)
    )


def _with_memory(config: MachineConfig, size: int) -> MachineConfig:
    return replace(_flat(config, size, config.nodes, "memory"), direct_map=DirectMap())


def _with_nodes(config: MachineConfig, nodes: int) -> MachineConfig:
    return _flat(config, max(z.end for z in config.zones) * PAGE_SIZE, nodes, "nodes")


def _flat(config: MachineConfig, size: int, nodes: int, key: str) -> MachineConfig:
    """A flat machine in place of what there was: of the host's zones nothing stays."""
    notes = config.notes
    if config.source == "snapshot":
        notes += (f"--machine {key}= makes all zones anew: what the host had free, where, and its watermarks are gone",)
    return replace(config, zones=default_zones(size, nodes), nodes=nodes, source="options", notes=notes)


def _with_cma(config: MachineConfig, size: int) -> MachineConfig:
    """A CMA area at the end of the largest zone."""
    largest = max(config.zones, key=lambda z: z.pages)
    if size // PAGE_SIZE > largest.pages // 2:
        raise ParameterError(
            f"cma={size >> 20}MiB is more than half of zone {largest.name}",
            hint=f"at most {largest.pages // 2 * PAGE_SIZE // CMA_UNIT * (CMA_UNIT >> 20)}MiB",
        )
    chosen = replace(largest, cma_pages=size // PAGE_SIZE)
    return replace(config, zones=tuple(chosen if z is largest else z for z in config.zones))


KEYS: dict[str, Key] = {
    "memory": Key("size from 64MiB on, e.g. 16GiB", _memory, _with_memory, turn=1),
    "cpus": Key(f"1 to {MOST_CPUS}", _whole(1, MOST_CPUS), _sets("cpus")),
    "nodes": Key(f"1 to {MOST_NODES}", _whole(1, MOST_NODES), _with_nodes, turn=0),
    "generation": Key(", ".join(GENERATIONS), _generation, _sets("generation")),
    "occupancy": Key("share of pages in use at the start, 0 to below 1", _share_below_1, None),
    "fragmentation": Key("share of free pages in order-0 blocks at the start, 0 to below 1", _share_below_1, None),
    "largest_free_order": Key(
        "order that no free block exceeds at the start, 0 to 10", _whole(0, MAX_PAGE_ORDER), None
    ),
    "min_free_kbytes": Key("KiB, as vm.min_free_kbytes", _whole(1), _sets("min_free_kbytes")),
    "watermark_scale_factor": Key(
        "ten-thousandths of a zone, 1 to 3000, as the sysctl", _whole(1, 3000), _sets("watermark_scale_factor")
    ),
    "pcp.batch": Key("pages", _whole(1), _sets("pcp_batch")),
    "pcp.high": Key("pages, fixed: no generation tunes it then", _whole(1), _sets("pcp_high")),
    "pcp.scale_max": Key("0 to 6", _whole(0, 6), _sets("pcp_scale_max")),
    "pcp_lock": Key(f"one of {', '.join(PCP_LOCKS)}", _pcp_lock, _sets("pcp_lock")),
    "llc_pages_per_cpu": Key("pages of last-level cache a CPU", _whole(0), _sets("llc_pages_per_cpu")),
    "vmstat_interval": Key("seconds, 0 for never", _real(0, 86400), _sets("vmstat_interval")),
    "watermark_boost_factor": Key(
        "ten-thousandths of the high watermark, 0 for no boost", _whole(0), _sets("watermark_boost_factor")
    ),
    "kswapd_rate": Key("pages a ms that kswapd frees while it runs", _whole(0), _sets("kswapd_rate")),
    "reclaim_pages": Key("pages that one direct reclaim frees", _whole(0), _sets("reclaim_pages")),
    "compaction_success": Key(
        "share of direct compactions that yield a block, 0 to 1", _real(0, 1), _sets("compaction_success")
    ),
    "cma": Key("size in whole 4MiB, at the end of the largest zone, e.g. 64MiB", _cma, _with_cma),
    "percpu_batch": Key(
        "batch of percpu counters, such as that behind dm-crypt's quota; 0 for exact ones",
        _whole(0),
        _sets("percpu_batch"),
    ),
    "init_on_alloc": Key("true or false", _flag, _sets("init_on_alloc")),
    "direct_map.1g": Key(
        "share of whole GiBs that the direct map holds in 1 GiB entries, 0 to 1", _real(0, 1), _direct_map("share_1g")
    ),
    "direct_map.4k": Key(
        "share of the other 2 MiB units that it holds in 4 KiB entries, 0 to 1", _real(0, 1), _direct_map("share_4k")
    ),
    "seed": Key("whole number", int, _sets("seed")),
}
"""Keys of ``--machine``."""


def parse_option(name: str, text: str) -> Any:
    """The value of one option. Raises ParameterError: an unknown key, a value that it does not take."""
    if name not in KEYS:
        guess = nearest(name, KEYS)
        listing = f"machine keys: {', '.join(KEYS)}"
        raise ParameterError(
            f"no machine key {name!r}", hint=f"did you mean {guess!r}? {listing}" if guess else listing
        )
    try:
        return KEYS[name].parse(text)
    except (ValueError, KeyError, OverflowError) as error:
        raise ParameterError(f"machine key {name!r} cannot be {text!r}", hint=f"it takes {KEYS[name].takes}") from error


def machine_options(config: MachineConfig, options: Mapping[str, str]) -> MachineConfig:
    """The machine with ``--machine`` options applied; their order does not matter.

    Raises ParameterError: an unknown key, a value that its key does not take, values that contradict each other.
    """
    values = {name: parse_option(name, text) for name, text in options.items()}
    asked = {}
    for name in sorted(values, key=lambda name: KEYS[name].turn):
        apply = KEYS[name].apply
        if apply is None:
            asked[name] = values[name]
        else:
            config = apply(config, values[name])
    config = restarted(config, Asked(**asked))
    _refuse_contradictions(config)
    return config


def _refuse_contradictions(config: MachineConfig) -> None:
    """Raise ParameterError for a machine that no kernel could be."""
    if config.pcp_high is not None:
        for zone in config.zones:
            batch = config.pcp_batch or pcp_batch(zone.pages)
            if config.pcp_high < batch:
                raise ParameterError(
                    f"pcp.high={config.pcp_high} is below the batch of zone {zone.name}, {batch} pages",
                    hint=f"give pcp.high={batch} or more (kernels keep it at {4 * batch} at least), or a smaller "
                    "pcp.batch",
                )
    if config.min_free_kbytes is not None and config.min_free_kbytes << 10 >= config.memory_bytes:
        raise ParameterError(
            f"min_free_kbytes={config.min_free_kbytes} is all of the memory, {config.memory_bytes >> 10} KiB",
            hint="kernels choose at most 262144, and at most a twentieth of the memory",
        )
