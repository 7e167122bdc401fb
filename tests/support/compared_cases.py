"""Texts as two sides answered them, written short."""

from __future__ import annotations

from typing import TYPE_CHECKING

from judged_cases import path

from consumer.evaluation.agreement import Compared

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from consumer.evaluation.paths import NamedPath
    from consumer.events import TaskKind


def extracted(
    old: Mapping[NamedPath, float] | None,
    new: Mapping[NamedPath, float] | None,
    *,
    number: int = 1,
    task: str = "features",
    kind: TaskKind = "extract",
    gold: Iterable[NamedPath] | None = None,
) -> Compared:
    """Paths with the score of their elements; None for a side that could not process the text."""
    sides = [
        None if side is None else {each: (score,) * len(each) for each, score in side.items()} for side in (old, new)
    ]
    return Compared(number, f"text {number}", task, kind, sides[0], sides[1], None if gold is None else frozenset(gold))


def voted(old: Mapping[str, float], new: Mapping[str, float], *, number: int = 1, gold: str | None = None) -> Compared:
    """Classes with scores, of task ``sentiment``."""
    mine, theirs = ({path((name, None, None)): score for name, score in side.items()} for side in (old, new))
    known = None if gold is None else [path((gold, None, None))]
    return extracted(mine, theirs, number=number, task="sentiment", kind="classify", gold=known)
