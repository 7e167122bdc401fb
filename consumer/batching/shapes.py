"""Padded lengths: few enough shapes to be warmed up, close enough together to waste little."""

from __future__ import annotations


def padded_length(length: int) -> int:
    """Round a window's length in tokens up: to a multiple of 8 up to 128, of 32 above.

    Raises ValueError for a length outside 1..512.
    """
    if not 1 <= length <= 512:
        raise ValueError(f"window length {length} is outside 1..512 tokens")
    step = 8 if length <= 128 else 32
    return -(-length // step) * step


PADDED_LENGTHS = tuple(sorted({padded_length(n) for n in range(1, 513)}))
"""All 28 lengths that a batch can have."""
