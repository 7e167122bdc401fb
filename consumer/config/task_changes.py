"""What a changed configuration does to results: which keep their ids, which get others, and why. Pure.

``rexstream check --against`` prints it. A result's id is a hash of the event's id, the task's name and the task's
fingerprint, so two configurations say all there is to know.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Literal, NamedTuple, TypeAlias

from consumer.config.names import output_topic, runnable
from consumer.extraction.task import INLINE, shown

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from consumer.config.route import RouteConfig
    from consumer.config.tree import Config
    from consumer.extraction.task import SchemaTree, Task

What: TypeAlias = Literal["unchanged", "re-identified", "moved", "new", "gone", "renamed"]

_SHOWN: Final = 10
"""Most differences of a task that are named."""

TypePath: TypeAlias = "tuple[str, ...]"


class Change(NamedTuple):
    """What becomes of the results of one task on one input."""

    input: str
    task: str
    what: What
    detail: str

    @property
    def concerns_subscribers(self) -> bool:
        """Whether those who have results of before find others, elsewhere, or none."""
        return self.what not in ("unchanged", "new")


def changes(old: Config, old_tasks: Mapping[str, Task], new: Config, new_tasks: Mapping[str, Task]) -> list[Change]:
    """One for each task that an input's events can run before or after, in the order of the new routes."""
    before = {route.input: route for route in old.routes}
    after = {route.input: route for route in new.routes}
    found: list[Change] = []
    for name in dict.fromkeys((*after, *before)):
        olds = _topics(before.get(name), old_tasks)
        news = _topics(after.get(name), new_tasks)
        found += _of_input(name, olds, old_tasks, news, new_tasks)
    return found


def _topics(route: RouteConfig | None, tasks: Mapping[str, Task]) -> dict[str, str]:
    """The tasks that events of a route can run -> the topic of their results."""
    return {} if route is None else {name: output_topic(route.output, name) for name in runnable(route, tasks)}


def _of_input(
    name: str,
    olds: Mapping[str, str],
    old_tasks: Mapping[str, Task],
    news: Mapping[str, str],
    new_tasks: Mapping[str, Task],
) -> Iterator[Change]:
    """``olds`` and ``news``: task to topic of results."""
    gone = {task: old_tasks[task].fingerprint for task in olds if task not in news and task != INLINE}
    renamed_from: set[str] = set()
    for task, topic in news.items():
        if task in olds:
            yield _kept(name, task, olds[task], topic, old_tasks, new_tasks)
            continue
        twin = None
        if task != INLINE:
            same = (old for old, mark in gone.items() if mark == new_tasks[task].fingerprint)
            twin = next((old for old in same if old not in renamed_from), None)
        if twin is None:
            yield Change(name, task, "new", f"{_marked(task, new_tasks)}; results appear on {topic}")
        else:
            renamed_from.add(twin)
            what = f"the definition of {twin} under another name, and the name is part of result_id"
            yield Change(name, task, "renamed", f"{what}: all results on {topic} get other ids")
    for task, topic in olds.items():
        if task not in news and task not in renamed_from:
            what = f"its results on {topic} stay, and nothing updates them"
            yield Change(name, task, "gone", f"{_marked(task, old_tasks)}; {what}")


def _kept(
    name: str, task: str, before: str, after: str, old_tasks: Mapping[str, Task], new_tasks: Mapping[str, Task]
) -> Change:
    """The change of a task that is there before and after; ``before`` and ``after`` are the topics."""
    topic = f"results go to {after}, not to {before}, where those of before stay"
    if task == INLINE:  # each event brings its own definition
        return Change(name, task, "unchanged", "") if before == after else Change(name, task, "moved", topic)
    old, new = old_tasks[task], new_tasks[task]
    if old.fingerprint == new.fingerprint:
        if before == after:
            return Change(name, task, "unchanged", _marked(task, new_tasks))
        return Change(name, task, "moved", f"{_marked(task, new_tasks)}, so equal ids: {topic}")
    marks = f"fingerprint {old.fingerprint} becomes {new.fingerprint}"
    where = f"all results on {after} get other ids" if before == after else topic
    return Change(name, task, "re-identified", f"{marks}: {'; '.join(differences(old, new))}; {where}")


def _marked(task: str, tasks: Mapping[str, Task]) -> str:
    return "each schema has its own" if task == INLINE else f"fingerprint {tasks[task].fingerprint}"


def differences(old: Task, new: Task) -> list[str]:
    """What differs between two definitions, in words: at most as many types as a line can hold."""
    found = [
        f"{key} {before!r} becomes {after!r}"
        for key, before, after in (
            ("kind", old.kind, new.kind),
            ("implicit_aspect", old.implicit_aspect, new.implicit_aspect),
            ("threshold", old.threshold, new.threshold),
        )
        if before != after
    ]
    found += _schema_differences(old.schema, new.schema)
    return [*found[:_SHOWN], *([f"and {len(found) - _SHOWN} more"] if len(found) > _SHOWN else [])]


def _schema_differences(old: SchemaTree, new: SchemaTree) -> Iterator[str]:
    """Types that moved, look renamed, were removed and were added; what is below one of them is not listed again."""
    before, after = _types(old), _types(new)
    removed = [path for path in before if path not in after and (path[:-1] in after or len(path) == 1)]
    added = [path for path in after if path not in before]
    taken: set[TypePath] = set()
    for path in removed:
        moved = [to for to in added if to[-1] == path[-1] and after[to] == before[path] and to not in taken]
        beside = [to for to in added if to[:-1] == path[:-1]]
        alone = len(beside) == 1 and [each[:-1] for each in removed].count(path[:-1]) == 1
        if moved:
            taken.add(moved[0])
            yield f"type {_named(path)} moved to {_named(moved[0])}"
        elif alone and after[beside[0]] == before[path]:
            taken.add(beside[0])
            yield f"type {_named(path)} looks renamed to {_named(beside[0])}"
        else:
            yield f"type {_named(path)} removed"
    for path in added:
        if path not in taken and path[:-1] not in added:
            yield f"type {_named(path)} added"


def _types(tree: SchemaTree) -> dict[TypePath, SchemaTree]:
    """Every type by its path from the root -> what is below it."""
    found: dict[TypePath, SchemaTree] = {}
    stack: list[tuple[TypePath, SchemaTree]] = [((), tree)]
    while stack:
        path, children = stack.pop()
        for name, below in children.items():
            found[(*path, name)] = below or {}
            if below:
                stack.append(((*path, name), below))
    return dict(sorted(found.items(), key=lambda each: (len(each[0]), each[0])))


def _named(path: TypePath) -> str:
    return " > ".join(map(shown, path))
