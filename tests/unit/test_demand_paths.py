"""Paths as data: names, options, defaults by kernel, and what each asks for from the same bios."""

from __future__ import annotations

from typing import Any

import pytest

from tests.demand_samples import MemoryTrace
from tests.unit.test_demand_path import bio, releases, requests, run
from tracereplay.demand import open_demand
from tracereplay.demand.path_bios import Encrypted
from tracereplay.demand.paths import PATHS, default_max_write, parse_path
from tracereplay.errors import UsageError

SDA, SDA1, SDA2, SDB, MD, DM = 8 << 20, 8 << 20 | 1, 8 << 20 | 2, 8 << 20 | 16, 9 << 20, 253 << 20


# ---------------------------------------------------------------- names and options
@pytest.mark.parametrize(
    ("release", "size"),
    [("6.1.0-56-amd64", 1 << 20), ("6.10.9", 1 << 20), ("6.11.0", 1 << 17), ("6.18.44-fc", 1 << 17), ("7.0", 1 << 17)],
)
def test_the_largest_write_follows_the_kernel(release: str, size: int) -> None:
    spec = parse_path("dm-crypt", release=release)
    assert spec.number("max_write") == spec.request_bytes == size
    assert release in spec.max_write_from


def test_an_unknown_kernel_is_said_to_be() -> None:
    assert default_max_write(None)[0] == default_max_write("vendor")[0] == 1 << 20
    assert "no kernel" in default_max_write(None)[1]


def test_what_is_given_wins() -> None:
    spec = parse_path("dm-crypt:max_write=65536,mode=inline", release="6.18", max_write=4096)
    assert (spec.number("max_write"), spec.max_write_from) == (4096, "as given")
    assert spec.options["mode"] == "inline"


@pytest.mark.parametrize(
    ("text", "match", "hint"),
    [
        ("dmcrypt", "unknown path", "dm-crypt"),
        ("", "unknown path", "f2fs-compress"),
        ("dm-crypt:mod=inline", "no option", "'mode'"),
        ("dm-crypt:mode=inlien", "cannot be 'inlien'", "'inline'"),
        ("dm-crypt:max_write=1000", "cannot be", "multiple of 512"),
        ("f2fs-compress:cluster=512", "cannot be", "4..256"),
        ("f2fs-compress:cluster=x", "cannot be", "4..256"),
        ("blk-crypto:cluster=4", "no option", "pool_min"),
        ("dm-crypt:mode", "mode cannot be", "workqueue"),
    ],
)
def test_wrong_paths_say_what_is_known(text: str, match: str, hint: str) -> None:
    with pytest.raises(UsageError, match=match) as error:
        parse_path(text)
    assert hint in str(error.value.hint)


def test_the_largest_write_is_dm_crypts() -> None:
    with pytest.raises(UsageError, match="no largest write"):
        parse_path("blk-crypto", max_write=4096)


def test_every_option_names_its_source_and_every_path_its_holds() -> None:
    for kind in PATHS.values():
        assert all(option.source and option.doc for option in kind.options)
        spec = parse_path(kind.name)
        assert spec.hold
        assert spec.describe()["options"].keys() == {option.name for option in kind.options}
        assert spec.pool_pages > 0
    holds = {parse_path(f"dm-crypt:mode={m},encrypt_ns={e}").hold for m in ("inline", "workqueue") for e in (0, 9)}
    assert len(holds) == 4


# ---------------------------------------------------------------- requests
MEBIBYTE = [bio(100, "queue", SDA, 0, 2048), bio(900, "complete", SDA, 0, 2048)]


@pytest.mark.parametrize(
    ("path", "sizes"),
    [
        ("dm-crypt", [256]),
        ("dm-crypt:max_write=131072", [32] * 8),
        ("blk-crypto", [256]),
        ("f2fs-compress", [4] * 64),
        ("f2fs-compress:cluster=128", [128, 128]),
    ],
)
def test_a_mebibyte_through_each_path(path: str, sizes: list[int]) -> None:
    stream, ops = run(MEBIBYTE, path=path)
    assert [n for _, n in requests(ops)] == sizes
    assert sum(n for _, n in releases(ops)) == 256
    assert stream.report.path["name"] == path.split(":")[0]
    gfps = {op[2] for op in ops if op[7] == 1}
    assert gfps == {PATHS[path.split(":")[0]].gfp}


