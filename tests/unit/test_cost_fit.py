"""Profiles fitted to measured cases: known prices come back, held-out cases are predicted, shipped ones are fits."""

from __future__ import annotations

import tomllib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tracereplay.cost.alone import ALONE, known_alone, read_alone
from tracereplay.cost.cases import Outcome, run_cases
from tracereplay.cost.check import check_rows, rows_for, summary
from tracereplay.cost.fit import fit_rows
from tracereplay.cost.fitted import profile_text
from tracereplay.cost.price import price_vectors
from tracereplay.cost.primitives import PRIMITIVES
from tracereplay.cost.profile import Profile, load_profile
from tracereplay.cost.rows import Row, read_rows
from tracereplay.errors import RowsError

DATA = Path(__file__).parents[1] / "data" / "cost"
ROWS = read_rows(DATA / "microbenchmark.csv")
KERNELS = ("6.1", "6.12")


def of(kernel: str) -> list[Row]:
    return [row for row in ROWS if row.kernel == kernel]


def fitted(
    rows: list[Row], tmp_path: Path, base: Profile | None = None, alone: dict[str, float] | None = None
) -> Profile:
    path = tmp_path / "fitted.toml"
    path.write_text(profile_text(fit_rows(rows, run_cases(rows)), rows, "fitted", "rows of a test", base, alone))
    return load_profile(path)


# ---------------------------------------------------------------- the machine in a case
def case(**changes: object) -> Row:
    return replace(of("6.1")[0], **changes)  # type: ignore[arg-type]


def counted(row: Row) -> dict[str, float]:
    return run_cases([row])[0].counters()


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("n", [1, 8, 64])
def test_single_pages_stay_on_their_list(kernel: str, n: int) -> None:
    found = counted(case(kernel=kernel, n_pages=n, buffers_held=16))
    assert found["alloc_calls"] == found["free_calls"] == found["frees_pcp"] == found["pcp_hits"] == n
    assert found["pcp_lock_acquisitions"] == 2 * n
    assert "splits" not in found


def test_bulk_takes_the_lock_once() -> None:
    found = counted(case(strategy="bulk", n_pages=64))
    assert (found["bulk_calls"], found["watermark_checks"], found["pcp_lock_acquisitions"]) == (1, 1, 1 + 64)


def test_many_pages_held_refill_and_drain() -> None:
    found = counted(case(n_pages=256, buffers_held=64))
    assert 100 < found["pcp_refill_blocks"] < 156
    assert found["pcp_refill_blocks"] == pytest.approx(found["pcp_drain_blocks"], abs=1)


@pytest.mark.parametrize(("kernel", "splits"), [("6.1", 1), ("6.12", 2)])
def test_a_block_of_order_4_is_cut_from_what_the_guest_had(kernel: str, splits: int) -> None:
    found = counted(case(kernel=kernel, strategy="compound-single", n_pages=16))
    assert found["splits"] == found["merges"] == splits
    assert found["zone_lock_acquisitions"] == 2


def test_new_pages_are_checked_where_the_kernel_does() -> None:
    one_block = {"strategy": "compound-single", "n_pages": 16}
    assert counted(case(**one_block))["new_pages_checked"] == 16
    assert "new_pages_checked" not in counted(case(kernel="6.12", **one_block))
    zeroed = counted(case(kernel="6.12", init_on_alloc=True, **one_block))
    assert zeroed["new_pages_checked"] == zeroed["freed_pages_checked"] == zeroed["zeroed_pages"] == 16


def test_fragmented_memory_fails_large_blocks() -> None:
    (outcome,) = run_cases([case(strategy="compound-single", gfp="nowait", n_pages=16, fragmentation=3)])
    assert outcome.failed == 1
    assert outcome.counters()["kswapd_wakes"] == 1
    found = counted(case(strategy="compound", gfp="nowait", n_pages=16, fragmentation=3))
    assert (found["blocks_order_2"], found["failed_attempts"]) == (4, 2)


def test_the_orders_that_a_row_obtained_are_there() -> None:
    row = next(r for r in ROWS if r.strategy == "compound-single" and r.orders and 0 < r.failed < r.samples)
    assert run_cases([row])[0].failed == pytest.approx(row.failed / row.samples, abs=0.16)


# ---------------------------------------------------------------- the fit
def priced_rows(rows: list[Row], prices: dict[str, float], timers: tuple[float, float]) -> list[Row]:
    """The rows as a kernel of exactly these prices would give them."""
    profile = load_profile("linux-6.1")
    exact = replace(
        profile, coefficients=tuple(replace(c, value=prices[c.name]) for c in profile.coefficients if c.name in prices)
    )
    outcomes = run_cases(rows)
    alloc = price_vectors(np.array([o.alloc for o in outcomes]), exact)
    free = price_vectors(np.array([o.free for o in outcomes]), exact)
    return [
        replace(row, alloc=float(a) + timers[0], free=float(f) + timers[1])
        for row, a, f in zip(rows, alloc, free, strict=True)
    ]


def test_known_prices_predict_what_was_held_out(tmp_path: Path) -> None:
    """A kernel nobody has seen: other prices for everything, by up to a factor of three."""
    rng = np.random.default_rng(5)
    prices = {p.name: p.rough * float(np.exp(rng.uniform(-1.1, 1.1))) for p in PRIMITIVES}
    rows = priced_rows(of("6.1"), prices, (61.0, 33.0))
    small = [row for row in rows if row.n_pages <= 32 or row.n_pages == 256]
    large = [row for row in rows if row not in small]
    found = summary(check_rows(large, fitted(small, tmp_path)))
    assert found["rows"] == len(large) >= 14
    assert found["max_error"] < 0.02


