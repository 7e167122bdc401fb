"""The circuit breaker and its pauses."""

from __future__ import annotations

import pytest

from consumer.resilience.backoff import Backoff
from consumer.resilience.circuit_breaker import CircuitBreaker


def state(breaker: CircuitBreaker) -> str:
    return breaker.state


LONGEST = Backoff(0.1, 10.0, lambda _, high: high)


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
