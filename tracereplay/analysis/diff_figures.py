"""The headline figures of a trace: rates, pages per request, lifetimes, latencies, refills, failures, callers."""

from __future__ import annotations

from collections.abc import Callable

import polars as pl

from tracereplay.analysis.diff_series import Cut, Series, none

CALLERS = 5
"""So many callers with the most pages, of each trace."""
_PAGES = pl.lit(2, pl.Int64).pow(pl.col("order").fill_null(0))
_LATENCIES = (("q2c", "q2c_ns"), ("q2d", "q2d_ns"), ("d2c", "d2c_ns"))
_SHARES = ((0.5, "p50"), (0.99, "p99"))


def pages(cut: Cut) -> list[Series]:
    """Allocations, frees, failures, drains, fallbacks, bulk calls: per second, and against each other."""
    if not cut.records("page_events", "alloc", "free"):
        return []
    found = cut.sums(
        cut.trace.page_events.with_columns(pl.col("kind").cast(pl.String)),
        "ts_ns",
        "kind",
        n=pl.len(),
        pages=pl.when(pl.col("kind") == "bulk").then(pl.col("returned").cast(pl.Int64)).otherwise(_PAGES).sum(),
    )
    made = []

    def rate(name: str, kind: str, what: str) -> None:
        if cut.records("page_events", kind):
            unit = {"n": "1/s", "pages": "pages/s"}[what]
            made.append(Series(name, unit, "pages", found.get(kind, none())[what], cut.seconds))

    rate("allocations", "alloc", "n")
    rate("pages allocated", "alloc", "pages")
    rate("pages freed", "free", "pages")
    rate("failures", "alloc_failed", "n")
    rate("pages drained", "drain", "pages")
    rate("fallbacks (extfrag)", "extfrag", "n")
    rate("bulk pages", "bulk", "pages")
    alloc = found.get("alloc", none())
    made.append(Series("pages per allocation", "pages", "pages", alloc["pages"], alloc["n"]))
    return made


def lives(cut: Cut) -> list[Series]:
    """Lifetimes of blocks that came and went within the trace, by time of allocation; callers by pages."""
    if not cut.records("page_events", "alloc") or not cut.records("page_events", "free"):
        return []
    table = cut.ready("lifetimes").filter(pl.col("t_alloc_ns").is_not_null())
    whole = table.filter(pl.col("class") == "complete")
    counts = cut.histogram(whole, "t_alloc_ns", "lifetime_ns")
    made = [Series(f"lifetime {n}", "ns", "lifetimes", counts, share=share) for share, n in _SHARES]
    remote = (pl.col("alloc_cpu") != pl.col("free_cpu")).sum()
    ends = cut.sums(whole, "t_alloc_ns", "class", n=pl.len(), remote=remote).get("complete", none())
    return [*made, Series("freed on another CPU", "share", "lifetimes", ends["remote"], ends["n"])]


def callers(cut: Cut) -> list[Series]:
    """Pages per second of every caller that comes to 1 % of the pages or is among the first."""
    if not cut.records("page_events", "alloc"):
        return []
    table = cut.ready("lifetimes").filter(pl.col("t_alloc_ns").is_not_null() & pl.col("caller").is_not_null())
    found = cut.sums(table, "t_alloc_ns", "caller", pages=pl.col("pages").cast(pl.Int64).sum())
    return [Series(f"caller {name}", "pages/s", "callers", sums["pages"], cut.seconds) for name, sums in found.items()]


def refills(cut: Cut) -> list[Series]:
    """Refills of per-CPU lists."""
    if not cut.records("page_events", "zone_locked"):
        return []
    found = cut.sums(
        cut.ready("refills").with_columns(pl.lit("all").alias("by")),
        "t0_ns",
        "by",
        n=pl.len(),
        pages=pl.col("pages").cast(pl.Int64).sum(),
    ).get("all", none())
    return [
        Series("refills", "1/s", "refills", found["n"], cut.seconds),
        Series("pages per refill", "pages", "refills", found["pages"], found["n"]),
    ]


def ios(cut: Cut) -> list[Series]:
    """I/Os of the uppermost layer by operation: rate, size, latency, errors; pages allocated for each."""
    if not cut.trace.rows("bio_events"):
        return []
    table = cut.ready("io").filter((pl.col("layer") == 0) & pl.col("op").is_in(["R", "W"]))
    table = table.with_columns(pl.coalesce("q_ns", "d_ns", "c_ns").alias("at_ns")).filter(pl.col("at_ns").is_not_null())
    found = cut.sums(
        table,
        "at_ns",
        "op",
        n=pl.len(),
        bytes=pl.col("bytes").cast(pl.Int64).sum(),
        errors=(pl.col("error") != 0).sum(),
    )
    made = []
    for op, sums in sorted(found.items()):
        made += [
            Series(f"I/Os ({op})", "1/s", "io", sums["n"], cut.seconds),
            Series(f"bytes ({op})", "bytes/s", "io", sums["bytes"], cut.seconds),
            Series(f"bytes per I/O ({op})", "bytes", "io", sums["bytes"], sums["n"]),
            Series(f"failed I/Os ({op})", "share", "io", sums["errors"], sums["n"]),
        ]
        for stage, column in _LATENCIES:
            counts = cut.histogram(table.filter(pl.col("op") == op), "at_ns", column)
            if counts.any():
                made += [Series(f"{stage} {n} ({op})", "ns", "io", counts, share=share) for share, n in _SHARES]
    if found and cut.records("page_events", "alloc"):
        allocated = next(s for s in pages(cut) if s.name == "pages allocated")
        total = sum((s["n"] for s in found.values()), start=none()["n"])
        made.append(Series("pages allocated per I/O", "pages", "io", allocated.above, total))
    return made


def stalls(cut: Cut) -> list[Series]:
    """Direct reclaim, compaction and wake-ups of kswapd."""
    kinds = {"direct reclaims": "reclaim_begin", "compactions": "compaction_begin", "kswapd wake-ups": "kswapd_wakeup"}
    kinds = {name: kind for name, kind in kinds.items() if cut.records("mm_events", kind)}
    if not kinds:
        return []
    found = cut.sums(cut.trace.mm_events.with_columns(pl.col("kind").cast(pl.String)), "ts_ns", "kind", n=pl.len())
    return [
        Series(name, "1/s", "stalls", found.get(kind, none())["n"], cut.seconds) for name, kind in kinds.items()
    ]  # fmt: skip


GROUPS: dict[str, Callable[[Cut], list[Series]]] = {
    "pages": pages,
    "lifetimes": lives,
    "callers": callers,
    "refills": refills,
    "io": ios,
    "stalls": stalls,
}
"""By name, as ``--only`` takes them."""
