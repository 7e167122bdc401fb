"""How far two models, or two schemas, find the same in the same texts, without gold.

Agreement is the F measure of the paths of one side against those of the other, 2 both / (old + new): the same
whichever side is taken for the gold (Hripcsak and Rothschild, "Agreement, the F-Measure, and Reliability in Information
Retrieval", JAMIA 12(3), 2005). It is 1 where neither side finds anything. Where each text has exactly one class it is
the share of texts with the same class.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Literal

import numpy as np

from consumer.evaluation.figures import COUNTS, f1_figure
from consumer.evaluation.intervals import Resamples
from consumer.evaluation.paths import NamedPath, class_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from numpy.typing import NDArray

    from consumer.events import TaskKind

Side = Literal["old", "new"]
Found = Mapping[NamedPath, tuple[float, ...]]
"""Path -> the score of each of its elements, in 0 .. 1."""


@dataclass(frozen=True, slots=True)
class Compared:
    """One task on one text, asked on both sides. None stands for a text that a side could not process."""

    number: int
    """Of the text's line, from 1."""
    text: str
    task: str
    kind: TaskKind
    old: Found | None
    new: Found | None
    gold: frozenset[NamedPath] | None = None

    @property
    def only_old(self) -> Found:
        """What the new side did not find."""
        return {path: scores for path, scores in (self.old or {}).items() if path not in (self.new or {})}

    @property
    def only_new(self) -> Found:
        """What the old side did not find."""
        return {path: scores for path, scores in (self.new or {}).items() if path not in (self.old or {})}

    @property
    def same(self) -> bool:
        """Whether both sides processed the text and found the same."""
        return self.old is not None and self.new is not None and self.old.keys() == self.new.keys()


@dataclass(frozen=True, slots=True)
class Agreement:
    """Agreement on the paths of one task or, with ``type``, on its paths of these types.

    ``texts`` counts those that one side at least could process and, with ``type``, found such a path in; ``same``
    those of them where both found the same. ``old``, ``new`` and ``both`` count paths.
    """

    task: str
    type: str | None
    """The types from the top, as ``class_of`` joins them."""
    texts: int
    same: int
    old: int
    new: int
    both: int
    interval: tuple[float, float] | None
    """Of ``value``, 95 %: a bootstrap over texts. None where neither side found anything."""

    @property
    def value(self) -> float:
        """The agreement, in 0 .. 1."""
        return 2 * self.both / (self.old + self.new) if self.old + self.new else 1.0


@dataclass(frozen=True, slots=True)
class Move:
    """Texts that one side gives other classes than the other."""

    task: str
    old: tuple[str, ...]
    new: tuple[str, ...]
    texts: int


@dataclass(frozen=True, slots=True)
class Scores:
    """Mean scores of paths, each that of its last element, of one task. None where there are no such paths.

    ``both_old`` and ``both_new`` are the two sides' of what both found, ``shift`` the mean distance between them.
    """

    task: str
    both: int
    both_old: float | None
    both_new: float | None
    shift: float | None
    only_old: float | None
    only_new: float | None


def agreements(compared: Iterable[Compared]) -> list[Agreement]:
    """For each task, by name, its agreement and then that of its types, those with most paths first.

    Texts that neither side could process are left out.
    """
    resamples = cache(Resamples)
    found = []
    for task, cases in by_task(compared).items():
        there = [case for case in cases if case.old is not None or case.new is not None]
        draws = resamples(len(there))
        whole = np.array([_counts(case.old or {}, case.new or {}) for case in there], np.int64).reshape(-1, COUNTS)
        found.append(_agreement(task, None, whole, len(there), sum(case.same for case in there), draws))
        rows: dict[str, dict[int, NDArray[np.int64]]] = {}
        for number, case in enumerate(there):
            old, new = ({*map(_typed, side or ())} for side in (case.old, case.new))
            for name in {name for name, _ in old | new}:
                mine, theirs = ({path for kind, path in side if kind == name} for side in (old, new))
                rows.setdefault(name, {})[number] = np.array(_counts(mine, theirs), np.int64)
        types = []
        for name, by_number in rows.items():
            counts = np.zeros((len(there), COUNTS), np.int64)
            counts[list(by_number)] = list(by_number.values())
            same = sum(int(row[0] == row[1] == row[2]) for row in by_number.values())
            types.append(_agreement(task, name, counts, len(by_number), same, draws))
        found += sorted(types, key=lambda each: (-each.old - each.new, each.type or ""))
    return found


def moves(compared: Iterable[Compared]) -> list[Move]:
    """Of tasks that classify: which classes became which, the most frequent first. Of texts that both processed."""
    counts = Counter(
        (case.task, _classes(case.old), _classes(case.new))
        for case in compared
        if case.kind != "extract" and case.old is not None and case.new is not None and not case.same
    )
    return [Move(*key, texts) for key, texts in sorted(counts.items(), key=lambda item: (-item[1], item[0]))]


def scores(compared: Iterable[Compared]) -> list[Scores]:
    """For each task, by name."""
    found = []
    for task, cases in by_task(compared).items():
        pairs = sorted(
            (scores[-1], case.new[path][-1])
            for case in cases
            if case.old is not None and case.new is not None
            for path, scores in case.old.items()
            if path in case.new
        )
        old, new = ([pair[side] for pair in pairs] for side in (0, 1))
        shift = _mean([abs(after - before) for before, after in pairs])
        only_old = _mean(sorted(each[-1] for case in cases for each in case.only_old.values()))
        only_new = _mean(sorted(each[-1] for case in cases for each in case.only_new.values()))
        found.append(Scores(task, len(pairs), _mean(old), _mean(sorted(new)), shift, only_old, only_new))
    return found


def furthest(compared: Iterable[Compared], most: int) -> list[Compared]:
    """At most ``most`` texts that both sides processed and found other things in, the worst first.

    The worst are those with the largest sum of the scores of what one side alone found: where both were sure, and of
    most. Equal ones are in the order of the file.
    """
    apart = [case for case in compared if case.old is not None and case.new is not None and not case.same]
    apart.sort(key=lambda case: -sum(each[-1] for side in (case.only_old, case.only_new) for each in side.values()))
    return apart[:most]


def by_task(compared: Iterable[Compared]) -> dict[str, list[Compared]]:
    """Tasks by name, each with its texts in their order."""
    found: dict[str, list[Compared]] = {}
    for case in compared:
        found.setdefault(case.task, []).append(case)
    return dict(sorted(found.items()))


def _agreement(
    task: str, name: str | None, counts: NDArray[np.int64], texts: int, same: int, resamples: Resamples
) -> Agreement:
    """``counts`` as ``_counts``, int[texts, 3].

    Sorted by what the figure is made of, so that its interval depends neither on the texts' order nor on which side is
    old.
    """
    old, new, both = (int(count) for count in counts.sum(axis=0))
    order = np.lexsort((counts[:, 0] + counts[:, 1], counts[:, 2]))
    figure = f1_figure("agreement", task, counts[order], resamples)
    return Agreement(task, name, texts, same, old, new, both, figure.interval)


def _counts(old: Iterable[NamedPath], new: Iterable[NamedPath]) -> tuple[int, int, int]:
    """How many paths the old side found, the new one, and both."""
    mine, theirs = set(old), set(new)
    return len(mine), len(theirs), len(mine & theirs)


def _typed(path: NamedPath) -> tuple[str, NamedPath]:
    return class_of(path), path


def _classes(found: Iterable[NamedPath]) -> tuple[str, ...]:
    return tuple(sorted(map(class_of, found)))


def _mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None
