"""Scores of classification: accuracy, micro and macro F1, each class, and which class is taken for which."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from consumer.evaluation.figures import counted, f1_figure, macro_figure, share_figure
from consumer.evaluation.paths import class_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from consumer.evaluation.figures import Figure
    from consumer.evaluation.intervals import Resamples
    from consumer.evaluation.paths import Case


MOST_CLASSES: Final = 512
"""Of a confusion matrix, 2 MB of counts, and of a baseline, which takes a second for each ten of them; a level of a
schema has at most as many. Data that name the choices of each text may have thousands."""


@dataclass(frozen=True, slots=True)
class Confusion:
    """How often texts of a class were given another one. Only where every text has exactly one class."""

    classes: tuple[str, ...]
    """Of the gold or predicted, the most frequent of the gold first."""
    counts: tuple[tuple[int, ...], ...]
    """[gold class][predicted class]; the last column counts texts for which nothing was predicted."""


@dataclass(frozen=True, slots=True)
class Labelled:
    """Classes of texts: what belongs to each, and what was predicted."""

    gold: tuple[frozenset[str], ...]
    predicted: tuple[frozenset[str], ...]
    single: bool
    """Whether each text has exactly one class."""

    @classmethod
    def of(cls, cases: Sequence[Case]) -> Labelled:
        """A path is one class, see ``class_of``."""
        return cls(
            tuple(frozenset(map(class_of, case.gold)) for case in cases),
            tuple(frozenset(map(class_of, case.predicted)) for case in cases),
            one_class(cases),
        )

    @property
    def classes(self) -> tuple[str, ...]:
        """All that occur, the most frequent of the gold first."""
        support = Counter(name for names in self.gold for name in names)
        return tuple(sorted(frozenset().union(*self.gold, *self.predicted), key=lambda name: (-support[name], name)))


def one_class(cases: Sequence[Case]) -> bool:
    """Whether each text has exactly one class."""
    return all(case.kind == "classify" and len(case.gold) == 1 for case in cases)


def classification_figures(labelled: Labelled, resamples: Resamples, section: str = "all") -> list[Figure]:
    """Accuracy (a text is right when it has exactly its classes), macro F1, micro F1 of several labels."""
    pairs = list(zip(labelled.predicted, labelled.gold, strict=True))
    exact = counted(({predicted}, {gold}) for predicted, gold in pairs)
    figures = [share_figure(section, "accuracy", "accuracy", exact, resamples)]
    if not labelled.single:
        micro = counted((set(predicted), set(gold)) for predicted, gold in pairs)
        figures.append(f1_figure(section, "micro F1", micro, resamples))
    return [*figures, macro_figure(section, "macro F1", [*_by_class(labelled).values()], resamples)]


def class_figures(labelled: Labelled, resamples: Resamples) -> list[Figure]:
    """Precision, recall, F1 and support of each class."""
    return [f1_figure("class", name, counts, resamples) for name, counts in _by_class(labelled).items()]


def confusion(labelled: Labelled) -> Confusion | None:
    """None where texts have more classes than one, and of more than MOST_CLASSES."""
    classes = labelled.classes
    if not labelled.single or len(classes) > MOST_CLASSES:
        return None
    place = {name: number for number, name in enumerate(classes)}
    counts = np.zeros((len(place), len(place) + 1), np.int64)
    for gold, predicted in zip(labelled.gold, labelled.predicted, strict=True):
        (name,) = gold
        counts[place[name], place[next(iter(predicted))] if predicted else -1] += 1
    return Confusion(classes, tuple(map(tuple, counts.tolist())))


def _by_class(labelled: Labelled) -> dict[str, NDArray[np.int64]]:
    counts = {name: np.zeros((len(labelled.gold), 3), np.int64) for name in labelled.classes}
    for number, (gold, predicted) in enumerate(zip(labelled.gold, labelled.predicted, strict=True)):
        for column, names in enumerate((predicted, gold, predicted & gold)):
            for name in names:
                counts[name][number, column] = 1
    return counts
