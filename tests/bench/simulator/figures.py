"""Means with 95 % intervals over seeds, and who is best or tied."""

from __future__ import annotations

import math
import statistics
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Sequence

STUDENT: Final = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228)
"""The 97.5 % quantile of Student's t for 1 to 10 degrees of freedom."""
TIE: Final = 0.05
"""Means that differ by no more than this share of the smaller one are tied."""


class Figure(NamedTuple):
    """A mean and half the width of its 95 % interval (infinite for a single value)."""

    mean: float
    half: float

    @property
    def low(self) -> float:
        """Of the interval."""
        return self.mean - self.half

    @property
    def high(self) -> float:
        """Of the interval."""
        return self.mean + self.half


def figure(values: Sequence[float]) -> Figure:
    """Student's t interval of independent values."""
    if len(values) < 2:
        return Figure(values[0], math.inf)
    freedom = len(values) - 1
    quantile = STUDENT[freedom - 1] if freedom <= len(STUDENT) else 1.96 + 2.5 / freedom
    return Figure(statistics.fmean(values), quantile * statistics.stdev(values) / math.sqrt(len(values)))


def tied(one: Figure, best: Figure) -> bool:
    """Within 5 %, or with overlapping intervals; smaller is better."""
    return one.mean <= best.mean * (1 + TIE) or one.low <= best.high


class Ratio(NamedTuple):
    """How many times as much, seed by seed: the geometric mean and its 95 % interval."""

    mean: float
    low: float
    high: float

    @property
    def worse(self) -> bool:
        """By more than a tie, whatever the seed."""
        return self.mean > 1 + TIE and self.low > 1


def ratio(ours: Sequence[float], theirs: Sequence[float]) -> Ratio:
    """Of pairs. What differs between seeds alike for both cancels out, so it tells apart what intervals cannot."""
    logs = figure([math.log(a / b) for a, b in zip(ours, theirs, strict=True)])
    return Ratio(math.exp(logs.mean), math.exp(min(700.0, logs.low)), math.exp(min(700.0, logs.high)))
