"""The texts that a model does worst on, with what is missing and what is invented."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from consumer.evaluation.paths import Case, NamedPath


@dataclass(frozen=True, slots=True)
class Mistakes:
    """What is wrong with one text. Holds review text: for whoever asked for it, never for a log."""

    number: int
    """Of the text among all, from 1."""
    text: str
    missing: tuple[NamedPath, ...]
    """In the gold and not predicted, in order of place."""
    invented: tuple[NamedPath, ...]
    """Predicted and not in the gold, in the model's order."""
    scores: tuple[float, ...]
    """Of the last element of each invented path."""


def worst(cases: Sequence[Case], most: int) -> list[Mistakes]:
    """At most ``most`` texts with mistakes (strict), worst first, equal ones in the order of the file.

    Of extraction those with most missing and invented paths are the worst; of classification those that the model was
    most sure of, by the score of what it invented.
    """
    found = [_mistakes(number, case) for number, case in enumerate(cases, 1)]
    wrong = [(case, each) for case, each in zip(cases, found, strict=True) if each.missing or each.invented]
    wrong.sort(key=lambda pair: _badness(*pair), reverse=True)  # stable, also in reverse
    return [each for _, each in wrong[:most]]


def _badness(case: Case, mistakes: Mistakes) -> float:
    if case.kind == "extract":
        return len(mistakes.missing) + len(mistakes.invented)
    return max(mistakes.scores, default=0.0)


def _mistakes(number: int, case: Case) -> Mistakes:
    invented = {path: scores[-1] for path, scores in case.predicted.items() if path not in case.gold}
    missing = sorted((path for path in case.gold if path not in case.predicted), key=_place)
    return Mistakes(number, case.text, tuple(missing), tuple(invented), tuple(invented.values()))


def _place(path: NamedPath) -> list[tuple[int, int, str]]:
    """Order of paths: by offsets of their last element first, implicit aspects in front."""
    return [(fact.start or 0, fact.end or 0, fact.type) for fact in reversed(path)]
