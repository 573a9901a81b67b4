"""Where the figures of a page come from: versions, trace, host, profile with its evidence, seed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from tracereplay import __version__
from tracereplay.report.data import Fact
from tracereplay.report.numbers import UNKNOWN

if TYPE_CHECKING:
    from tracereplay.trace.reader import Trace


def of_trace(trace: Trace) -> tuple[Fact, ...]:
    """Of a page about a trace."""
    return (*_trace(trace.identity()), Fact("recorded with", trace.metadata.tool or UNKNOWN), _page())


def of_results(result: Mapping[str, Any]) -> tuple[Fact, ...]:
    """Of a page about a replay's results."""
    profile, machine = result.get("profile") or {}, result["machine"]
    evidence = Counter(
        str(c.get("evidence", UNKNOWN)) for c in profile.get("coefficients") or () if isinstance(c, dict)
    )
    classes = ", ".join(f"{n} {name}" for name, n in evidence.most_common())
    digest = str(profile.get("sha256") or "")[:12]
    return (
        *_trace(result["trace"]),
        Fact("machine", str(machine.get("source", UNKNOWN)), f"generation {machine.get('generation', UNKNOWN)}"),
        Fact("profile", str(profile.get("name", UNKNOWN)), f"sha256 {digest}" if digest else ""),
        Fact("prices by evidence", classes or UNKNOWN, str(profile.get("machine", ""))),
        Fact("seed", str(result.get("seed", UNKNOWN))),
        _page(),
    )


def _trace(identity: Mapping[str, Any]) -> tuple[Fact, ...]:
    return (
        Fact("trace", str(identity.get("path") or UNKNOWN), f"id {identity.get('id') or UNKNOWN}"),
        Fact("host", str(identity.get("host") or UNKNOWN), f"kernel {identity.get('kernel') or UNKNOWN}"),
    )


def _page() -> Fact:
    return Fact("page made by", f"tracereplay {__version__}")
