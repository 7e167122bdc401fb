"""The traces that the simulator plays (``tests/bench/simulator/trace.py``)."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest
from bench.simulator.server import GPU
from bench.simulator.simulate import MAX_TOKENS
from bench.simulator.trace import burst, capacity, two_levels, windows
from hypothesis import given
from hypothesis import strategies as st

SECOND = replace(GPU, fixed=1.0, token=0.0, square=0.0)


@given(st.integers(7, 256), st.integers(1, 20_000))
def test_windows_hold_the_whole_text(hint: int, text: int) -> None:
    """At most 512 tokens each, neighbours overlapping by 32."""
    lengths = windows(hint, text)
    assert all(hint + 1 < length <= 512 for length in lengths)
    assert sum(length - hint - 1 for length in lengths) - 32 * (len(lengths) - 1) == text
    assert len(lengths) == 1 or all(length == 512 for length in lengths[:-1])


def test_every_event_with_two_levels_asks_on_both() -> None:
    """Each fact has a place in a hint of at most 256 tokens."""
    rng = random.Random(1)
    for text in (1, 20, 300, 3000):
        first, second = two_levels(text, rng)
        assert first == windows(7, text)
        assert second
        assert min(second) > 36


def test_capacity_is_what_sorted_full_calls_take() -> None:
    """By hand: 300 windows of 64 tokens are two calls of 256 and 44 rows, a second each."""
    assert capacity(SECOND, [((64,),)] * 300, MAX_TOKENS) == pytest.approx(150)
    assert max(burst(step / 100) for step in range(100)) == 4 * min(burst(step / 100) for step in range(100))
