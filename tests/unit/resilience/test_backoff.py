"""Pauses that double, with jitter."""

from __future__ import annotations

import random

import pytest

from consumer.resilience.backoff import Backoff

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


def test_a_part_of_the_pause_can_be_certain() -> None:
    """From half of the doubled time to all of it; and all of it for those who want no jitter."""
    shortest = Backoff(0.2, 1.0, lambda low, _: low, least=0.5)
    assert [shortest.pause(n) for n in range(5)] == pytest.approx([0.1, 0.2, 0.4, 0.5, 0.5])
    assert [shortest.longest(n) for n in range(5)] == pytest.approx([0.2, 0.4, 0.8, 1.0, 1.0])
