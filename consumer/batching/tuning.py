"""What ``batching`` should be for a model server: shapes of calls to measure, and what follows from them. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal

from consumer.batching.policy import full_rows
from consumer.batching.queue import PADDED_LENGTHS

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from consumer.batching.policy import CallCost

LENGTHS: Final = (16, 32, 64, 128, 256, 512)
"""Padded lengths that are measured beside the median one. Doubled each time: the costs of a token and of a pair of
tokens can only be told apart where lengths are far apart."""
STEP: Final = 512
"""``batching.max_tokens`` is a multiple of this, its smallest value: one window of the largest size."""
NEAR_BEST: Final = 0.95
"""Of the most tokens a second: larger calls than that gain less than they make others wait."""
CALL_SHARE: Final = 1 / 3
"""Of the latency objective that one call may take: a window waits for the call under way, for its own, and an event
has two levels as a rule."""
NEAR_BEST_CALLS: Final = 0.97
"""Of the most calls a second, for calls in flight."""


def shapes(lengths: Mapping[int, int], most_tokens: int) -> list[tuple[int, int]]:
    """The (rows, padded length) to measure, those of the least work first.

    ``lengths``: how many windows have each padded length. Rows double, up to ``most_tokens`` in a call.
    """
    columns = sorted({length for length in LENGTHS if length >= min(lengths)} | {median_length(lengths)})
    found = []
    for length in columns:
        rows = 1
        while rows * length <= most_tokens:
            found.append((rows, length))
            rows *= 2
    return sorted(found, key=lambda shape: (shape[0] * shape[1], shape[1]))


def median_length(lengths: Mapping[int, float]) -> int:
    """The padded length that half of the windows do not exceed."""
    half, seen = sum(lengths.values()) / 2, 0.0
    for length in sorted(lengths):
        seen += lengths[length]
        if seen >= half:
            return length
    raise ValueError("there are no windows, so they have no median length")


@dataclass(frozen=True, slots=True)
class Budget:
    """A value for ``batching.max_tokens``, and what follows from it at the median length."""

    max_tokens: int
    rows: int
    """Windows of the median length in a full call."""
    tokens_per_second: float
    """Padded tokens of full calls, one after the other."""
    longest_call: float
    """Seconds of the slowest full call, of any length that windows have."""
    limited_by: Literal["nothing", "objective", "tried"]
    """``objective``: larger calls would be faster for each token, but take too long. ``tried``: calls of twice the
    largest size that was tried should do more than ``NEAR_BEST`` allows for."""


def token_budget(cost: CallCost, lengths: Mapping[int, float], objective: float, tried: int) -> Budget:
    """The smallest budget within ``NEAR_BEST`` of the most tokens a second at the median length.

    Not above ``tried``, the largest budget that the cost was measured for, and none whose full calls may take more
    than ``CALL_SHARE`` of ``objective`` (seconds), but in any case the smallest there is.
    """
    median = median_length(lengths)
    budgets = [_budget(cost, lengths, median, tokens) for tokens in range(STEP, max(tried, STEP) + 1, STEP)]
    most = max(each.tokens_per_second for each in budgets)
    wanted = next(each for each in budgets if each.tokens_per_second >= NEAR_BEST * most)
    allowed = [each for each in budgets if each.longest_call <= CALL_SHARE * objective] or budgets[:1]
    if allowed[-1].max_tokens < wanted.max_tokens:
        return _budget(cost, lengths, median, allowed[-1].max_tokens, "objective")
    twice = _budget(cost, lengths, median, 2 * budgets[-1].max_tokens)
    still_gains = most < NEAR_BEST * twice.tokens_per_second
    return _budget(cost, lengths, median, wanted.max_tokens, "tried" if still_gains else "nothing")


def _budget(
    cost: CallCost,
    lengths: Iterable[int],
    median: int,
    tokens: int,
    limited_by: Literal["nothing", "objective", "tried"] = "nothing",
) -> Budget:
    rows = full_rows(tokens, median)
    longest_call = max(cost.seconds(full_rows(tokens, length), length) for length in lengths)
    return Budget(tokens, rows, rows * median / cost.seconds(rows, median), longest_call, limited_by)


def most_rows(max_tokens: int) -> int:
    """Windows of the largest call by rows: of the shortest padded length."""
    return full_rows(max_tokens, PADDED_LENGTHS[0])


def fewest_in_flight(rates: Mapping[int, float]) -> int:
    """The fewest calls in flight whose calls a second are within ``NEAR_BEST_CALLS`` of the best."""
    most = max(rates.values())
    return min(calls for calls, rate in rates.items() if rate >= NEAR_BEST_CALLS * most)


def reviews_per_second(cost: CallCost, windows: Mapping[int, float], max_tokens: int, gain: float) -> float:
    """What one server does with full calls of one length each.

    ``windows``: how many windows of each padded length a review has on average. ``gain``: by how much more calls in
    flight are faster than one after the other.
    """
    seconds = sum(
        count * cost.seconds(full_rows(max_tokens, length), length) / full_rows(max_tokens, length)
        for length, count in windows.items()
    )
    return gain / seconds
