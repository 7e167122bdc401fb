"""Calibration: whether facts with a score of 0.8 are right in 80 of 100 cases, and the temperature that makes it so.

Judged is every fact that results show, once: an element of a predicted path is right when the gold has a path that
begins with the same elements up to it, offsets included. So an opinion below an aspect that is not there is wrong,
however sure the model is of the opinion alone. The score is the fact's own: the mean of the sigmoids of its span, head
and tail cell (docs/extraction.md, section 11.1), not a mean over its path.

Expected calibration error and temperature scaling: Guo, Pleiss, Sun and Weinberger, "On Calibration of Modern Neural
Networks", ICML 2017, sections 2 and 4.2.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Final

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray

    from consumer.evaluation.paths import Case

EDGES: Final = (0.0, *(round(0.5 + 0.05 * step, 2) for step in range(11)))
"""Bins of scores: ten of 0.05 from 0.5 to 1, where facts have theirs since their cells are positive, and one below for
the best guesses of classification. A score on an edge belongs to the lower bin, as in Guo et al."""
CLIP: Final = 5e-5
"""Scores are rounded to 4 decimals, so 1.0 stands for anything from 0.99995 on. Its logit would be infinite: scores are
clipped to 5e-5 .. 1 - 5e-5."""
LEAST_T: Final = 0.05
MOST_T: Final = 100.0
"""Temperatures that are tried. The highest is the answer where scores say nothing, as where most facts are wrong."""
LEAST_FACTS: Final = 20
"""Below this a fitted temperature would be noise."""
_STEPS: Final = 60
"""Halvings of the range of temperatures: 2,000 / 2^60 is below the resolution of floats."""


@dataclass(frozen=True, slots=True)
class Bin:
    """Facts with scores in (low, high]. ``mean_score`` and ``share_right`` are 0 where there are none."""

    low: float
    high: float
    facts: int
    mean_score: float
    share_right: float


@dataclass(frozen=True, slots=True)
class Calibration:
    """How scores of ``facts`` facts compare with how many of them are right.

    ``ece`` is the expected calibration error. ``temperature`` T is fitted on all texts, for scores sigmoid(logit(score)
    / T); ``ece_after`` is cross-fitted: each half of the texts with the temperature of the other. Both are None below
    LEAST_FACTS.
    """

    facts: int
    mean_score: float
    share_right: float
    ece: float
    temperature: float | None
    ece_after: float | None
    bins: tuple[Bin, ...]


def calibration(cases: Iterable[Case]) -> Calibration | None:
    """None where nothing was predicted."""
    scores, right, halves = _facts(cases)
    if not len(scores):
        return None
    temperature = after = None
    if len(scores) >= LEAST_FACTS:
        temperature = fitted_temperature(scores, right)
        cooled = scores.copy()
        for half in (False, True):
            # Without facts in the other half there is nothing to fit; the scores stay as they are.
            if (halves != half).any():
                other = fitted_temperature(scores[halves != half], right[halves != half])
                cooled[halves == half] = scaled(scores[halves == half], other)
        after = expected_calibration_error(bins(cooled, right))
    table = bins(scores, right)
    return Calibration(
        len(scores),
        float(scores.mean()),
        float(right.mean()),
        expected_calibration_error(table),
        temperature,
        after,
        table,
    )


def bins(scores: NDArray[np.float64], right: NDArray[np.bool_]) -> tuple[Bin, ...]:
    """Facts by score, see EDGES."""
    number = np.clip(np.searchsorted(EDGES, scores, side="left") - 1, 0, len(EDGES) - 2)
    found = []
    for index, (low, high) in enumerate(pairwise(EDGES)):
        inside = number == index
        facts = int(inside.sum())
        mean_score, share = (float(scores[inside].mean()), float(right[inside].mean())) if facts else (0.0, 0.0)
        found.append(Bin(low, high, facts, mean_score, share))
    return tuple(found)


def expected_calibration_error(table: Iterable[Bin]) -> float:
    """The sum over bins of (facts of the bin / all facts) * abs(share right - mean score); 0 without facts."""
    table = tuple(table)
    total = sum(each.facts for each in table)
    return sum(each.facts * abs(each.share_right - each.mean_score) for each in table) / max(total, 1)


def scaled(scores: NDArray[np.float64], temperature: float) -> NDArray[np.float64]:
    """sigmoid(logit(score) / T), of clipped scores."""
    return 1 / (1 + np.exp(-_logits(scores) / temperature))


def fitted_temperature(scores: NDArray[np.float64], right: NDArray[np.bool_]) -> float:
    """The T in LEAST_T .. MOST_T that minimises the negative log likelihood of "the fact is right".

    With b = 1 / T and z = logit(score) it is a logistic regression with one weight, so the likelihood's negative log
    is convex in b, and its derivative, the sum of (sigmoid(b z) - right) z, rises: its zero is found by halving.
    """
    logits, target = _logits(scores), right.astype(float)
    low, high = 1 / MOST_T, 1 / LEAST_T
    for _ in range(_STEPS):
        middle = (low + high) / 2
        if float(((1 / (1 + np.exp(-middle * logits)) - target) * logits).sum()) > 0:
            high = middle
        else:
            low = middle
    return 2 / (low + high)


def _facts(cases: Iterable[Case]) -> tuple[NDArray[np.float64], NDArray[np.bool_], NDArray[np.bool_]]:
    """Score of each fact, whether it is right, and its text's half: by a hash, so that equal texts are in the same."""
    scores: list[float] = []
    right: list[bool] = []
    halves: list[bool] = []
    for case in cases:
        half = bool(hashlib.sha256(case.text.encode()).digest()[0] & 1)
        known = {path[:end] for path in case.gold for end in range(1, len(path) + 1)}
        found = {
            path[:end]: values[end - 1] for path, values in case.predicted.items() for end in range(1, len(path) + 1)
        }
        scores += found.values()
        right += [fact in known for fact in found]
        halves += [half] * len(found)
    return np.array(scores, float), np.array(right, bool), np.array(halves, bool)


def _logits(scores: NDArray[np.float64]) -> NDArray[np.float64]:
    clipped = np.clip(scores, CLIP, 1 - CLIP)
    return np.log(clipped) - np.log1p(-clipped)
