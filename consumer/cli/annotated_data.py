"""Annotated data for ``rexstream evaluate``: texts as a caller would send them, and the paths that belong to them."""

from __future__ import annotations

import json
from itertools import islice
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from consumer.evaluation.paths import Example, Named
from consumer.events import BadInput, TaskKind, encodable
from consumer.extraction.prompts import CLASSIFY, MULTICLASSIFY
from consumer.extraction.task import Task
from consumer.local.review_files import as_text, open_reviews

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from consumer.evaluation.paths import Categorised, NamedPath
    from consumer.local.review_files import InputForm

_MARKERS: Final[dict[str, TaskKind]] = {CLASSIFY: "classify", MULTICLASSIFY: "multi_classify"}
IMPLICIT: Final = "#"
"""What annotators put in front of a text to have a span for "the product as a whole", the implicit aspect."""
CATEGORIES: Final = "pair_categories"
"""Field with the category of each path of ``info_list``, in its order. Optional."""


class DataError(ValueError):
    """A line that is not annotated data. The message names the line and the way out."""


class Labels(NamedTuple):
    """Labels of classification data: the field that holds them, or ``constant`` for all lines of a file without any.

    Dots in ``field`` lead into objects, unless a field has that very name. ``names`` maps labels to types of the
    schema.
    """

    field: str
    constant: str | None
    names: Mapping[str, str]


def read_examples(path: str, form: InputForm, limit: int | None, task: Task | None, labels: Labels) -> list[Example]:
    """Read at most ``limit`` examples of a file, or of standard input (``-``).

    Lines with ``info_list`` are in RexUniNLU's form: markers in front of a text become the kind of its task, offsets
    move along. Other lines are classification. ``task`` replaces what the lines say about schema and kind. Raises
    DataError, InputError.
    """
    rows = list(_rows(path, form, limit))
    if not rows:
        raise DataError(f"{path} holds no line; give annotated data")
    annotated = ["info_list" in row for _, row in rows]
    if all(annotated):
        return _annotated(rows, task)
    if any(annotated):
        number = rows[annotated.index(False)][0]
        raise DataError(f"line {number} has no info_list, others have; give data of one form")
    if form.of(path) == "text" and labels.constant is None:
        raise DataError("plain text has no labels; say --label for all lines, or give CSV or JSON lines")
    return _labelled(rows, task, form.text_field, labels)


def _rows(path: str, form: InputForm, limit: int | None) -> Iterator[tuple[int, dict[str, Any]]]:
    """Line numbers and fields, without lone surrogates: the engine replaces them, and no report can be written of them.

    Raises DataError, InputError.
    """
    with open_reviews(path, form) as reviews:
        for row in islice(reviews, limit):
            try:
                fields = reviews.form.fields(row)
            except BadInput as bad:
                raise DataError(f"line {row.number} is {bad}") from None
            yield row.number, json.loads(encodable(json.dumps(fields, ensure_ascii=False)))


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
    gold = [tuple(_named(fact, front, kind) for fact in path) for path in row["info_list"]]
    return Example(text.removeprefix(front), task, frozenset(gold), _categories(row.get(CATEGORIES), gold))


def _categories(names: Any, gold: list[NamedPath]) -> frozenset[Categorised] | None:
    """The category of each path; None where there are not as many as paths, so that it cannot be told whose they are.

    Raises TypeError.
    """
    if names is None:
        return None
    if not isinstance(names, list) or not all(isinstance(name, str | None) for name in names):
        raise TypeError(f"{CATEGORIES} is not a list of names, one for each path of info_list")
    if len(names) != len(gold):
        return None
    return frozenset((path, name) for path, name in zip(gold, names, strict=True) if name)


def _named(fact: dict[str, Any], front: str, kind: TaskKind) -> Named:
    if kind != "extract" or (front and fact["offset"] == [0, len(front)]):
        return Named(fact["type"], None, None, None)
    start, end = fact["offset"]
    return Named(fact["type"], fact["span"], start - len(front), end - len(front))


def _labelled(
    rows: list[tuple[int, dict[str, Any]]], task: Task | None, text_field: str, labels: Labels
) -> list[Example]:
    found: list[str] = []
    for number, row in rows:
        if text_field not in row:
            raise DataError(f"line {number} has neither info_list nor {text_field}; name its field with --text-field")
        if not isinstance(row[text_field], str):
            raise DataError(f"line {number}: field {text_field} is not a string")
        label = _label(number, row, labels.field) if labels.constant is None else labels.constant
        found.append(labels.names.get(label, label))
    if task is None:
        task = Task("data", "classify", dict.fromkeys(sorted(set(found))))
    unknown = sorted(set(found) - set(task.schema))
    if unknown:
        raise DataError(
            f"label {unknown[0]!r} is not a type of task {task.name} ({', '.join(task.schema)}); "
            f"say which it is with --label-map {unknown[0]}=TYPE"
        )
    return [
        Example(row[text_field], task, frozenset({(Named(label, None, None, None),)}))
        for (_, row), label in zip(rows, found, strict=True)
    ]


def _label(number: int, row: dict[str, Any], field: str) -> str:
    """A row's label without outer spaces, which names of types do not have either. Raises DataError."""
    value: Any = row
    for name in (field,) if field in row else field.split("."):
        if not isinstance(value, dict) or name not in value:
            raise DataError(f"line {number} has neither info_list nor {field}; name its field with --label-field")
        value = value[name]
    label = "" if value is None else as_text(value).strip()
    if not label:
        raise DataError(f"line {number}: its label, {field}, is empty; leave out lines without a label")
    return label
