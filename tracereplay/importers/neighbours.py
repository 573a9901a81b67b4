"""Files beside a source: /proc snapshots taken before and after the traced run.

``<stem>.before.buddyinfo``, ``<stem>.after.zoneinfo`` and so on, where the stem is the source's name without any of
its extensions (``trace-1M.txt.gz`` has ``trace-1M``, ``trace-1M.txt`` and itself as stems).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tracereplay.errors import ImportFormatError
from tracereplay.kernel.procfs import PROC_PARSERS

PHASES = {"before": "start", "after": "end"}
"""Word in the file name -> phase of the snapshot."""


@dataclass(frozen=True, slots=True)
class SnapshotFiles:
    """Snapshot files found: phase -> {/proc name: path}."""

    prefix: Path
    phases: dict[str, dict[str, Path]]

    def count(self) -> int:
        """Number of files."""
        return sum(len(files) for files in self.phases.values())

    def texts(self, phase: str) -> dict[str, str]:
        """Content by /proc name. Raises ImportFormatError for a file that cannot be read."""
        try:
            return {n: p.read_text(encoding="utf-8", errors="replace") for n, p in self.phases[phase].items()}
        except OSError as error:
            raise ImportFormatError(
                f"cannot read the snapshot {error.filename}: {error.strerror}", hint="--no-snapshots leaves them out"
            ) from None


def snapshots_at(prefix: Path) -> SnapshotFiles | None:
    """Snapshot files named PREFIX.before.* and PREFIX.after.* (for a directory: before.* in it), None without any."""
    base = prefix / "x" if prefix.is_dir() else prefix
    stem = "" if prefix.is_dir() else f"{prefix.name}."
    phases: dict[str, dict[str, Path]] = {}
    for word, phase in PHASES.items():
        files = {name: base.with_name(f"{stem}{word}.{name}") for name in PROC_PARSERS}
        found = {name: path for name, path in files.items() if path.is_file()}
        if found:
            phases[phase] = found
    return SnapshotFiles(prefix, phases) if phases else None


def snapshots_beside(source: Path) -> SnapshotFiles | None:
    """Snapshot files of a source, by the longest of its stems that has any."""
    stem = source
    while True:
        if found := snapshots_at(stem):
            return found
        if not stem.suffix:
            return None
        stem = stem.with_suffix("")