def test_inline_a_task_encrypts_one_bio_after_another() -> None:
    bios = [bio(100, "queue", SDA, 0, 16), bio(110, "queue", SDA, 16, 8), bio(120, "queue", SDA, 100, 8, pid=9)]
    bios += [bio(200, "complete", SDA, 0, 24), bio(250, "complete", SDA, 100, 8), bio(5000, "queue", SDA, 0, 8)]
    _, ops = run(bios, path="dm-crypt:mode=inline,encrypt_ns=1000")
    # 2 pages from 100 to 2100, then 1 page to 3100; the other task from 120 to 1120; the device takes its time after
    assert requests(ops) == [(100, 2), (120, 1), (2100, 1), (5000, 1)]
    assert releases(ops) == [(1250, 1), (2200, 2), (3190, 1)]


def test_in_a_workqueue_buffers_wait_for_a_worker() -> None:
    bios = [bio(100 + i, "queue", SDA, 8 * i, 8) for i in range(3)]
    bios += [bio(200, "complete", SDA, 0, 24), bio(9000, "queue", SDA, 0, 8)]
    _, ops = run(bios, path="dm-crypt:encrypt_ns=1000,workers=2")
    assert requests(ops) == [(100, 1), (101, 1), (1100, 1), (9000, 1)]
    assert releases(ops) == [(1200, 1), (1200, 1), (2198, 1)]


def test_work_that_would_begin_after_the_trace_is_counted() -> None:
    bios = [bio(100, "queue", SDA, 0, 8), bio(101, "queue", SDA, 8, 8), bio(300, "complete", SDA, 0, 16)]
    stream, ops = run(bios, path="dm-crypt:mode=inline,encrypt_ns=1000")
    assert requests(ops) == [(100, 1)]
    assert not releases(ops)
    assert stream.report.path["after_end"] == 1


# ---------------------------------------------------------------- layers
def test_partitions_are_not_devices() -> None:
    """Newer kernels: bios and remaps carry the partition's number, requests the disk's."""
    bios = []
    for i, part in enumerate((SDA1, SDA2)):
        at = 2048 + 100_000 * i
        bios += [
            bio(100 + 10 * i, "remap", part, at, 8, old_dev=part, old_sector=0),
            bio(101 + 10 * i, "queue", part, at, 8),
            bio(102 + 10 * i, "issue", SDA, at, 8),
            bio(500 + i, "complete", SDA, at, 8),
        ]
    for without_remaps in (False, True):
        rows = [b for b in bios if not (without_remaps and b["kind"] == "remap")]
        stream, ops = run(rows)
        assert requests(ops) == [(101, 1), (111, 1)]
        assert releases(ops) == [(500, 1), (501, 1)]
        assert stream.report.path["device"] == "8,0"
        assert stream.report.path["partitions"] == ["8,1", "8,2"]
        assert [c["caller"] for c in stream.report.by_caller] == ["bio 8,0"]
        with pytest.raises(UsageError, match="8,1 is a partition of 8,0") as error:
            run(rows, device="8,1")
        assert "--device 8,0" in str(error.value.hint)


def crypt_stack(ts: int, sector: int, *, pid: int = 7) -> list[dict[str, Any]]:
    """A WRITE of a page through dm-crypt on a partition."""
    return [
        bio(ts, "queue", DM, sector, 8, pid=pid),
        bio(ts + 10, "remap", SDA2, sector + 16, 8, old_dev=DM, old_sector=sector, pid=99),
        bio(ts + 11, "remap", SDA2, sector + 5016, 8, old_dev=SDA2, old_sector=sector + 16, pid=99),
        bio(ts + 12, "queue", SDA2, sector + 5016, 8, pid=99),
        bio(ts + 13, "issue", SDA, sector + 5016, 8, pid=99),
        bio(ts + 50, "complete", SDA, sector + 5016, 8),
        bio(ts + 60, "bio_complete", DM, sector, 8),
    ]


def tasks() -> list[dict[str, Any]]:
    return [{"pid": 99, "comm": "dmcrypt_write/2"}, {"pid": 7, "comm": "fio"}]


def test_bios_below_dm_crypt_are_not_encrypted_again() -> None:
    plain = [bio(500, "queue", SDA1, 4000, 8), bio(501, "issue", SDA, 4000, 8), bio(600, "complete", SDA, 4000, 8)]
    rows = [*crypt_stack(100, 0), *crypt_stack(200, 64), *plain]
    found = {}
    for path in PATHS:
        stream = open_demand(MemoryTrace({"bio_events": rows, "tasks": tasks()}), path=path)  # type: ignore[arg-type]
        ops = [op for batch in stream for op in batch.tolist()]
        found[path] = requests(ops), releases(ops), stream.report.path
    both = [(100, 1), (200, 1), (500, 1)], [(160, 1), (260, 1), (600, 1)]
    assert found["dm-crypt"][:2] == both  # dm-crypt's own are not recorded: they are made from its bios
    assert found["blk-crypto"][:2] == ([(500, 1)], [(600, 1)])
    assert found["f2fs-compress"][:2] == ([(500, 1)], [(600, 1)])
    for _, _, section in found.values():
        assert (section["device"], section["below_dm_crypt"], section["encrypted"]) == ("8,0", 2, ["253,0"])


