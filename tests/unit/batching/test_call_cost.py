"""The cost of a call, fitted to measured ones."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from consumer.batching.call_cost import Cell, fit_call_cost
from consumer.batching.policy import CallCost
from consumer.batching.tuning import shapes

SHAPES = shapes(dict.fromkeys((16, 48, 160), 1), 16_384)
ROWS, LENGTHS = st.integers(1, 256), st.integers(1, 512)

floors = st.floats(1e-4, 1e-2)
fixed = st.floats(0.0, 5e-3)
per_token = st.floats(1e-7, 1e-4)
per_pair = st.floats(0.0, 1e-7)
costs = st.builds(CallCost, floors, fixed, per_token, per_pair, st.just(0.0))
repeats = st.lists(st.floats(1e-5, 10.0), min_size=1, max_size=5).map(tuple)
cells = st.lists(st.builds(Cell, ROWS, LENGTHS, repeats), min_size=1, max_size=30)


def measured(cost: CallCost, noise: float = 0.0, seed: int = 1) -> list[Cell]:
    """Five calls of each shape, each off by up to a share of ``noise``."""
    draw = random.Random(seed)
    return [
        Cell(rows, length, tuple(cost.seconds(rows, length) * (1 + draw.uniform(-noise, noise)) for _ in range(5)))
        for rows, length in SHAPES
    ]


def test_a_cell_is_the_median_of_its_repeats() -> None:
    """So one call that was held up counts for nothing; the spread is that of the middle half."""
    assert Cell(2, 8, (1.0, 1.1, 9.0)).seconds == 1.1
    assert Cell(2, 8, (0.9, 1.0, 1.0, 1.0, 9.0)).spread == 0.0
    assert Cell(2, 8, (0.8, 0.9, 1.0, 1.1, 1.2)).spread == pytest.approx(0.2)
    assert (Cell(2, 8, (1.0,)).spread, Cell(2, 8, (1.0,)).tokens) == (0.0, 16)


def test_what_a_processor_shows_is_recovered() -> None:
    """A cost for each call, token and pair of tokens, and no floor to speak of."""
    cost = CallCost(0.0, 2e-3, 4e-5, 6e-8, 0.0)
    found = fit_call_cost(measured(cost, 0.05))
    assert found.fixed == pytest.approx(cost.fixed, rel=0.1)
    assert found.per_token == pytest.approx(cost.per_token, rel=0.05)
    assert found.per_pair == pytest.approx(cost.per_pair, rel=0.1)
    assert found.error < 0.05


def test_what_an_accelerator_shows_is_recovered() -> None:
    """Small calls all take the same time; a token's cost is read from those that take longer."""
    cost = CallCost(8e-3, 0.0, 3e-6, 2e-9, 0.0)
    found = fit_call_cost(measured(cost, 0.05))
    assert found.floor == pytest.approx(cost.floor, rel=0.05)
    assert found.per_token == pytest.approx(cost.per_token, rel=0.15)
    assert found.per_pair == pytest.approx(cost.per_pair, rel=0.15)
    assert found.error < 0.05


@given(costs, st.integers(0, 1000))
def test_any_cost_is_predicted_under_noise(cost: CallCost, seed: int) -> None:
    """Inside the grid, whichever of its four parts dominates; least well where one call alone is above the floor."""
    found = fit_call_cost(measured(cost, 0.05, seed))
    for rows, length in [*SHAPES, (3, 40), (100, 96)]:
        assert found.seconds(rows, length) == pytest.approx(cost.seconds(rows, length), rel=0.35)


def test_a_call_that_was_held_up_changes_nothing() -> None:
    """One repeat in five of every cell takes ten times as long."""
    cost = CallCost(0.0, 2e-3, 4e-5, 6e-8, 0.0)
    calm = measured(cost, 0.02)
    held_up = [Cell(each.rows, each.length, (*each.repeats, each.seconds * 10)) for each in calm]
    for rows, length in SHAPES:
        before = fit_call_cost(calm).seconds(rows, length)
        assert fit_call_cost(held_up).seconds(rows, length) == pytest.approx(before, rel=0.05)


@given(cells, ROWS, LENGTHS)
def test_nothing_is_negative_and_more_work_never_costs_less(given_cells: list[Cell], rows: int, length: int) -> None:
    """Whatever was measured, even times that fall as calls grow."""
    found = fit_call_cost(given_cells)
    assert min(found.floor, found.fixed, found.per_token, found.per_pair, found.error) >= 0
    assert found.seconds(rows, length) > 0
    assert found.seconds(rows + 1, length) >= found.seconds(rows, length)
    assert found.seconds(rows, length + 1) >= found.seconds(rows, length)


@given(st.builds(Cell, ROWS, LENGTHS, repeats))
def test_a_single_cell_is_its_own_prediction(cell: Cell) -> None:
    """The first cell of a measurement predicts the next."""
    assert fit_call_cost([cell]).seconds(cell.rows, cell.length) == pytest.approx(cell.seconds)


@pytest.mark.parametrize("given_cells", [[], [Cell(1, 8, (0.0,))]])
def test_what_cannot_be_fitted_is_refused(given_cells: list[Cell]) -> None:
    """No cells, and a clock that stands still."""
    with pytest.raises(ValueError, match="cannot be fitted to cells of"):
        fit_call_cost(given_cells)
