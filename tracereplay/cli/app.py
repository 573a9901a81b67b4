"""The typer app. Verb modules import their heavy libraries inside the verb, so that ``--help`` is instant."""

from __future__ import annotations

import os
from importlib import import_module
from typing import Annotated

import typer

from tracereplay import __version__
from tracereplay.cli.console import verb

app = typer.Typer(
    name="tracereplay",
    help="Replay real page-allocation and block-I/O traces through allocation strategies.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

VERBS = {
    "doctor": "doctor",
    "capture": "capture",
    "collector": "collector",
    "import": "import_",
    "export": "export",
    "info": "info",
    "validate": "validate",
    "merge": "merge",
    "diff": "diff",
    "query": "query",
    "analyze": "analyze",
    "demand": "demand",
    "strategies": "strategies",
    "replay": "replay",
    "whatif": "whatif",
    "scenarios": "scenarios",
    "verify": "verify",
    "profiles": "profiles",
    "calibrate": "calibrate",
    "compare": "compare",
    "report": "report",
}
"""Verb -> module of this package; each module's ``run`` is the verb, its docstring the help text."""


def _version(value: bool) -> None:
    if value:
        typer.echo(f"tracereplay {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Capture, store, replay, compare."""


for _name, _module in VERBS.items():
    app.command(_name)(verb(import_module(f"tracereplay.cli.{_module}").run))


def main() -> None:
    """Entry point of the ``tracereplay`` command."""
    # before NumPy: its products are small, and BLAS threads only wait for each other where points run side by side
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    app()
