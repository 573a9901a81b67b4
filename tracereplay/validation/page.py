"""Claims as Markdown: the tables of docs/validation.md, by the names of its sections."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

from tracereplay.report.numbers import span
from tracereplay.validation import bulk_rows, crypt_counts, crypt_rows, instructions, other_rows
from tracereplay.validation.verdict import CONSISTENT, INPUT, NOT_EXPLAINED, REPRODUCED, Claim, Figure

FEW = 4
"""More figures than these are shown by the worst of them."""


def all_claims() -> list[Claim]:
    """Every row, in the order of their numbers."""
    claims = [*bulk_rows.claims(), *crypt_rows.claims(), *other_rows.claims(), *crypt_counts.claims()]
    return sorted(claims, key=lambda c: (int(c.row.rstrip("abc")), c.row))


def sections(claims: Sequence[Claim]) -> dict[str, str]:
    """Section of the page -> its Markdown."""
    return {
        "summary": summary(claims),
        "rows": rows(claims),
        "reasons": reasons(claims),
        "curves": curves({c.row: c for c in claims}),
        "identities": identities(),
        "instructions": held_out(),
        "buffers": buffers(),
        "ratios": ratios(),
    }


def number(x: float, digits: int = 4) -> str:
    """So many significant digits."""
    return f"{x:,.0f}" if abs(x) >= 1000 else f"{x + 0.0:.{digits}g}"


def percent(share: float) -> str:
    """With its sign; what rounds to nothing has none."""
    text = f"{100 * share:+.1f} %"
    return "0.0 %" if text in ("+0.0 %", "-0.0 %") else text


def off(figure: Figure) -> str:
    """By how much the simulator's figure differs."""
    if figure.bound and figure.within(0.0):
        return "-"
    if figure.deviation is None:
        return f"{figure.value - figure.published:+.2f} {figure.unit}"
    return percent(figure.deviation)


def published(figure: Figure) -> str:
    """The published number, with the end that it is."""
    end = {"": "", "at least": "&ge; ", "at most": "&le; "}[figure.bound]
    return f"{end}{number(figure.published, 5)} {figure.unit}".rstrip()


def table(head: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    """Rows as Markdown."""
    return "\n".join("| " + " | ".join(line) + " |" for line in [head, ["---"] * len(head), *lines])


def summary(claims: Sequence[Claim]) -> str:
    """How many rows have which verdict."""
    count = Counter(c.verdict for c in claims)
    named = {v: ", ".join(c.row for c in claims if c.verdict == v) for v in count}
    order = (REPRODUCED, CONSISTENT, NOT_EXPLAINED, INPUT)
    return "\n".join(f"- *{v}*: {count[v]} rows ({named[v]})" for v in order if count[v])


def rows(claims: Sequence[Claim]) -> str:
    """The table: a line for each figure, or for the worst of many."""
    lines = []
    for claim in claims:
        shown: Sequence[Figure] = claim.figures
        many = len(shown) > FEW
        if many:
            shown = [claim.worst]
        for i, f in enumerate(shown):
            first = i == 0
            lines.append(
                [
                    claim.row if first else "",
                    f"{claim.claim} ({claim.grade})" if first else "",
                    f"worst of {sum(not g.given for g in claim.figures)}: {f.label}" if many else f.label,
                    published(f),
                    f"{number(f.value)} {f.unit}".rstrip(),
                    span(f.interval),
                    f"`{f.hangs_on}`" if f.hangs_on else "-",
                    off(f),
                    f"**{claim.verdict}**" if first else "",
                ]
            )
    head = ("#", "claim (class)", "figure", "published", "tracereplay", "95 %", "hangs on", "off by", "verdict")
    return table(head, lines)


def reasons(claims: Sequence[Claim]) -> str:
    """What each row rests on."""
    first: dict[tuple[str, str], str] = {}
    lines = []
    for c in claims:
        told = first.setdefault((c.machine, c.source), c.row)
        origin = f"{c.machine}. {c.source}." if told == c.row else f"As row {told}."
        lines.append(f"- **{c.row}** {c.why} *{origin}*")
    return "\n".join(lines)


def curves(claims: dict[str, Claim]) -> str:
    """All points of rows 2 and 3."""
    parts = []
    for row, form in (("2", "array"), ("3", "list")):
        ends = {f.label: f for f in claims[f"{row}a"].figures}
        lines = []
        for f in claims[row].figures:
            held = ends.get(f.label)
            lines.append(
                [
                    f.label.removeprefix("n = "),
                    f"{f.published:.3f}",
                    f"{f.value:.3f}",
                    span(f.interval),
                    "given" if f.given else off(f),
                    f"{held.value:.3f}" if held else "given",
                    off(held) if held else "",
                ]
            )
        head = ("n", "published, ns", "tracereplay, ns", "95 %", "off by", "from n = 2 and 128, ns", "off by")
        parts.append(f"Row {row}, {form} form:\n\n" + table(head, lines))
    return "\n\n".join(parts)


def identities() -> str:
    """What ties the published figures together."""
    lines = [
        [name, number(computed), number(reported), f"{100 * (reported / computed - 1):+.2f} %", f"{100 * most:g} %"]
        for name, computed, reported, most in crypt_rows.identities()
    ]
    return table(("identity", "computed", "reported", "off by", "allowed"), lines)


def held_out() -> str:
    """Errors of fitted profiles, on what they were fitted to and on what not."""
    lines = [
        [
            kernel,
            fitted,
            tested,
            f"{found['rows']:.0f}",
            *(f"{100 * found[key]:.1f} %" for key in ("median_error", "p95_error", "max_error")),
            f"{found['within_10_percent']:.0f}",
        ]
        for kernel, fitted, tested, found in instructions.predictions()
    ]
    head = (
        "kernel",
        "fitted to",
        "tested on",
        "rows",
        "error, median",
        "95 % of rows within",
        "largest",
        "within 10 %",
    )
    return table(head, lines)


def buffers() -> str:
    """Row 24a, a line for each size."""
    lines = []
    for (kernel, zeroed, pages), case in crypt_counts.figures().items():
        cells = [(number(f.published), number(f.value), off(f)) for f in map(case.get, crypt_counts.STRATEGIES) if f]
        lines.append([kernel, "yes" if zeroed else "no", str(pages), *(cell for three in cells for cell in three)])
    named = (f"{s}, {what}" for s in crypt_counts.STRATEGIES for what in ("measured", "tracereplay", "off by"))
    return table(("kernel", "zeroed", "pages", *named), lines)


def ratios() -> str:
    """Rows 2b and 12 by other profiles."""
    lines = [[name, unit, *map(number, figures)] for name, unit, figures in instructions.ratios()]
    published = (f"{c:.4g}" for c in (bulk_rows.CURVES["array"][1][7] / bulk_rows.SINGLE, bulk_rows.SUNRPC["array"]))
    lines.append(["published", "", "", "", *published])
    head = ("profile", "unit", "single page", "page of bulk 64", "ratio (2b)", "single to bulk, allocation alone (12)")
    return table(head, lines)
