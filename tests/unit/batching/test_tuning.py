"""What follows from the cost of calls, with plain numbers."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from consumer.batching.policy import CallCost, full_rows
from consumer.batching.queue import PADDED_LENGTHS
from consumer.batching.tuning import (
    LENGTHS,
    fewest_in_flight,
    median_length,
    most_rows,
    reviews_per_second,
    shapes,
    token_budget,
)

LINEAR = CallCost(0.0, 0.01, 1e-5, 0.0, 0.0)
"""10 ms a call and 10 ms a thousand tokens."""
counts = st.dictionaries(st.sampled_from(PADDED_LENGTHS), st.integers(1, 50), min_size=1)
costs = st.builds(
    CallCost, st.floats(0.0, 0.05), st.floats(1e-5, 0.1), st.floats(1e-8, 1e-3), st.floats(0.0, 1e-6), st.just(0.0)
)


class TestShapes:
    def test_rows_double_up_to_the_largest_call(self) -> None:
        """At each length beside the median one; lengths that every window exceeds are left out."""
        found = shapes({48: 5, 160: 1}, 512)
        assert {length for _, length in found} == {48, 64, 128, 256, 512}
        assert [rows for rows, length in found if length == 48] == [1, 2, 4, 8]
        assert [rows for rows, length in found if length == 512] == [1]

    @given(counts, st.integers(512, 100_000))
    def test_the_least_work_comes_first(self, lengths: dict[int, int], most: int) -> None:
        """A measurement whose time is up has the small ones."""
        found = shapes(lengths, most)
        tokens = [rows * length for rows, length in found]
        assert tokens == sorted(tokens)
        assert max(tokens) <= most
        assert {length for _, length in found} <= {*LENGTHS, median_length(lengths)}
        assert len(set(found)) == len(found)


class TestMedianLength:
    def test_half_of_the_windows_do_not_exceed_it(self) -> None:
        """Counted by windows, not by lengths."""
        assert median_length({16: 6, 32: 1, 512: 4}) == 16
        assert median_length({16: 4, 32: 3, 512: 4}) == 32

    def test_without_windows_there_is_none(self) -> None:
        with pytest.raises(ValueError, match="no windows"):
            median_length({})


class TestTokenBudget:
    def test_it_is_the_smallest_one_near_the_best(self) -> None:
        """At 16,384 tokens a call takes 173.84 ms, 94,247 tokens a second; 95 % of it takes 8,704 tokens."""
        found = token_budget(LINEAR, {64: 1}, 100.0, 16_384)
        assert (found.max_tokens, found.rows) == (8704, 136)
        assert found.tokens_per_second == pytest.approx(8704 / 0.09704)
        assert found.longest_call == pytest.approx(0.09704)

    def test_a_server_that_gains_from_any_size_says_that_more_was_not_tried(self) -> None:
        """The largest that was tried is far from the best there may be."""
        found = token_budget(CallCost(1.0, 0.0, 1e-6, 0.0, 0.0), {64: 1}, 100.0, 4096)
        assert (found.max_tokens, found.limited_by) == (4096, "tried")
        assert token_budget(CallCost(0.0, 1e-4, 1e-5, 0.0, 0.0), {64: 1}, 100.0, 4096).limited_by == "nothing"

    def test_a_third_of_the_objective_bounds_a_call(self) -> None:
        """30 ms a call are 2,000 tokens, of which 1,536 are the multiple of 512 below."""
        found = token_budget(LINEAR, {64: 1}, 0.09, 16_384)
        assert (found.max_tokens, found.limited_by) == (1536, "objective")

    def test_the_slowest_length_counts_for_that(self) -> None:
        """Where pairs of tokens cost, few long windows take longer than many short ones."""
        cost = CallCost(0.0, 0.01, 1e-5, 1e-7, 0.0)
        short, both = (token_budget(cost, lengths, 0.3, 16_384) for lengths in ({64: 9}, {64: 9, 512: 1}))
        assert both.max_tokens < short.max_tokens
        assert both.longest_call == pytest.approx(cost.seconds(both.max_tokens // 512, 512))

    def test_the_smallest_budget_is_taken_where_all_take_too_long(self) -> None:
        """A worker refuses less than one window of the largest size."""
        found = token_budget(LINEAR, {64: 1}, 0.001, 16_384)
        assert (found.max_tokens, found.limited_by) == (512, "objective")

    @given(costs, counts, st.floats(0.01, 60.0), st.integers(512, 65_536))
    def test_it_is_what_a_worker_accepts(
        self, cost: CallCost, lengths: dict[int, int], objective: float, tried: int
    ) -> None:
        """Between the smallest value of the key and the largest that was tried, and within the objective."""
        found = token_budget(cost, lengths, objective, tried)
        assert 512 <= found.max_tokens <= tried
        assert found.longest_call <= objective / 3 or found.max_tokens == 512
        assert found.rows * median_length(lengths) <= max(found.max_tokens, median_length(lengths))


class TestCallsInFlight:
    def test_the_fewest_within_three_hundredths_of_the_best(self) -> None:
        """More of them only wait in the server's queue."""
        assert fewest_in_flight({1: 10.0, 2: 19.5, 3: 20.0, 4: 19.9}) == 2
        assert fewest_in_flight({1: 10.0, 2: 19.3, 3: 20.0}) == 3
        assert fewest_in_flight({1: 10.0}) == 1


class TestReviewsPerSecond:
    def test_a_review_costs_its_windows_shares_of_full_calls(self) -> None:
        """1,024 tokens take 20.24 ms: 16 windows of 64 tokens, or 8 of 128."""
        assert reviews_per_second(LINEAR, {64: 1.0}, 1024, 1.0) == pytest.approx(16 / 0.02024)
        assert reviews_per_second(LINEAR, {64: 1.0, 128: 2.0}, 1024, 1.0) == pytest.approx(1 / (0.02024 * 5 / 16))

    def test_what_more_calls_at_once_gain_multiplies(self) -> None:
        """As it was measured at one shape."""
        alone = reviews_per_second(LINEAR, {64: 1.0}, 1024, 1.0)
        assert reviews_per_second(LINEAR, {64: 1.0}, 1024, 1.25) == pytest.approx(1.25 * alone)

    def test_a_window_longer_than_the_budget_goes_alone(self) -> None:
        """As the worker sends it."""
        assert (full_rows(512, 512), full_rows(512, 48), most_rows(4096)) == (1, 10, 512)
        assert full_rows(100, 512) == 1
