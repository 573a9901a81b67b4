"""Renews the case study: ``python -m tracereplay.cli.case_study [DOCS] [--reprice]`` (``make case-study``).

Replays every case into ``DOCS/case-study/counters.json``, and writes the marked parts of ``DOCS/case-study.md`` and
the pictures in ``DOCS/case-study``. With ``--reprice`` the stored counters are priced anew, and nothing is replayed.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from tracereplay.cli.console import note, verb

COUNTERS = "counters.json"


@verb
def main(arguments: Sequence[str] | None = None) -> None:
    """Replay, price, write."""
    parser = argparse.ArgumentParser(prog="python -m tracereplay.cli.case_study", description=__doc__)
    parser.add_argument("docs", nargs="?", type=Path, default=Path("docs"), help="directory of the page")
    parser.add_argument("--reprice", action="store_true", help="take the stored counters")
    options = parser.parse_args(arguments)
    from tracereplay.casestudy.page import made, renewed

    folder, page = options.docs / "case-study", options.docs / "case-study.md"
    text = page.read_text()
    if not options.reprice:
        replay_all(folder / COUNTERS)
    parts, pictures = made((folder / COUNTERS).read_text())
    page.write_text(renewed(text, parts))
    for name, picture in pictures.items():
        (folder / name).write_text(picture)
    note(f"wrote {page} and {len(pictures)} pictures in {folder}")


def replay_all(path: Path) -> None:
    """Store the counters of every case."""
    from tracereplay.casestudy.cases import all_cases
    from tracereplay.casestudy.run import packed, run

    cases = all_cases()
    path.parent.mkdir(exist_ok=True)
    path.write_text(packed([row for rows in run(cases) for row in rows]))
    note(f"replayed {len(cases)} cases: {path}")


if __name__ == "__main__":
    main()
