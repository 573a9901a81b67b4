"""tracereplay: replay real page-allocation and block-I/O traces through allocation strategies.

Importing the package is cheap; the public names below are loaded on first use.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tracereplay.errors import TracereplayError
    from tracereplay.trace.reader import Trace
    from tracereplay.trace.writer import TraceWriter

__version__ = "0.1.0"
__all__ = ["Trace", "TraceWriter", "TracereplayError", "__version__"]

_HOMES = {
    "Trace": "tracereplay.trace.reader",
    "TraceWriter": "tracereplay.trace.writer",
    "TracereplayError": "tracereplay.errors",
}


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module 'tracereplay' has no attribute {name!r}")
    return getattr(import_module(home), name)