def test_where_all_is_encrypted_the_layer_is_dm_crypts() -> None:
    rows = [*crypt_stack(100, 0), *crypt_stack(200, 64)]
    stream = open_demand(MemoryTrace({"bio_events": rows, "tasks": tasks()}), path="dm-crypt")  # type: ignore[arg-type]
    ops = [op for batch in stream for op in batch.tolist()]
    assert stream.report.path["device"] == "253,0"
    assert (requests(ops), releases(ops)) == ([(100, 1), (200, 1)], [(160, 1), (260, 1)])


def test_what_dm_crypt_wrote_is_followed_through_other_layers() -> None:
    below = Encrypted([DM])
    below.remap(MD, 100, 16, DM, 0)
    below.remap(SDA, 1100, 8, MD, 100)
    below.remap(SDB, 2108, 8, MD, 108)
    assert below.queue(SDA, 1100, 8, 1)
    assert not below.queue(SDA, 1100, 8, 1)
    assert not below.queue(SDB, 0, 8, 1)
    assert Encrypted([DM], writers=[99]).queue(SDA, 0, 8, 99)


# ---------------------------------------------------------------- completion
def test_without_completions_of_its_own_a_device_is_followed_down() -> None:
    """A mirror: both copies have to be complete."""
    rows = [
        bio(100, "queue", MD, 0, 16),
        bio(110, "remap", SDA, 1000, 16, old_dev=MD, old_sector=0),
        bio(111, "queue", SDA, 1000, 16),
        bio(112, "remap", SDB, 3000, 16, old_dev=MD, old_sector=0),
        bio(113, "queue", SDB, 3000, 16),
        bio(200, "complete", SDA, 1000, 16),
        bio(300, "complete", SDB, 3000, 8),
        bio(400, "complete", SDB, 3008, 8),
    ]
    stream, ops = run(rows, device="9,0")
    assert (requests(ops), releases(ops)) == ([(100, 2)], [(400, 2)])
    assert "below" in stream.report.path["completion"]


def test_a_split_bio_is_complete_with_its_last_part() -> None:
    rows = [
        bio(100, "queue", MD, 0, 24),
        bio(200, "bio_complete", MD, 0, 8),
        bio(300, "bio_complete", MD, 8, 16),
        bio(400, "queue", MD, 64, 24),
        bio(500, "bio_complete", MD, 80, 8),  # no event for its other parts
    ]
    _, ops = run(rows)
    assert releases(ops) == [(300, 2), (300, 1), (500, 2), (500, 1)]


def test_lost_completions_are_counted_and_hold_no_pages_for_ever() -> None:
    rows = [bio(1_000 + i, "queue", SDA, 8 * i, 8) for i in range(3)]
    rows += [bio(9_000, "queue", SDA, 0, 8), bio(10_000, "complete", SDA, 0, 8)]
    rows += [bio(150_000_000, "queue", SDA, 800, 8), bio(150_000_100, "complete", SDA, 800, 8)]
    loss = [{"t0_ns": 2_000, "t1_ns": 8_000, "table": "bio_events", "n": 5, "class": "ring_full"}]
    stream = open_demand(MemoryTrace({"bio_events": rows, "loss": loss}), path="dm-crypt")  # type: ignore[arg-type]
    ops = [op for batch in stream for op in batch.tolist()]
    # the first is given up for the WRITE that follows on its sectors, the others when they are overdue
    assert releases(ops) == [(9_000, 1), (10_000, 1), (150_000_000, 1), (150_000_000, 1), (150_000_100, 1)]
    assert (stream.report.path["lost"], stream.report.path["completed"]) == (3, 2)
    without = open_demand(MemoryTrace({"bio_events": rows}), path="dm-crypt")  # type: ignore[arg-type]
    assert len([op for batch in without for op in batch.tolist() if op[7] == 2]) == 2
    assert without.report.path["right_censored"] == 3


def test_completions_of_earlier_bios_are_counted() -> None:
    stream, _ = run([bio(50, "complete", SDA, 4000, 8), *MEBIBYTE])
    assert stream.report.path["unmatched_completions"] == 1
