"""Which layer of a trace a path takes, and what of it is on the path already."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tracereplay.demand.callers import Callers
from tracereplay.demand.flight import Flight
from tracereplay.demand.layers import Layers
from tracereplay.demand.path_bios import Encrypted, PathSource, keys_needed
from tracereplay.demand.paths import PathSpec
from tracereplay.demand.target import bio_label
from tracereplay.kernel.constants import dev_text

_BIO, _REQUEST, _BELOW, _NONE = "block_bio_complete", "block_rq_complete", "completions of the devices below", "none"


@dataclass(frozen=True, slots=True)
class PathInUse:
    """A path over a trace."""

    spec: PathSpec
    device: int | None
    """The layer's whole device."""
    recorded: bool
    """The trace shows dm-crypt's own requests: they are on the path."""
    source: PathSource | None
    """Makes requests from bios; None where there are no others."""
    layer: dict[str, Any]
    """More about the layer, for reports."""
    keys: int = 0
    """Keys that its requests can need."""


def lay_path(
    spec: PathSpec,
    layers: Layers,
    *,
    device: str | None,
    pages_recorded: bool,
    callers: Callers,
    tasks: Mapping[int, str],
    losses: Sequence[tuple[int, int]],
    cpus: int,
    first_key: int,
    end_ns: int,
) -> PathInUse:
    """Put a path on one layer. Raises UsageError for an unknown device.

    ``pages_recorded``: the trace has page events, so dm-crypt's own requests are in it. ``losses``: of bio events.
    """
    recorded = pages_recorded and spec.name == "dm-crypt" and bool(layers.crypt)
    from_crypt = not spec.kind.encrypts or (spec.name == "dm-crypt" and not recorded)
    number = layers.device(device) if device is not None else _default(layers, recorded, from_crypt)
    if number is None or (number in layers.crypt and not from_crypt):
        return PathInUse(spec, number, recorded, None, {})
    above = {c for c in layers.crypt if from_crypt and number in layers.beneath(c)} if spec.kind.encrypts else set()
    devices = {number, *above}
    labels = {d: callers.add(bio_label(d), "", spec.kind.gfp, 0) for d in sorted(devices)}
    completion = {d: _completion(layers, d) for d in devices}
    below = {x for d in devices if completion[d] == _BELOW for x in layers.beneath(d)}
    by_bio = {d for d in devices if completion[d] == _BIO}
    by_bio |= {d for d in below - devices if _completion(layers, d) == _BIO}
    crypt = {c for c in layers.crypt if number != c}
    paths_down = {x for c in crypt for x in layers.beneath(c)} if crypt else set()
    source = PathSource(
        spec,
        disk_of=layers.disk_of,
        callers=labels,
        flight=Flight(by_bio, losses),
        encrypted=Encrypted(crypt, () if layers.remapped else _writers(tasks)),
        below=below | paths_down,
        workers=(spec.number("workers") if "workers" in spec.options else 0) or cpus,
        first_key=first_key,
        end_ns=end_ns,
    )
    layer: dict[str, Any] = {"completion": " and ".join(sorted(set(completion.values())))}
    if len(members := layers.members(number)) > 1:
        layer["partitions"] = [dev_text(m) for m in members if m != number]
    if crypt:
        layer["encrypted"] = [dev_text(c) for c in sorted(crypt)]
    sectors = sum(layers.size(d) for d in devices)
    bios = sum(layers.devices().get(d, 0) for d in devices)
    return PathInUse(spec, number, recorded, source, layer, keys_needed(sectors, bios, spec.request_bytes))


def _default(layers: Layers, recorded: bool, from_crypt: bool) -> int | None:
    """The lowest whole device with WRITEs that are not encrypted yet; where all are, dm-crypt's own."""
    found = layers.lowest(plain=True)
    if found is not None and found in layers.crypt and not from_crypt:
        found = None
    if found is None and layers.crypt and (recorded or from_crypt):
        return max(layers.crypt, key=lambda d: (layers.size(d), -d))
    return found if found is not None else layers.lowest()


def _completion(layers: Layers, device: int) -> str:
    """Which events tell that a WRITE to a whole device is complete."""
    bios = sum(layers.bio_completes.get(m, 0) for m in layers.members(device))
    requests = sum(layers.completes.get(m, 0) for m in layers.members(device))
    if bios or requests:
        return _BIO if bios >= requests else _REQUEST
    return _BELOW if layers.below.get(device) else _NONE


def _writers(tasks: Mapping[int, str]) -> list[int]:
    return [pid for pid, comm in tasks.items() if comm.startswith("dmcrypt_write")]
