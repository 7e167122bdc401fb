"""The limits that the server's errors lower, and the budget of retries."""

from __future__ import annotations

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
    """One bad batch is not slowed; a storm is, at one a second, however many wait."""
    budget = RetryBudget()
    assert [budget.take(0.0) for _ in range(13)] == [0.0] * 10 + [1.0] * 3
    budget.first_calls += 10
    assert [budget.take(0.0), budget.take(0.0)] == [0.0, 1.0], "ten calls have paid for one"
    assert [budget.take(0.5), budget.take(1.0)] == [0.5, 0.0]


def test_no_wait_outlives_the_failures_that_caused_it() -> None:
    """However many retries wait and however long calls failed: all may go once a window was answered and none fails."""
    budget = RetryBudget()
    for second in range(300):
        budget.failed(float(second))
        budget.take(float(second))
    budget.failed(300.0)
    waits = [budget.take(300.0) for _ in range(30)]
    assert max(waits) <= 1.0
    assert budget.take(305.0) == 0.0, "one, though none was answered yet"
    while not budget.take(305.0):
        pass
    budget.failed(305.0)
    budget.answered = True
    assert 0.0 < budget.take(305.5) <= RetryBudget.FORGIVEN_SECONDS
    assert {budget.take(306.0) for _ in range(1000)} == {0.0}
    budget.failed(306.0)
    assert sum(budget.take(306.0) == 0.0 for _ in range(100)) <= RetryBudget.BURST


@settings(deadline=None)
@given(st.lists(st.tuples(st.sampled_from(["call", "retry"]), st.floats(0, 5)), max_size=200))
def test_retries_are_a_tenth_of_the_calls_and_one_a_second(steps: list[tuple[str, float]]) -> None:
    """In any span from the start, while every call fails; and none waits for more than a second."""
    budget = RetryBudget()
    now, calls, sent = 0.0, 0, 0
    for what, later in steps:
        now += later
        budget.failed(now)
        if what == "call":
            budget.first_calls += 1
            calls += 1
            continue
        wait = budget.take(now)
        assert 0 <= wait <= 1
        sent += wait == 0
        assert sent <= RetryBudget.BURST + RetryBudget.SHARE * calls + RetryBudget.RESERVE_PER_SECOND * now + 1e-6