def test_the_unit_of_the_rows_does_not_matter(tmp_path: Path) -> None:
    rows = [replace(row, alloc=row.alloc / 13, free=row.free / 13, unit="ns") for row in of("6.1")]
    profile = fitted(rows, tmp_path)
    assert profile.unit == "ns"
    assert summary(check_rows(rows, profile))["p95_error"] < 0.05


@pytest.mark.parametrize("kernel", KERNELS)
def test_cases_held_out_are_predicted(kernel: str, tmp_path: Path) -> None:
    """Fitted to up to 32 pages (and the one case with refills), the rest within 10 % as far as free lists are known.

    What fails, or was fragmented, depends on blocks that the guests happened to have.
    """
    rows = [row for row in of(kernel) if row.fragmentation == 0]
    small = [row for row in rows if row.n_pages <= 32 or row.n_pages == 256]
    large = [row for row in rows if row not in small]
    assert len(large) >= 6
    assert max(abs(c.error) for c in check_rows(large, fitted(small, tmp_path))) < 0.1


@pytest.mark.parametrize("kernel", KERNELS)
def test_the_shipped_profile_is_the_fit(kernel: str, tmp_path: Path) -> None:
    """What `profiles fit microbenchmark.csv --kernel KERNEL --alone primitives-KERNEL.csv` writes, in tests/data."""
    alone = known_alone(read_alone(DATA / f"primitives-{kernel}.csv"))
    assert len(alone) == len(ALONE)
    shipped, now = load_profile(f"linux-{kernel}"), fitted(of(kernel), tmp_path, alone=alone)
    assert [c.name for c in shipped.coefficients] == [c.name for c in now.coefficients]
    for a, b in zip(shipped.coefficients, now.coefficients, strict=True):
        assert (a.value, a.low, a.high) == pytest.approx((b.value, b.low, b.high), rel=1e-3, abs=0.5), a.name
    assert shipped.timers == pytest.approx(now.timers, rel=1e-3)
    assert shipped.kernel == kernel


@pytest.mark.parametrize(("kernel", "within"), [("6.1", 96), ("6.12", 89)])
def test_rows_within_10_percent(kernel: str, within: int) -> None:
    found = summary(check_rows(of(kernel), load_profile(f"linux-{kernel}")))
    assert found["median_error"] < 0.01
    assert found["within_10_percent"] >= within


def test_what_the_rows_do_not_use_is_an_assumption_or_the_bases(tmp_path: Path) -> None:
    rows = [row for row in of("6.1") if row.strategy == "per-page" and row.n_pages < 200]
    alone = {c.name: c for c in fitted(rows, tmp_path).coefficients}
    assert alone["split"].evidence == "assumption"
    base = load_profile("linux-6.1")
    based = {c.name: c for c in fitted(rows, tmp_path, base).coefficients}
    assert based["split"].value == next(c.value for c in base.coefficients if c.name == "split")
    assert based["split"].evidence == "assumption"


def test_the_same_seed_gives_the_same_fit() -> None:
    rows = of("6.1")[:30]
    outcomes = run_cases(rows)
    first, again, other = (fit_rows(rows, outcomes, seed) for seed in (1, 1, 2))
    assert np.array_equal(first.low, again.low)
    assert np.array_equal(first.values, other.values)
    assert not np.array_equal(first.low, other.low)


def test_a_fit_is_valid_toml_with_its_correlation(tmp_path: Path) -> None:
    profile = fitted(of("6.1"), tmp_path)
    data = tomllib.loads((tmp_path / "fitted.toml").read_text())
    names = data["correlation"]["names"]
    assert [len(row) for row in data["correlation"]["rows"]] == list(range(1, len(names) + 1))
    assert profile.correlation is not None
    assert profile.correlation[0] == tuple(names)
    again = Profile.from_dict(profile.to_dict())
    assert (again.correlation, again.kernel, again.timers) == (profile.correlation, profile.kernel, profile.timers)


def test_units_must_agree() -> None:
    with pytest.raises(RowsError, match="instructions"):
        check_rows(ROWS[:1], load_profile("brouer-2021"))


def test_rows_of_other_kernels_are_left_out() -> None:
    rows, others = rows_for(ROWS, load_profile("linux-6.1"))
    assert (len(rows), others) == (96, 94)
    assert rows_for(of("6.12"), load_profile("linux-6.1")) == (of("6.12"), 0)


def test_an_outcome_names_its_counters() -> None:
    counters = Outcome(np.zeros(200), np.zeros(200), 0.0).counters()
    assert counters == {}


# ---------------------------------------------------------------- primitives timed alone
def test_primitives_timed_alone() -> None:
    means = read_alone(DATA / "primitives-6.1.csv")
    assert known_alone(means)["mempool_call"] == (56 + 22) / 2
    assert known_alone(means)["direct_map_split"] == 19229 - 393
    assert set(known_alone({"mutex_lock_unlock": 26.0})) == {"mutex"}


@pytest.mark.parametrize("text", ["a,b\n1,2\n", "primitive,mean\nmutex-lock-unlock,soon\n", "primitive,mean\nx,-1\n"])
def test_a_table_that_is_none(tmp_path: Path, text: str) -> None:
    path = tmp_path / "alone.csv"
    path.write_text(text)
    with pytest.raises(RowsError, match=r"alone\.csv"):
        read_alone(path)
