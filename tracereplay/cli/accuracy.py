"""Writes the table of docs/accuracy.md: the twin check of every shipped trace, and of others that are named.

``python -m tracereplay.cli.accuracy [LABEL=TRACE ...] [-o docs/accuracy.md]``. Without further traces the page's
section of others stays as it is: those captures do not ship. ``python -m tracereplay.cli.accuracy --sums
docs/accuracy.md`` writes what reports say of it (report/accuracy.json).
"""

from __future__ import annotations

import argparse
import json
import re
import statistics
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from tracereplay.cli.console import note, verb
from tracereplay.cli.sections import put_sections
from tracereplay.cli.verify_view import percent
from tracereplay.errors import EmptyTraceError, UsageError

SHIPPED = Path(__file__).parents[2] / "traces"
SUMS = Path(__file__).parents[1] / "report" / "accuracy.json"
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


def sums(page: str) -> dict[str, dict[str, Any]]:
    """Low end, median and high end over the page's captures, by kernel: those with a page map and 100 refills."""
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in page.splitlines() if line.startswith("| ")]
    found: dict[str, dict[str, list[float]]] = {}
    for row in (dict(zip(HEAD, cells, strict=True)) for cells in rows if len(cells) == len(HEAD)):
        refills, drains = (_shares(row[f"{name}: precision, recall"]) for name in ("refills", "drains"))
        if row["start"] != "page map" or refills is None or refills[2] < 100:
            continue
        kept = found.setdefault(".".join(row["kernel"].split(".")[:2]), {})
        pairs = {"refill": refills, "drain": drains}
        values = {f"{k}_{kind}": p[i] for k, p in pairs.items() if p for i, kind in enumerate(("precision", "recall"))}
        values |= {"exact": float(row["exact frame"].rstrip(" %")) / 100}
        values |= {"allocations": float(row["allocations"].replace(",", ""))}
        for name, value in values.items():
            kept.setdefault(name, []).append(value)
    return {
        kernel: {"captures": len(kept["exact"]), "allocations": int(sum(kept.pop("allocations")))}
        | {name: [min(v), round(statistics.median(v), 4), max(v)] for name, v in sorted(kept.items())}
        for kernel, kept in sorted(found.items())
    }


def _shares(cell: str) -> tuple[float, float, int] | None:
    """Precision, recall and number in a cell; None where there were none."""
    found = re.fullmatch(r"([\d.]+) %, ([\d.]+) % of ([\d,]+)", cell)
    if found is None:
        return None
    return (
        round(float(found[1]) / 100, 4),
        round(float(found[2]) / 100, 4),
        int(found[3].replace(",", "")),
    )


@verb
def main(arguments: Sequence[str] | None = None) -> None:
    """Check the traces; write the page, or print the tables."""
    parser = argparse.ArgumentParser(prog="python -m tracereplay.cli.accuracy", description=__doc__)
    parser.add_argument("others", nargs="*", metavar="LABEL=TRACE", help="a trace that does not ship, and its name")
    parser.add_argument("-o", "--output", type=Path, metavar="PAGE", help="page whose marked sections are rewritten")
    parser.add_argument("--sums", type=Path, metavar="PAGE", help="write what reports say of a page that is there")
    options = parser.parse_args(arguments)
    if options.sums:
        SUMS.write_text(json.dumps(sums(options.sums.read_text()), indent=1) + "\n")
        return
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
