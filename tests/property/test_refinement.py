"""Refinement of grids whose answers are known."""

from __future__ import annotations

from itertools import product

from hypothesis import given
from hypothesis import strategies as st

from tracereplay.whatif.refinement import Answer, Place, Refinement

SIZES = st.lists(st.integers(1, 12), min_size=1, max_size=3)


@st.composite
def surfaces(draw: st.DrawFn) -> tuple[list[int], dict[Place, Answer]]:
    """Two to four strategies whose costs are straight in each axis: the regions that they win are convex."""
    sizes = draw(SIZES)
    number = st.integers(-50, 50)
    planes = draw(
        st.lists(st.tuples(number, *[number] * len(sizes)), min_size=2, max_size=4, unique_by=lambda p: p[1:])
    )
    answers = {}
    for place in product(*map(range, sizes)):
        costs = [p[0] + sum(s * i for s, i in zip(p[1:], place, strict=True)) for p in planes]
        answers[place] = Answer(str(costs.index(min(costs))), 0.0)
    return sizes, answers


def refined(sizes: list[int], answers: dict[Place, Answer]) -> list[list[Place]]:
    """Places by round."""
    refinement, known, rounds = Refinement(sizes), {}, []
    while places := refinement.wanted(known):
        assert len(set(places)) == len(places)
        assert not set(places) & set(known)
        known |= {place: answers[place] for place in places}
        rounds.append(places)
    return rounds


@given(surfaces())
def test_where_neighbours_have_different_winners_both_are_run(surface: tuple[list[int], dict[Place, Answer]]) -> None:
    sizes, answers = surface
    rounds = refined(sizes, answers)
    run = {place for places in rounds for place in places}
    assert run <= set(answers)
    assert sum(map(len, rounds)) == len(run)
    for place, axis in product(answers, range(len(sizes))):
        neighbour = (*place[:axis], place[axis] + 1, *place[axis + 1 :])
        if neighbour in answers and answers[neighbour].winner != answers[place].winner:
            assert {place, neighbour} <= run


@given(surfaces())
def test_order_is_the_same_each_time(surface: tuple[list[int], dict[Place, Answer]]) -> None:
    assert refined(*surface) == refined(*surface)


@given(SIZES)
def test_where_nothing_is_settled_the_whole_grid_is_run(sizes: list[int]) -> None:
    answers = {place: Answer("a", 0.5) for place in product(*map(range, sizes))}
    assert {p for places in refined(sizes, answers) for p in places} == set(answers)


@given(SIZES)
def test_where_all_is_settled_only_the_coarse_pass_is(sizes: list[int]) -> None:
    answers = {place: Answer("a", 0.0) for place in product(*map(range, sizes))}
    (coarse,) = refined(sizes, answers)
    assert set(coarse) == set(product(*({0, (size - 1) // 2, size - 1} for size in sizes)))


def test_one_crossing_on_a_long_axis_takes_a_number_of_points_like_a_search() -> None:
    answers = {(i,): Answer("a" if i <= 613 else "b", 0.0) for i in range(1000)}
    rounds = refined([1000], answers)
    run = {p for places in rounds for p in places}
    assert {(613,), (614,)} <= run
    assert len(run) <= 3 + 9


def test_the_most_doubtful_comes_first() -> None:
    answers = {(i,): Answer("a" if i < 4 else "b", 0.4 if i > 20 else 0.0) for i in range(41)}
    rounds = refined([41], answers)
    assert rounds[0] == [(0,), (20,), (40,)]
    assert rounds[1] == [(10,), (30,)]  # the winner changes in the lower half; in the upper it is unsettled


def test_failed_points_are_an_answer() -> None:
    answers = {(i,): Answer("a" if i < 30 else None, 0.0) for i in range(64)}
    run = {p for places in refined([64], answers) for p in places}
    assert {(29,), (30,)} <= run
    assert len(run) < 12
