"""Scores of extraction: all paths, levels, types, reviews with several aspects, and quadruples with categories."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Final

import numpy as np

from consumer.evaluation.figures import counted, f1_figure, share_figure
from consumer.evaluation.paths import reduced

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence

    from numpy.typing import NDArray

    from consumer.evaluation.figures import Figure
    from consumer.evaluation.intervals import Resamples
    from consumer.evaluation.paths import Case, Categorised, Metric, NamedPath

MODES: Final[tuple[Metric, ...]] = ("strict", "span")
"""With offsets, and without: what every figure is measured by."""
SEVERAL: Final = "two or more aspects"
FIRST: Final = "first level alone"
LAST: Final = "last level alone"


def extraction_figures(cases: Sequence[Case], resamples: Resamples) -> list[Figure]:
    """All figures of extraction, each with and without offsets.

    ``all``: paths, those of the texts with two or more explicit aspects, first levels alone (aspects without opinions),
    last levels alone (opinions with their polarity, without aspects). ``type``: paths by the type of their last
    element, which is the polarity where an aspect is the first. ``first_type``: first elements by type, where there are
    several. Aspects and levels are told apart where paths have two elements or more.
    """
    wholes = [_parts(cases, mode, _whole) for mode in MODES]
    figures = [_figure("all", "paths", wholes, resamples)]
    if any(len(path) > 1 for case in cases for path in case.gold):
        several = np.array([len(explicit_aspects(case.gold)) > 1 for case in cases])
        if several.any():
            figures.append(_figure("all", SEVERAL, [counts * several[:, None] for counts in wholes], resamples))
        for name, part in ((FIRST, _first), (LAST, _last)):
            figures.append(_figure("all", name, [_parts(cases, mode, part) for mode in MODES], resamples))
    figures += _by_type("type", cases, _whole, resamples)
    if len({path[0].type for case in cases for path in case.gold if len(path) > 1}) > 1:
        figures += _by_type("first_type", cases, _first, resamples)
    return figures


def explicit_aspects(gold: Iterable[NamedPath]) -> set[tuple[int | None, int | None]]:
    """Places of the first elements of a text's gold pairs, without the implicit aspect, which has no span."""
    return {(path[0].start, path[0].end) for path in gold if len(path) > 1 and path[0].span is not None}


def quadruple_figures(cases: Sequence[Case], resamples: Resamples) -> list[Figure]:
    """Pairs with polarity and category, over the texts whose gold has categories; none where nothing predicts any.

    ``category of right pairs`` is the share of the pairs found, strictly, whose category is right as well.
    """
    if all(case.categories is None for case in cases):
        return []
    both = [
        counted(
            (_quadruples(case, mode, case.categories), _quadruples(case, mode, case.gold_categories)) for case in cases
        )
        for mode in MODES
    ]
    figures = [_figure("quadruples", "quadruples", both, resamples)]
    found = [case.gold_categories or frozenset() for case in cases]
    judged = [
        (set(case.categories or ()), {pair for pair in gold if len(pair[0]) > 1 and pair[0] in case.predicted})
        for case, gold in zip(cases, found, strict=True)
    ]
    figures.append(share_figure("quadruples", "category of right pairs", "accuracy", counted(judged), resamples))
    return figures


def _quadruples(case: Case, mode: Metric, categorised: frozenset[Categorised] | None) -> set[Hashable]:
    """What a quadruple compares: its path as ``mode`` does, and its category. Texts without gold categories are out."""
    if case.gold_categories is None:
        return set()
    return {(*reduced(mode, [path]), category) for path, category in categorised or () if len(path) > 1}


def _whole(paths: Iterable[NamedPath]) -> Iterator[NamedPath]:
    return iter(paths)


def _first(paths: Iterable[NamedPath]) -> Iterator[NamedPath]:
    return (path[:1] for path in paths)


def _last(paths: Iterable[NamedPath]) -> Iterator[NamedPath]:
    return (path[-1:] for path in paths if len(path) > 1)


def _figure(section: str, name: str, counts: Sequence[NDArray[np.int64]], resamples: Resamples) -> Figure:
    """``counts`` of each of MODES."""
    strict, span = counts
    return f1_figure(section, name, strict, resamples, span)


def _parts(
    cases: Iterable[Case], mode: Metric, part: Callable[[Iterable[NamedPath]], Iterator[NamedPath]]
) -> NDArray[np.int64]:
    return counted((reduced(mode, part(case.predicted)), reduced(mode, part(case.gold))) for case in cases)


def _by_type(
    section: str,
    cases: Sequence[Case],
    part: Callable[[Iterable[NamedPath]], Iterator[NamedPath]],
    resamples: Resamples,
) -> list[Figure]:
    """A figure for each type of the parts' last elements, the most frequent of the gold first."""
    support = Counter(path[-1].type for case in cases for path in set(part(case.gold)))
    rows: dict[str, list[dict[int, list[int]]]] = {}
    for number, case in enumerate(cases):
        by_type: dict[str, tuple[list[NamedPath], list[NamedPath]]] = {}
        for side, paths in enumerate((case.predicted, case.gold)):
            for path in part(paths):
                by_type.setdefault(path[-1].type, ([], []))[side].append(path)
        for kind, (predicted, gold) in by_type.items():
            for place, mode in enumerate(MODES):
                ours, theirs = reduced(mode, predicted), reduced(mode, gold)
                sizes = [len(ours), len(theirs), len(ours & theirs)]
                rows.setdefault(kind, [{}, {}])[place][number] = sizes
    figures = []
    for kind in sorted(rows, key=lambda kind: (-support[kind], kind)):
        both = []
        for found in rows[kind]:
            counts = np.zeros((len(cases), 3), np.int64)
            counts[list(found)] = list(found.values())
            both.append(counts)
        figures.append(_figure(section, kind, both, resamples))
    return figures
