"""Where a trace's pages and bios come from: the analyses that a report shows, as far as it holds them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from tracereplay.analysis.registry import analysis_named
from tracereplay.errors import EmptyTraceError, SeveralHostsError, TracereplayError
from tracereplay.trace.store import name_of

if TYPE_CHECKING:
    import polars as pl

    from tracereplay.trace.reader import Trace

STACKLESS = "(no stack)"
PAGES = ("callers", "flame")
BIOS = ("sizes", "latency", "latency-histogram", "layers", "bio-pages")
"""Analyses shown of each kind of events."""


@dataclass(frozen=True, slots=True)
class Sources:
    """Frames of the analyses (docs/analyze.md has their columns)."""

    frames: dict[str, pl.DataFrame]
    """By the analysis's name; those that found nothing are absent."""
    notes: tuple[str, ...]
    """What they say of themselves, and why one could not be made."""

    def frame(self, name: str) -> pl.DataFrame | None:
        """What an analysis found, if anything."""
        return self.frames.get(name)

    @property
    def stacks(self) -> pl.DataFrame | None:
        """Stacks with their pages; None where none were recorded."""
        import polars as pl

        found = self.frames.get("flame")
        if found is None or found.filter(~pl.col("stack").str.starts_with(STACKLESS)).is_empty():
            return None
        return found


def sources_of(trace: Trace) -> Sources:
    """Of a trace of one host. Analyses whose events it lacks are left out; one that fails is told of."""
    wanted = [*(PAGES if trace.rows("page_events") else ()), *(BIOS if trace.rows("bio_events") else ())]
    frames: dict[str, pl.DataFrame] = {}
    said: dict[str, None] = {}
    for name in wanted:
        try:
            answer = analysis_named(name).answer(trace)
        except EmptyTraceError:
            continue
        except SeveralHostsError:
            listing = ", ".join(f"{name_of(trace.location)}#{host}" for host in trace.hosts)
            return Sources({}, (f"Callers and I/O are those of one host: report each by itself: {listing}.",))
        except TracereplayError as error:
            said[f"{name}: {error.message}"] = None
            continue
        if len(answer.frame):
            frames[name] = answer.frame
            said |= dict.fromkeys(f"{name}: {note}" for note in answer.notes)
    return Sources(frames, tuple(said))
