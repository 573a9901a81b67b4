"""Where the on-host part lies, and the Python that runs it."""

from __future__ import annotations

from pathlib import Path

import tracereplay
from tracereplay.errors import CaptureError

SYSTEM_PYTHON_ENV = "TRACEREPLAY_SYSTEM_PYTHON"
SYSTEM_PYTHON = "/usr/bin/python3"

BCC_HINT = (
    "install BCC for the system Python: Debian/Ubuntu `apt install python3-bpfcc`, Fedora/RHEL "
    "`dnf install python3-bcc`; never `pip install bcc`, which is something else"
)


def collectors_directory() -> Path:
    """The on-host part: inside the installed package, or beside it in a checkout.

    Raises CaptureError when it is in neither place.
    """
    package = Path(tracereplay.__file__).resolve().parent
    for path in (package / "_collectors", package.parent / "collectors"):
        if (path / "__main__.py").is_file():
            return path
    raise CaptureError(
        f"the collectors directory is missing beside {package}", hint="reinstall tracereplay; the wheel carries it"
    )
