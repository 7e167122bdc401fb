"""A bag of character n-grams as a classifier: what a model has to beat to be worth its cost.

Multinomial naive Bayes over the distinct n-grams of one to three characters (Manning, Raghavan and Schuetze,
Introduction to Information Retrieval, 2008, sections 13.2 and 13.3): the class with the highest log prior plus the sum
of the log shares that the text's n-grams have in the class, smoothed by ALPHA.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Final

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

LONGEST: Final = 3
"""Characters of the longest n-grams."""
ALPHA: Final = 0.1
FOLDS: Final = 5
LEAST_TEXTS: Final = 50
"""With fewer texts the folds would hold a handful each."""
LONGEST_TEXT: Final = 10_000
"""Characters that are read of a text, as many as a worker takes."""


def fold_of(text: str) -> int:
    """The fold that a text is tested in, by its hash: equal texts are never trained and tested on."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") % FOLDS


def cross_validated(texts: Sequence[str], gold: Sequence[frozenset[str]], *, single: bool) -> list[dict[str, float]]:
    """Predictions for each text by a classifier that was trained on the other folds, see ``NaiveBayes.predict``."""
    folds = [fold_of(text) for text in texts]
    predicted: list[dict[str, float]] = [{} for _ in texts]
    for fold in range(FOLDS):
        inside = [number for number, each in enumerate(folds) if each == fold]
        outside = [number for number, each in enumerate(folds) if each != fold]
        if not inside or not outside:
            continue
        model = NaiveBayes([texts[number] for number in outside], [gold[number] for number in outside], single=single)
        for number, found in zip(inside, model.predict([texts[number] for number in inside]), strict=True):
            predicted[number] = found
    return predicted


class NaiveBayes:
    """The classifier. With several labels a text, each class is a decision of its own against all other texts."""

    def __init__(self, texts: Sequence[str], gold: Sequence[frozenset[str]], *, single: bool) -> None:
        """Train. ``single``: each text to predict has exactly one class."""
        self._classes = sorted(frozenset().union(*gold))
        self._single = single
        grams, lengths = _grams(texts)
        self._known, self._places = np.unique(grams, return_inverse=True)
        self._owner = np.repeat(np.arange(len(texts)), lengths)
        is_of = np.array([[name in names for name in self._classes] for names in gold], bool)
        self._is_of = is_of.reshape(len(texts), len(self._classes))
        documents = self._is_of.sum(axis=0)
        self._priors = np.log((documents + 1) / (len(texts) + len(self._classes)))
        if not single:
            self._priors -= np.log((len(texts) - documents + 1) / (len(texts) + len(self._classes)))

    def predict(self, texts: Sequence[str]) -> list[dict[str, float]]:
        """For each text its classes with how likely the classifier takes them to be, in 0 .. 1.

        One class each or, of several labels, all that are likelier than not, at least the likeliest; none where none
        were trained.
        """
        if not self._classes:
            return [{} for _ in texts]
        grams, lengths = _grams(texts)
        places = np.minimum(np.searchsorted(self._known, grams), max(len(self._known) - 1, 0))
        seen = self._known[places] == grams if len(self._known) else np.zeros(len(grams), bool)
        owner = np.repeat(np.arange(len(texts)), lengths)[seen]
        odds = np.empty((len(texts), len(self._classes)))
        for number, prior in enumerate(self._priors):
            weights = self._weights(number)[places[seen]]
            odds[:, number] = prior + np.bincount(owner, weights=weights, minlength=len(texts))
        if self._single:
            shares = np.exp(odds - odds.max(axis=1, keepdims=True))
            shares /= shares.sum(axis=1, keepdims=True)
        else:
            shares = 1 / (1 + np.exp(-np.clip(odds, -500, 500)))
        best = odds.argmax(axis=1)
        chosen = np.zeros(odds.shape, bool) if self._single else odds > 0
        chosen[np.arange(len(texts)), best] = True
        return [
            {self._classes[number]: float(row[number]) for number in np.flatnonzero(marks)}
            for row, marks in zip(shares, chosen, strict=True)
        ]

    def _weights(self, number: int) -> NDArray[np.float64]:
        """Of each known n-gram for one class. Not kept: of a hundred classes they would take a gigabyte."""
        inside = self._is_of[self._owner, number]
        weights = self._log_shares(inside)
        return weights if self._single else weights - self._log_shares(~inside)

    def _log_shares(self, chosen: NDArray[np.bool_]) -> NDArray[np.float64]:
        """Log of the smoothed share that each known n-gram has in the ``chosen`` n-grams of the texts."""
        counts = np.bincount(self._places[chosen], minlength=len(self._known)) + ALPHA
        shares: NDArray[np.float64] = np.log(counts) - np.log(max(counts.sum(), ALPHA))
        return shares


def _grams(texts: Sequence[str]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The distinct n-grams of each text, lower case, one text after the other, and how many each has.

    An n-gram is a number: 21 bits hold a code point plus one, so 63 hold three.
    """
    found, lengths = [], []
    for text in texts:
        points = np.frombuffer(text[:LONGEST_TEXT].lower().encode("utf-32-le"), np.int32)
        ones = points.astype(np.int64) + 1
        sizes = [ones]
        for _ in range(LONGEST - 1):
            sizes.append((sizes[-1][:-1] << 21) + ones[len(sizes) :])
        found.append(np.unique(np.concatenate(sizes)))
        lengths.append(len(found[-1]))
    return np.concatenate(found) if found else np.zeros(0, np.int64), np.array(lengths, np.int64)
