"""``rexstream evaluate``: how good a model is on annotated data."""

from __future__ import annotations

import json
import sys
import time
from collections import Counter
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

import click

from consumer.cli.evaluate_data import DataError, Example, LabelColumns, Named, read_examples
from consumer.cli.model_source import model_options, opened
from consumer.cli.progress import counter
from consumer.events import BadInput

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterable

    from consumer.cli.evaluate_data import NamedPath
    from consumer.cli.model_source import ModelSource, Session
    from consumer.offline import Extracting


# Micro precision, recall and F1 of paths (docs/extraction.md, section 13), and accuracy.

Metric = Literal["strict", "span", "triplet", "trigger", "argument", "accuracy"]
METRICS: tuple[Metric, ...] = get_args(Metric)


@dataclass(slots=True)
class Score:
    """Sizes of the sets that were compared, over all texts. For accuracy each text counts once in all of them."""

    predicted: int = 0
    gold: int = 0
    correct: int = 0

    def add(self, metric: Metric, predicted: Iterable[NamedPath], gold: Iterable[NamedPath]) -> None:
        """Count one text."""
        ours, theirs = reduced(metric, predicted), reduced(metric, gold)
        if metric == "accuracy":
            self.predicted += 1
            self.gold += 1
            self.correct += ours == theirs
        else:
            self.predicted += len(ours)
            self.gold += len(theirs)
            self.correct += len(ours & theirs)

    @property
    def precision(self) -> float:
        """Share of the predicted that is correct; 0 without any."""
        return self.correct / self.predicted if self.predicted else 0.0

    @property
    def recall(self) -> float:
        """Share of the gold that was found; 0 without any."""
        return self.correct / self.gold if self.gold else 0.0

    @property
    def f1(self) -> float:
        """Harmonic mean of both."""
        total = self.predicted + self.gold
        return 2 * self.correct / total if total else 0.0


def reduced(metric: Metric, paths: Iterable[NamedPath]) -> set[Hashable]:
    """What of a text's paths a metric compares.

    strict: everything. span: without offsets. triplet: paths of two, the second type up to its bracket, without
    offsets. trigger: first elements. argument: the first type with the second element, without offsets. accuracy: the
    types alone, all of which must be right.
    """
    match metric:
        case "strict":
            return set(paths)
        case "span":
            return {tuple((fact.type, fact.span) for fact in path) for path in paths}
        case "triplet":
            return {
                (path[0].type, path[0].span, path[1].type.partition("(")[0], path[1].span)
                for path in paths
                if len(path) == 2
            }
        case "trigger":
            return {path[0] for path in paths}
        case "argument":
            return {(path[0].type, path[1].type, path[1].span) for path in paths if len(path) == 2}
        case "accuracy":
            return {tuple(fact.type for fact in path) for path in paths}


def report(metric: Metric, score: Score) -> dict[str, Any]:
    """The numbers of a metric, rounded to 4 decimals."""
    if metric == "accuracy":
        return {"metric": metric, "accuracy": round(score.precision, 4), "correct": score.correct}
    return {
        "metric": metric,
        "precision": round(score.precision, 4),
        "recall": round(score.recall, 4),
        "f1": round(score.f1, 4),
        "predicted": score.predicted,
        "gold": score.gold,
        "correct": score.correct,
    }


CHUNK = 512


def _label_map(_: click.Context, __: click.Parameter, value: str | None) -> dict[str, str]:
    """``LABEL=TYPE`` pairs, separated by commas."""
    names = {}
    for pair in (value or "").split(","):
        label, equals, name = pair.partition("=")
        if pair and not (label and equals and name):
            raise click.BadParameter(f"{pair!r} is not LABEL=TYPE, such as 1=正向情感")
        if pair:
            names[label] = name
    return names


@click.command(name="evaluate", short_help="Score a model against annotated data.")
@click.option(
    "--data",
    required=True,
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="JSON lines, may end in .gz: RexUniNLU's form (text, schema, info_list), or text and label.",
)
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
@click.option("--text-field", default="text", show_default=True, help="Field of classification data with the text.")
@click.option("--label-field", default="label", show_default=True, help="Field of classification data with the label.")
@click.option(
    "--label-map",
    callback=_label_map,
    metavar="LABEL=TYPE,...",
    help="Types that stand for labels: 1=正向情感,0=负向情感",
)
@click.option("--limit", type=click.IntRange(min=1), help="Score only the first lines.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def command(
    data: Path,
    model_source: ModelSource,
    task_name: str | None,
    tasks_dirs: tuple[str, ...],
    metric: Metric | None,
    text_field: str,
    label_field: str,
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
      rexstream evaluate --data shop.jsonl.gz --task sentiment --label-map 1=正向情感,0=负向情感 --limit 500
    """  # noqa: D301 - click's own mark for a block that is not wrapped
    from consumer.config.problems import ConfigError
    from consumer.config.task_files import load_tasks
    from consumer.telemetry.logs import configure_logging

    configure_logging("warning", "evaluate")
    try:
        tasks = load_tasks(tasks_dirs)
        if task_name is not None and task_name not in tasks:
            raise click.UsageError(f"there is no task {task_name!r}; the tasks are {', '.join(sorted(tasks))}")
        task = tasks[task_name] if task_name is not None else None
        examples = read_examples(data, limit, task, LabelColumns(text_field, label_field, label_map))
    except ConfigError as error:
        raise click.UsageError(str(error)) from error
    except (DataError, OSError, EOFError) as error:
        raise click.UsageError(f"--data {data}: {error}") from error
    chosen = metric or _default_metric(examples)
    started = time.monotonic()
    with opened(model_source) as session, counter("texts", len(examples)) as progress:
        score, failures, used = Score(), Counter[str](), ""
        for first in range(0, len(examples), CHUNK):
            chunk = examples[first : first + CHUNK]
            for example, done in zip(chunk, _ask(session, chunk), strict=True):
                score.add(chosen, _predicted(done), example.gold)
                if isinstance(done.failure, BadInput):
                    failures[done.failure.reason] += 1
                elif done.model is not None:
                    used = f"{done.model.name} {done.model.version}"
            progress(first + len(chunk))
    outcome = report(chosen, score) | {
        "texts": len(examples),
        "failed": dict(failures),
        "model": used,
        "seconds": round(time.monotonic() - started, 1),
    }
    click.echo(json.dumps(outcome, ensure_ascii=False) if as_json else _as_text(outcome))
    if failures:
        sys.exit(1)


def _ask(session: Session, examples: list[Example]) -> list[Extracting]:
    return session.run([partial(session.engine.start, example.text, example.task) for example in examples])


def _predicted(done: Extracting) -> set[NamedPath]:
    if done.extraction is None:
        return set()
    return {
        tuple(Named(fact.type, fact.span, fact.start, fact.end) for fact in path)
        for path in done.extraction.result().paths
    }


def _default_metric(examples: list[Example]) -> Metric:
    one_class = all(len(example.gold) == 1 and example.task.kind == "classify" for example in examples)
    return "accuracy" if one_class else "strict"


def _as_text(outcome: dict[str, Any]) -> str:
    lines = []
    for name, value in outcome.items():
        if isinstance(value, dict):
            value = ", ".join(f"{count} {reason}" for reason, count in value.items()) or 0
        lines.append(f"{name:<10} {value}")
    return "\n".join(lines)
