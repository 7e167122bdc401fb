"""``rexstream evaluate``: how good a model is on annotated data.

Scores are micro precision, recall and F1 of paths, or accuracy (docs/extraction.md, section 13).
"""

from __future__ import annotations

import json
import sys
import time
from collections import Counter
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Final, Literal, get_args

import click

from consumer.cli.annotated_data import DataError, Labels, Named, read_examples
from consumer.cli.input_options import input_options
from consumer.cli.model_source import ModelSource, loaded_tasks, model_options, opened
from consumer.cli.progress import counter
from consumer.events import BadInput
from consumer.exit_codes import EXIT_FAILED, EXIT_OK
from consumer.local.line_stream import InputError

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Iterable

    from consumer.cli.annotated_data import NamedPath
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
