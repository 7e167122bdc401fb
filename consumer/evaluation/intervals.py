"""Bootstrap intervals: how far a figure would move if other texts of the same kind had been annotated.

Percentile bootstrap over texts (Efron and Tibshirani, An Introduction to the Bootstrap, 1993, chapter 13): all texts
are drawn again with replacement, 1,000 times, the figure is computed of each draw, and the middle 95 % is the interval.
Facts of one text stay together, since they are not independent of each other.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

RESAMPLES: Final = 1000
SEED: Final = 20
LOW, HIGH = 2.5, 97.5
"""Percentiles that a 95 % interval lies between."""
_ROWS: Final = 8192
"""Texts whose draws are widened to float32 at a time: 33 MB."""


class Resamples:
    """The draws of ``texts`` texts, the same for all figures of a run. Each is a byte: 60 MB of 60,000 texts."""

    def __init__(self, texts: int, resamples: int = RESAMPLES, seed: int = SEED) -> None:
        self.texts = texts
        self.draws = resamples
        self._times = np.zeros((texts, resamples), np.uint8)
        """How often each text was drawn. 255 times at most, which no draw of texts comes near."""
        rng = np.random.default_rng(seed)
        for draw in range(resamples):
            times = np.bincount(rng.integers(texts, size=texts), minlength=texts) if texts else np.zeros(0, np.int64)
            self._times[:, draw] = np.minimum(times, 255)

    def sums(self, counts: NDArray[np.int64]) -> NDArray[np.float64]:
        """Counts of each text, int[texts, k], summed over each draw: float64[k, resamples]."""
        held = np.flatnonzero(counts.any(axis=1))
        total = np.zeros((counts.shape[1], self.draws))
        for first in range(0, len(held), _ROWS):
            rows = held[first : first + _ROWS]
            total += counts[rows].T.astype(np.float32) @ self._times[rows].astype(np.float32)
        return total


def interval(values: NDArray[np.float64]) -> tuple[float, float] | None:
    """The 95 % interval of a figure's values over the draws, float[resamples]; None where no draw has any."""
    known: NDArray[Any] = values[~np.isnan(values)]
    if not len(known):
        return None
    low, high = np.percentile(known, (LOW, HIGH))
    return float(low), float(high)
