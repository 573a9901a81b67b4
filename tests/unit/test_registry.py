"""Strategies by name: what ``-s`` and ``--set`` mean, and what is said of names and values that do not exist."""

from __future__ import annotations

from collections.abc import Callable
from importlib.metadata import EntryPoint

import pytest

from tracereplay.errors import ParameterError, PluginError, TracereplayError, UnknownStrategyError, UsageError
from tracereplay.strategies import registry
from tracereplay.strategies.compound import Compound
from tracereplay.strategies.contract import Params
from tracereplay.strategies.registry import choose, known_strategies, load_strategy

BUILT_IN = ["bulk", "compound", "mempool-bulk", "mempool-bulk-atomic", "per-page", "unmapped-cache"]


@pytest.fixture
def registered(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Register entry points, beside the built-in ones, as ``name="module:attribute"``."""

    def register(*pairs: tuple[str, str]) -> None:
        found = [*registry.entry_points(group=registry.GROUP), *(EntryPoint(n, v, registry.GROUP) for n, v in pairs)]
        monkeypatch.setattr(registry, "entry_points", lambda group: found)

    return register


def test_built_in_strategies() -> None:
    assert [name for name in known_strategies() if name in BUILT_IN] == BUILT_IN
    for name in BUILT_IN:
        params = load_strategy(name)
        assert params.name == name
        assert params.summary
        assert params.mimics
        for info in params.infos().values():
            assert info.unit
            assert info.doc
            assert info.source
            assert info.parse(str(info.default).lower() if info.kind is bool else str(info.default)) == info.default


def test_specs_labels_and_settings() -> None:
    chosen = choose(
        ["bulk", "compound:max_order=3,sticky_order=no", "wide=compound"], ["wide.max_order=9", "bulk.batch_cap=64"]
    )
    defaults = {kind: load_strategy(kind)().values() for kind in ("bulk", "compound")}
    assert [(c.label, c.params.values()) for c in chosen] == [
        ("bulk", defaults["bulk"] | {"batch_cap": 64}),
        ("compound", defaults["compound"] | {"max_order": 3, "sticky_order": False}),
        ("wide", defaults["compound"] | {"max_order": 9}),
    ]


def test_words_of_parameters() -> None:
    assert Compound(max_order=4, sticky_order=False).pack() == [4, 0, 1, 0, 1]
    cache = load_strategy("unmapped-cache").from_text({"zero": "never"})
    assert dict(zip(cache.infos(), cache.pack(), strict=True))["zero"] == cache.infos()["zero"].choices.index("never")


@pytest.mark.parametrize(
    ("specs", "settings", "error", "says"),
    [
        (["bluk"], [], UnknownStrategyError, "did you mean 'bulk'"),
        (["zzz"], [], UnknownStrategyError, "known strategies: "),
        (["bulk", "bulk"], [], UsageError, "two strategies are labelled 'bulk'"),
        (["a=bulk", "a=compound"], [], UsageError, "labelled 'a'"),
        (["bulk:batch_cap"], [], ParameterError, "has no value"),
        (["bulk:batch_cpa=3"], [], ParameterError, "did you mean 'batch_cap'"),
        (["per-page:x=3"], [], ParameterError, "parameters of per-page: mutex"),
        (["bulk:batch_cap=16385"], [], ParameterError, "0..16384"),
        (["bulk:batch_cap=x"], [], ParameterError, "0..16384"),
        (["compound:sticky_order=perhaps"], [], ParameterError, "true|false"),
        (["unmapped-cache:zero=sometimes"], [], ParameterError, "refill|always|never"),
        (["bulk"], ["compound.max_order=3"], UsageError, "LABEL.PARAMETER=VALUE with one of: bulk"),
        (["bulk"], ["bulk.batch_cap"], UsageError, "LABEL.PARAMETER=VALUE"),
        (["bulk"], ["batch_cap=3"], UsageError, "LABEL.PARAMETER=VALUE"),
    ],
)
def test_mistakes_are_named(specs: list[str], settings: list[str], error: type[TracereplayError], says: str) -> None:
    with pytest.raises(error) as caught:
        choose(specs, settings)
    assert says in f"{caught.value.message} {caught.value.hint}"
    assert caught.value.exit_code == (2 if error is UsageError else 5)


def test_a_foreign_strategy_is_found(registered: Callable[..., None]) -> None:
    registered(("faulty", "tests.faulty_strategy:Faulty"))
    assert load_strategy("faulty").name == "faulty"
    (choice,) = choose(["mine=faulty:fault=twice"])
    assert (choice.label, choice.params.pack()) == ("mine", [3])


def test_one_name_from_two_places_is_an_error(registered: Callable[..., None]) -> None:
    registered(("bulk", "tests.faulty_strategy:Faulty"))
    with pytest.raises(PluginError, match="two strategies are called 'bulk'"):
        known_strategies()


@pytest.mark.parametrize(
    ("value", "says"),
    [("no.such.module:X", "cannot be loaded"), ("tests.faulty_strategy:NONE", "is not a Params class")],
)
def test_a_strategy_that_cannot_be_loaded(registered: Callable[..., None], value: str, says: str) -> None:
    registered(("broken", value))
    with pytest.raises(PluginError, match=says) as caught:
        load_strategy("broken")
    assert value in str(caught.value.hint)
    assert caught.value.exit_code == 5


def test_ranges_in_words() -> None:
    words = {i.name: i.range_text for name in BUILT_IN for i in load_strategy(name).infos().values()}
    assert words["batch_cap"] == "0..16384"
    assert words["sticky_order"] == "true|false"
    assert words["zero"] == "refill|always|never"
    assert issubclass(load_strategy("bulk"), Params)
