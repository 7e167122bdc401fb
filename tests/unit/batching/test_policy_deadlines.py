"""Deadlines of events, timeouts of calls, and the caps that complaints lower."""

from __future__ import annotations

import pytest

from consumer.batching.policy import CallTimeout, event_deadline
from consumer.batching.policy import padded_length
from consumer.resilience.call_limits import CallLimits


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


def test_a_call_may_take_five_times_the_slowest_rate_seen() -> None:
    """The timeout follows the tokens of the call and what such calls took."""
    timeout = CallTimeout()
    assert timeout.seconds(1000) == CallTimeout.CEILING
    timeout.observe(1000, 4.0)
    assert timeout.seconds(1000) == pytest.approx(20.0)
    assert timeout.seconds(10) == CallTimeout.FLOOR
    assert timeout.seconds(1_000_000) == CallTimeout.CEILING


def test_complaints_lower_the_caps_and_clean_minutes_raise_them() -> None:
    """Memory takes tokens, threads take a call in flight, and both come back up to what was configured."""
    caps = CallLimits(10_000, 2)
    caps.fewer_tokens(0.0)
    caps.fewer_in_flight(0.0)
    caps.fewer_in_flight(0.0)
    assert (caps.max_tokens, caps.max_in_flight) == (7_000, 1)
    caps.answered(59.0)
    assert caps.max_tokens == 7_000
    for minute in range(1, 20):
        caps.answered(60.0 * minute)
    assert (caps.max_tokens, caps.max_in_flight) == (10_000, 2)
    for _ in range(50):
        caps.fewer_tokens(0.0)
    assert caps.max_tokens == CallLimits.MIN_TOKENS


@pytest.mark.parametrize("length", [0, 513])
def test_a_length_that_no_window_has_is_refused(length: int) -> None:
    """A window outside 1..512 tokens is a defect, not a shape."""
    with pytest.raises(ValueError, match=str(length)):
        padded_length(length)


def test_a_missed_timeout_doubles_the_next_and_a_success_halves_it() -> None:
    """A server that became slow shows in no success, so patience must grow without one."""
    timeout = CallTimeout()
    timeout.observe(1000, 0.1)
    assert timeout.seconds(1000) == CallTimeout.FLOOR
    for expected in (20.0, 40.0, 80.0, CallTimeout.CEILING, CallTimeout.CEILING):
        timeout.missed()
        assert timeout.seconds(1000) == pytest.approx(expected)
    timeout.observe(1000, 0.1)
    assert timeout.seconds(1000) == pytest.approx(60.0)


def test_after_an_outage_calls_come_back_one_by_one() -> None:
    """One call until one was answered, then twice as many; never more than the caps that the server asked for."""
    caps = CallLimits(10_000, 8)
    caps.fewer_in_flight(0.0)
    caps.after_outage()
    seen = [caps.max_in_flight]
    for _ in range(4):
        caps.answered(1.0)
        seen.append(caps.max_in_flight)
    assert seen == [1, 2, 4, 7, 7]
