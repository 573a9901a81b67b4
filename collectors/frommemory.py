# SPDX-License-Identifier: GPL-2.0-only
"""Run the collector on a host that does not have it: taken from standard input, kept in memory.

Sent as source text to a waiting ``python3 -c`` (tracereplay/trace/transport.py), so nothing of this package
can be imported here, and any Python 3 must be able to read it. What follows it on standard input: one line of
JSON, ``{"bundle": BYTES, "sha256": HEX, "arguments": [...]}``, then the exported file. Not a byte more is
read: the rest of standard input belongs to the collector. No file is written.
"""

import hashlib
import importlib.util
import io
import json
import os
import sys
import zipfile
from importlib.abc import InspectLoader, MetaPathFinder

PACKAGE = "collectors"
OLDEST_PYTHON = (3, 9)
MAX_LINE = 1 << 20
STATUS_DAMAGED = 94
"""Exit status: what came over standard input is not what was sent."""
STATUS_OLD_PYTHON = 93


class MemoryFinder(MetaPathFinder, InspectLoader):
    """Imports the modules of one package from texts, by their paths in the archive."""

    def __init__(self, texts: dict) -> None:
        self._texts = texts

    def _path(self, fullname: str) -> str:
        """Path of a module in the archive, empty when it is not there."""
        base = fullname.replace(".", "/")
        return next((p for p in (base + "/__init__.py", base + ".py") if p in self._texts), "")

    def find_spec(self, fullname: str, path: object = None, target: object = None) -> object:
        """As the import system asks."""
        if not self._path(fullname):
            return None
        return importlib.util.spec_from_loader(fullname, self, is_package=self.is_package(fullname))

    def is_package(self, fullname: str) -> bool:
        """Whether a module is a package."""
        return self._path(fullname).endswith("/__init__.py")

    def get_source(self, fullname: str) -> str:
        """Text of a module."""
        return self._texts[self._path(fullname)]

    def get_code(self, fullname: str) -> object:
        """A module compiled; tracebacks name it as the archive does."""
        return compile(self.get_source(fullname), "<sent>/" + self._path(fullname), "exec", dont_inherit=True)


def read_exactly(count: int) -> bytes:
    """Bytes of standard input, none beyond. Fewer only when it ends."""
    parts = []
    while count > 0:
        part = os.read(0, count)
        if not part:
            break
        parts.append(part)
        count -= len(part)
    return b"".join(parts)


def _read_line() -> bytes:
    line = bytearray()
    while not line.endswith(b"\n") and len(line) < MAX_LINE:
        byte = os.read(0, 1)
        if not byte:
            break
        line += byte
    return bytes(line)


def _end(status: int, words: str) -> None:
    sys.stderr.write("collector: " + words + "\n")
    sys.exit(status)


def texts_of(archive: bytes) -> dict:
    """Path -> text of the package's modules in an exported file."""
    with zipfile.ZipFile(io.BytesIO(archive)) as opened:
        names = [n for n in opened.namelist() if n.startswith(PACKAGE + "/") and n.endswith(".py")]
        return {name: opened.read(name).decode() for name in names}


def run() -> None:
    """Receive the collector, then be it. Does not return."""
    if sys.version_info < OLDEST_PYTHON:
        found = ".".join(str(n) for n in sys.version_info[:3])
        _end(STATUS_OLD_PYTHON, sys.executable + " is Python " + found + ", the collector needs 3.9 or later")
    line = _read_line()
    try:
        order = json.loads(line)
        archive = read_exactly(order["bundle"])
        arguments = order["arguments"]
        intact = hashlib.sha256(archive).hexdigest() == order["sha256"]
    except (KeyError, TypeError, ValueError):
        intact = False
    if not intact:
        _end(STATUS_DAMAGED, "standard input ended or was changed while the collector was sent")
    sys.meta_path.insert(0, MemoryFinder(texts_of(archive)))
    from collectors.command import main

    sys.argv = ["collectors"] + arguments  # noqa: RUF005 - older Pythons read this
    sys.exit(main(arguments))
