"""What a worker measures of a server by itself: which calls, when it stops, and what it does not believe."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from consumer.batching.call_cost import Cell
from consumer.batching.cost_probe import FEWEST_CELLS, LONGEST_SECONDS, SECONDS, believed, goes_on, shapes
from consumer.batching.policy import CallCost


@given(st.sampled_from([8, 24, 128, 512]), st.integers(512, 65_536))
def test_calls_grow_and_stay_within_the_configured_bound(shortest: int, max_tokens: int) -> None:
    """No call is larger than those that the worker makes anyway, and none too short for the window."""
    found = list(shapes(shortest, max_tokens))
    tokens = [rows * length for rows, length in found]
    assert tokens == sorted(tokens)
    assert tokens[-1] <= max_tokens
    assert len(set(found)) == len(found)
    assert min(length for _, length in found) >= shortest


def test_it_stops_at_a_slow_call_and_after_its_time() -> None:
    """On a CPU a larger call may take minutes."""
    assert goes_on([], 0.0)
    assert goes_on([Cell(1, 32, (0.1,))], 1.9)
    assert not goes_on([Cell(1, 32, (0.1,))], SECONDS)
    assert not goes_on([Cell(1, 32, (LONGEST_SECONDS,))], 1.0)
    assert goes_on([Cell(1, 32, (0.9, 0.1, 0.1))], 1.1), "the first call of a shape may be slow"


def measured(cost: CallCost, seed: int, noise: float) -> list[Cell]:
    chance = random.Random(seed)
    return [
        Cell(rows, length, tuple(cost.seconds(rows, length) * (1 + chance.uniform(-noise, noise)) for _ in range(3)))
        for rows, length in shapes(24, 16_384)
    ]


@given(
    st.builds(CallCost, st.floats(0.0, 0.005), st.floats(1e-4, 5e-3), st.floats(1e-6, 1e-4), st.floats(0.0, 1e-7)),
    st.integers(0, 99),
)
def test_a_server_is_predicted_by_what_was_measured(cost: CallCost, seed: int) -> None:
    """To four tenths, for calls of all sizes, with times that scatter by a tenth."""
    found = believed(measured(cost, seed, 0.1))
    assert found is not None
    for rows, length in ((1, 48), (20, 96), (100, 128), (30, 512)):
        assert found.seconds(rows, length) == pytest.approx(cost.seconds(rows, length), rel=0.4)


@pytest.mark.parametrize(
    "cells",
    [
        pytest.param([], id="nothing"),
        pytest.param(measured(CallCost(0.0, 0.01, 1e-5, 0.0), 1, 0.0)[: FEWEST_CELLS - 1], id="too little"),
        pytest.param(
            [Cell(rows, length, (1.0 if rows % 8 else 0.01,)) for rows, length in shapes(24, 16_384)], id="scattered"
        ),
        pytest.param([Cell(1, 32, (0.0,))] * 9, id="a clock that stands still"),
    ],
)
def test_what_tells_nothing_is_not_believed(cells: list[Cell]) -> None:
    """Then the assumed cost holds."""
    assert believed(cells) is None


def test_a_server_whose_calls_all_took_as_long_is_believed() -> None:
    """Behind a high floor nothing else shows in two seconds, and the floor decides how many calls there should be."""
    found = believed([Cell(rows, length, (0.08,) * 3) for rows, length in list(shapes(24, 16_384))[:8]])
    assert found is not None
    assert found.seconds(1, 24) == found.seconds(32, 512) == pytest.approx(0.08)
