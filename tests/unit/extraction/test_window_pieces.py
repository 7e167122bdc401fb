from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from consumer.extraction.window import piece_at, window_count


def pieces(tokens: int, capacity: int, step: int) -> list[tuple[int, int]]:
    return [piece_at(number, tokens, capacity, step) for number in range(window_count(tokens, capacity, step))]


@pytest.mark.parametrize(
    ("tokens", "expected"),
    [
        (1, [(0, 1)]),
        (10, [(0, 10)]),
        (11, [(0, 10), (7, 11)]),
        (17, [(0, 10), (7, 17)]),
        (18, [(0, 10), (7, 17), (14, 18)]),
    ],
)
def test_overlapping_pieces(tokens: int, expected: list[tuple[int, int]]) -> None:
    """Windows of 10 tokens with 3 in common; the last is the first that reaches the end."""
    assert pieces(tokens, 10, 7) == expected


def test_a_text_without_tokens_is_one_window() -> None:
    """White space is asked about once, as in the reference."""
    assert pieces(0, 10, 7) == [(0, 0)]


@given(tokens=st.integers(1, 3000), capacity=st.integers(33, 500), overlap=st.integers(0, 32))
def test_pieces_cover_the_text(tokens: int, capacity: int, overlap: int) -> None:
    """From the first token to the last, no gap, none longer than a window, and as many as were counted."""
    found = pieces(tokens, capacity, capacity - overlap)
    assert len(found) == window_count(tokens, capacity, capacity - overlap)
    assert found[0][0] == 0
    assert found[-1][1] == tokens
    assert all(0 < end - start <= capacity for start, end in found)
    for (_, end), (start, _) in pairwise(found):
        assert end - start == overlap
    assert all(end < tokens for _, end in found[:-1])
