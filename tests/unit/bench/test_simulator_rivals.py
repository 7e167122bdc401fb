"""The policies that the simulator compares (``tests/bench/simulator``), and how their figures are compared."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from bench.simulator.figures import figure, ratio, tied
from bench.simulator.outcome import Outcome
from bench.simulator.rivals import LengthBuckets, SortedWindow, TokenBudget
from bench.simulator.rivals_adaptive import BentoML, Clipper, RazorsEdge, Symphony, measured_times
from bench.simulator.server import GPU
from bench.simulator.simulate import CALL_SECONDS, DELAY, ROW_SECONDS, Call
from hypothesis import given
from hypothesis import strategies as st

from consumer.batching.queue import Pending, padded_length

if TYPE_CHECKING:
    from collections.abc import Sequence


def pending(*lengths: int) -> list[Pending]:
    return [Pending(number, length, 1.0, 0, 0.0) for number, length in enumerate(lengths, 1)]


def sent(policy: TokenBudget | SortedWindow | LengthBuckets, waiting: list[Pending]) -> list[list[int]]:
    """Numbers of the windows of each call that leaves at once."""
    for window in waiting:
        policy.add(window)
    return [[window.id for window in batch.windows] for batch in policy.decide(0.0, ()).batches]


def test_the_token_budget_counts_the_longest_window() -> None:
    """Three of 40 are within 128 tokens; the long one goes alone."""
    assert sent(TokenBudget(128, 3), pending(40, 40, 40, 200, 40)) == [[1, 2, 3], [4], [5]]


def test_the_sorted_window_holds_the_oldest_and_its_neighbours_in_length() -> None:
    """100 is closer to 104 than to 40."""
    assert sent(SortedWindow(320, 8, 1), pending(100, 40, 104, 400, 41, 96)) == [[1, 3, 6]]


def test_a_bucket_leaves_when_it_is_full() -> None:
    """The other one waits for company."""
    assert sent(LengthBuckets((64,), 120, 1.0, 2), pending(100, 40, 40, 40)) == [[2, 3, 4]]


def test_symphony_waits_until_one_more_row_would_be_late() -> None:
    """With 5 ms and 1 ms a row, a deadline in 100 ms leaves until 93 ms for one row, were there a second."""
    policy = Symphony(8, 0.1, 1)
    policy.add(pending(40)[0])
    early = policy.decide(0.0, ())
    assert early.batches == ()
    assert early.wake_at == pytest.approx(0.093)
    assert early.wake_at is not None
    assert len(policy.decide(early.wake_at, ()).batches) == 1


def test_bentoml_waits_a_tick_while_waiting_costs_less_than_before() -> None:
    """No wait is known of the first call; the second may cost what the first one waited."""
    policy = BentoML(8, 0.03, 1)
    for window in pending(40, 40):
        policy.add(window)
    assert len(policy.decide(0.1, ()).batches[0].windows) == 2
    policy.add(Pending(3, 40, 1.2, 0, 0.2))
    waits = policy.decide(0.2, ())
    assert waits.batches == ()
    assert waits.wake_at == pytest.approx(0.201)
    # One row: wait + 1 ms + 2 ms reaches 95 % of the 100 ms.
    assert len(policy.decide(0.293, ()).batches) == 1


def test_clipper_grows_by_steps_and_shrinks_by_a_tenth() -> None:
    """One row, three rows after a quick answer, 2.7 after a slow one."""
    policy = Clipper(0.1, 1)
    for window in pending(*[40] * 20):
        policy.add(window)
    rows, now = [], 0.0
    for seconds in (0.05, 0.2, 0.05):
        (batch,) = policy.decide(now, ()).batches
        rows.append(len(batch.windows))
        policy.answered(Call(batch, now), now + seconds)
        now += seconds
    assert rows == [1, 3, 2]


@given(st.lists(st.integers(1, 512), min_size=1, max_size=9))
def test_razors_edge_finds_the_split_of_least_time(lengths: list[int]) -> None:
    """Against all contiguous splits."""
    table = measured_times(GPU, 1)
    ordered = pending(*sorted(lengths))

    def seconds(parts: Sequence[Sequence[Pending]]) -> float:
        return sum(float(table[padded_length(part[-1].length)][len(part)]) for part in parts)

    least = math.inf
    for cuts in itertools.product((False, True), repeat=len(ordered) - 1):
        ends_at = [place for place, cut in enumerate(cuts, 1) if cut] + [len(ordered)]
        least = min(least, seconds([ordered[a:b] for a, b in itertools.pairwise([0, *ends_at])]))
    parts = RazorsEdge(table, "fifo", 1).split(ordered)
    assert sorted(window.id for part in parts for window in part) == [window.id for window in ordered]
    assert seconds(parts) == pytest.approx(least)


def test_measured_times_are_those_of_the_server() -> None:
    """Also between the measured points and beyond the largest call; with round trip and preparation."""
    table = measured_times(replace(GPU, noise=0.0, straggler_share=0.0), 1)
    for rows, length in ((1, 64), (5, 64), (100, 128), (150, 96), (60, 224)):
        expected = GPU.seconds(rows, length) + 2 * DELAY + CALL_SECONDS + ROW_SECONDS * rows
        assert float(table[padded_length(length)][rows]) == pytest.approx(expected, rel=0.1)


def test_intervals_and_ties() -> None:
    """Student's t by hand: 4.303 x 1 / sqrt(3) for three values with a deviation of one."""
    three = figure([1.0, 2.0, 3.0])
    assert (three.mean, three.half) == pytest.approx((2.0, 2.4843), abs=1e-3)
    steady, close, far = figure([10.0, 10.1, 9.9]), figure([10.4, 10.4, 10.4]), figure([12.0, 12.1, 12.2])
    assert tied(close, steady)
    assert not tied(far, steady)
    assert tied(figure([12.0, 9.0, 15.0]), steady), "its interval overlaps"


def test_pairs_tell_apart_what_intervals_cannot() -> None:
    """Seeds differ by far more than the two policies, of which one is always a fifth slower."""
    ours, theirs = [12.0, 25.0, 48.0], [10.0, 20.5, 40.0]
    assert tied(figure(ours), figure(theirs))
    assert ratio(ours, theirs).worse
    assert ratio(ours, theirs).mean == pytest.approx(1.2, abs=0.02)
    assert not ratio(theirs, ours).worse


def test_a_percentile_is_an_observed_latency() -> None:
    """Nearest rank: of a hundred, the 99th."""
    latencies = tuple(float(number) for number in range(100, 0, -1))
    outcome = Outcome(latencies, (), 10.0, 100, 100, 3, 4)
    assert (outcome.percentile(0.5), outcome.percentile(0.99)) == (50.0, 99.0)
    assert (outcome.throughput, outcome.padding) == (10.0, 0.25)
