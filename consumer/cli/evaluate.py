"""``rexstream evaluate``: how good a model is on annotated data.

Scores are micro precision, recall and F1 of paths, or accuracy (docs/extraction.md, section 13).
"""

from __future__ import annotations

import json
import sys
import time
from collections import Counter
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple, get_args

import click

from consumer.cli.input_options import input_options
from consumer.cli.model_source import ModelSource, loaded_tasks, model_options, opened
from consumer.cli.progress import counter
from consumer.events import BadInput, TaskKind
from consumer.exit_codes import EXIT_FAILED, EXIT_OK
from consumer.extraction.prompts import CLASSIFY, MULTICLASSIFY
from consumer.extraction.task import Task
from consumer.local.line_stream import InputError
from consumer.local.review_files import as_text, open_reviews

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping

    from consumer.local.review_files import InputForm

Metric = Literal["strict", "span", "triplet", "trigger", "argument", "accuracy"]
METRICS: tuple[Metric, ...] = get_args(Metric)

COMPARED: Final[dict[Metric, Callable[[NamedPath], Hashable]]] = {
    "strict": lambda path: path,
    "span": lambda path: tuple((fact.type, fact.span) for fact in path),
    "triplet": lambda path: (path[0].type, path[0].span, path[1].type.partition("(")[0], path[1].span),
    "trigger": lambda path: path[0],
    "argument": lambda path: (path[0].type, path[1].type, path[1].span),
    "accuracy": lambda path: tuple(fact.type for fact in path),
}
"""What of a path a metric compares.

strict: everything. span: without offsets. triplet: the second type up to its bracket, without offsets. trigger: the
first element. argument: the first type with the second element, without offsets. accuracy: the types alone, and all
paths of a text must be right.
"""
PAIRS: Final = frozenset({"triplet", "argument"})
"""Metrics that count only paths of two elements."""

_MARKERS: Final[dict[str, TaskKind]] = {CLASSIFY: "classify", MULTICLASSIFY: "multi_classify"}
IMPLICIT: Final = "#"
"""What annotators put in front of a text to have a span for "the product as a whole", the implicit aspect."""

CHUNK: Final = 512
"""Texts whose windows are batched together."""


def _label_map(_: click.Context, __: click.Parameter, value: str | None) -> dict[str, str]:
    """``LABEL=TYPE`` pairs, separated by commas."""
    names = {}
    for pair in filter(None, (value or "").split(",")):
        label, _equals, name = pair.partition("=")
        if not (label and name):
            raise click.BadParameter(f"{pair!r} is not LABEL=TYPE, such as 1=正向情感")
        names[label] = name
    return names


@click.command(name="evaluate", short_help="Score a model against annotated data.")
@click.option(
    "--data",
    "--input",
    "data",
    required=True,
    metavar="FILE|-",
    help="JSON lines of RexUniNLU's form (text, schema, info_list), or text and label, CSV too; - is standard input.",
)
@input_options
@model_options
@click.option("--task", "task_name", metavar="NAME", help="Ask this task instead of the schema in the data.")
@click.option(
    "--tasks-dir", "tasks_dirs", multiple=True, metavar="DIR", help="Folder with task files beside the shipped ones."
)
@click.option(
    "--metric",
    type=click.Choice(METRICS),
    help="Default: accuracy where every text has exactly one class, else strict.",
)
@click.option(
    "--label-field",
    default="label",
    show_default=True,
    help="JSON field or column with the label.",
)
@click.option("--label", metavar="LABEL", help="Label of every line, where the file has none, as plain text.")
@click.option(
    "--label-map",
    callback=_label_map,
    metavar="LABEL=TYPE,...",
    help="Types that stand for labels: 1=正向情感,0=负向情感",
)
@click.option("--limit", type=click.IntRange(min=1), help="Score only the first lines.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def command(
    data: str,
    form: InputForm,
    model_source: ModelSource,
    task_name: str | None,
    tasks_dirs: tuple[str, ...],
    metric: Metric | None,
    label_field: str,
    label: str | None,
    label_map: dict[str, str],
    limit: int | None,
    as_json: bool,
) -> None:
    """Score a model against annotated data, the way a worker would use it.

    Markers in front of the data's texts ([CLASSIFY], [MULTICLASSIFY], and # where it stands for the product as a whole)
    are taken off: the engine puts its own. Precision, recall and F1 are counted over the paths of all texts together.
    A text that cannot be processed counts as one for which nothing was found; the exit code is then 1.

    Without --checkpoint or --server the shipped demo model is used.

    \b
    Example:
      rexstream evaluate --data absa.jsonl --metric span
      rexstream evaluate --data shop.csv.gz --column review --task sentiment --label-map 1=正向情感,0=负向情感
    """  # noqa: D301 - click's own mark for a block that is not wrapped
    from consumer.telemetry.logs import configure_logging

    configure_logging("warning", "evaluate")
    names = () if task_name is None else (task_name,)
    task = next(map(loaded_tasks(tasks_dirs, names).__getitem__, names), None)
    try:
        examples = read_examples(data, form, limit, task, Labels(label_field, label, label_map))
    except (DataError, InputError) as error:
        raise click.UsageError(f"--data {data}: {error}") from error
    one_class = all(len(example.gold) == 1 and example.task.kind == "classify" for example in examples)
    score = Score(metric or ("accuracy" if one_class else "strict"))
    failures, used = Counter[str](), ""
    started = time.monotonic()
    with opened(model_source) as session, counter("texts", len(examples)) as progress:
        for first in range(0, len(examples), CHUNK):
            chunk = examples[first : first + CHUNK]
            starts = [partial(session.engine.start, example.text, example.task) for example in chunk]
            for example, done in zip(chunk, session.run(starts), strict=True):
                paths = () if done.extraction is None else done.extraction.result().paths
                named = [tuple(Named(fact.type, fact.span, fact.start, fact.end) for fact in path) for path in paths]
                score.add(named, example.gold)
                if isinstance(done.failure, BadInput):
                    failures[done.failure.reason] += 1
                elif done.model is not None:
                    used = f"{done.model.name} {done.model.version}"
            progress(first + len(chunk))
    seconds = round(time.monotonic() - started, 1)
    outcome = score.report() | {"texts": len(examples), "failed": dict(failures), "model": used, "seconds": seconds}
    if as_json:
        click.echo(json.dumps(outcome, ensure_ascii=False))
    else:
        outcome["failed"] = ", ".join(f"{count} {reason}" for reason, count in failures.items()) or 0
        click.echo("\n".join(f"{name:<10} {value}" for name, value in outcome.items()))
    sys.exit(EXIT_FAILED if failures else EXIT_OK)


