"""The collector's measuring part as a process: started as root, read line by line, ended with this one."""

from __future__ import annotations

import contextlib
import json
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from tracereplay.cost.calibrate.samples import Samples, read_samples
from tracereplay.errors import CalibrationError, PrivilegeError, StorageError
from tracereplay.trace.collector_process import collector_command
from tracereplay.trace.transport import sudo_refused

DEFAULT_SECONDS = 25.0
"""Of measuring; starting, compiling and ending take about two more."""
END_S = 30.0
"""How long it may take to end when asked to."""
ROOT_HINT = "run as root (`sudo tracereplay calibrate`), or allow sudo without a password for it"


def measure(
    seconds: float = DEFAULT_SECONDS,
    *,
    ebpf: bool = True,
    keep: Path | None = None,
    on_round: Callable[[int], None] = lambda _n: None,
) -> Samples:
    """Measure this host; ``keep``: also write the collector's lines there.

    Raises PrivilegeError and BccUnavailableError (no root, no Python), CalibrationError, StorageError.
    """
    command = collector_command(["calibrate", "--seconds", f"{seconds:g}", *([] if ebpf else ["--no-ebpf"])])
    with tempfile.TemporaryFile() as words, contextlib.ExitStack() as stack:
        try:
            copy = stack.enter_context(keep.open("w")) if keep is not None else None
        except OSError as error:
            raise StorageError(f"cannot write {keep}: {error.strerror}", hint="check space and rights there") from None
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=words, text=True)
        try:
            assert process.stdout is not None

            def lines() -> Iterator[str]:
                assert process.stdout is not None
                number = -1
                for line in process.stdout:
                    if copy is not None:
                        copy.write(line)
                    if line.startswith('{"type":"block"') and (found := json.loads(line)["round"]) != number:
                        number = found
                        on_round(number)
                    yield line

            samples = read_samples(lines())
            process.wait()
            return samples
        except CalibrationError as error:
            process.terminate()
            process.wait(END_S)
            words.seek(0)
            said = words.read().decode(errors="replace").strip()
            if sudo_refused(said):
                raise PrivilegeError(
                    "measuring the allocator needs root, and sudo asks for a password", hint=ROOT_HINT
                ) from None
            last = said.splitlines()[-1] if said else ""
            raise CalibrationError(f"{error.message}{'; it said: ' + last if last else ''}", hint=error.hint) from None
        finally:
            if process.poll() is None:
                process.terminate()
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(END_S)
            process.stdout.close()  # type: ignore[union-attr]
