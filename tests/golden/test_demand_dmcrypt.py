"""Requests of dm-crypt in recordings of real kernels: each WRITE is one request, however it was served."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.reference.stream_check import check_stream
from tracereplay.demand import open_demand
from tracereplay.demand.stream import BATCH, REQUIRED
from tracereplay.importers.convert import import_trace
from tracereplay.trace.reader import Trace

DATA = Path(__file__).parent.parent / "data" / "demand"
SHIPPED = Path(__file__).parents[2] / "traces" / "dmcrypt-6.1-1M"


@pytest.fixture(scope="module")
def demand(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """``demand(name)``: report and crypt requests of a recording, imported once."""
    made: dict[str, Any] = {}

    def get(name: str) -> Any:
        if name not in made:
            if name == "shipped":
                path = SHIPPED
            else:
                path = tmp_path_factory.mktemp("traces") / name
                import_trace(next(DATA.glob(f"{name}.*.xz")), path)
            stream = open_demand(Trace.open(path))
            found = check_stream(stream, stream.info)
            crypt = [r for r in found.requests if "crypt" in stream.report.callers[r.caller]]
            made[name] = (stream.report, crypt, found)
        return made[name]

    return get


CASES = [
    # recording, sizes of the requests, WRITE bios, matched with requests
    ("shipped", {"256": 8}, 8, 8),
    ("6.1-128k", {"32": 64}, 64, 64),
    ("6.1-4k", {"1": 2048}, 2048, 2048),
    ("6.1-smp2-1M", {"256": 16}, 16, 16),
    ("6.1-smp2-64k", {"16": 256}, 256, 256),
    ("6.1-raw-1M", {"256": 8}, 8, 8),
    ("6.1-stack", {"256": 2}, 2, 2),
    ("6.12-1M", {"32": 64}, 8, 8),
    ("6.12-nocap-1M", {"256": 16}, 16, 16),
    ("6.12-nocap-256k", {"64": 64}, 64, 64),
    ("6.12-frag-1M", {"32": 128}, 16, 16),
]


@pytest.mark.parametrize(("name", "sizes", "writes", "matched"), CASES)
def test_each_write_is_one_request(demand: Any, name: str, sizes: dict[str, int], writes: int, matched: int) -> None:
    report, crypt, _ = demand(name)
    callers = [c for c in report.by_caller if "crypt" in c["caller"]]
    assert [c["sizes"] for c in callers] == [sizes]
    assert report.bios["writes"] == writes
    assert report.bios["matched"] == matched
    expected = [int(p) for p, n in sizes.items() for _ in range(n)]
    assert sorted(r.pages for r in crypt) == sorted(expected)
    for r in crypt:
        assert not r.flags & REQUIRED
        assert bool(r.flags & BATCH) == (r.pages > 1)


@pytest.mark.parametrize("name", [c[0] for c in CASES])
def test_every_event_is_accounted_for_once(demand: Any, name: str) -> None:
    report, _, found = demand(name)
    a = report.accounting
    assert a.events == a.allocations + a.failed + a.frees + sum(a.ignored.values()) + a.malformed
    assert a.frees == a.matched + a.unmatched_frees
    assert a.unmatched_frees == a.left_censored + a.unseen_frees + a.lost_frees
    assert a.allocated_pages == a.matched_pages + a.reused_pages + a.right_censored_pages
    assert len(found.live) == a.right_censored_pages
    assert found.initial == a.left_censored_pages
    assert report.requests == len(found.requests)
    assert report.pages == sum(r.pages for r in found.requests)
    assert report.pages == a.allocated_pages + a.unseen_pages + a.lost_pages
    assert sum(c["pages"] for c in report.by_caller) == report.pages
    assert a.malformed == 0


def test_recordings_without_buddy_noise_need_no_bio(demand: Any) -> None:
    """Where times are instruction counts, gaps and order rules alone find every boundary."""
    for name in ("shipped", "6.1-128k", "6.1-4k", "6.12-1M", "6.12-nocap-1M", "6.12-nocap-256k", "6.12-frag-1M"):
        report, _, _ = demand(name)
        assert report.bios["boundaries_cut_by_bio"] == 0, name
        assert report.bios["boundaries_joined_by_bio"] == 0, name


def test_compound_blocks_are_extents_not_requirements(demand: Any) -> None:
    _, whole, _ = demand("6.12-nocap-1M")
    assert {tuple(r.extents) for r in whole} == {(8,)}
    _, quarter, _ = demand("6.12-nocap-256k")
    assert {tuple(r.extents) for r in quarter} == {(6,)}
    _, capped, _ = demand("6.12-1M")
    assert {tuple(r.extents) for r in capped} == {(5,)}
    _, mixed, _ = demand("6.12-frag-1M")
    shapes = {tuple(r.extents) for r in mixed}
    assert (5,) in shapes
    assert any(len(s) > 1 for s in shapes)
    for shape in shapes:
        assert sorted(shape, reverse=True) == list(shape), "orders never rise within a buffer"


def test_per_page_and_compound_demand_agree_per_mebibyte(demand: Any) -> None:
    """8 MiB page by page on 6.1 and 16 MiB as order-8 blocks: the same requests per MiB (architecture.md 3, rule 1)."""
    _, pages, _ = demand("shipped")
    _, blocks, _ = demand("6.12-nocap-1M")
    per_mib = [(len(r) * 256 / sum(x.pages for x in r), sorted({x.pages for x in r})) for r in (pages, blocks)]
    assert per_mib[0] == per_mib[1] == (1.0, [256])


def test_overwritten_recordings_keep_what_is_whole(demand: Any) -> None:
    report, crypt, _ = demand("6.1-raw-overwritten")
    assert report.accounting.loss_intervals == 1
    assert [r.pages for r in crypt].count(256) >= 4
    assert sum(r.pages for r in crypt) == 1256
    report, crypt, _ = demand("6.12-raw-overwritten")
    assert {r.pages for r in crypt} == {32}


def test_faults_are_requests_of_their_own(demand: Any) -> None:
    report, _, _ = demand("shipped")
    faults = [c for c in report.by_caller if c["caller"].startswith("user fault")]
    assert sum(c["requests"] for c in faults) > 2000
    assert all(set(c["sizes"]) == {"1"} for c in faults)


def test_stacks_name_the_caller(demand: Any) -> None:
    report, _, _ = demand("6.1-stack")
    assert "crypt_alloc_buffer" in {c["caller"] for c in report.by_caller}
    assert not any(c["caller"].startswith(("__alloc_pages", "mempool")) for c in report.by_caller)
