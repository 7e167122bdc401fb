"""Annotated data for ``rexstream evaluate``: what the model is asked, and what it should say."""

from __future__ import annotations

import gzip
import json
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from consumer.extraction.prompts import CLASSIFY, MULTICLASSIFY
from consumer.extraction.task import Task

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from consumer.events import TaskKind

_MARKERS: Final[dict[str, TaskKind]] = {CLASSIFY: "classify", MULTICLASSIFY: "multi_classify"}
IMPLICIT: Final = "#"
"""What annotators put in front of a text so that "the product as a whole" has a place."""


class Named(NamedTuple):
    """One element of a path as results have it: no span for classification and for the implicit aspect."""

    type: str
    span: str | None
    start: int | None
    end: int | None


NamedPath = tuple[Named, ...]


@dataclass(frozen=True, slots=True)
class Example:
    """A text as a caller would send it, without markers, and the paths that belong to it."""

    text: str
    task: Task
    gold: frozenset[NamedPath]


class DataError(ValueError):
    """A line that is not annotated data. The message names the line and the way out."""


class LabelColumns(NamedTuple):
    """Where classification data keeps text and label; ``names`` turns labels into types of the schema."""

    text: str
    label: str
    names: Mapping[str, str]


def read_examples(path: Path, limit: int | None, task: Task | None, columns: LabelColumns) -> list[Example]:
    """Read at most ``limit`` examples of a JSON lines file, which may be compressed (``.gz``).

    Lines with ``info_list`` are in RexUniNLU's form: markers in front of a text become the kind of its task, offsets
    move along. Other lines are classification. ``task`` replaces what the lines say about schema and kind. Raises
    DataError, OSError.
    """
    rows = list(_rows(path, limit))
    if not rows:
        raise DataError(f"{path} holds no line; give annotated data")
    annotated = ["info_list" in row for _, row in rows]
    if all(annotated):
        return _annotated(rows, task)
    if any(annotated):
        number = rows[annotated.index(False)][0]
        raise DataError(f"line {number} has no info_list, others have; give data of one form")
    return _labelled(rows, task, columns)


def _rows(path: Path, limit: int | None) -> Iterator[tuple[int, dict[str, Any]]]:
    with gzip.open(path, "rb") if path.suffix == ".gz" else path.open("rb") as lines:
        filled = ((number, line) for number, line in enumerate(lines, 1) if line.strip())
        for number, line in islice(filled, limit):
            try:
                row = json.loads(line)
            except ValueError as error:
                raise DataError(f"line {number} is not JSON; give one object a line") from error
            if not isinstance(row, dict):
                raise DataError(f"line {number} is not a JSON object; give one object a line")
            yield number, row


def _annotated(rows: list[tuple[int, dict[str, Any]]], task: Task | None) -> list[Example]:
    aspect = IMPLICIT if any(_has_implicit_aspect(row["info_list"]) for _, row in rows) else None
    tasks: dict[str, Task] = {}
    examples = []
    for number, row in rows:
        try:
            examples.append(_example(row, task, aspect, tasks))
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            what = f"no {error}" if isinstance(error, KeyError) else str(error)
            raise DataError(
                f"line {number} is not in RexUniNLU's form ({what}); it needs text, schema (or pass --task) and "
                'info_list, a list of paths of {"type", "span", "offset": [start, end]}'
            ) from error
    return examples


def _has_implicit_aspect(info_list: Any) -> bool:
    """Whether a path has the implicit aspect in it. What is not in the right form has not."""
    paths = [path for path in info_list if isinstance(path, list)] if isinstance(info_list, list) else []
    facts = [fact for path in paths for fact in path if isinstance(fact, dict)]
    return any((fact.get("span"), fact.get("offset")) == (IMPLICIT, [0, 1]) for fact in facts)


def _example(row: dict[str, Any], task: Task | None, aspect: str | None, tasks: dict[str, Task]) -> Example:
    text: str = row["text"]
    front = next(filter(text.startswith, (*_MARKERS, *([aspect] if aspect else []))), "")
    kind = _MARKERS.get(front, "extract")
    if task is None:
        legal = row.get("legal_output_type_list")
        key = json.dumps([kind, row["schema"], legal])
        if key not in tasks:
            paths = None if legal is None else frozenset(tuple(path) for path in legal)
            implicit = aspect if kind == "extract" else None
            tasks[key] = Task("data", kind, row["schema"], implicit_aspect=implicit, legal_paths=paths)
        task = tasks[key]
    gold = frozenset(tuple(_named(fact, front, kind) for fact in path) for path in row["info_list"])
    return Example(text.removeprefix(front), task, gold)


def _named(fact: dict[str, Any], front: str, kind: TaskKind) -> Named:
    if kind != "extract":
        return Named(fact["type"], None, None, None)
    start, end = fact["offset"]
    if front and (start, end) == (0, len(front)):
        return Named(fact["type"], None, None, None)
    return Named(fact["type"], fact["span"], start - len(front), end - len(front))


def _labelled(rows: list[tuple[int, dict[str, Any]]], task: Task | None, columns: LabelColumns) -> list[Example]:
    labels: list[str] = []
    for number, row in rows:
        for name, option in ((columns.text, "--text-field"), (columns.label, "--label-field")):
            if name not in row:
                raise DataError(f"line {number} has neither info_list nor {name}; name its field with {option}")
        if not isinstance(row[columns.text], str):
            raise DataError(f"line {number}: field {columns.text} is not a string")
        label = row[columns.label]
        written = label if isinstance(label, str) else json.dumps(label)
        labels.append(columns.names.get(written, written))
    if task is None:
        task = Task("data", "classify", dict.fromkeys(sorted(set(labels))))
    unknown = sorted(set(labels) - set(task.schema))
    if unknown:
        raise DataError(
            f"label {unknown[0]!r} is not a type of task {task.name} ({', '.join(task.schema)}); "
            f"say which it is with --label-map {unknown[0]}=TYPE"
        )
    return [
        Example(row[columns.text], task, frozenset({(Named(label, None, None, None),)}))
        for (_, row), label in zip(rows, labels, strict=True)
    ]
