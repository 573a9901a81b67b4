"""What is asked of a trace's demand, as one hashable value: for replays that share it, and for points of a grid."""

from __future__ import annotations

from dataclasses import dataclass, replace


@dataclass(frozen=True, slots=True)
class DemandSpec:
    """Options of a demand: ``--path --target --device --max-write --single-ok --load``, and how it is changed."""

    path: str | None = None
    target: tuple[str, ...] = ()
    """Selectors; none given: batches, or nothing where there are loads."""
    device: str | None = None
    max_write: int | None = None
    single_ok: tuple[str, ...] = ()
    rate: float = 1.0
    """So many times faster does the recording's clock run; hold times shrink alike."""
    request_pages: int | None = None
    """Targeted requests are asked for in pieces of at most so many pages."""
    copies: int = 1
    """Copies that run beside each other (demand/copies.py)."""
    loads: tuple[str, ...] = ()

    @property
    def selectors(self) -> tuple[str, ...]:
        """``target``, or what goes for it."""
        return self.target or (("none",) if self.loads else ("batches",))

    @property
    def recorded(self) -> DemandSpec:
        """The same without what is done to the reconstructed demand afterwards: one reconstruction serves all."""
        return replace(self, target=self.selectors, rate=1.0, request_pages=None, copies=1, loads=())
