"""The demo: capture this host, replay through four strategies, report. Each step is a command that a user could type.

``python -m tracereplay.cli.demo [--output DIR] [--seconds N] [--shipped]``. Where this host cannot be captured, a trace
of ``traces/`` is used and the reason is said.
"""

from __future__ import annotations

import argparse
import json
import shlex
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

from tracereplay.cli.console import note
from tracereplay.cli.demo.workload import has_direct_io

STRATEGIES = ("per-page", "bulk", "compound", "unmapped-cache")
SHIPPED = Path(__file__).parents[3] / "traces"
MANIFEST = "manifest.json"


@dataclass
class Steps:
    """Commands of the demo as they run, with what each took."""

    took: list[tuple[str, float]] = field(default_factory=list)

    def run(self, name: str, *arguments: str, shown: bool = True) -> subprocess.CompletedProcess[str]:
        """Run one verb. Its talk goes to our stderr; its data too to our stdout, unless ``shown`` is off."""
        if shown:
            note(f"\n$ {shlex.join(['tracereplay', *arguments])}")
        started = time.monotonic()
        done = subprocess.run(
            [str(Path(sys.executable).with_name("tracereplay")), *arguments],
            stdout=None if shown else subprocess.PIPE,
            text=True,
        )
        self.took.append((name, time.monotonic() - started))
        return done


def why_not_capture(steps: Steps) -> str | None:
    """The reason why this host cannot be captured, by ``tracereplay doctor``; None when it can."""
    done = steps.run("doctor", "doctor", "--format", "json", shown=False)
    if done.returncode != 0:
        return "tracereplay doctor failed"
    capture = json.loads(done.stdout)["capture"]
    return None if capture["possible"] else str(capture["reason"])


def disk_directory(output: Path) -> str:
    """Where the workload writes: on a file system with direct I/O if there is one at hand."""
    for place in (output, Path("/var/tmp"), Path(tempfile.gettempdir())):
        if place.is_dir() and has_direct_io(place):
            return str(place)
    return str(output)


def captured(steps: Steps, output: Path, seconds: int) -> Path | None:
    """A fresh trace of this host, or None when the capture failed after all."""
    trace = output / "trace"
    workload = [sys.executable, "-m", "tracereplay.cli.demo.workload", disk_directory(output), str(seconds)]
    done = steps.run("capture", "capture", str(trace), "--duration", f"{seconds}s", "--force", "--", *workload)
    return trace if done.returncode == 0 else None


def shipped_trace() -> Path:
    """The trace that stands in: the first of ``traces/`` by name."""
    found = sorted(path.parent for path in SHIPPED.glob(f"*/{MANIFEST}"))
    if not found:
        note(f"error: no trace in {SHIPPED}\n  next: run this from a full checkout")
        raise SystemExit(3)
    return found[0]


def trace_to_replay(steps: Steps, output: Path, seconds: int, is_shipped: bool) -> Path:
    """A trace of this host where it can be had, else a shipped one; which and why is said."""
    reason = "asked for" if is_shipped else why_not_capture(steps)
    if reason is None:
        trace = captured(steps, output, seconds)
        if trace is not None:
            return trace
        reason = "capture failed, see above"
    trace = shipped_trace()
    note(f"\nThis host is not captured: {reason}.")
    note(f"Using the shipped trace {trace}; traces/README.md says where it is from.")
    return trace


def main() -> None:
    """Run the demo; exit with the status of the step that failed."""
    parser = argparse.ArgumentParser(prog="make demo", description="Capture, replay, report.")
    parser.add_argument("--output", type=Path, default=Path("demo"), help="directory to write to")
    parser.add_argument("--seconds", type=int, default=10, help="length of the capture")
    parser.add_argument("--shipped", action="store_true", help="use a shipped trace, do not capture")
    options = parser.parse_args()
    options.output.mkdir(parents=True, exist_ok=True)
    steps = Steps()
    trace = trace_to_replay(steps, options.output, options.seconds, options.shipped)
    results, page = options.output / "results.json", options.output / "report.html"
    chosen = [word for name in STRATEGIES for word in ("-s", name)]
    for name, arguments in (
        ("replay", ["replay", str(trace), *chosen, "-o", str(results), "--force"]),
        ("report", ["report", str(results), "-o", str(page), "--force"]),
    ):
        done = steps.run(name, *arguments)
        if done.returncode != 0:
            raise SystemExit(done.returncode)
    whole = sum(seconds for _, seconds in steps.took)
    note("\n" + ", ".join(f"{name} {seconds:.1f} s" for name, seconds in steps.took) + f"; {whole:.1f} s in all")
    note(f"Open {page.absolute()} in a browser.")


if __name__ == "__main__":
    main()
