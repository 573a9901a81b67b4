"""A small fleet made of the shipped traces."""

from __future__ import annotations

import json
import shutil
import uuid
from pathlib import Path

TRACES = Path(__file__).parents[1] / "traces"
MEMBERS = {
    "rack=r1/host=a/date=2026-11-20/web.trace": "dmcrypt-6.12-4k",
    "rack=r1/host=b/date=2026-11-21": "dmcrypt-6.1-1M",
    "rack=r2/host=c/date=2026-11-21/web.trace": "mixed-6.12",
}


def copy_of(name: str, to: Path, *, anew: bool = False) -> Path:
    """A copy of a shipped trace; ``anew``: under an identity of its own, as another capture would have it."""
    shutil.copytree(TRACES / name, to, ignore=shutil.ignore_patterns("derived"))
    if anew:
        manifest = json.loads((to / "manifest.json").read_text())
        manifest["metadata"]["trace_id"] = uuid.uuid4().hex
        (to / "manifest.json").write_text(json.dumps(manifest))
    return to


def fleet_in(root: Path) -> Path:
    """Three hosts on two days."""
    for place, name in MEMBERS.items():
        copy_of(name, root / place)
    return root
