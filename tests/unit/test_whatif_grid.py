"""What a grid varies, how its values are written, and which points it has."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from tracereplay.demand.spec import DemandSpec
from tracereplay.errors import GridError, ParameterError, UnknownStrategyError
from tracereplay.whatif.axes import values_of
from tracereplay.whatif.grid import Plan, plan


def planned(grid: Sequence[str], strategies: Sequence[str] = ("per-page", "bulk"), **options: object) -> Plan:
    """A plan of one trace."""
    return plan(["web.trace"], strategies, grid, profile="brouer-2021", **options)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("31,63, 127", ("31", "63", "127")),
        ("0:0.9:0.3", ("0", "0.3", "0.6", "0.9")),
        ("10:1:-4", ("10", "6", "2")),
        ("1..128", ("1", "2", "4", "8", "16", "32", "64", "128")),
        ("3..13", ("3", "6", "12")),
        ("1GiB..4GiB", ("1GiB", "2GiB", "4GiB")),
        ("comm:dd,pages>=2;all", ("comm:dd,pages>=2", "all")),
        ("6.1", ("6.1",)),
    ],
)
def test_values(text: str, values: tuple[str, ...]) -> None:
    assert values_of(text) == values


@pytest.mark.parametrize("text", ["", "a,,b", "1:5:-1", "1:5:0", "8..1", "0..4", "1MiB..4GiB", "0:1:0.000001"])
def test_values_that_are_none(text: str) -> None:
    with pytest.raises(GridError):
        values_of(text)


def test_points_are_the_product_and_a_parameter_multiplies_its_own_strategy_only() -> None:
    made = planned(["pcp.batch=31,63", "copies=1..4", "bulk.batch_cap=16,32,64"])
    tasks = list(made.tasks())
    assert made.points == len(tasks) == 2 * 3 * (1 + 3)
    assert len({(t.label, t.settings) for t in tasks}) == len(tasks)
    bulk = next(t for t in tasks if t.label == "bulk")
    assert dict(bulk.settings) == {"pcp.batch": "31", "copies": "1", "bulk.batch_cap": "16"}
    assert dict(bulk.params) == {"batch_cap": "16"}
    assert dict(bulk.machine) == {"pcp.batch": "31"}
    assert not any("bulk.batch_cap" in dict(t.settings) for t in tasks if t.label == "per-page")


def test_every_kind_of_axis_reaches_its_task() -> None:
    demand = ["copies=2", "rate=2.5", "request_pages=64", "target=comm:dd", "path=dm-crypt", "max_write=4096"]
    grid = ["generation=6.1", *demand, "load=none", "seed=7", "profile=linux-6.1"]
    made = planned(grid, machine={"fragmentation": "0.5"})
    task = next(iter(made.tasks()))
    assert dict(task.machine) == {"fragmentation": "0.5", "generation": "6.1"}
    assert task.demand == DemandSpec(
        path="dm-crypt", target=("comm:dd",), max_write=4096, rate=2.5, request_pages=64, copies=2
    )
    assert (task.seed, task.profile) == (7, "linux-6.1")


def test_default_is_the_machine_without_the_option() -> None:
    first, second = planned(["pcp.high=default,4", "pcp.batch=63"], ["bulk"]).tasks()
    assert dict(first.machine) == {"pcp.batch": "63"}
    assert dict(first.settings)["pcp.high"] == "default"
    assert dict(second.machine) == {"pcp.high": "4", "pcp.batch": "63"}


@pytest.mark.parametrize(
    ("grid", "options", "told"),
    [
        (["pcp.bach=31"], {}, "pcp.batch"),
        (["bulk.batchcap=31"], {}, "bulk.batch_cap"),
        (["compound.max_order=3"], {}, "no axis"),
        (["pcp.batch="], {}, "no values"),
        (["pcp.batch"], {}, "no values"),
        (["pcp.batch=0"], {}, "pcp.batch"),
        (["pcp.batch=31,31"], {}, "twice"),
        (["pcp.batch=31", "pcp.batch=63"], {}, "twice"),
        (["copies=0"], {}, "1 to 128"),
        (["rate=-1"], {}, "0.001 to"),
        (["target=coom:dd"], {}, "comm"),
        (["path=dm-cript"], {}, "dm-crypt"),
        (["profile=brower-2021"], {}, "brouer-2021"),
        (["max_write=4096"], {}, "path"),
        (["pcp.batch=31"], {"machine": {"pcp.batch": "63"}}, "--machine"),
        (["bulk.batch_cap=16"], {"settings": ["bulk.batch_cap=32"]}, "--set"),
        (["copies=2,4"], {"demand": DemandSpec(copies=3)}, "--copies"),
        (["pcp.batch=63,127", "pcp.high=4,8"], {}, "above"),
        (["pcp.high=4"], {"machine": {"pcp.batch": "63"}}, "above"),
        (["seed=0:99999:1", "pcp.batch=1:99:1"], {}, "points"),
    ],
)
def test_what_is_wrong_is_named(grid: list[str], options: dict[str, object], told: str) -> None:
    with pytest.raises((GridError, ParameterError)) as caught:
        planned(grid, **options)
    assert told in f"{caught.value.message} {caught.value.hint}"
    assert caught.value.hint


def test_a_strategy_that_is_none() -> None:
    with pytest.raises(UnknownStrategyError):
        planned(["pcp.batch=31"], ["bulc"])


def test_a_parameter_in_a_strategys_text_is_fixed() -> None:
    with pytest.raises(GridError, match="fixed by -s"):
        planned(["b.batch_cap=16"], ["b=bulk:batch_cap=8"])
