"""What is compared: paths of facts by name and place, and which of them count as the same."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal, NamedTuple, get_args

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Iterable, Mapping

    from consumer.events import TaskKind
    from consumer.extraction.task import Path, Task

Metric = Literal["strict", "span", "triplet", "trigger", "argument", "accuracy"]
METRICS: Final[tuple[Metric, ...]] = get_args(Metric)


class Named(NamedTuple):
    """One element of a path as results have it: no span for classification and for the implicit aspect."""

    type: str
    span: str | None
    start: int | None
    end: int | None


NamedPath = tuple[Named, ...]
Categorised = tuple[NamedPath, str]
"""A path and the category that it belongs to."""


@dataclass(frozen=True, slots=True)
class Example:
    """A text as a caller would send it, without markers, and the paths that belong to it."""

    text: str
    task: Task
    gold: frozenset[NamedPath]
    categories: frozenset[Categorised] | None = None
    """The category of each path that has one; None where the data name none for this text."""


@dataclass(frozen=True, slots=True)
class Case:
    """A text with its gold and what a model predicted for it: nothing where it could not be processed."""

    text: str
    kind: TaskKind
    gold: frozenset[NamedPath]
    predicted: Mapping[NamedPath, tuple[float, ...]]
    """Path -> the score of each of its elements, in 0 .. 1."""
    gold_categories: frozenset[Categorised] | None = None
    categories: frozenset[Categorised] | None = None
    """Predicted ones; None where nothing predicts any."""


COMPARED: Final[dict[Metric, Callable[[NamedPath], Hashable]]] = {
    "strict": lambda path: path,
    "span": lambda path: tuple((fact.type, fact.span) for fact in path),
    "triplet": lambda path: (path[0].type, path[0].span, path[1].type.partition("(")[0], path[1].span),
    "trigger": lambda path: path[0],
    "argument": lambda path: (path[0].type, path[1].type, path[1].span),
    "accuracy": lambda path: tuple(fact.type for fact in path),
}
"""What of a path a metric compares.

strict: everything. span: without offsets. triplet: the second type up to its bracket, without offsets. trigger: the
first element. argument: the first type with the second element, without offsets. accuracy: the types alone, and all
paths of a text must be right.
"""
PAIRS: Final = frozenset({"triplet", "argument"})
"""Metrics that count only paths of two elements."""


def reduced(metric: Metric, paths: Iterable[NamedPath]) -> set[Hashable]:
    """What ``metric`` compares of a text's paths, see ``COMPARED``; for accuracy all of it as one element."""
    compared = {COMPARED[metric](path) for path in paths if metric not in PAIRS or len(path) == 2}
    return {frozenset(compared)} if metric == "accuracy" else compared


def predictions(paths: Iterable[Path]) -> dict[NamedPath, tuple[float, ...]]:
    """What an extraction found, with the scores of each path's elements; of equal paths the first counts."""
    found: dict[NamedPath, tuple[float, ...]] = {}
    for path in paths:
        named = tuple(Named(fact.type, fact.span, fact.start, fact.end) for fact in path)
        found.setdefault(named, tuple(fact.score for fact in path))
    return found


def class_of(path: NamedPath) -> str:
    """The class that a classification path stands for: its types, from the top."""
    return "/".join(fact.type for fact in path)
