"""Cost profiles: the shipped ones are complete, and a bad one is named for what is wrong with it."""

from __future__ import annotations

from pathlib import Path

import pytest

from tracereplay.cost.contention import HANDOVER
from tracereplay.cost.formula import FormulaError, evaluate
from tracereplay.cost.profile import EVIDENCE, Profile, load_profile, parameters_of, shipped_profiles
from tracereplay.errors import ProfileError, UnknownProfileError
from tracereplay.machine.counters import COUNTERS

HEAD = 'name = "mine"\ntitle = "t"\nunit = "ns"\nmachine = "m"\n'
ROW = """\
[coefficient.all]
counters = {counters}
unit = "ns"
value = 1
low = 0
high = 2
group = "g"
evidence = "assumption"
source = "s"
"""


def complete(**changes: str) -> str:
    """A profile text that prices every counter with one coefficient, with some parts of it replaced."""
    text = HEAD + ROW.replace("{counters}", repr(list(COUNTERS)).replace("'", '"'))
    for old, new in changes.items():
        assert old in text
        text = text.replace(old, new)
    return text


def test_shipped() -> None:
    assert {"brouer-2021", "brouer-2021-list", "linux-6.1", "linux-6.12"} <= {*shipped_profiles()}


@pytest.mark.parametrize("name", shipped_profiles())
def test_every_counter_has_a_price_or_a_reason(name: str) -> None:
    profile = load_profile(name)
    priced = [counter for c in profile.coefficients for counter in c.counters]
    stands = [*priced, *profile.unpriced, *profile.implied]
    assert sorted(stands) == sorted(COUNTERS)


@pytest.mark.parametrize("name", shipped_profiles())
def test_every_figure_says_where_it_comes_from(name: str) -> None:
    profile = load_profile(name)
    for row in [*profile.parameters, *profile.coefficients]:
        assert row.evidence in EVIDENCE
        assert len(row.source) > 15, row.name
    if profile.kernel is not None:  # fitted: no parameters, tests/unit/test_cost_fit.py looks at the rows
        return
    # nothing derived from an unmeasured figure alone may pass as derived, and vice versa
    measured = {p.name for p in profile.parameters if p.evidence == "measured"}
    for c in profile.coefficients:
        if c.evidence == "derived":
            assert parameters_of(c) & measured, c.name
        elif c.formula is None:
            assert c.evidence == "assumption", f"{c.name}: cite the measurement as a parameter"
            assert c.low is not None
            assert c.high is not None
            assert c.high >= 2 * c.low, f"{c.name}: an assumption is not that certain"


def test_used_parameters_only() -> None:
    profile = load_profile()
    used = {name for c in profile.coefficients for name in parameters_of(c)}
    assert used | {HANDOVER} == {p.name for p in profile.parameters}


def test_base_gives_what_the_derived_file_leaves_out() -> None:
    array, listed = load_profile("brouer-2021"), load_profile("brouer-2021-list")
    assert [c.name for c in listed.coefficients] == [c.name for c in array.coefficients]
    value = {c.name: c.value for c in listed.coefficients}
    assert value["split"] == {c.name: c.value for c in array.coefficients}["split"]
    assert value["pcp_pop"] == pytest.approx(37.32 - 0.4 * 55.472)
    assert listed.sha256 != array.sha256
    assert listed.name == "brouer-2021-list"


def test_json_round_trip() -> None:
    profile = load_profile()
    assert Profile.from_dict(profile.to_dict()) == profile


def test_parameters_replaced() -> None:
    profile = load_profile()
    wide = profile.with_parameters(cpus=80)
    flush = {p.name: c.value for p in (profile, wide) for c in p.coefficients if c.name == "tlb_flush"}
    assert flush == {"brouer-2021": 1000 + 80 * 200}
    assert next(c.value for c in profile.coefficients if c.name == "tlb_flush") == 1000 + 8 * 200
    with pytest.raises(ProfileError, match="no parameter 'cpu'"):
        profile.with_parameters(cpu=80)