@dataclass(slots=True)
class Score:
    """Sizes of the sets that were compared, over all texts. For accuracy each text counts once in all of them."""

    metric: Metric
    predicted: int = 0
    gold: int = 0
    correct: int = 0

    def add(self, predicted: Iterable[NamedPath], gold: Iterable[NamedPath]) -> None:
        """Count one text."""
        ours, theirs = reduced(self.metric, predicted), reduced(self.metric, gold)
        self.predicted += len(ours)
        self.gold += len(theirs)
        self.correct += len(ours & theirs)

    def report(self) -> dict[str, Any]:
        """The numbers, rounded to 4 decimals.

        precision: the share of what was predicted that is correct. recall: the share of the gold that was found. f1:
        the harmonic mean of both. Each is 0 where there is nothing to have a share of.
        """
        precision = round(self.correct / max(self.predicted, 1), 4)
        if self.metric == "accuracy":
            return {"metric": self.metric, "accuracy": precision, "correct": self.correct}
        return {
            "metric": self.metric,
            "precision": precision,
            "recall": round(self.correct / max(self.gold, 1), 4),
            "f1": round(2 * self.correct / max(self.predicted + self.gold, 1), 4),
            "predicted": self.predicted,
            "gold": self.gold,
            "correct": self.correct,
        }


def reduced(metric: Metric, paths: Iterable[NamedPath]) -> set[Hashable]:
    """What ``metric`` compares of a text's paths, see ``COMPARED``; for accuracy all of it as one element."""
    compared = {COMPARED[metric](path) for path in paths if metric not in PAIRS or len(path) == 2}
    return {frozenset(compared)} if metric == "accuracy" else compared


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


class Labels(NamedTuple):
    """Labels of classification data: the field that holds them, or ``constant`` for all lines of a file without any.

    ``names`` maps labels to types of the schema.
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
    if form.of(path) == "text":
        form = replace(form, text_field="text")
        if labels.constant is None:
            raise DataError("plain text has no labels; say --label for all lines, or give CSV or JSON lines")
    return _labelled(rows, task, form.text_field, labels)


def _rows(path: str, form: InputForm, limit: int | None) -> Iterator[tuple[int, dict[str, Any]]]:
    with open_reviews(path, form) as reviews:
        for row in islice(reviews, limit):
            try:
                yield row.number, reviews.form.fields(row)
            except BadInput as bad:
                raise DataError(f"line {row.number} is {bad}") from None


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
    if kind != "extract" or (front and fact["offset"] == [0, len(front)]):
        return Named(fact["type"], None, None, None)
    start, end = fact["offset"]
    return Named(fact["type"], fact["span"], start - len(front), end - len(front))


def _labelled(
    rows: list[tuple[int, dict[str, Any]]], task: Task | None, text_field: str, labels: Labels
) -> list[Example]:
    found: list[str] = []
    for number, row in rows:
        for name, option in ((text_field, "--text-field"), (labels.field, "--label-field")):
            if name not in row and (name == text_field or labels.constant is None):
                raise DataError(f"line {number} has neither info_list nor {name}; name its field with {option}")
        if not isinstance(row[text_field], str):
            raise DataError(f"line {number}: field {text_field} is not a string")
        label = as_text(row[labels.field]) if labels.constant is None else labels.constant
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
