"""Task files: one YAML file a task, checked as strictly as the configuration."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from consumer.config.names import TASK_NAME
from consumer.config.problems import Check, ConfigError, KeyPath, Problem, dotted, kind_of, nearest
from consumer.config.shipped import shipped
from consumer.config.yaml import ANCHORS, read_yaml
from consumer.events import TaskKind
from consumer.extraction.task import INLINE, SchemaTree, Task

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

_KEYS = ("name", "kind", "schema", "implicit_aspect", "threshold", "description", "examples")
_ENDINGS = (".yaml", ".yml")
_NAMED = 5
"""Files of other kinds that a message names."""
_KINDS: tuple[TaskKind, ...] = get_args(TaskKind)


def load_tasks(extra_dirs: Iterable[str | Path] = (), replacing: Iterable[str | Path] = ()) -> dict[str, Task]:
    """All tasks by name: the shipped ones, then those of each folder, in the order of their files' names.

    Tasks in folders of ``replacing`` take the place of others with their name. Raises ConfigError with the file, the
    key and the fix of everything that is wrong; beside that a name may be used once only.
    """
    problems: list[Problem] = []
    found = _loaded((shipped("schemas/tasks"), *map(Path, extra_dirs)), problems)
    found |= _loaded(tuple(map(Path, replacing)), problems)
    if problems:
        raise ConfigError(problems)
    return found


def _loaded(folders: Iterable[Path], problems: list[Problem]) -> dict[str, Task]:
    """The tasks of folders by name; what is wrong goes into ``problems``."""
    found: dict[str, Task] = {}
    paths: dict[str, Path] = {}
    for folder in folders:
        files = _task_files(folder)
        if isinstance(files, str):
            problems.append(Problem("tasks_dirs", None, files, "name a folder with task files, or remove it"))
            continue
        for path in files:
            try:
                task = read_task_file(path)
            except ConfigError as error:
                problems += error.problems
                continue
            if task.name in found:
                what = f"{task.name} is already the task of {paths[task.name]}"
                problems.append(Problem("name", str(path), what, "give it another name"))
            else:
                found[task.name], paths[task.name] = task, path
    return found


def _task_files(folder: Path) -> list[Path] | str:
    """The task files in a folder by name, or what is wrong with it."""
    try:
        names = sorted(path.name for path in folder.iterdir())
    except NotADirectoryError:
        return f"{folder} is a file, not a folder"
    except OSError as error:
        return f"{folder} cannot be read: {error.strerror}"
    if found := [folder / name for name in names if name.endswith(_ENDINGS)]:
        return found
    others = [name for name in names if not name.startswith(".")]
    listed = f", only {', '.join(others[:_NAMED])}{' …' if len(others) > _NAMED else ''}" if others else ""
    return f"{folder} has no task file ({' or '.join(_ENDINGS)}; subfolders are not read){listed}"


def read_task_file(path: Path) -> Task:
    """Read and check one task file. Raises ConfigError with all of its problems, each with its line."""
    raw, lines = read_yaml(path)

    def problem(key: KeyPath, what: str, fix: str) -> Problem:
        numbers = [lines[key[:end]] for end in range(len(key), 0, -1) if key[:end] in lines]
        return Problem(dotted(key) or "task", f"{path}:{numbers[0]}" if numbers else str(path), what, fix)

    if problems := [problem(key, what, fix) for failed, key, what, fix in _checks(raw) if failed]:
        raise ConfigError(problems)
    return Task(
        name=raw["name"],
        kind=raw["kind"],
        schema=_tree(raw["schema"]),
        implicit_aspect=raw.get("implicit_aspect"),
        threshold=None if raw.get("threshold") is None else float(raw["threshold"]),
        description=raw.get("description") or "",
    )


def _checks(raw: Any) -> Iterator[Check]:
    if not isinstance(raw, dict):
        yield True, (), f"is {kind_of(raw)}, but must be a mapping", "start with name:, kind: and schema:"
        return
    for key in sorted(key for key in raw.keys() - set(_KEYS) if not key.startswith(ANCHORS)):
        guess = nearest(key, _KEYS)
        fix = f"did you mean {guess}?" if guess else f"the keys of a task are {', '.join(_KEYS)}"
        yield True, (key,), "there is no such key", fix
    name, kind, aspect, threshold = map(raw.get, ("name", "kind", "implicit_aspect", "threshold"))
    yield _is_text(name, ("name",))
    yield name == INLINE, ("name",), f"{INLINE} is the name of schemas that come with events", "choose another name"
    yield (
        isinstance(name, str) and name.strip() != "" and not TASK_NAME.fullmatch(name),
        ("name",),
        f"{name!r} is not a task name",
        "use 1 to 64 letters, digits, underscores and hyphens: it becomes part of topic names",
    )
    guess = nearest(kind, _KINDS) if isinstance(kind, str) else None
    fix = f"did you mean {guess}?" if guess else f"set it to one of {', '.join(_KINDS)}"
    yield kind not in _KINDS, ("kind",), "is not set" if kind is None else f"is {kind!r}", fix
    yield from _schema_checks(raw.get("schema"), ("schema",))
    if aspect is not None:
        yield (
            kind in ("classify", "multi_classify"),
            ("implicit_aspect",),
            f"has no meaning for kind {kind}",
            "remove it",
        )
        yield _is_text(aspect, ("implicit_aspect",))
    if raw.get("description"):
        yield _is_text(raw["description"], ("description",))
    number = isinstance(threshold, (int, float)) and not isinstance(threshold, bool)
    yield (
        threshold is not None and not (number and 0 <= threshold <= 1),
        ("threshold",),
        f"is {threshold if number else kind_of(threshold)}, but must be a score from 0 to 1",
        "change or remove it",
    )
    examples = raw.get("examples") or []
    yield (
        not isinstance(examples, list),
        ("examples",),
        f"is {kind_of(examples)}, but must be a list",
        "start each example with a hyphen",
    )
    for index, example in enumerate(examples if isinstance(examples, list) else ()):
        yield from _example_checks(example, ("examples", index))


def _is_text(value: Any, path: KeyPath) -> Check:
    fix = "put it in quotes" if value else "add it"
    return not isinstance(value, str) or not value.strip(), path, f"is {kind_of(value)}, but must be text", fix


def _schema_checks(raw: Any, path: KeyPath) -> Iterator[Check]:
    if not isinstance(raw, dict) or not raw:
        yield (
            True,
            path,
            f"is {kind_of(raw) if raw else 'empty'}, but must be a mapping of type names",
            "write type names as keys, each with its children or nothing behind the colon",
        )
        return
    for name, children in raw.items():
        yield (
            name.strip() != name or not name,
            (*path, name),
            "has a type name that is empty or has outer spaces",
            "remove the spaces",
        )
        if children not in (None, {}):
            yield from _schema_checks(children, (*path, name))


def _tree(schema: dict[str, Any]) -> SchemaTree:
    return {name: _tree(children) if children else None for name, children in schema.items()}


def _example_checks(raw: Any, path: KeyPath) -> Iterator[Check]:
    if not isinstance(raw, dict) or raw.keys() != {"text", "extractions"}:
        yield True, path, "is not an example", "give it the keys text and extractions, and no others"
        return
    yield _is_text(raw["text"], (*path, "text"))
    yield (
        not _are_paths(raw["extractions"]),
        (*path, "extractions"),
        "is not a list of paths",
        "write a list of paths, each a list of {type: …, span: …}",
    )


def _are_paths(raw: Any) -> bool:
    """Whether each path is a list of facts, and each fact a mapping with a type, and with a span where it has one."""
    lists = isinstance(raw, list) and all(isinstance(path, list) for path in raw)
    return lists and all(isinstance(fact, dict) and "type" in fact for path in raw for fact in path)