def test_own_file(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(complete())
    assert load_profile(path).name == "mine"
    assert load_profile(str(path)) == load_profile(path)


def test_own_file_on_a_shipped_base(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(
        'base = "brouer-2021"\nname = "mine"\n[coefficient.split]\ncounters = ["splits"]\nunit = "ns"\n'
        'value = 99\nlow = 9\nhigh = 200\ngroup = "zone lock and buddy"\nevidence = "assumption"\n'
        'source = "a test"\n'
    )
    profile = load_profile(path)
    assert next(c.value for c in profile.coefficients if c.name == "split") == 99
    assert len(profile.coefficients) == len(load_profile().coefficients)


def test_unknown_name_suggests_the_nearest() -> None:
    with pytest.raises(UnknownProfileError) as caught:
        load_profile("brouer2021")
    assert "did you mean 'brouer-2021'?" in str(caught.value.hint)
    assert caught.value.exit_code == 5


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(UnknownProfileError, match="no cost profile"):
        load_profile(tmp_path / "none.toml")


PRICE = "value = 1\nlow = 0\nhigh = 2"
BAD = {  # case: text put in for a part of a good profile, and what the error says
    "no unit": ('unit = "ns"\nmachine', "machine", "unit is missing"),
    "no coefficient unit": ('unit = "ns"\nvalue', "value", "coefficient all: unit is missing"),
    "two units": ('unit = "ns"\nvalue', 'unit = "instructions"\nvalue', "in a profile of unit 'ns'"),
    "odd unit": ('unit = "ns"\nmachine', 'unit = "us"\nmachine', "unit 'us' is not one of"),
    "unknown counter": ('"splits"', '"splitz"', "no counter 'splitz'"),
    "counter left out": ('"splits", ', "", "no price and no reason for: splits"),
    "counter twice": ('source = "s"\n', 'source = "s"\n[unpriced]\nsplits = "why"\n', "exclude each other"),
    "negative": (PRICE, "value = -1\nlow = -2\nhigh = 2", "not negative"),
    "order": ("value = 1", "value = 3", "does not hold"),
    "no range": ("high = 2\n", "", "high must be a number"),
    "text for number": ("value = 1", 'value = "1"', "value must be a number"),
    "infinite": ("high = 2", "high = inf", "finite"),
    "no source": ('source = "s"\n', "", "source is missing"),
    "odd evidence": ("assumption", "rumour", "evidence 'rumour'"),
    "formula of unknown": (PRICE, 'formula = "x + 1"', "unknown parameter 'x'"),
    "formula with a call": (PRICE, 'formula = "abs(1)"', "only \\+ - \\* /"),
    "negative formula": (PRICE, 'formula = "1 - 3"', "negative"),
}
BAD_FILES = {
    "not TOML": ("name = ", "not a readable TOML file"),
    "no coefficients": (HEAD, "no coefficient"),
    "base of itself": ('base = "bad"\n', "is not another profile"),
    "coefficient is a number": (HEAD + "[coefficient]\nsplits = 3\n", "expected a table"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_profile(case: str, tmp_path: Path) -> None:
    old, new, message = BAD[case]
    path = tmp_path / "bad.toml"
    path.write_text(complete(**{old: new}))
    with pytest.raises(ProfileError, match=message) as caught:
        load_profile(path)
    assert "bad.toml" in caught.value.message


@pytest.mark.parametrize("case", BAD_FILES)
def test_bad_file(case: str, tmp_path: Path) -> None:
    text, message = BAD_FILES[case]
    path = tmp_path / "bad.toml"
    path.write_text(text)
    with pytest.raises(ProfileError, match=message) as caught:
        load_profile(path)
    assert "bad.toml" in caught.value.message


def test_unknown_counter_suggests_the_nearest(tmp_path: Path) -> None:
    path = tmp_path / "bad.toml"
    path.write_text(complete(**{'"splits"': '"splitz"'}))
    with pytest.raises(ProfileError) as caught:
        load_profile(path)
    assert caught.value.hint == "did you mean 'splits'?"


@pytest.mark.parametrize(
    "formula", ["__import__('os')", "a.b", "a[0]", "1 if a else 2", "'x'", "True", "a ** 2", "a; b", "1/0"]
)
def test_formula_is_arithmetic_only(formula: str) -> None:
    with pytest.raises(FormulaError):
        evaluate(formula, {"a": 1.0, "b": 2.0})


def test_formula() -> None:
    assert evaluate("-(a + 2) * b / 4 - 0.5", {"a": 1.0, "b": 2.0}) == -2.0


def test_what_a_derived_file_prices_needs_no_reason_any_more(tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    row = 'counters = ["new_pages_checked"]\nunit = "ns"\nvalue = 5\nlow = 4\nhigh = 6\ngroup = "x"\n'
    origin = 'evidence = "measured"\nsource = "here"\n'
    file.write_text(f'base = "brouer-2021"\nname = "mine"\n[coefficient.check]\n{row}{origin}')
    assert "new_pages_checked" in load_profile().implied
    assert "new_pages_checked" not in load_profile(file).implied
