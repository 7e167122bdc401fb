"""Categories of pairs: where a schema predicts them, and how predicted paths are compared with gold that has them.

Annotators give a pair (aspect, opinion with polarity) a category beside it, not an element of its path. A schema can
ask for one in two places: below the polarity (属性词 -> 正向情感(情感词) -> 物流, 价格 ...; the engine wants a
span there, too, which no gold has, so it is not compared), or in place of the aspect's type (物流 -> 正向情感(情感词)).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping

    from consumer.evaluation.paths import Categorised, Example, NamedPath
    from consumer.extraction.task import SchemaTree

PAIR: Final = 2
"""Elements of a path that a category belongs to: aspect and opinion."""


def category_names(examples: Iterable[Example]) -> frozenset[str]:
    """All categories of the gold."""
    return frozenset(category for example in examples for _, category in example.categories or ())


def category_level(schema: SchemaTree, categories: Collection[str]) -> int | None:
    """The level of a schema, from 0, that has types with the names of ``categories``: 0, or one below the pair's.

    None where there is none: the schema predicts no categories.
    """
    levels = list(_levels(schema))
    return next((level for level, names in enumerate(levels) if level != 1 and not names.isdisjoint(categories)), None)


def split(
    predicted: Mapping[NamedPath, tuple[float, ...]], level: int, aspect: str | None
) -> tuple[dict[NamedPath, tuple[float, ...]], frozenset[Categorised]]:
    """Predicted paths as the gold has them, and the category of each.

    ``level`` as ``category_level`` has it; ``aspect`` is the gold's type of first elements, for level 0. Of equal paths
    the first one's scores count.
    """
    paths: dict[NamedPath, tuple[float, ...]] = {}
    categories = set()
    for path, scores in predicted.items():
        if level == 0:
            plain = (path[0]._replace(type=aspect or path[0].type), *path[1:])
            category: str | None = path[0].type
        else:
            plain, scores = path[:level], scores[:level]
            category = path[level].type if len(path) > level else None
        paths.setdefault(plain, scores)
        if category is not None:
            categories.add((plain, category))
    return paths, frozenset(categories)


def pair_words(path: NamedPath) -> str:
    """The words of a pair, aspect first, as a text of their own for a classifier; empty where there are none."""
    return "".join(fact.span or "" for fact in path[:PAIR])


def _levels(schema: SchemaTree) -> Iterator[frozenset[str]]:
    trees = [schema]
    while trees:
        yield frozenset().union(*trees)
        trees = [below for tree in trees for below in tree.values() if below]
