"""Tables of the case study, as Markdown, from a study and a profile."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from tracereplay.casestudy.cases import (
    FRAGMENTED,
    LARGE,
    LEVELS,
    MOVABLE,
    PRESSED,
    SEEDS,
    SHALLOW,
    SOURCES,
    STRATEGIES,
    SURVIVORS,
    WRITERS,
    ZEROED,
    Case,
    Source,
)
from tracereplay.casestudy.run import RECORDED
from tracereplay.casestudy.study import MIB, Cost, Study, shares
from tracereplay.cost.profile import Profile
from tracereplay.cost.sections import section_cost
from tracereplay.report.numbers import count, figure, size, span

LABELS = tuple(text.partition("=")[0] for text in STRATEGIES)
PARTS = ("refills", "blocks_refilled", "splits", "fallbacks", "block_moves", "unlinked", "prepared", "zeroed")
"""Of a section under a lock."""
RIVALS = ("compound", "bulk")
"""The comparison of the page: the first over the second."""


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Markdown; the first column is text, the others are figures."""
    lines = [head, ["---", *["---:"] * (len(head) - 1)], *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def level_name(largest: int | None) -> str:
    """A level as the page names it."""
    return "recorded" if largest is None else str(largest)


def request_name(source: Source) -> str:
    """A request size as people write it."""
    return "1 MiB" if source.kib == 1024 else f"{source.kib} KiB"


def source_name(source: Source) -> str:
    """Request and kernel."""
    return f"{request_name(source)}, {source.kernel}"


def interval(cost: Cost, scale: float = 1.0) -> str:
    """``0.09 (0.05 - 0.32)``."""
    return f"{figure(cost.value * scale)} ({span((cost.low * scale, cost.high * scale))})"


def sources(study: Study, profile: Profile) -> str:
    """What was recorded."""
    rows = []
    for s in (*SOURCES, FRAGMENTED):
        row, recorded = study.row(Case(s), "bulk"), study.row(Case(s), RECORDED)
        at_once = recorded["peak"] * row["requests"] / row["pages"]
        cells = [s.kernel, request_name(s), count(row["requests"]), size(row["pages"]), f"{at_once:.3g}"]
        rows.append([f"[{s.trace}](../traces/README.md)", *cells, count(recorded["held_us"])])
    return table(["trace", "kernel", "request", "requests", "in all", "at once, at most", "a page is held, us"], rows)


def by_size(study: Study, profile: Profile) -> str:
    """Cost of 1 MiB by request size, memory as recorded."""
    rows = [
        [
            source_name(s),
            *(interval(study.per_mib(Case(s), label, profile), 1e-3) for label in LABELS),
            interval(study.ratio(Case(s), *RIVALS, profile)),
        ]
        for s in SOURCES
    ]
    return table(["request, kernel", *LABELS, "compound / bulk"], rows)


def by_level(study: Study, profile: Profile) -> str:
    """Compound over bulk by request size and fragmentation."""
    rows = [
        [level_name(k), *(figure(study.ratio(Case(s, k), *RIVALS, profile).value) for s in SOURCES if s.kib > 4)]
        for k in LEVELS
    ]
    return table(["largest free order", *(source_name(s) for s in SOURCES if s.kib > 4)], rows)


def costs_by_level(study: Study, profile: Profile) -> str:
    """Cost of 1 MiB of 1 MiB requests by fragmentation, for each kernel."""
    rows = [
        [
            level_name(k),
            s.kernel,
            *(figure(study.per_mib(Case(s, k), label, profile).value / 1e3) for label in LABELS),
            interval(study.ratio(Case(s, k), *RIVALS, profile)),
            chance(study.chance(Case(s, k), *RIVALS, profile)),
        ]
        for s in LARGE
        for k in LEVELS
    ]
    return table(["largest free order", "kernel", *LABELS, "compound / bulk", "compound cheaper"], rows)


def chance(share: float) -> str:
    """A share of price lists; the draws tell no more than a tenth of a per cent."""
    return "> 99.9 %" if share > 0.999 else "< 0.1 %" if share < 0.001 else f"{100 * share:.0f} %"


def work(study: Study, profile: Profile) -> str:
    """What 1 MiB takes of the allocator, for requests of 1 MiB."""
    names = ("failed_attempts", "zone_lock_acquisitions", "splits", "merges", "pcp_refills", "pcp_lock_acquisitions")
    rows = []
    for s in LARGE:
        for k in LEVELS:
            for label in RIVALS:
                row = study.row(Case(s, k), label)
                mib = row["pages"] / MIB
                blocks = ", ".join(f"{n / mib:.4g} x {order}" for order, n in row["blocks"].items())
                counted = (figure(row["counters"].get(name, 0) / mib) for name in names)
                rows.append([level_name(k), s.kernel, label, blocks if label == "compound" else "256 x 0", *counted])
    return table(
        ["largest free order", "kernel", "strategy", "blocks x order", "failed attempts", "zone lock", "splits",
         "merges", "refills", "pcp lock"],
        rows,
    )  # fmt: skip


def crossings(study: Study, profile: Profile) -> str:
    """Where compound stops paying, by request size."""
    rows = []
    for s in SOURCES:
        if s.kib == 4:
            continue
        certain = [k for k in LEVELS if study.chance(Case(s, k), *RIVALS, profile) >= 0.975]
        dearer = crossing(study, s, profile)
        surely = [k for k in LEVELS if study.chance(Case(s, k), *RIVALS, profile) <= 0.025]
        rows.append(
            [
                source_name(s),
                str(s.order),
                level_name(certain[-1]) if certain else "never",
                "never" if dearer is None else str(dearer),
                level_name(surely[0]) if surely else "never",
            ]
        )
    return table(
        ["request, kernel", "order of the request", "surely cheaper down to", "dearer from", "surely dearer from"], rows
    )


def crossing(study: Study, source: Source, profile: Profile, zeroed: bool = False) -> int | None:
    """The first level, from whole blocks down, at which compound costs more than bulk."""
    levels = [k for k in LEVELS if k is not None]
    return next((k for k in levels if study.ratio(Case(source, k, zeroed=zeroed), *RIVALS, profile).value > 1), None)


def hinges(study: Study, profile: Profile) -> str:
    """The prices that can turn verdicts round."""
    one_kernel, other = LARGE
    small = {source_name(s): s for s in SOURCES}
    chosen = (
        (one_kernel, None), (small["128 KiB, 6.1"], None), (one_kernel, 1), (other, 1), (small["128 KiB, 6.12"], 2),
        (small["64 KiB, 6.1"], 2), (other, 0),
    )  # fmt: skip
    evidences = {c.name: c.evidence for c in profile.coefficients} | {p.name: p.evidence for p in profile.parameters}
    rows = []
    for s, k in chosen:
        for h in study.hinges(Case(s, k), *RIVALS, profile):
            value = f"{figure(h['value'])} ({span((h['low'], h['high']))})"
            inside = "yes" if h["within"] else "no"
            evidence = evidences[h["name"]]
            rows.append(
                [source_name(s), level_name(k), f"`{h['name']}`", evidence, value, figure(h["crossing"]), inside]
            )
    head = ("request, kernel", "largest free order", "price", "evidence", "value (95 %)", "even at", "inside")
    return table(head, rows)


def parts(study: Study, profile: Profile) -> str:
    """What the cost of bulk and compound is made of."""
    rows = []
    for s, k in ((LARGE[1], None), (LARGE[1], 1), (LARGE[1], 0)):
        for label in RIVALS:
            top = list(shares(study.row(Case(s, k), label)["counters"], profile).items())[:5]
            rows.append([level_name(k), label, *(f"`{name}` {100 * x:.0f} %" for name, x in top)])
    return table(["largest free order", "strategy", "first", "second", "third", "fourth", "fifth"], rows)


def zeroing(study: Study, profile: Profile) -> str:
    """With init_on_alloc, beside without."""
    levels = [(k, zeroed) for k in ZEROED for zeroed in (False, True)]
    rows = []
    for s in SOURCES:
        cells = [interval(study.ratio(Case(s, k, zeroed=zeroed), *RIVALS, profile)) for k, zeroed in levels]
        rows.append([source_name(s), *cells])
    return table(["request, kernel", *(f"{level_name(k)}, {'on' if z else 'off'}" for k, z in levels)], rows)


def locks(study: Study, profile: Profile) -> str:
    """Longest sections under a per-CPU list's lock."""
    rows = []
    for s in LARGE:
        for zeroed in (False, True):
            for label in ("per-page", "bulk", "compound"):
                row = study.row(Case(s, zeroed=zeroed), label)
                lock, off = dict.fromkeys(PARTS, 0) | row["lock"], dict.fromkeys(PARTS, 0) | row["interrupts_off"]
                rows.append(
                    [
                        f"{s.kernel}, zeroing {'on' if zeroed else 'off'}",
                        label,
                        *(count(lock[name]) for name in ("blocks_refilled", "splits", "unlinked", "zeroed")),
                        figure((section_cost(lock, profile) or 0) / 1e3),
                        figure((section_cost(off, profile) or 0) / 1e3),
                    ]
                )
    parts = ("blocks refilled", "splits", "pages taken", "pages zeroed")
    return table(["kernel", "strategy", *parts, "lock held, us", "interrupts off, us"], rows)


def pressure(study: Study, profile: Profile) -> str:
    """Near the LOW watermark: who lives on the reserve."""
    s = LARGE[0]
    rows = []
    for k in (None, 3, 0):
        for spare in PRESSED:
            case = Case(s, k, spare=spare)
            rows.append(
                [
                    "10" if k is None else str(k),
                    count(spare),
                    *(count(study.row(case, label)["counters"].get("mempool_takes", 0)) for label in LABELS),
                    *(figure(study.per_mib(case, label, profile).value / 1e3) for label in LABELS),
                ]
            )
    return table(
        ["largest free order", "spare", *(f"{x}: reserve" for x in LABELS), *(f"{x}: us" for x in LABELS)], rows
    )


def memory(study: Study, profile: Profile) -> str:
    """What is held back and what is given back late, KiB."""
    rows = []
    for s in SOURCES:
        cells = [study.row(Case(s), label)["counters"] for label in LABELS]
        kib = [(4 * c.get("reserve_pages_peak", 0), 4 * c.get("waste_pages_peak", 0)) for c in cells]
        rows.append([source_name(s), *(f"{count(reserve)} / {count(waste)}" for reserve, waste in kib)])
    return table(["request, kernel", *LABELS], rows)


def lists(study: Study, profile: Profile) -> str:
    """Short per-CPU lists."""
    rows = []
    for s in LARGE:
        for k in (None, 3, 0):
            for high in (None, SHALLOW):
                case = Case(s, k, pcp_high=high)
                rows.append(
                    [
                        f"{s.kernel}, {level_name(k)}",
                        "by kernel" if high is None else str(high),
                        *(figure(study.per_mib(case, label, profile).value / 1e3) for label in LABELS),
                        interval(study.ratio(case, *RIVALS, profile)),
                    ]
                )
    return table(["kernel, largest free order", "list holds", *LABELS, "compound / bulk"], rows)


def writers(study: Study, profile: Profile) -> str:
    """Several writers at once: costs, zone locks, waits."""
    rows = []
    for s in LARGE:
        for k in (None, 3, 0):
            for n in WRITERS:
                case = Case(s, k, copies=n)
                found = [study.row(case, x) for x in RIVALS]
                mib = found[0]["pages"] / MIB
                taken = (figure(row["counters"].get("zone_lock_acquisitions", 0) / mib) for row in found)
                waited = (f"{100 * row['waits']['share']:.2g} %" if n > 1 else "-" for row in found)
                ratio = interval(study.ratio(case, *RIVALS, profile))
                rows.append([f"{s.kernel}, {level_name(k)}", str(n), *taken, *waited, ratio])
    names = [f"{x}: {what}" for what in ("zone locks", "waits") for x in RIVALS]
    return table(["kernel, largest free order", "writers", *names, "compound / bulk"], rows)


def survivors(study: Study, profile: Profile) -> str:
    """Nothing above order 0 but a few blocks of the request's order."""
    rows = []
    for s in LARGE:
        for n in (0, *SURVIVORS):
            cases = [Case(s, 0, survivors=n, seed=seed) for seed in (SEEDS if n else (0,))]
            found = [study.per_mib(case, "compound", profile).value / 1e3 for case in cases]
            row = study.row(cases[0], "compound")
            whole = row["blocks"].get(str(s.order), 0)
            rows.append(
                [
                    s.kernel,
                    str(n),
                    f"{whole} of {row['requests']}",
                    figure(min(found)) if min(found) == max(found) else span((min(found), max(found))),
                    figure(study.per_mib(cases[0], "bulk", profile).value / 1e3),
                ]
            )
    return table(["kernel", "blocks of order 8 left", "requests in one block", "compound, us", "bulk, us"], rows)


def compared(study: Study, profiles: Sequence[Profile]) -> str:
    """Compound over bulk under each profile."""
    cases = [Case(s, k) for s in SOURCES if s.kib > 4 for k in (None, 3, 1, 0)]
    cases += [Case(s, zeroed=True) for s in LARGE]
    rows = [
        [
            source_name(c.source),
            level_name(c.largest) + (", zeroed" if c.zeroed else ""),
            *(interval(study.ratio(c, *RIVALS, p)) for p in profiles),
        ]
        for c in cases
    ]
    return table(["request, kernel", "largest free order", *(f"{p.name} ({p.unit})" for p in profiles)], rows)


def crossings_compared(study: Study, profiles: Sequence[Profile]) -> str:
    """From which level on compound costs more, under each profile."""
    rows = []
    for s in SOURCES:
        if s.kib > 4:
            found = [crossing(study, s, p) for p in profiles]
            rows.append([source_name(s), *("never" if k is None else str(k) for k in found)])
    return table(["request, kernel", *(p.name for p in profiles)], rows)


def fragmented(study: Study, profile: Profile) -> str:
    """The recorded guest of fragmented memory beside two simulations of it."""
    recorded = study.row(Case(FRAGMENTED), RECORDED)
    rows = [["the kernel", *_orders(recorded["blocks"]), count(recorded["counters"].get("failed_attempts", 0))]]
    simulated = {
        "simulated from its snapshot": Case(FRAGMENTED),
        "the same, faults served otherwise": Case(FRAGMENTED, movable=MOVABLE),
        "simulated, level 2": Case(FRAGMENTED, 2),
    }
    for name, case in simulated.items():
        row = study.row(case, "compound")
        rows.append([name, *_orders(row["blocks"]), count(row["counters"].get("failed_attempts", 0))])
    return table(["blocks", *(f"order {k}" for k in range(5, -1, -1)), "failed attempts"], rows)


def _orders(blocks: Mapping[str, int]) -> list[str]:
    return [count(blocks.get(str(k), 0)) for k in range(5, -1, -1)]


TABLES: dict[str, Callable[[Study, Profile], str]] = {
    "sources": sources,
    "by-size": by_size,
    "by-level": by_level,
    "costs": costs_by_level,
    "work": work,
    "crossings": crossings,
    "hinges": hinges,
    "parts": parts,
    "zeroing": zeroing,
    "locks": locks,
    "pressure": pressure,
    "memory": memory,
    "lists": lists,
    "survivors": survivors,
    "writers": writers,
    "fragmented": fragmented,
}
