"""The limits that the server's errors lower, and the budget of retries."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from consumer.resilience.call_limits import CallLimits, RetryBudget


def test_complaints_lower_the_limits_and_clean_minutes_raise_them() -> None:
    """Memory takes tokens, threads take a call in flight, and both come back up to what was configured."""
    limits = CallLimits(10_000, 2)
    limits.fewer_tokens(0.0)
    limits.fewer_in_flight(0.0)
    limits.fewer_in_flight(0.0)
    assert (limits.max_tokens, limits.max_in_flight, limits.lowered) == (7_000, 1, True)
    limits.answered(59.0)
    assert limits.max_tokens == 7_000
    for minute in range(1, 20):
        limits.answered(60.0 * minute)
    lowered = limits.lowered
    assert (limits.max_tokens, limits.max_in_flight, lowered) == (10_000, 2, False), "no call for a success any more"
    for _ in range(50):
        limits.fewer_tokens(0.0)
    assert limits.max_tokens == CallLimits.MIN_TOKENS


def test_after_an_outage_calls_come_back_one_by_one() -> None:
    """One call until one was answered, then twice as many; never more than the limits that the server asked for."""
    limits = CallLimits(10_000, 8)
    limits.fewer_in_flight(0.0)
    limits.after_outage()
    seen = [limits.max_in_flight]
    for _ in range(4):
        limits.answered(1.0)
        seen.append(limits.max_in_flight)
    assert seen == [1, 2, 4, 7, 7]


def test_a_few_retries_are_free_and_the_next_wait() -> None:
    """One bad batch is not slowed; a storm is, and every retry of it still has its time."""
    budget = RetryBudget()
    delays = [budget.delay(0.0) for _ in range(13)]
    assert delays == pytest.approx([0.0] * 10 + [1.0, 2.0, 3.0])
    budget.first_calls += 30
    assert budget.delay(0.0) == pytest.approx(1.0), "thirty calls have paid for three of them"


@settings(deadline=None)
@given(st.lists(st.tuples(st.sampled_from(["call", "retry"]), st.floats(0, 5)), max_size=200))
def test_retries_are_a_tenth_of_the_calls_and_one_a_second(steps: list[tuple[str, float]]) -> None:
    """In any span from the start, whatever fails; and none waits longer than its place in the queue."""
    budget = RetryBudget()
    now, calls = 0.0, 0
    sent: list[float] = []
    for what, later in steps:
        now += later
        if what == "call":
            budget.first_calls += 1
            calls += 1
            continue
        delay = budget.delay(now)
        assert 0 <= delay <= len(sent) + 1
        sent.append(now + delay)
        due = sum(at <= sent[-1] for at in sent)
        assert due <= RetryBudget.BURST + RetryBudget.SHARE * calls + RetryBudget.RESERVE_PER_SECOND * sent[-1] + 1e-6
