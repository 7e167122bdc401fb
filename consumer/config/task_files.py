"""Task files: one YAML file a task, checked as strictly as the configuration."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from consumer.config.problems import ConfigError, KeyPath, Problem, dotted, kind_of, nearest
from consumer.config.shipped import shipped
from consumer.config.yaml import read_yaml
from consumer.events import TaskKind
from consumer.extraction.task import INLINE, SchemaTree, Task

if TYPE_CHECKING:
    from collections.abc import Iterable

_KEYS = ("name", "kind", "schema", "implicit_aspect", "threshold", "description", "examples")
_KINDS: tuple[TaskKind, ...] = get_args(TaskKind)
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")


@dataclass(frozen=True, slots=True)
class Example:
    """A text and the facts that the task should find in it: paths of ``(type, span)``, span None where it has none."""

    text: str
    paths: tuple[tuple[tuple[str, str | None], ...], ...]


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
            what = "is not a folder"
            problems.append(
                Problem("tasks_dirs", None, f"{folder} {what}", "name a folder with task files, or remove it")
            )
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
    """Read and check one task file. Raises ConfigError with all of its problems."""
    raw, lines = read_yaml(path)
    reader = _Reader(path, lines)
    file = reader.read(raw)
    if reader.problems or file is None:
        raise ConfigError(reader.problems)
    return file


class _Reader:
    """Collects the problems of one file, each with its line."""

    def __init__(self, path: Path, lines: dict[KeyPath, int]) -> None:
        self.path = path
        self.problems: list[Problem] = []
        self._lines = lines

    def read(self, raw: Any) -> TaskFile | None:
        if not isinstance(raw, dict):
            self._problem((), f"is {kind_of(raw)}, but must be a mapping", "start with name:, kind: and schema:")
            return None
        for key in raw.keys() - set(_KEYS):
            guess = nearest(str(key), _KEYS)
            fix = f"did you mean {guess}?" if guess else f"the keys of a task are {', '.join(_KEYS)}"
            self._problem((key,), "there is no such key", fix)
        task = Task(
            name=self._name(raw),
            kind=self._kind(raw),
            schema=self._schema(raw.get("schema"), ("schema",)),
            implicit_aspect=self._implicit_aspect(raw),
            threshold=self._threshold(raw),
            description=self._text(raw.get("description"), ("description",)) if raw.get("description") else "",
        )
        return TaskFile(self.path, task, self._examples(raw.get("examples") or []))

    def _problem(self, path: KeyPath, what: str, fix: str) -> None:
        lines = [self._lines[path[:end]] for end in range(len(path), 0, -1) if path[:end] in self._lines]
        origin = f"{self.path}:{lines[0]}" if lines else str(self.path)
        self.problems.append(Problem(dotted(path) or "task", origin, what, fix))

    def _text(self, value: Any, path: KeyPath) -> str:
        if isinstance(value, str) and value.strip():
            return value
        self._problem(path, f"is {kind_of(value)}, but must be text", "put it in quotes" if value else "add it")
        return ""

    def _name(self, raw: dict[str, Any]) -> str:
        name = self._text(raw.get("name"), ("name",))
        if name == INLINE:
            self._problem(("name",), f"{INLINE} is the name of schemas that come with events", "choose another name")
        elif name and not _NAME.fullmatch(name):
            fix = "use 1 to 64 letters, digits, underscores and hyphens: it becomes part of topic names"
            self._problem(("name",), f"{name!r} is not a task name", fix)
        return name

    def _kind(self, raw: dict[str, Any]) -> TaskKind:
        for kind in _KINDS:
            if raw.get("kind") == kind:
                return kind
        written = raw.get("kind")
        what = "is not set" if written is None else f"is {written!r}"
        guess = nearest(written, _KINDS) if isinstance(written, str) else None
        self._problem(("kind",), what, f"did you mean {guess}?" if guess else f"set it to one of {', '.join(_KINDS)}")
        return "extract"

    def _schema(self, raw: Any, path: KeyPath) -> SchemaTree:
        if not isinstance(raw, dict) or not raw:
            fix = "write type names as keys, each with its children or nothing behind the colon"
            self._problem(path, f"is {kind_of(raw) if raw else 'empty'}, but must be a mapping of type names", fix)
            return {}
        tree: dict[str, SchemaTree | None] = {}
        for name, children in raw.items():
            here = (*path, name)
            if name.strip() != name or not name:
                self._problem(here, "has a type name that is empty or has outer spaces", "remove the spaces")
            tree[name] = None if children in (None, {}) else self._schema(children, here)
        return tree

    def _implicit_aspect(self, raw: dict[str, Any]) -> str | None:
        if raw.get("implicit_aspect") is None:
            return None
        if raw.get("kind") in ("classify", "multi_classify"):
            self._problem(("implicit_aspect",), f"has no meaning for kind {raw['kind']}", "remove it")
        return self._text(raw["implicit_aspect"], ("implicit_aspect",)) or None

    def _threshold(self, raw: dict[str, Any]) -> float | None:
        value = raw.get("threshold")
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value <= 1:
            shown = value if isinstance(value, (int, float)) and not isinstance(value, bool) else kind_of(value)
            self._problem(("threshold",), f"is {shown}, but must be a score from 0 to 1", "change or remove it")
            return None
        return float(value)

    def _examples(self, raw: Any) -> tuple[Example, ...]:
        if not isinstance(raw, list):
            self._problem(("examples",), f"is {kind_of(raw)}, but must be a list", "start each example with a hyphen")
            return ()
        return tuple(self._example(entry, ("examples", index)) for index, entry in enumerate(raw))

    def _example(self, raw: Any, path: KeyPath) -> Example:
        if not isinstance(raw, dict) or raw.keys() != {"text", "extractions"}:
            self._problem(path, "is not an example", "give it the keys text and extractions, and no others")
            return Example("", ())
        text = self._text(raw["text"], (*path, "text"))
        try:
            paths = tuple(tuple((str(fact["type"]), fact.get("span")) for fact in one) for one in raw["extractions"])
        except (TypeError, KeyError, AttributeError):
            fix = "write a list of paths, each a list of {type: …, span: …}"
            self._problem((*path, "extractions"), "is not a list of paths", fix)
            paths = ()
        return Example(text, paths)
