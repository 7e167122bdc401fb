"""The same gold under other type names: what a model makes of names that it never saw."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from consumer.evaluation.paths import Example, NamedPath
    from consumer.extraction.task import SchemaTree, Task

MOST_NAMES: Final = 50
"""Types that an error lists; data may have a schema a line."""


def renamed(examples: Iterable[Example], names: Mapping[str, str]) -> list[Example]:
    """Schemas and gold with ``names`` (old -> new) in place of their type names, all at once.

    Raises ValueError where a name is in no schema, or two types under one parent would have the same name.
    """
    tasks: dict[int, Task] = {}
    used: set[str] = set()
    found = []
    for example in examples:
        task = tasks.get(id(example.task))
        if task is None:
            task = tasks[id(example.task)] = renamed_task(example.task, names)
            used.update(_names(example.task.schema))
        categories = example.categories
        if categories is not None:
            categories = frozenset((_path(path, names), names.get(category, category)) for path, category in categories)
            used.update(category for _, category in example.categories or ())
        gold = frozenset(_path(path, names) for path in example.gold)
        found.append(replace(example, task=task, gold=gold, categories=categories))
    for name in names:
        if name not in used:
            others = ", ".join(sorted(used)[:MOST_NAMES]) + (" …" if len(used) > MOST_NAMES else "")
            raise ValueError(f"no schema has a type {name!r}; the types are {others}")
    return found


def renamed_task(task: Task, names: Mapping[str, str]) -> Task:
    """A task with ``names`` in place of its own, as ``renamed`` has them; those that it lacks do nothing."""
    legal = task.legal_paths
    if legal is not None:
        legal = frozenset(tuple(names.get(name, name) for name in path) for path in legal)
    return replace(task, schema=_tree(task.schema, names), legal_paths=legal)


def _tree(tree: SchemaTree, names: Mapping[str, str]) -> SchemaTree:
    found: dict[str, SchemaTree | None] = {}
    for name, below in tree.items():
        new = names.get(name, name)
        if new in found:
            raise ValueError(f"two types under one parent would be called {new!r}; give each a name of its own")
        found[new] = _tree(below, names) if below else None
    return found


def _names(tree: SchemaTree) -> Iterator[str]:
    for name, below in tree.items():
        yield name
        yield from _names(below or {})


def _path(path: NamedPath, names: Mapping[str, str]) -> NamedPath:
    return tuple(fact._replace(type=names.get(fact.type, fact.type)) for fact in path)
