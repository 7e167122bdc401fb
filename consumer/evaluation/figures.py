"""Figures: precision, recall and F1 of counts, and means of F1 over classes, each with its bootstrap interval."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from consumer.evaluation.intervals import interval

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterable, Mapping, Sequence, Set

    from numpy.typing import NDArray

    from consumer.evaluation.intervals import Resamples

COUNTS: Final = 3
"""Counts of a text are int64[3]: how many were predicted, belong to it, and are both. ``Counts``: int64[texts, 3]."""


@dataclass(frozen=True, slots=True)
class Figure:
    """What one line of a report says.

    ``section`` and ``name`` say of what; ``values`` are in 0 .. 1 by metric, the main one first, and ``intervals`` are
    those (95 %) of some of them. ``support`` is the size of the gold that it is measured on: paths, or texts for
    accuracy and macro F1. Values with ``span_`` in front leave offsets out; counts are always those with offsets.
    """

    section: str
    name: str
    values: Mapping[str, float]
    intervals: Mapping[str, tuple[float, float]]
    support: int
    predicted: int
    correct: int
    texts: int
    """Texts that have any of what is counted, in the gold or predicted."""

    @property
    def main(self) -> float:
        """The first value."""
        return next(iter(self.values.values()))

    @property
    def interval(self) -> tuple[float, float] | None:
        """The interval of the first value."""
        return self.intervals.get(next(iter(self.values)))


@dataclass(frozen=True, slots=True)
class Difference:
    """F1 of two predictions of the same texts. ``value`` is new - old, ``interval`` its 95 %."""

    old: float
    new: float
    interval: tuple[float, float] | None

    @property
    def value(self) -> float:
        """Above 0 the new one is better."""
        return self.new - self.old


def counted(pairs: Iterable[tuple[Set[Hashable], Set[Hashable]]]) -> NDArray[np.int64]:
    """Counts of (predicted, gold) of each text."""
    rows = [(len(predicted), len(gold), len(predicted & gold)) for predicted, gold in pairs]
    return np.array(rows, np.int64).reshape(-1, COUNTS)


def f1_figure(
    section: str,
    name: str,
    counts: NDArray[np.int64],
    resamples: Resamples,
    span: NDArray[np.int64] | None = None,
) -> Figure:
    """Micro precision, recall and F1 of ``Counts``, over all texts together; of those without offsets as well.

    precision: the share of what was predicted that is correct. recall: the share of the gold that was found. f1: the
    harmonic mean of both, 2 c / (p + g). Each is 0 where there is nothing to have a share of.
    """
    values: dict[str, float] = {}
    intervals: dict[str, tuple[float, float]] = {}
    for prefix, each in (("", counts), *((("span_", span),) if span is not None else ())):
        predicted, gold, correct = (int(count) for count in each.sum(axis=0))
        values[f"{prefix}f1"] = 2 * correct / max(predicted + gold, 1)
        values[f"{prefix}precision"] = correct / max(predicted, 1)
        values[f"{prefix}recall"] = correct / max(gold, 1)
        if (found := interval(_f1(resamples.sums(each)))) is not None:
            intervals[f"{prefix}f1"] = found
    predicted, gold, correct = (int(count) for count in counts.sum(axis=0))
    return Figure(section, name, values, intervals, gold, predicted, correct, _texts(counts))


def share_figure(section: str, name: str, metric: str, counts: NDArray[np.int64], resamples: Resamples) -> Figure:
    """The share of the gold that is correct, such as accuracy where each text counts once."""
    predicted, gold, correct = (int(count) for count in counts.sum(axis=0))
    _, golds, corrects = resamples.sums(counts)
    shares = np.divide(corrects, golds, out=np.full(len(golds), np.nan), where=golds > 0)
    values = {metric: correct / max(gold, 1)}
    return Figure(section, name, values, _intervals(metric, shares), gold, predicted, correct, _texts(counts))


def macro_figure(section: str, name: str, by_class: Sequence[NDArray[np.int64]], resamples: Resamples) -> Figure:
    """Macro F1: the mean of the F1 of classes, given ``Counts`` of each. Support counts texts.

    A class that is neither in the gold nor predicted, as in a draw without its texts, does not enter the mean.
    """
    totals = np.array([counts.sum(axis=0) for counts in by_class], float).reshape(-1, COUNTS)
    drawn = np.array([_f1(resamples.sums(counts)) for counts in by_class]).reshape(len(by_class), resamples.draws)
    there = ~np.isnan(drawn)
    means = np.divide(
        np.where(there, drawn, 0).sum(axis=0),
        there.sum(axis=0),
        out=np.full(drawn.shape[1], np.nan),
        where=there.any(axis=0),
    )
    f1 = _f1(totals.T)
    predicted, _, correct = (int(count) for count in totals.sum(axis=0))
    values = {"macro_f1": float(f1[~np.isnan(f1)].mean()) if (~np.isnan(f1)).any() else 0.0}
    texts = resamples.texts
    return Figure(section, name, values, _intervals("macro_f1", means), texts, predicted, correct, texts)


def f1_difference(old: NDArray[np.int64], new: NDArray[np.int64], resamples: Resamples) -> Difference:
    """Micro F1 of two ``Counts`` over the same texts, and how far their difference would move with other texts.

    A paired bootstrap (Koehn, "Statistical Significance Tests for Machine Translation Evaluation", EMNLP 2004): each
    draw takes the same texts for both, so what is hard for both cancels out. The order of the texts changes nothing.
    """
    order = np.lexsort(np.concatenate((old, new), axis=1).T)
    drawn = [np.nan_to_num(_f1(resamples.sums(counts[order]))) for counts in (old, new)]
    before, after = (2 * int(c) / max(int(p + g), 1) for p, g, c in (counts.sum(axis=0) for counts in (old, new)))
    return Difference(before, after, interval(drawn[1] - drawn[0]) if old.any() or new.any() else None)


def _f1(sums: NDArray[np.float64]) -> NDArray[np.float64]:
    """F1 of float[3, n] sums; NaN where there is neither gold nor prediction."""
    predicted, gold, correct = sums
    both = predicted + gold
    f1: NDArray[np.float64] = np.divide(2 * correct, both, out=np.full(both.shape, np.nan), where=both > 0)
    return f1


def _intervals(metric: str, values: NDArray[np.float64]) -> dict[str, tuple[float, float]]:
    found = interval(values)
    return {} if found is None else {metric: found}


def _texts(counts: NDArray[np.int64]) -> int:
    return int(counts.any(axis=1).sum())
