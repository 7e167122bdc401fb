"""How long two models take for the same work, asked in turns: a busy machine hurts both alike, and ratios stay."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from consumer.evaluation.intervals import RESAMPLES, SEED, interval

if TYPE_CHECKING:
    from collections.abc import Sequence


class Turn(NamedTuple):
    """The same extractions on both sides, one side after the other. Seconds, and how many extractions."""

    extractions: int
    old: float
    new: float


class Times(NamedTuple):
    """Milliseconds an extraction over the turns of one side: median, and 95th percentile."""

    p50: float
    p95: float


@dataclass(frozen=True, slots=True)
class PairedTimes:
    """``ratio`` is new / old, the median over the turns; above 1 the new side is slower."""

    turns: int
    old: Times
    new: Times
    ratio: float
    interval: tuple[float, float] | None
    """Of the ratio, 95 %: a percentile bootstrap over the turns (``intervals``). None of one turn."""


def paired_times(turns: Sequence[Turn]) -> PairedTimes | None:
    """None without turns. The first of several warms both sides up, and is left out."""
    turns = [turn for turn in (turns[1:] if len(turns) > 1 else turns) if turn.extractions and turn.old > 0]
    if not turns:
        return None
    sizes, old, new = np.array(turns, float).T
    ratios = np.sort(new / old)
    drawn = np.random.default_rng(SEED).integers(len(ratios), size=(RESAMPLES, len(ratios)))
    between = interval(np.median(ratios[drawn], axis=1)) if len(turns) > 1 else None
    return PairedTimes(len(turns), _times(old / sizes), _times(new / sizes), float(np.median(ratios)), between)


def _times(seconds: np.ndarray) -> Times:
    return Times(*(float(each) * 1000 for each in np.percentile(seconds, (50, 95))))
