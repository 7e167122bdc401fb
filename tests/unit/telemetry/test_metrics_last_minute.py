"""The summary of the last minute: sums and quantiles in bounded memory."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from consumer.telemetry.last_minute import WINDOW_SECONDS, LastMinute
from consumer.telemetry.status import quantile


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def at(minute: LastMinute, share: float) -> float | None:
    return quantile(minute.summed()[0], "latency", share)


def per_second(minute: LastMinute) -> float:
    counts, seconds = minute.summed()
    return counts["events"] / seconds


@given(
    st.lists(st.floats(min_value=0.001, max_value=1e5), min_size=1, max_size=200),
    st.sampled_from([0.01, 0.5, 0.9, 0.95, 0.99, 1.0]),
)
def test_a_quantile_is_the_value_at_its_rank_within_two_per_cent(values: list[float], share: float) -> None:
    """The summary answers as sorting everything would, but for 2 %; values of another name do not count."""
    minute = LastMinute(Clock())
    for value in values:
        minute.add_value("latency", value)
        minute.add_value("rows", 3.0)
    exact = sorted(values)[max(1, math.ceil(share * len(values))) - 1]
    assert at(minute, share) == pytest.approx(exact, rel=0.0201)


def test_values_leave_after_the_window() -> None:
    """A minute later only what came in that minute counts; after a quiet minute there is nothing to say."""
    clock = Clock()
    minute = LastMinute(clock)
    minute.add_value("latency", 5.0)
    clock.now += 59
    minute.add_value("latency", 0.1)
    assert at(minute, 1.0) == pytest.approx(5.0, rel=0.021)
    clock.now += 1
    assert at(minute, 1.0) == pytest.approx(0.1, rel=0.021)
    clock.now += 60
    assert (at(minute, 0.5), at(minute, 0.99)) == (None, None)


def test_extremes_are_clamped() -> None:
    """Zero, negative and enormous values neither fail nor take memory of their own."""
    minute = LastMinute(Clock())
    for value in (0.0, -3.0, 1e300, math.inf):
        minute.add_value("latency", value)
    assert at(minute, 0.5) == pytest.approx(1e-4, rel=0.03)
    assert at(minute, 1.0) == pytest.approx(1e6, rel=0.03)


def test_a_rate_is_the_mean_over_the_window() -> None:
    """Ten a second for two minutes is a rate of ten."""
    clock = Clock()
    minute = LastMinute(clock)
    for _ in range(120):
        minute.add(events=10)
        clock.now += 1
    assert per_second(minute) == pytest.approx(10, rel=0.02)
    clock.now += 60
    assert (minute.summed()[0]["events"], per_second(minute)) == (0, 0)


def test_a_young_rate_counts_from_the_start() -> None:
    """A worker of five seconds is not shown a twelfth of its throughput, nor a huge one in its first moment."""
    clock = Clock()
    minute = LastMinute(clock)
    minute.add(events=7)
    assert per_second(minute) == 7
    clock.now += 5
    minute.add(events=43)
    assert per_second(minute) == 10


def test_memory_is_bounded_by_the_window_not_by_traffic() -> None:
    """A million events leave as many counters as a thousand."""
    clock = Clock()
    minute = LastMinute(clock)
    for step in range(20_000):
        minute.add(events=1)
        minute.add_value("latency", 0.001 * (step + 1))
        clock.now += 0.01
    assert len(minute._seconds) <= WINDOW_SECONDS
    assert max(len(counts) for counts in minute._seconds.values()) <= 591
    assert len(minute.summed()[0]) <= 591


def test_what_happened_since_the_latest_count_is_counted_once() -> None:
    clock = Clock()
    minute = LastMinute(clock)
    clock.now += 10
    for events in (3, 10):
        minute.durable(0.5)
        minute.sent((8, 600, 800))
        minute.count(events)
        minute.count(events)
    counts, seconds = minute.summed()
    assert seconds == 10
    assert {name: count for name, count in counts.items() if isinstance(name, str)} == {
        "events": 10,
        "windows": 16,
        "useful_tokens": 1200,
        "sent_tokens": 1600,
    }
    assert sum(count for name, count in counts.items() if isinstance(name, tuple)) == 6


def test_who_looked_first_and_counts_last_takes_no_event_back() -> None:
    """The status page and the worker count on two threads."""
    clock = Clock()
    minute = LastMinute(clock)
    minute.count(10)
    clock.now += 1
    for events in (7, 10, 12):
        minute.count(events)
        assert [counts["events"] for counts in minute._seconds.values()] == [10, max(events - 10, 0)]
