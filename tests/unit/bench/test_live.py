"""What the benchmarks of a live worker compute from what they measured: the limit's packing, and the honest verdict."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise
from types import SimpleNamespace
from typing import TYPE_CHECKING, cast

import pytest
from bench import simulator_honesty as honesty
from bench.limit import Pair, Run, packed
from bench.live.windows import Metered
from hypothesis import given
from hypothesis import strategies as st

from consumer.batching.call_cost import Cell
from consumer.batching.queue import padded_length

if TYPE_CHECKING:
    from consumer.extraction.window import Window


@given(st.lists(st.integers(1, 512), min_size=1, max_size=60), st.integers(512, 4096))
def test_the_oracle_sends_every_window_in_full_calls(lengths: list[int], most: int) -> None:
    """In order of length, and none of two neighbouring calls could have taken the next window."""
    calls = packed([cast("Window", SimpleNamespace(length=length)) for length in lengths], most)
    sizes = [[window.length for window in call] for call in calls]
    assert Counter(length for call in sizes for length in call) == Counter(lengths)
    assert [length for call in sizes for length in call] == sorted(lengths)
    assert all(len(call) * padded_length(call[-1]) <= most for call in sizes)
    for call, following in pairwise(sizes):
        assert (len(call) + 1) * padded_length(following[0]) > most


def test_what_the_worker_loses_is_idle_time_and_dearer_calls() -> None:
    """The two factors make the whole."""
    pair = Pair(worker=Run(10.0, 8.0, 5, 100), bare=Run(8.0, 7.2, 4, 90))
    assert pair.of_limit == 0.8
    assert abs(pair.busy * pair.work - pair.of_limit) < 1e-9


def test_the_machine_is_compared_by_the_calls_before_and_after() -> None:
    """By their medians, over the shapes that were measured both times; all repeats are replayed."""
    before = [Cell(1, 32, (1.0, 1.0, 9.0)), Cell(2, 32, (2.0,)), Cell(4, 32, (7.0,))]
    after = [Cell(1, 32, (1.21,)), Cell(2, 32, (2.0,))]
    assert honesty.drift(before, after) == pytest.approx(0.1)
    assert honesty.pooled(before, after) == (Cell(1, 32, (1.0, 1.0, 9.0, 1.21)), Cell(2, 32, (2.0, 2.0)))


def test_what_a_row_takes_beside_the_server_is_told_from_what_a_call_takes() -> None:
    """Two milliseconds a call and a tenth a row, whatever the server computes."""
    work = [Cell(rows, 32, (rows / 100,)) for rows in (1, 4, 16)]
    cells = [Cell(one.rows, 32, (one.seconds + 0.002 + one.rows * 1e-4,)) for one in work]
    assert Metered(tuple(cells), tuple(work)).row_seconds == pytest.approx(1e-4)
    assert Metered(tuple(work), tuple(cells)).row_seconds == 0.0


@pytest.mark.parametrize(
    ("p50", "drift", "met"), [(1.05, 0.0, True), (1.2, 0.0, False), (1.05, 0.06, None), (1.2, -0.06, None)]
)
def test_a_disturbed_run_proves_nothing(p50: float, drift: float, met: bool | None) -> None:
    """Neither that the simulator is right nor that it is wrong."""
    observed, predicted = honesty.Figures(1.0, 2.0, 10.0), honesty.Figures(p50, 2.0, 10.0)
    run = honesty.Run(0.8, 100, observed, predicted, [1.0] * 100, [p50] * 100, drift)
    section = honesty.section([run], 60)
    assert {goal.goal.partition(":")[0]: goal.met for goal in section.goals}["p50"] is met
    assert section.rows[0][2] == f"{p50 - 1:+.1%}"
