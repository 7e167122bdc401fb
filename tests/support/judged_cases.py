"""Texts with gold and predictions, written short."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from consumer.evaluation.paths import Case, Named

if TYPE_CHECKING:
    from collections.abc import Iterable

    from consumer.evaluation.paths import NamedPath
    from consumer.events import TaskKind


def path(*facts: tuple[str, str | None, int | None]) -> NamedPath:
    """A path of (type, span, first character)."""
    return tuple(
        Named(kind, span, start, None if start is None else start + len(span or "")) for kind, span, start in facts
    )


def pair(aspect: str, at: int, polarity: str, opinion: str, opinion_at: int) -> NamedPath:
    """An aspect with an opinion on it; no aspect's words for the product as a whole."""
    return path(("属性词", aspect or None, at if aspect else None), (polarity, opinion, opinion_at))


def case(
    gold: Iterable[NamedPath],
    predicted: Iterable[NamedPath] | Mapping[NamedPath, tuple[float, ...]],
    text: str = "text",
    kind: TaskKind = "extract",
) -> Case:
    """A judged text; predictions without scores have 0.9 for each element."""
    scores = predicted if isinstance(predicted, Mapping) else {each: (0.9,) * len(each) for each in predicted}
    return Case(text, kind, frozenset(gold), dict(scores))


def classified(
    gold: Iterable[str], predicted: Mapping[str, float], text: str = "text", kind: TaskKind = "classify"
) -> Case:
    """A judged text of classification: classes, and predicted ones with scores."""
    found = {path((name, None, None)): (score,) for name, score in predicted.items()}
    return case([path((name, None, None)) for name in gold], found, text, kind)
