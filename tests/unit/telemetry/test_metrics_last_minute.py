from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from consumer.telemetry.window import RollingQuantiles, RollingSum


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@given(
    st.lists(st.floats(min_value=0.001, max_value=1e5), min_size=1, max_size=200),
    st.sampled_from([0.01, 0.5, 0.9, 0.95, 0.99, 1.0]),
)
def test_a_quantile_is_the_value_at_its_rank_within_two_per_cent(values: list[float], share: float) -> None:
    """The summary answers as sorting everything would, but for 2 %."""
    window = RollingQuantiles(clock=Clock())
    for value in values:
        window.add(value)
    (found,) = window.quantiles(share)
    exact = sorted(values)[max(1, math.ceil(share * len(values))) - 1]
    assert found == pytest.approx(exact, rel=0.0201)


def test_values_leave_after_the_window() -> None:
    """A minute later only what came in that minute counts; after a quiet minute there is nothing to say."""
    clock = Clock()
    window = RollingQuantiles(seconds=60, clock=clock)
    window.add(5.0)
    clock.now += 59
    window.add(0.1)
    assert window.quantiles(1.0)[0] == pytest.approx(5.0, rel=0.021)
    clock.now += 1
    assert window.quantiles(1.0)[0] == pytest.approx(0.1, rel=0.021)
    clock.now += 60
    assert window.quantiles(0.5, 0.99) == (None, None)


def test_extremes_are_clamped() -> None:
    """Zero, negative and enormous values neither fail nor take memory of their own."""
    window = RollingQuantiles(clock=Clock())
    for value in (0.0, -3.0, 1e300, math.inf):
        window.add(value)
    low, high = window.quantiles(0.5, 1.0)
    assert low == pytest.approx(1e-4, rel=0.03)
    assert high == pytest.approx(1e6, rel=0.03)


def test_a_rate_is_the_mean_over_the_window() -> None:
    """Ten a second for two minutes is a rate of ten."""
    clock = Clock()
    rate = RollingSum(seconds=60, clock=clock)
    for _ in range(120):
        rate.add(10)
        clock.now += 1
    assert rate.per_second == pytest.approx(10, rel=0.02)
    clock.now += 60
    assert (rate.total, rate.per_second) == (0, 0)


def test_a_young_rate_counts_from_the_start() -> None:
    """A worker of five seconds is not shown a twelfth of its throughput, nor a huge one in its first moment."""
    clock = Clock()
    rate = RollingSum(seconds=60, clock=clock)
    rate.add(7)
    assert rate.per_second == 7
    clock.now += 5
    rate.add(43)
    assert rate.per_second == 10


def test_memory_is_bounded_by_the_window_not_by_traffic() -> None:
    """A million events leave as many slots as a thousand."""
    clock = Clock()
    window = RollingQuantiles(seconds=3, clock=clock)
    total = RollingSum(seconds=3, clock=clock)
    for step in range(20_000):
        window.add(0.001 * (step + 1))
        total.add(1)
        clock.now += 0.01
    assert len(window._slots) <= 3
    assert max(len(slot) for slot in window._slots.values()) <= 590
    assert len(total._slots) <= 3


def test_an_empty_window_is_refused() -> None:
    """Zero seconds hold nothing."""
    with pytest.raises(ValueError, match="0 s holds nothing"):
        RollingSum(seconds=0)
    with pytest.raises(ValueError, match="-1 s holds nothing"):
        RollingQuantiles(seconds=-1)
