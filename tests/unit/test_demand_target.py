"""Targets by task, cgroup, device and stack, and what a trace cannot answer."""

from __future__ import annotations

from typing import Any

import pytest

from tests.demand_samples import MemoryTrace
from tracereplay.demand import open_demand
from tracereplay.errors import UsageError

SDA, SDB = 8 << 20, 8 << 20 | 16
STACKS = {
    1: ["__alloc_pages", "vfs_write", "ksys_write"],
    2: ["__alloc_pages", "vfs_write", "io_write"],
    3: ["__alloc_pages", "sk_page_frag_refill"],
}


def pages(pid: int, first: int, n: int, *, stack: int | None, gfp: int = 0xCC0, ts: int = 1000) -> list[dict[str, Any]]:
    """A burst of n pages of one task."""
    return [
        {"ts_ns": ts + first * 1000 + 100 * i, "cpu": 0, "kind": "alloc", "pfn": first + i, "order": 0}
        | {"gfp": gfp, "migratetype": 0, "pid": pid, "stack_id": stack}
        for i in range(n)
    ]


def bio(ts: int, kind: str, dev: int, pid: int) -> dict[str, Any]:
    row = {"ts_ns": ts, "cpu": 0, "kind": kind, "dev": dev, "sector": 0, "nr_sectors": 32, "op": "W", "flags": "W"}
    return row | {"pid": pid}


def trace(*, stacks: bool = True, tasks: bool = True, cgroups: bool = True) -> MemoryTrace:
    """Bursts of 2, 3, 4 and 5 pages by different tasks, stacks and masks, and two bios of 4 pages."""
    rows = pages(10, 0, 2, stack=1) + pages(20, 64, 3, stack=2, gfp=0xDC0)
    rows += pages(20, 128, 4, stack=3) + pages(30, 192, 5, stack=None)
    tables: dict[str, list[dict[str, Any]]] = {"page_events": rows}
    if not stacks:
        for row in rows:
            row["stack_id"] = None
    else:
        tables["stacks"] = [
            {"stack_id": i, "depth": d, "address": 0, "symbol": s, "offset": 0}
            for i, names in STACKS.items()
            for d, s in enumerate(names)
        ]
    if tasks:
        groups = {10: "/web", 20: "/db/main", 30: None}
        names = {10: "nginx", 20: "postgres", 30: "kworker/0:1"}
        tables["tasks"] = [{"pid": p, "comm": names[p], "cgroup": groups[p] if cgroups else None} for p in groups]
    tables["bio_events"] = [bio(500_000, "queue", SDA, 20), bio(510_000, "queue", SDB, 10)]
    tables["bio_events"] += [bio(600_000, "complete", SDA, 0), bio(610_000, "complete", SDB, 0)]
    return MemoryTrace(tables)


def taken(target: str | list[str], source: MemoryTrace | None = None, **options: Any) -> int:
    stream = open_demand(source or trace(), target=target, **options)  # type: ignore[arg-type]
    for _ in stream:
        pass
    return stream.report.targeted_pages


@pytest.mark.parametrize(
    ("target", "pages"),
    [
        ("batches", 14),
        ("symbol:vfs_*", 5),
        ("symbol:ksys_write", 2),
        ("symbol:vfs_write,symbol:io_write", 3),
        ("caller:vfs_write", 5),
        ("caller:ksys_write", 0),  # the label is the first function outside the allocator
        ("comm:postgres", 7),
        ("comm:kworker", 5),
        ("cgroup:/db/*", 7),
        ("cgroup:*", 9),
        ("cgroup:/db/*,symbol:sk_*", 4),
        ("gfp:__GFP_ZERO", 3),
        ("comm:nginx,pages>=3", 0),
        (["cgroup:/web", "symbol:sk_page_frag_refill"], 6),
    ],
)
def test_selectors(target: str | list[str], pages: int) -> None:
    assert taken(target) == pages


@pytest.mark.parametrize(
    ("target", "pages"),
    [("device:8,0", 4), ("device:8:0,pages>=5", 0), ("device:8,0,comm:postgres", 4), ("origin:bio,comm:nginx", 0)],
)
def test_selectors_of_a_path(target: str, pages: int) -> None:
    assert taken(target, path="dm-crypt", device="8,0") == pages


@pytest.mark.parametrize(
    ("target", "without", "says"),
    [
        ("symbol:vfs_write", "stacks", "--stacks"),
        ("cgroup:/db", "cgroups", "tracereplay capture"),
        ("comm:nginx", "tasks", "tasks"),
    ],
)
def test_what_was_not_recorded_is_named(target: str, without: str, says: str) -> None:
    with pytest.raises(UsageError) as error:
        taken(target, trace(**{without: False}))
    assert says in str(error.value.hint)


def test_devices_need_a_path_that_uses_them() -> None:
    with pytest.raises(UsageError, match="without a path") as error:
        taken("device:8,0")
    assert "--path" in str(error.value.hint)
    with pytest.raises(UsageError, match="no request from bios of 8,16") as error:
        taken("device:8,16", path="dm-crypt", device="8,0")
    assert "8,0" in str(error.value.hint)
    with pytest.raises(UsageError, match="is no device"):
        taken("device:sda", path="dm-crypt")


@pytest.mark.parametrize(("typo", "meant"), [("cgruop:/db", "cgroup:"), ("symbl:x", "symbol:"), ("dev:8:0", "device:")])
def test_typos_have_a_suggestion(typo: str, meant: str) -> None:
    with pytest.raises(UsageError) as error:
        taken(typo)
    assert meant in str(error.value.hint)


def test_symbols_do_not_split_the_report() -> None:
    stream = open_demand(trace(), target="symbol:ksys_write")  # type: ignore[arg-type]
    for _ in stream:
        pass
    labels = [c["caller"] for c in stream.report.by_caller]
    assert len(labels) == len(set(labels))
    assert next(c["pages"] for c in stream.report.by_caller if c["caller"] == "vfs_write") == 5
