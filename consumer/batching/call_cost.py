"""Fits how long a model call takes, ``policy.CallCost``, to calls that were measured. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations, product
from typing import TYPE_CHECKING, Final

import numpy as np

from consumer.batching.policy import CallCost

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

SMALLEST: Final = 0.25
"""Share of the cells, those of the fewest tokens, that the floor is read from."""
FLOOR_QUANTILES: Final = (0.0, 0.1, 0.25)
"""Of their times, tried in this order: low, since a small call that was held up says nothing about the floor."""
MARGINS: Final = (0.0, 1.05, 1.15, 1.4)
"""Cells below so many times the floor are left out where the other three coefficients are sought: calls on a floor say
nothing about the cost of a token. Of all these, and of no floor, the one is taken that explains all cells best."""
EXACT: Final = 1e-3
"""Fits that are off by less are equally good; the first is taken, which has no floor."""


@dataclass(frozen=True, slots=True)
class Cell:
    """Calls of one shape: ``rows`` windows padded to ``length`` tokens. ``repeats`` are their seconds, at least one."""

    rows: int
    length: int
    repeats: tuple[float, ...]

    @property
    def tokens(self) -> int:
        """Padded tokens of a call."""
        return self.rows * self.length

    @property
    def seconds(self) -> float:
        """The median of the repeats: one call that was held up changes nothing."""
        return float(np.median(self.repeats))

    @property
    def spread(self) -> float:
        """The middle half of the repeats, as a share of their median: how far apart equal calls are."""
        low, high = np.quantile(self.repeats, (0.25, 0.75))
        return float((high - low) / self.seconds)


def fit_call_cost(cells: Sequence[Cell]) -> CallCost:
    """Fit t(B, L) to measured cells by least squares on relative errors.

    Relative ones, since calls of a millisecond and of a second are to be predicted alike. Raises ValueError for no
    cells, and for a cell that took no time.
    """
    measured: Floats = np.array([cell.seconds for cell in cells])
    if not len(measured) or (measured <= 0).any():
        raise ValueError(f"the cost of calls cannot be fitted to cells of {measured.tolist()} seconds")
    work: Floats = np.array([(1.0, cell.tokens, cell.tokens * cell.length) for cell in cells])
    smallest = np.argsort(work[:, 1], kind="stable")[: max(1, int(SMALLEST * len(cells)))]
    lowest = np.quantile(measured[smallest], FLOOR_QUANTILES).tolist()
    tried = []
    for floor, margin in ((0.0, 0.0), *product(lowest, MARGINS)):
        above = measured > floor * margin
        if above.any():
            found = _non_negative(work[above], measured[above])
            off = np.maximum(floor, work @ found) / measured - 1
            tried.append((max(float(off @ off / len(off)), EXACT**2), floor, found, np.abs(off)))
    _, floor, found, off = min(tried, key=lambda each: each[0])
    fixed, per_token, per_pair = found.tolist()
    return CallCost(floor, fixed, per_token, per_pair, float(np.median(off)))


def _non_negative(work: Floats, measured: Floats) -> Floats:
    """Coefficients x ≥ 0, float64[3], that minimise the sum of (work·x / measured - 1)².

    The best of all non-negative x is the plain least-squares solution of those unknowns that are not 0 in it, so the
    seven sets of unknowns are tried. One unknown alone is never negative: times and work are not.
    """
    relative = work / measured[:, None]
    scale = np.linalg.norm(relative, axis=0)
    tried = []
    for chosen in (list(each) for count in (1, 2, 3) for each in combinations(range(3), count)):
        solved = np.linalg.lstsq(relative[:, chosen] / scale[chosen], np.ones(len(measured)), rcond=None)[0]
        if (solved >= 0).all():
            found = np.zeros(3)
            found[chosen] = solved / scale[chosen]
            tried.append((float(np.sum((relative @ found - 1) ** 2)), found))
    return min(tried, key=lambda each: each[0])[1]
