"""``tracereplay calibrate``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tracereplay.cli.console import Format, emit, emit_json, emit_rows, note, progress, text_table, warn
from tracereplay.errors import OutputExistsError, StorageError, UsageError

if TYPE_CHECKING:
    from tracereplay.cost.calibrate.estimate import Calibration

LONGEST_S = 50.0
"""So that the whole ends within a minute."""
COLUMNS = ("primitive", "value", "low", "high", "unit", "rounds", "n", "claimed", "how")


def run(
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Write the profile (TOML) here.", metavar="FILE")
    ] = None,
    name: Annotated[str, typer.Option("--name", help="Name of the profile; default: that of FILE.")] = "",
    seconds: Annotated[float, typer.Option("--seconds", metavar="N", help="Measure for so long, 1 to 50.")] = 25.0,
    no_ebpf: Annotated[bool, typer.Option("--no-ebpf", help="Wall clock only, as on hosts without eBPF.")] = False,
    keep_samples: Annotated[
        Path | None, typer.Option("--keep-samples", help="Write all samples (JSON lines) here.", metavar="FILE")
    ] = None,
    samples: Annotated[
        Path | None, typer.Option("--samples", help="Measure nothing: estimate from samples kept.", metavar="FILE")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace the outputs.")] = False,
    format: Annotated[Format, typer.Option("--format", help="table, json, csv or parquet.")] = Format.TABLE,
) -> None:
    """Measure what the page allocator costs on this host, and write a cost profile.

    System calls reach its paths; eBPF programs time them from within. Needs root, no kernel module, 512 MiB of free
    memory (64 MiB in use), half a minute. Changes no setting. What noise hides is not claimed, with the reason.

    Example:

    tracereplay calibrate --out here.toml

    tracereplay replay web.trace -s per-page -s bulk --profile here.toml
    """
    if not 1.0 <= seconds <= LONGEST_S:
        raise UsageError(f"--seconds is 1 to {LONGEST_S:g}, not {seconds:g}", hint="the default is 25")
    for path in (out, keep_samples):
        if path is not None:
            _check_output(path, force)
    if samples is not None and keep_samples is not None:
        raise UsageError("--samples are kept already", hint="leave out --keep-samples")
    from tracereplay.cost.calibrate.estimate import calibrate

    found = calibrate(_samples(samples, keep_samples, seconds, not no_ebpf))
    if not found.samples.ebpf:
        warn(f"no eBPF, wall clock only: {found.samples.why}; most primitives stay as in the base profile")
    if others := found.samples.host.get("other_tracers"):
        warn(f"page events are traced by others ({', '.join(others)}); frees, refills and drains hold their cost")
    if out is not None:
        _write(found, out, name or out.stem)
    _show(found, format)


def _check_output(path: Path, force: bool) -> None:
    if path.exists() and not (force and path.is_file()):
        raise OutputExistsError(path)
    if not path.absolute().parent.is_dir():
        raise UsageError(f"cannot write {path}", hint="name a file in a directory that exists")


def _samples(kept: Path | None, keep: Path | None, seconds: float, ebpf: bool) -> Any:
    from tracereplay.cost.calibrate.run import measure
    from tracereplay.cost.calibrate.samples import read_samples

    if kept is not None:
        try:
            with kept.open() as file:
                return read_samples(file)
        except (OSError, UnicodeDecodeError) as error:
            raise UsageError(f"cannot read {kept}: {error}", hint="name a file of --keep-samples") from None
    with progress("rounds") as advance:
        return measure(seconds, ebpf=ebpf, keep=keep, on_round=lambda _number: advance(1))


def _write(found: Calibration, path: Path, name: str) -> None:
    from tracereplay.cost.calibrate.write import BASE, profile_text
    from tracereplay.cost.profile import load_profile

    part = path.with_name(path.name + ".tmp.toml")
    try:
        part.write_text(profile_text(found, load_profile(BASE), name))
        load_profile(part)  # what is written can be used
        part.replace(path)
    except OSError as error:
        raise StorageError(f"cannot write {path}: {error.strerror}", hint="check space and rights there") from None
    finally:
        part.unlink(missing_ok=True)
    note(f"profile: {path}; use it with --profile {path}")


def rows_of(found: Calibration) -> list[tuple[Any, ...]]:
    """One row per figure: claimed, refused, and seen only (not claimed, no reason needed)."""
    rows: list[tuple[Any, ...]] = []
    for c in found.claims:
        e = c.estimate
        numbers = (e.value, e.low, e.high) if e else (None, None, None)
        rows.append(
            (c.rule.target, *numbers, c.rule.unit, e.rounds if e else 0, e.count if e else 0,
             "no" if c.refused else "yes", c.refused or c.rule.method)
        )  # fmt: skip
    rows += [(e.name, e.value, e.low, e.high, "ns", e.rounds, e.count, "seen", text) for e, text in found.seen]
    return rows


def _show(found: Calibration, format: Format) -> None:
    if format is Format.JSON:
        from tracereplay.cost.calibrate.write import to_json

        emit_json(to_json(found))
        return
    rows = rows_of(found)
    if format is not Format.TABLE:
        emit_rows(COLUMNS, rows, format)
        return
    host = found.samples.host
    claimed = [(r[0], _ns(r[1]), _range(r[2], r[3]), r[4], r[6]) for r in rows if r[7] == "yes"]
    refused = [(r[0], r[8]) for r in rows if r[7] == "no"]
    seen = [(r[0], _ns(r[1]), _range(r[2], r[3]), r[8]) for r in rows if r[7] == "seen"]
    parts = [
        f"{host['cpu']}, {host['cpus']} CPUs, Linux {host['kernel']}, load {host['load']:.1f}: "
        f"{len(found.samples.rounds)} rounds in {found.samples.seconds:.0f} s"
    ]
    if claimed:
        parts.append(text_table(("measured", "value", "95 % range", "unit", "n"), claimed))
    if refused:
        parts.append(text_table(("not claimed", "why it stays as in the base profile"), refused))
    if seen:
        parts.append(text_table(("seen", "ns", "95 % range", "what it is; not a price of the profile"), seen))
    emit("\n\n".join(parts))


def _ns(value: float) -> str:
    return f"{value:.2f}" if abs(value) < 10 else f"{value:.1f}" if abs(value) < 1000 else f"{value:,.0f}"


def _range(low: float, high: float) -> str:
    return f"{_ns(low)} - {_ns(high)}"
