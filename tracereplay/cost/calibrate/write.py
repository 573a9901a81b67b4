"""A calibration as a profile: TOML that `--profile FILE` takes, and as JSON."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

from tracereplay.cost.calibrate.estimate import Calibration, Estimate
from tracereplay.cost.profile import Profile

BASE = "brouer-2021"
FORMULAS = {
    "single_call": ("single_extra", "a page of __alloc_pages against a page of a bulk call; parameter single_extra"),
    "watermark_check": (
        "alloc_page - single_extra - pop - pcp_lock_pair",
        "what is left of a call when its page, the lock and the single path's extra are priced apart",
    ),
    "pcp_pop": ("pop", "parameter pop"),
    "free_call": ("free_page - pcp_lock_pair", "parameter free_page, the lock apart"),
}
"""Coefficients over measured parameters; only where all of these are measured."""
_SINGLE_CALL_ALONE = ("single_extra",)
_IN_THE_TERMS_OF_BROUER = {
    "single": ("single", "ns per page", "alloc_page + free_page; to compare, no price uses it"),
    "bulk_page": ("bulk_page", "ns per page", "pop + free_page; to compare, no price uses it"),
    "bulk_call": (
        "call_fixed",
        "ns per call",
        "alloc_page - single_extra - pop; to compare, no price uses it",
    ),
    "free_share": ("free_share", "share of single", "free_page / single; to compare, no price uses it"),
}


def origin(calibration: Calibration, when: datetime) -> str:
    """Command, host, kernel, CPU and date, as every figure says them."""
    host = calibration.samples.host
    virtual = ", virtual machine" if host.get("hypervisor") else ""
    return (
        f"tracereplay calibrate, {when:%Y-%m-%d}, {host['cpu']}{virtual}, {host['cpus']} CPUs, Linux {host['kernel']}, "
        f"load {host['load']:.1f}"
    )


def _words(value: str) -> str:
    return json.dumps(value, ensure_ascii=False)


def _number(value: float) -> str:
    return f"{value:.4g}" if abs(value) < 1000 else f"{value:.0f}"


def _figure(one: Estimate) -> list[str]:
    # Rounded outwards is not needed: the range is far wider than the fourth digit. But it has to hold the value.
    value, low, high = (float(_number(x)) for x in (one.value, one.low, one.high))
    return [f"value = {value:g}", f"low = {max(0.0, min(low, value)):g}", f"high = {max(high, value):g}"]


def profile_text(calibration: Calibration, base: Profile, name: str, when: datetime | None = None) -> str:
    """The TOML. What is not measured is inherited from ``base``, and named at its beginning."""
    when = when or datetime.now(UTC)
    host, claimed = calibration.samples.host, calibration.claimed
    source = origin(calibration, when)
    unit, groups = base.unit, {c.name: c for c in base.coefficients}
    tables: list[str] = []
    parameters = {c.rule.target: c for c in calibration.claims if c.rule.is_parameter}
    for target, claim in parameters.items():
        if target in claimed:
            tables.append(_parameter(target, claimed[target], claim.rule.unit, f"{claim.rule.method}. {source}"))
    formulas = {n: f for n, f in FORMULAS.items() if set(parameters) <= set(claimed)}
    if set(claimed) & set(_SINGLE_CALL_ALONE):
        formulas.setdefault("single_call", FORMULAS["single_call"])
    if len(formulas) == len(FORMULAS):
        seen = {e.name: e for e, _ in calibration.seen}
        for target, (figure, its_unit, text) in _IN_THE_TERMS_OF_BROUER.items():
            if figure in seen:
                tables.append(_parameter(target, seen[figure], its_unit, f"{text}. {source}"))
    for target, (formula, text) in formulas.items():
        lines = [f'formula = "{formula}"']
        tables.append(_coefficient(target, groups[target].counters, unit, lines, groups[target].group, "derived", text))
    for claim in calibration.claims:
        target = claim.rule.target
        if not claim.rule.is_parameter and target in claimed:
            one = groups[target]
            text = f"{claim.rule.method}. {source}"
            tables.append(
                _coefficient(target, one.counters, unit, _figure(claimed[target]), one.group, "measured", text)
            )
    measured = {*formulas, *(t for t in claimed if t in groups)}
    head = [
        "# Prices of one host, measured by `tracereplay calibrate` (docs/calibrate.md). `low`, `high`: a 95 % range",
        f"# that holds what other runs find. {when:%Y-%m-%d %H:%M} UTC, {len(calibration.samples.rounds)} rounds in "
        f"{calibration.samples.seconds:.0f} s.",
        f"# Inherited from {base.name}: {', '.join(n for n in groups if n not in measured)}.",
        *(f"# Refused: {target}: {why}" for target, why in calibration.refused.items()),
        f'base = "{base.name}"',
        f"name = {_words(name)}",
        f"title = {_words(_title(calibration, len(measured), len(groups), base.name))}",
        f"unit = {_words(unit)}",
        f"machine = {_words(_machine(host))}",
    ]  # fmt: skip
    return "\n".join([*head, "", *tables])


def _title(calibration: Calibration, measured: int, of: int, base: str) -> str:
    return f"measured on one host: {measured} of {of} primitives; the rest as in {base}"


def _machine(host: dict[str, Any]) -> str:
    flaws = ", ".join(f"{name}: {text}" for name, text in host.get("vulnerabilities", {}).items())
    virtual = " in a virtual machine" if host.get("hypervisor") else ""
    return (
        f"{host['cpu']}{virtual}, {host['cpus']} CPUs, Linux {host['kernel']}, no contention"
        + (f"; mitigations ({flaws})" if flaws else "")
    )  # fmt: skip


def _parameter(name: str, one: Estimate, unit: str, source: str) -> str:
    lines = [f"[parameter.{name}]", *_figure(one), f"unit = {_words(unit)}", 'evidence = "measured"']
    return "\n".join([*lines, f"source = {_words(source)}", ""])


def _coefficient(
    name: str, counters: tuple[str, ...], unit: str, figures: list[str], group: str, evidence: str, source: str
) -> str:
    listed = ", ".join(_words(c) for c in counters)
    lines = [f"[coefficient.{name}]", f"counters = [{listed}]", f"unit = {_words(unit)}", *figures]
    lines += [f"group = {_words(group)}", f"evidence = {_words(evidence)}", f"source = {_words(source)}", ""]
    return "\n".join(lines)


def to_json(calibration: Calibration) -> dict[str, Any]:
    """The result as a document."""
    samples = calibration.samples
    return {
        "schema": 1,
        "host": samples.host,
        "ebpf": samples.ebpf,
        "why_no_ebpf": samples.why,
        "rounds": len(samples.rounds),
        "seconds": samples.seconds,
        "tight_loop": samples.tight,
        "base": BASE,
        "claimed": {
            c.rule.target: {**_plain(c.estimate), "unit": c.rule.unit, "method": c.rule.method}
            for c in calibration.claims
            if c.estimate is not None and not c.refused
        },
        "refused": calibration.refused,
        "seen": {e.name: {**_plain(e), "what": text} for e, text in calibration.seen},
        "loads_refused": samples.refused,
    }


def _plain(one: Estimate) -> dict[str, Any]:
    return {"value": one.value, "low": one.low, "high": one.high, "rounds": one.rounds, "n": one.count}
