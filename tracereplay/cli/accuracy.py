"""Writes the table of docs/accuracy.md: the twin check of every shipped trace, and of others that are named.

``python -m tracereplay.cli.accuracy [LABEL=TRACE ...] [-o docs/accuracy.md]``. Without further traces the page's
section of others stays as it is: those captures do not ship.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from tracereplay.cli.console import note, verb
from tracereplay.cli.sections import put_sections
from tracereplay.cli.verify_view import percent
from tracereplay.errors import EmptyTraceError, UsageError

SHIPPED = Path(__file__).parents[2] / "traces"
SECTIONS = ("shipped", "captured")
HEAD = (
    "trace",
    "kernel",
    "allocations",
    "exact frame",
    "eligible",
    "pages of the start",
    "free running",
    "refills: precision, recall",
    "drains: precision, recall",
    "fallbacks: precision, recall",
    "free blocks off by",
    "start",
    "resynchronisations per 1,000 allocations",
)


def row_of(label: str, result: Mapping[str, Any]) -> list[str]:
    """A check's line of the table, from the document of ``verify --format json``."""
    from tracereplay.verify.ending import share

    pfn, free = result["pfn"], result["pfn_free_running"]
    allocations = result["allocations"]["traced"]
    times = sum(result["resynchronisations"].values())
    blocks = result["free_blocks"]
    off = percent(blocks["l1_share"])
    if any(z["managed_changed"] for z in blocks["zones"]):
        off += ", a zone changed size"
    source = result["initial"].get("source") or "-"
    sources = [source] if isinstance(source, str) else dict.fromkeys(source)
    return [
        label,
        result["trace"]["kernel"] or result["generation"],
        f"{allocations:,}",
        percent(pfn["share"]),
        percent(pfn["eligible_share"]),
        percent(share(result["totals"]["initial_pops"], result["totals"]["pcp_allocations"])),
        percent(free["share"]) if free else "-",
        *(_matched(result[key]) for key in ("refill", "drain", "extfrag")),
        off,
        " and ".join("page map" if s == "page_map" else s for s in sources),
        f"{1000 * times / allocations:.2f}" if allocations else "-",
    ]


def _matched(match: Mapping[str, Any]) -> str:
    if not match["kernel"] and not match["twin"]:
        return "none"
    return f"{percent(match['precision'])}, {percent(match['recall'])} of {match['kernel']:,}"


def table(rows: Iterable[Sequence[str]]) -> str:
    """Rows as Markdown, under the headings."""
    lines = [HEAD, ["---"] * len(HEAD), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def checked(traces: Iterable[tuple[str, Path]]) -> list[list[str]]:
    """Lines of the table; a trace that cannot be checked says why on stderr and is left out."""
    from tracereplay.trace.reader import Trace
    from tracereplay.verify.result import run_check

    rows = []
    for label, path in traces:
        try:
            _, result = run_check(Trace.open(path))
        except EmptyTraceError as error:
            note(f"{label}: {error.message}")
            continue
        rows.append(row_of(label, result.to_json()))
        note("  ".join(rows[-1]))
    return rows


@verb
def main(arguments: Sequence[str] | None = None) -> None:
    """Check the traces; write the page, or print the tables."""
    parser = argparse.ArgumentParser(prog="python -m tracereplay.cli.accuracy", description=__doc__)
    parser.add_argument("others", nargs="*", metavar="LABEL=TRACE", help="a trace that does not ship, and its name")
    parser.add_argument("-o", "--output", type=Path, metavar="PAGE", help="page whose marked sections are rewritten")
    options = parser.parse_args(arguments)
    others = [(label, Path(path)) for label, _, path in (text.partition("=") for text in options.others)]
    if not all("=" in text and not text.startswith("=") for text in options.others):
        raise UsageError("a trace needs a label", hint="LABEL=TRACE, for instance 'compiles and writes=web.trace'")
    shipped = [(p.parent.name, p.parent) for p in sorted(SHIPPED.glob("*/manifest.json"))]
    tables = {"shipped": table(checked(shipped))}
    if others:
        tables["captured"] = table(checked(others))
    put_sections(tables, options.output)


if __name__ == "__main__":
    main()
