"""Task files: one YAML file a task, checked as strictly as the configuration."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from consumer.config.names import TASK_NAME
from consumer.config.problems import Check, ConfigError, KeyPath, Problem, dotted, kind_of, nearest
from consumer.config.shipped import shipped
from consumer.config.yaml import read_yaml
from consumer.events import TaskKind
from consumer.extraction.task import INLINE, SchemaTree, Task

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

_KEYS = ("name", "kind", "schema", "implicit_aspect", "threshold", "description", "examples")
_KINDS: tuple[TaskKind, ...] = get_args(TaskKind)
Paths = tuple[tuple[tuple[str, str | None], ...], ...]
"""Facts as paths of ``(type, span)``; the span is None where a fact has none."""


@dataclass(frozen=True, slots=True)
class Example:
    """A text and the facts that the task should find in it."""

    text: str
    paths: Paths


@dataclass(frozen=True, slots=True)
class TaskFile:
    """A task as its file describes it."""

    path: Path
    task: Task
    examples: tuple[Example, ...]


def load_tasks(extra_dirs: Iterable[str | Path] = ()) -> dict[str, Task]:
    """All tasks by name: the shipped ones, then those of each folder.

    Raises ConfigError with the file, the key and the fix of everything that is wrong; a name may be used once only.
    """
    return {file.task.name: file.task for file in load_task_files(extra_dirs)}


def load_task_files(extra_dirs: Iterable[str | Path] = ()) -> tuple[TaskFile, ...]:
    """As ``load_tasks``, with the examples, in the order of folders and file names."""
    problems: list[Problem] = []
    found: dict[str, TaskFile] = {}
    for folder in (shipped("schemas/tasks"), *map(Path, extra_dirs)):
        if not folder.is_dir():
            fix = "name a folder with task files, or remove it"
            problems.append(Problem("tasks_dirs", None, f"{folder} is not a folder", fix))
            continue
        for path in sorted(folder.glob("*.y*ml")):
            try:
                file = read_task_file(path)
            except ConfigError as error:
                problems += error.problems
                continue
            if file.task.name in found:
                what = f"{file.task.name} is already the task of {found[file.task.name].path}"
                problems.append(Problem("name", str(path), what, "give it another name"))
            else:
                found[file.task.name] = file
    if problems:
        raise ConfigError(problems)
    return tuple(found.values())


def read_task_file(path: Path) -> TaskFile:
    """Read and check one task file. Raises ConfigError with all of its problems, each with its line."""
    raw, lines = read_yaml(path)

    def problem(key: KeyPath, what: str, fix: str) -> Problem:
        numbers = [lines[key[:end]] for end in range(len(key), 0, -1) if key[:end] in lines]
        return Problem(dotted(key) or "task", f"{path}:{numbers[0]}" if numbers else str(path), what, fix)

    if problems := [problem(key, what, fix) for failed, key, what, fix in _checks(raw) if failed]:
        raise ConfigError(problems)
    task = Task(
        name=raw["name"],
        kind=raw["kind"],
        schema=_tree(raw["schema"]),
        implicit_aspect=raw.get("implicit_aspect"),
        threshold=None if raw.get("threshold") is None else float(raw["threshold"]),
        description=raw.get("description") or "",
    )
    examples = raw.get("examples") or ()
    return TaskFile(path, task, tuple(Example(one["text"], _paths(one["extractions"]) or ()) for one in examples))


def _checks(raw: Any) -> Iterator[Check]:
    if not isinstance(raw, dict):
        yield True, (), f"is {kind_of(raw)}, but must be a mapping", "start with name:, kind: and schema:"
        return
    for key in raw.keys() - set(_KEYS):
        guess = nearest(key, _KEYS)
        fix = f"did you mean {guess}?" if guess else f"the keys of a task are {', '.join(_KEYS)}"
        yield True, (key,), "there is no such key", fix
    name, kind, aspect, threshold = map(raw.get, ("name", "kind", "implicit_aspect", "threshold"))
    yield _is_text(name, ("name",))
    yield name == INLINE, ("name",), f"{INLINE} is the name of schemas that come with events", "choose another name"
    fix = "use 1 to 64 letters, digits, underscores and hyphens: it becomes part of topic names"
    odd = isinstance(name, str) and name.strip() and not TASK_NAME.fullmatch(name)
    yield bool(odd), ("name",), f"{name!r} is not a task name", fix
    guess = nearest(kind, _KINDS) if isinstance(kind, str) else None
    fix = f"did you mean {guess}?" if guess else f"set it to one of {', '.join(_KINDS)}"
    yield kind not in _KINDS, ("kind",), "is not set" if kind is None else f"is {kind!r}", fix
    yield from _schema_checks(raw.get("schema"), ("schema",))
    if aspect is not None:
        classifies = kind in ("classify", "multi_classify")
        yield classifies, ("implicit_aspect",), f"has no meaning for kind {kind}", "remove it"
        yield _is_text(aspect, ("implicit_aspect",))
    if raw.get("description"):
        yield _is_text(raw["description"], ("description",))
    number = isinstance(threshold, (int, float)) and not isinstance(threshold, bool)
    what = f"is {threshold if number else kind_of(threshold)}, but must be a score from 0 to 1"
    yield threshold is not None and not (number and 0 <= threshold <= 1), ("threshold",), what, "change or remove it"
    examples = raw.get("examples") or []
    what = f"is {kind_of(examples)}, but must be a list"
    yield not isinstance(examples, list), ("examples",), what, "start each example with a hyphen"
    for index, example in enumerate(examples if isinstance(examples, list) else ()):
        yield from _example_checks(example, ("examples", index))


def _is_text(value: Any, path: KeyPath) -> Check:
    what = f"is {kind_of(value)}, but must be text"
    return not isinstance(value, str) or not value.strip(), path, what, "put it in quotes" if value else "add it"


def _schema_checks(raw: Any, path: KeyPath) -> Iterator[Check]:
    if not isinstance(raw, dict) or not raw:
        fix = "write type names as keys, each with its children or nothing behind the colon"
        yield True, path, f"is {kind_of(raw) if raw else 'empty'}, but must be a mapping of type names", fix
        return
    for name, children in raw.items():
        what = "has a type name that is empty or has outer spaces"
        yield name.strip() != name or not name, (*path, name), what, "remove the spaces"
        if children not in (None, {}):
            yield from _schema_checks(children, (*path, name))


def _tree(schema: dict[str, Any]) -> SchemaTree:
    return {name: _tree(children) if children else None for name, children in schema.items()}


def _example_checks(raw: Any, path: KeyPath) -> Iterator[Check]:
    if not isinstance(raw, dict) or raw.keys() != {"text", "extractions"}:
        yield True, path, "is not an example", "give it the keys text and extractions, and no others"
        return
    yield _is_text(raw["text"], (*path, "text"))
    fix = "write a list of paths, each a list of {type: …, span: …}"
    yield _paths(raw["extractions"]) is None, (*path, "extractions"), "is not a list of paths", fix


def _paths(raw: Any) -> Paths | None:
    try:
        return tuple(tuple((str(fact["type"]), fact.get("span")) for fact in path) for path in raw)
    except (TypeError, KeyError, AttributeError):
        return None
