"""``tracereplay collector``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tracereplay.cli.console import note
from tracereplay.errors import UsageError


def run(
    export: Annotated[
        Path | None,
        typer.Option("--export", help="Write the on-host part to FILE.", metavar="FILE", show_default=False),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace FILE.")] = False,
) -> None:
    """Write the part that runs on a captured host as one executable file.

    The file needs /usr/bin/python3 (3.9 or later) and the distribution's BCC, nothing else. It records raw frames,
    which `tracereplay import` turns into a trace on any machine.

    Example: tracereplay collector --export collector && scp collector host7:

    On host7, as root: ./collector --check; ./collector --raw run1.raw --duration 60
    """
    if export is None:
        raise UsageError("nothing to do", hint="tracereplay collector --export FILE")
    from tracereplay.trace.collector_bundle import export_collector

    made = export_collector(export, force=force)
    note(f"wrote {made.path}: {made.bytes:,} bytes, sha256 {made.sha256}")
    note(f"on the host, as root: ./{made.path.name} --check, then ./{made.path.name} --raw FILE --duration SECONDS")
