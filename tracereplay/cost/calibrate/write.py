"""A calibration as a profile: TOML that `--profile FILE` takes, and as JSON."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

from tracereplay.cost.calibrate.estimate import Calibration, Estimate, Rule
from tracereplay.cost.profile import Coefficient, Profile

BASE = "brouer-2021"
FORMULAS = {
    "single_call": ("single_extra", "a page of __alloc_pages against a page of a bulk call; parameter single_extra"),
    "watermark_check": (
        "alloc_page - single_extra - pop - pcp_lock_pair",
        "what is left of a call when its page, the lock and the single path's extra are priced apart",
    ),
    "pcp_pop": ("pop", "a page of a bulk call: parameter pop"),
    "free_call": ("free_page - pcp_lock_pair", "a page freed by itself, the lock apart: parameter free_page"),
}
"""Coefficients over measured parameters; only where all of these are measured (single_call stands alone, too)."""
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


def origin(calibration: Calibration) -> str:
    """Command, host, kernel, CPU and date, as every figure says them."""
    host = calibration.samples.host
    virtual = ", virtual machine" if host.get("hypervisor") else ""
    return (
        f"tracereplay calibrate, {_when(calibration):%Y-%m-%d}, {host['cpu']}{virtual}, {host['cpus']} CPUs, "
        f"Linux {host['kernel']}, load {host['load']:.1f}"
    )


def _words(value: str) -> str:
    return json.dumps(value, ensure_ascii=False)


def _number(value: float) -> str:
    return f"{value:.4g}" if abs(value) < 1000 else f"{value:.0f}"


def _figure(one: Estimate) -> list[str]:
    # Rounded outwards is not needed: the range is far wider than the fourth digit. But it has to hold the value.
    value, low, high = (float(_number(x)) for x in (one.value, one.low, one.high))
    return [f"value = {value:g}", f"low = {max(0.0, min(low, value)):g}", f"high = {max(high, value):g}"]


def profile_text(calibration: Calibration, base: Profile, name: str) -> str:
    """The TOML. What is not measured is inherited from ``base``, and named at its beginning."""
    samples, claimed = calibration.samples, calibration.claimed
    when, coefficients = _when(calibration), {c.name: c for c in base.coefficients}
    formulas = _formulas(calibration)
    head = [
        "# Prices of one host, measured by `tracereplay calibrate` (docs/calibrate.md). `low`, `high`: a 95 % range",
        f"# that holds what other runs find. {when:%Y-%m-%d %H:%M} UTC, {len(samples.rounds)} rounds in "
        f"{samples.seconds:.0f} s.",
        f"# Inherited from {base.name}: {', '.join(n for n in coefficients if n not in formulas)}.",
        *(f"# Refused: {target}: {why}" for target, why in calibration.refused.items()),
        f'base = "{base.name}"',
        f"name = {_words(name)}",
        f"title = {_words(_title(len(formulas), len(coefficients), base.name))}",
        f"unit = {_words(base.unit)}",
        f"machine = {_words(_machine(samples.host))}",
        "",
    ]
    tables = [
        _parameter(
            _parameter_name(c.rule), claimed[c.rule.target], c.rule.unit, f"{c.rule.method}. {origin(calibration)}"
        )
        for c in calibration.claims
        if c.rule.target in claimed
    ]
    if set(FORMULAS) <= set(formulas):
        seen = {e.name: e for e, _ in calibration.seen}
        tables += [
            _parameter(target, seen[figure], unit, f"{text}. {origin(calibration)}")
            for target, (figure, unit, text) in _IN_THE_TERMS_OF_BROUER.items()
            if figure in seen
        ]
    tables += [_coefficient(coefficients[target], *row) for target, row in formulas.items()]
    return "\n".join([*head, *tables])


def _parameter_name(rule: Rule) -> str:
    return rule.target if rule.is_parameter else f"{rule.target}_measured"


def _formulas(calibration: Calibration) -> dict[str, tuple[str, str, str]]:
    """Coefficient -> formula over measured parameters, evidence and source."""
    claimed = calibration.claimed
    together = {c.rule.target for c in calibration.claims if c.rule.is_parameter}
    found = {
        target: (formula, "derived", text)
        for target, (formula, text) in FORMULAS.items()
        if together <= set(claimed) or (target == "single_call" and formula in claimed)
    }
    for c in calibration.claims:
        if c.rule.target in claimed and not c.rule.is_parameter:
            name = _parameter_name(c.rule)
            found[c.rule.target] = (name, "measured", f"measured by itself: parameter {name}")
    return found


def _when(calibration: Calibration) -> datetime:
    return datetime.fromtimestamp(calibration.samples.host["at"], UTC)


def _title(measured: int, of: int, base: str) -> str:
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


def _coefficient(of: Coefficient, formula: str, evidence: str, source: str) -> str:
    listed = ", ".join(_words(c) for c in of.counters)
    lines = [f"[coefficient.{of.name}]", f"counters = [{listed}]", f"unit = {_words(of.unit)}"]
    lines += [f"formula = {_words(formula)}", f"group = {_words(of.group)}", f"evidence = {_words(evidence)}"]
    return "\n".join([*lines, f"source = {_words(source)}", ""])


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
