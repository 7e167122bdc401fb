"""Deadlines of events, and timeouts of calls."""

from __future__ import annotations

from collections import deque

import pytest

from consumer.batching.policy import CallTimeout
from consumer.batching.queue import event_deadline, padded_length


@pytest.mark.parametrize(
    ("timestamp_ms", "deadline"),
    [
        pytest.param(999_600, 50.6, id="fresh: counts from the broker's timestamp"),
        pytest.param(1_000_000, 51.0, id="just now"),
        pytest.param(400_000, 51.0, id="older than the objective: counts from the fetch"),
        pytest.param(2_000_000, 51.0, id="from the future: counts from the fetch"),
        pytest.param(None, 51.0, id="no timestamp"),
    ],
)
def test_the_deadline_of_an_event(timestamp_ms: int | None, deadline: float) -> None:
    """A backlog's own deadlines would all be in the past and would order nothing."""
    at = event_deadline(timestamp_ms, fetched_wall=1000.0, fetched_at=50.0, objective=1.0)
    assert at == pytest.approx(deadline)


def test_a_call_may_take_five_times_what_the_slowest_one_took_of_its_cost() -> None:
    """The timeout follows the cost of the call and what such calls took."""
    timeout = CallTimeout(deque(maxlen=100))
    assert timeout.seconds(1.0) == CallTimeout.CEILING
    timeout.observe(1.0, 4.0)
    assert timeout.seconds(1.0) == pytest.approx(20.0)
    assert timeout.seconds(0.01) == CallTimeout.FLOOR
    assert timeout.seconds(1000.0) == CallTimeout.CEILING


@pytest.mark.parametrize("length", [0, 513])
def test_a_length_that_no_window_has_is_refused(length: int) -> None:
    """A window outside 1..512 tokens is a defect, not a shape."""
    with pytest.raises(ValueError, match=str(length)):
        padded_length(length)


def test_a_missed_timeout_doubles_the_next_and_a_success_halves_it() -> None:
    """A server that became slow shows in no success, so the timeout must grow without one."""
    timeout = CallTimeout(deque(maxlen=100))
    timeout.observe(1.0, 0.1)
    assert timeout.seconds(1.0) == CallTimeout.FLOOR
    for expected in (20.0, 40.0, 80.0, CallTimeout.CEILING, CallTimeout.CEILING):
        timeout.missed()
        assert timeout.seconds(1.0) == pytest.approx(expected)
    timeout.observe(1.0, 0.1)
    assert timeout.seconds(1.0) == pytest.approx(60.0)


def test_many_fast_servers_do_not_shorten_the_timeout_of_a_slow_one() -> None:
    """Ten that answer a hundred calls during one of its own: else it would miss every second timeout for ever."""
    rates = deque[float](maxlen=100)
    fast, slow = CallTimeout(rates), CallTimeout(rates)
    slow.observe(1.0, 15.0)
    for _ in range(100):
        fast.observe(1.0, 1.0)
    assert (slow.seconds(1.0), fast.seconds(1.0)) == (75.0, CallTimeout.FLOOR)
    for _ in range(CallTimeout.OWN):
        slow.observe(1.0, 3.0)
    assert slow.seconds(1.0) == 15.0
