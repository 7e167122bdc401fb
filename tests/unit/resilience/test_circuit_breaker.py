"""The breaker, its pauses, and the budget of retries."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from consumer.resilience.backoff import Backoff
from consumer.resilience.call_limits import RetryBudget
from consumer.resilience.circuit_breaker import CircuitBreaker


def state(breaker: CircuitBreaker) -> str:
    return breaker.state


LONGEST = Backoff(0.1, 10.0, lambda _, high: high)


def test_a_pause_is_anything_up_to_the_doubled_time() -> None:
    """Full jitter: between no pause at all and twice the one before, up to the limit."""
    assert [LONGEST.pause(n) for n in range(8)] == pytest.approx([0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 10.0])
    assert LONGEST.pause(10_000) == 10.0
    drawn = [Backoff(uniform=random.Random(3).uniform).pause(7) for _ in range(1)]
    drawn += [Backoff(uniform=random.Random(seed).uniform).pause(7) for seed in range(500)]
    assert min(drawn) < 0.5
    assert max(drawn) > 9.5
    assert 4.5 < sum(drawn) / len(drawn) < 5.5


def test_half_open_is_one_call() -> None:
    """Not before the pause is over, and no second one beside the first."""
    breaker = CircuitBreaker(LONGEST)
    assert state(breaker) == "closed"
    breaker.open(5.0)
    assert state(breaker) == "open"
    assert breaker.try_at == pytest.approx(5.1)
    with pytest.raises(ValueError, match="open"):
        breaker.half_open(5.05)
    breaker.half_open(5.2)
    assert state(breaker) == "half_open"
    with pytest.raises(ValueError, match="half_open"):
        breaker.half_open(6.0)


def test_pauses_grow_until_a_call_is_answered() -> None:
    """Each failed try doubles the pause; an outage that comes later starts anew."""
    breaker = CircuitBreaker(LONGEST)
    now, pauses = 0.0, []
    breaker.open(now)
    for _ in range(9):
        pauses.append(breaker.try_at - now)
        now = breaker.try_at
        breaker.half_open(now)
        breaker.open(now)
    assert pauses == pytest.approx([0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 10.0, 10.0])
    breaker.half_open(breaker.try_at)
    breaker.close()
    assert state(breaker) == "closed"
    breaker.open(100.0)
    assert breaker.try_at == pytest.approx(100.1)


def test_a_few_retries_are_free_and_the_next_wait() -> None:
    """One bad batch is not slowed; a storm is, and every retry of it still has its time."""
    budget = RetryBudget()
    delays = [budget.delay(0.0) for _ in range(13)]
    assert delays == pytest.approx([0.0] * 10 + [1.0, 2.0, 3.0])
    for _ in range(30):
        budget.called()
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
            budget.called()
            calls += 1
            continue
        delay = budget.delay(now)
        assert 0 <= delay <= len(sent) + 1
        sent.append(now + delay)
        due = sum(at <= sent[-1] for at in sent)
        assert due <= RetryBudget.BURST + RetryBudget.SHARE * calls + RetryBudget.RESERVE_PER_SECOND * sent[-1] + 1e-6
