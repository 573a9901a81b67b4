"""The on-host part as one executable file: a shebang line and a zip archive that Python runs as it is."""

from __future__ import annotations

import hashlib
import io
import os
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path

from tracereplay.errors import OutputExistsError, UsageError
from tracereplay.trace.collector_files import SYSTEM_PYTHON, collectors_directory
from tracereplay.trace.partwriter import storage

SHEBANG = f"#!{SYSTEM_PYTHON} -EsB\n".encode()
"""Neither environment nor user packages, and no byte code left behind."""
OLDEST_PYTHON = (3, 9)
PACKAGE = "collectors"
MODE = 0o755

_EPOCH = (1980, 1, 1, 0, 0, 0)
"""The earliest time that a zip archive can hold: equal sources give equal bytes."""

_MAIN = f'''\
# SPDX-License-Identifier: GPL-2.0-only
"""The collector of tracereplay, exported as one file."""

import sys

if sys.version_info < {OLDEST_PYTHON}:
    sys.stderr.write("collector: " + sys.executable + " is Python " + sys.version.split()[0]
                     + ", the collector needs {OLDEST_PYTHON[0]}.{OLDEST_PYTHON[1]} or later\\n")
    sys.exit(2)

from {PACKAGE}.command import main

sys.exit(main(sys.argv[1:]))
'''


@dataclass(frozen=True, slots=True)
class ExportedCollector:
    """A collector that was written as one file."""

    path: Path
    bytes: int
    sha256: str


def collector_bundle() -> bytes:
    """The file's content. Nothing in it but the sources decides its bytes: no times, no compression library.

    Raises CaptureError when the sources are not where they belong.
    """
    directory = collectors_directory()
    sources = sorted(p for p in directory.rglob("*.py") if "__pycache__" not in p.parts)
    members = {"__main__.py": _MAIN.encode()}
    for source in sources:
        name = source.relative_to(directory).as_posix()
        if name != "__main__.py":  # finds the package beside itself, which is for directories
            members[f"{PACKAGE}/{name}"] = source.read_bytes()
    made = io.BytesIO()
    made.write(SHEBANG)
    with zipfile.ZipFile(made, "w", zipfile.ZIP_STORED) as archive:
        for name, content in members.items():
            entry = zipfile.ZipInfo(name, _EPOCH)
            entry.create_system = 3
            entry.external_attr = 0o100644 << 16
            archive.writestr(entry, content)
    return made.getvalue()


def export_collector(path: str | os.PathLike[str], *, force: bool = False) -> ExportedCollector:
    """Write the collector to a file, all of it or nothing.

    Raises OutputExistsError without ``force``, UsageError for a path that is not a file's, StorageError when
    the disk refuses.
    """
    target = Path(path)
    if target.is_dir():
        raise UsageError(f"{target} is a directory", hint="name the file to write, for example ./collector")
    if (target.is_symlink() or target.exists()) and not force:
        raise OutputExistsError(target)
    content = collector_bundle()
    with storage(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        fd, temporary = tempfile.mkstemp(prefix=f".{target.name}.", suffix=".tmp", dir=target.parent)
        try:
            with os.fdopen(fd, "wb") as file:
                file.write(content)
                file.flush()
                os.fchmod(fd, MODE)
                os.fsync(fd)
            Path(temporary).replace(target)
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise
    return ExportedCollector(target, len(content), hashlib.sha256(content).hexdigest())
