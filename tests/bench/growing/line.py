"""A sum of terms fitted to measured points, most often a straight line, and how far the points are from it."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence


class Fit(NamedTuple):
    """What explains the points best."""

    coefficients: tuple[float, ...]
    """One for each term."""
    r_squared: float
    """Of the plain values: 1 where the terms explain all of their variance."""
    worst: float
    """The largest distance of a point from what the fit says, as a share of that."""


def fitted(y: Sequence[float], *terms: Sequence[float]) -> Fit:
    """Least squares of relative errors, so that a point at 20 counts as one at 20,000 does.

    Raises ValueError for no more points than terms, and for a y that is not positive.
    """
    if len(y) <= len(terms) or min(y) <= 0:
        raise ValueError(f"{len(terms)} terms cannot be fitted to {list(y)}")
    measured, design = np.array(y, float), np.array(terms, float).T
    found = np.linalg.lstsq(design / measured[:, None], np.ones(len(y)), rcond=None)[0]
    said = design @ found
    variance = float(((measured - measured.mean()) ** 2).sum())
    r_squared = 1 - float(((measured - said) ** 2).sum()) / variance if variance else 1.0
    return Fit(tuple(found.tolist()), r_squared, float(np.abs(measured / said - 1).max()))


def straight_line(x: Sequence[float], y: Sequence[float]) -> Fit:
    """A start and a slope."""
    return fitted(y, [1.0] * len(x), x)


def proportional(x: Sequence[float], y: Sequence[float]) -> Fit:
    """A slope: twice the x is twice the y."""
    return fitted(y, x)
