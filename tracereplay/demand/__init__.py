"""From events to demand: what was wanted, when, and for how long."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tracereplay.demand.lifetime import lifetimes
    from tracereplay.demand.reconstruct import open_demand

__all__ = ["lifetimes", "open_demand"]


def __getattr__(name: str) -> Any:
    """Import the compiled parts on first use only: they need Numba."""
    if name == "open_demand":
        from tracereplay.demand.reconstruct import open_demand

        return open_demand
    if name == "lifetimes":
        from tracereplay.demand.lifetime import lifetimes

        return lifetimes
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
