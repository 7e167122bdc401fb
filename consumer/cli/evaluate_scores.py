"""Micro precision, recall and F1 of paths (specification section 13), and accuracy."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, get_args

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterable

    from consumer.cli.evaluate_data import NamedPath

Metric = Literal["strict", "span", "triplet", "trigger", "argument", "accuracy"]
METRICS: tuple[Metric, ...] = get_args(Metric)


@dataclass(slots=True)
class Score:
    """Sizes of the sets that were compared, over all texts. For accuracy each text counts once in all of them."""

    predicted: int = 0
    gold: int = 0
    correct: int = 0

    def add(self, metric: Metric, predicted: Iterable[NamedPath], gold: Iterable[NamedPath]) -> None:
        """Count one text."""
        ours, theirs = reduced(metric, predicted), reduced(metric, gold)
        if metric == "accuracy":
            self.predicted += 1
            self.gold += 1
            self.correct += ours == theirs
        else:
            self.predicted += len(ours)
            self.gold += len(theirs)
            self.correct += len(ours & theirs)

    @property
    def precision(self) -> float:
        """Share of the predicted that is correct; 0 without any."""
        return self.correct / self.predicted if self.predicted else 0.0

    @property
    def recall(self) -> float:
        """Share of the gold that was found; 0 without any."""
        return self.correct / self.gold if self.gold else 0.0

    @property
    def f1(self) -> float:
        """Harmonic mean of both."""
        total = self.predicted + self.gold
        return 2 * self.correct / total if total else 0.0


def reduced(metric: Metric, paths: Iterable[NamedPath]) -> set[Hashable]:
    """What of a text's paths a metric compares.

    strict: everything. span: without offsets. triplet: paths of two, the second type up to its bracket, without
    offsets. trigger: first elements. argument: the first type with the second element, without offsets. accuracy: the
    types alone, all of which must be right.
    """
    match metric:
        case "strict":
            return set(paths)
        case "span":
            return {tuple((fact.type, fact.span) for fact in path) for path in paths}
        case "triplet":
            return {
                (path[0].type, path[0].span, path[1].type.partition("(")[0], path[1].span)
                for path in paths
                if len(path) == 2
            }
        case "trigger":
            return {path[0] for path in paths}
        case "argument":
            return {(path[0].type, path[1].type, path[1].span) for path in paths if len(path) == 2}
        case "accuracy":
            return {tuple(fact.type for fact in path) for path in paths}


def report(metric: Metric, score: Score) -> dict[str, Any]:
    """The numbers of a metric, rounded to 4 decimals."""
    if metric == "accuracy":
        return {"metric": metric, "accuracy": round(score.precision, 4), "correct": score.correct}
    return {
        "metric": metric,
        "precision": round(score.precision, 4),
        "recall": round(score.recall, 4),
        "f1": round(score.f1, 4),
        "predicted": score.predicted,
        "gold": score.gold,
        "correct": score.correct,
    }
