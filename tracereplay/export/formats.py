"""What a trace can be exported to. Imports nothing heavy: ``export --help`` is instant."""

from __future__ import annotations

from dataclasses import dataclass

from tracereplay.errors import UsageError, nearest

EVERYTHING = frozenset({"time", "pid", "comm", "cgroup", "cpu", "order", "device"})


@dataclass(frozen=True, slots=True)
class ExportFormat:
    """A format, and which filters and options have a meaning for it."""

    name: str
    title: str
    """One line."""
    filters: frozenset[str]
    options: frozenset[str]
    """Of ``weight file table sql``."""


FORMATS: dict[str, ExportFormat] = {
    f.name: f
    for f in (
        ExportFormat(
            "folded", "stacks for flamegraph.pl, a line each", EVERYTHING - {"device"}, frozenset({"weight"})
        ),
        ExportFormat("speedscope", "stacks for speedscope.app", EVERYTHING - {"device"}, frozenset({"weight"})),
        ExportFormat("perfetto", "timeline for ui.perfetto.dev and chrome://tracing", EVERYTHING, frozenset()),
        ExportFormat("fio", "iolog version 3: the bios of a device, for fio --read_iolog", EVERYTHING - {"order"},
                     frozenset({"file"})),
        ExportFormat("csv", "tables as text", EVERYTHING, frozenset({"table", "sql"})),
        ExportFormat("parquet", "tables as Parquet files", EVERYTHING, frozenset({"table", "sql"})),
    )
}  # fmt: skip


def format_named(name: str) -> ExportFormat:
    """The format of a name. Raises UsageError with the nearest one."""
    if name not in FORMATS:
        guess = nearest(name, FORMATS)
        said = f"did you mean {guess!r}? " if guess else ""
        raise UsageError(f"no export format {name!r}", hint=f"{said}one of: {', '.join(FORMATS)}")
    return FORMATS[name]


def check(chosen: ExportFormat, filters: tuple[str, ...], options: tuple[str, ...]) -> None:
    """Raise UsageError for filters and options that have no meaning for a format."""
    for name in filters:
        if name not in chosen.filters:
            raise UsageError(
                f"an export to {chosen.name} cannot be filtered by {name}",
                hint=f"it can by: {', '.join(sorted(chosen.filters))}",
            )
    for name in options:
        if name not in chosen.options:
            fitting = [f.name for f in FORMATS.values() if name in f.options]
            raise UsageError(f"--{name} has no meaning for {chosen.name}", hint=f"it has for: {', '.join(fitting)}")
