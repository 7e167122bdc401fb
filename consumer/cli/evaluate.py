"""``rexstream evaluate``: how good a model is on annotated data (docs/extraction.md, section 13)."""

from __future__ import annotations

import csv
import io
import json
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click
from rich.console import Console

from consumer.cli import suggestions
from consumer.cli.annotated_data import DataError, Labels, read_examples
from consumer.cli.evaluation_run import Run, notes
from consumer.cli.evaluation_tables import report_tables
from consumer.cli.input_options import input_options
from consumer.cli.model_source import ModelSource, loaded_tasks, model_options, opened
from consumer.cli.options import Pairs, name_pairs, refuse_unwritable
from consumer.cli.progress import counter
from consumer.evaluation.categories import category_names
from consumer.evaluation.classification_scores import one_class
from consumer.evaluation.paths import METRICS, class_of
from consumer.evaluation.renaming import renamed, renamed_task
from consumer.evaluation.report import CSV_HEADER, Training, as_json, csv_rows, example_json, measured, numbers
from consumer.evaluation.worst import worst
from consumer.exit_codes import EXIT_FAILED, EXIT_OK
from consumer.local.line_stream import InputError
from consumer.local.review_files import STDIN

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from consumer.evaluation.paths import Example, Metric
    from consumer.evaluation.report import Report
    from consumer.evaluation.worst import Mistakes
    from consumer.extraction.task import Task
    from consumer.local.review_files import InputForm

ENDINGS: Final = (".json", ".csv")
MOST_SCHEMAS: Final = 20
"""Schemas that a report holds; data may have one a line."""


def _reports(_: click.Context, __: click.Parameter, values: Sequence[str]) -> tuple[Path, ...]:
    """Files that can be written, seen before a model runs for an hour."""
    for value in values:
        path = Path(value)
        if path.suffix.lower() not in ENDINGS:
            raise click.BadParameter(f"{value!r} ends neither in .json nor in .csv, so it is not known what to write")
        refuse_unwritable(path)
    return tuple(map(Path, values))


@click.command(name="evaluate", short_help="Score a model against annotated data.")
@click.option(
    "--data",
    "--input",
    "data",
    required=True,
    metavar="FILE|-",
    shell_complete=suggestions.files,
    help="JSON lines of RexUniNLU's form (text, schema, info_list), or text and label, CSV too; - is standard input.",
)
@input_options
@model_options
@click.option(
    "--task",
    "task_name",
    metavar="NAME",
    shell_complete=suggestions.tasks,
    help="Ask this task instead of the schema in the data.",
)
@click.option(
    "--tasks-dir", "tasks_dirs", multiple=True, metavar="DIR", help="Folder with task files beside the shipped ones."
)
@click.option(
    "--metric",
    type=click.Choice(METRICS),
    help="Print this one figure. Default: all that fit the data, with accuracy first where every text has exactly one "
    "class, else strict.",
)
@click.option(
    "--label-field",
    default="label",
    show_default=True,
    help="JSON field or column with the label; dots lead into objects: attributes.category",
)
@click.option("--label", metavar="LABEL", help="Label of every line, where the file has none, as plain text.")
@click.option(
    "--label-map",
    callback=name_pairs("1=正向情感"),
    metavar="LABEL=TYPE,...",
    help="Types that stand for labels: 1=正向情感,0=负向情感",
)
@click.option(
    "--rename",
    callback=name_pairs("属性词=产品方面"),
    metavar="OLD=NEW,...",
    help="Ask under other type names; the gold is renamed as well.",
)
@click.option(
    "--categories-task",
    metavar="NAME",
    help="Give each predicted pair a category by classifying its words with this task, where the gold has categories.",
)
@click.option(
    "--baseline-data",
    metavar="FILE",
    help="Train the baseline of classification on this file, of the same form, not by cross-validation on --data.",
)
@click.option(
    "--temperature",
    type=click.FloatRange(min=0.01),
    default=1.0,
    show_default=True,
    help="Divide all logits by this number, as if it were folded into the weights.",
)
@click.option("--limit", type=click.IntRange(min=1), help="Score only the first lines.")
@click.option(
    "--examples",
    type=click.IntRange(min=0),
    default=5,
    show_default=True,
    help="Show this many of the worst texts. JSON has texts only where this is given.",
)
@click.option("--json", "as_json_object", is_flag=True, help="Print one JSON object.")
@click.option(
    "--report",
    "reports",
    multiple=True,
    callback=_reports,
    metavar="FILE.json|FILE.csv",
    help="Write all figures to this file; may be repeated.",
)
def command(
    data: str,
    form: InputForm,
    model_source: ModelSource,
    task_name: str | None,
    tasks_dirs: tuple[str, ...],
    metric: Metric | None,
    label_field: str,
    label: str | None,
    label_map: Pairs,
    rename: Pairs,
    categories_task: str | None,
    baseline_data: str | None,
    temperature: float,
    limit: int | None,
    examples: int,
    as_json_object: bool,
    reports: tuple[Path, ...],
) -> None:
    """Score a model against annotated data, the way a worker would use it.

    Markers in front of the data's texts ([CLASSIFY], [MULTICLASSIFY], and # where it stands for the product as a whole)
    are taken off: the engine puts its own. Precision, recall and F1 are counted over the paths of all texts together.
    A text that cannot be processed counts as one for which nothing was found; the exit code is then 1.

    Extraction: strict F1 and that of spans without offsets, by level and type, and of texts with two or more explicit
    aspects. Classification: accuracy, macro F1, classes, confusion, beside a bag of character n-grams. Both: 95 %
    intervals (bootstrap over texts), calibration of scores with the temperature that mends it, the worst texts. Data
    with a category for each pair (pair_categories) are scored as quadruples where the schema has the categories below
    the polarity or in place of the aspect's type, or with --categories-task.

    Without --checkpoint or --server the shipped demo model is used.

    \b
    Example:
      rexstream evaluate --data absa.jsonl --report absa.json --report absa.csv
      rexstream evaluate --data absa.jsonl --rename '属性词=产品方面,正向情感(情感词)=正面观点'
      rexstream evaluate --data absa.jsonl --metric span --json
      rexstream evaluate --data shop.csv.gz --column review --task sentiment --label-map 1=正向情感,0=负向情感
      rexstream evaluate --data held-out.jsonl --baseline-data train.jsonl --label-field category --examples 20
    """  # noqa: D301 - click's own mark for a block that is not wrapped
    from consumer.telemetry.logs import configure_logging

    configure_logging("warning", "evaluate")
    for option, source in (("--data", data), ("--baseline-data", baseline_data)):
        if source not in (None, STDIN) and Path(source).resolve() in (path.resolve() for path in reports):
            raise click.UsageError(f"--report and {option} are both {source}: the data would be overwritten")
    names = tuple(name for name in (task_name, categories_task) if name is not None)
    tasks = loaded_tasks(tasks_dirs, names)
    task = None if task_name is None else tasks[task_name]
    labels = Labels(label_field, label, label_map)
    gold = _read("--data", data, form, limit, task, labels, rename)
    pairs_task = _pairs_task(categories_task, tasks, gold, rename)
    training = None
    if baseline_data is not None:
        training = _training(_read("--baseline-data", baseline_data, form, None, task, labels, rename), gold)
    started = time.monotonic()
    with opened(model_source) as session, counter("texts", len(gold)) as progress:
        run = Run(session, temperature)
        cases = run.cases(gold, progress)
        if pairs_task is not None:
            cases = run.categorised(cases, pairs_task)
    seconds = round(time.monotonic() - started, 1)
    chosen: Metric = metric or ("accuracy" if one_class(cases) else "strict")
    report = measured(cases, chosen, training, notes(gold, cases))
    models = ", ".join(f"{name} {version}" for name, version, _ in run.models)
    facts = {"texts": len(gold), "failed": dict(run.failures), "model": models, "seconds": seconds}
    mistakes = worst(cases, examples)
    asked = click.get_current_context().get_parameter_source("examples") is click.core.ParameterSource.COMMANDLINE
    whole = as_json(report, temperature) | facts
    whole["settings"] = _settings(
        gold,
        run,
        data=data,
        limit=limit,
        task=task_name,
        rename=rename,
        categories_task=categories_task,
        baseline_data=baseline_data,
        temperature=temperature,
    )
    if asked:
        whole["examples"] = [example_json(each) for each in mistakes]
    try:
        for path in reports:
            _write(path, whole, report, temperature)
    finally:  # what an hour's run has measured is seen even where a disk is full
        if as_json_object:
            click.echo(json.dumps(whole, ensure_ascii=False))
        else:
            _print(report, run, facts, mistakes if metric is None or asked else None, whole=metric is None)
    sys.exit(EXIT_FAILED if run.failures else EXIT_OK)


def _print(
    report: Report, run: Run, facts: dict[str, Any], mistakes: Sequence[Mistakes] | None, *, whole: bool
) -> None:
    """The headline and, unless ``mistakes`` is None, the tables; if not ``whole``, examples and notes alone."""
    head: dict[str, Any] = {name: value for name, value in numbers(report.headline).items() if name != "interval"}
    failed = ", ".join(f"{count} {reason}" for reason, count in run.failures.items()) or 0
    click.echo("\n".join(f"{name:<10} {value}" for name, value in (head | facts | {"failed": failed}).items()))
    if mistakes is not None:
        console = Console(highlight=False)
        for part in report_tables(report, mistakes, run.temperature, console.width, whole=whole):
            console.print(part)


def _read(
    option: str, path: str, form: InputForm, limit: int | None, task: Task | None, labels: Labels, rename: Pairs
) -> list[Example]:
    """The examples of a file, under other names where asked for. Raises click.UsageError."""
    try:
        examples = read_examples(path, form, limit, task, labels)
    except (DataError, InputError) as error:
        raise click.UsageError(f"{option} {path}: {error}") from error
    try:
        return renamed(examples, rename) if rename else examples
    except ValueError as error:
        raise click.UsageError(f"--rename, in {option} {path}: {error}") from error


def _pairs_task(name: str | None, tasks: Mapping[str, Task], gold: Sequence[Example], rename: Pairs) -> Task | None:
    """The task of --categories-task, under the names of --rename, which the gold has, too.

    Raises click.UsageError where it cannot say what the gold says.
    """
    if name is None:
        return None
    try:
        task = renamed_task(tasks[name], rename)
    except ValueError as error:
        raise click.UsageError(f"--rename, in --categories-task {name}: {error}") from error
    wanted = category_names(gold)
    if not wanted:
        raise click.UsageError("--categories-task needs data with pair_categories, a category for each path")
    if task.kind == "extract":
        raise click.UsageError(f"--categories-task {name} extracts; name a task that classifies")
    if wanted.isdisjoint(task.schema):
        raise click.UsageError(
            f"--categories-task {name} has none of the gold's categories ({', '.join(sorted(wanted))}): it has "
            f"{', '.join(task.schema)}"
        )
    return task


def _training(examples: Sequence[Example], gold: Sequence[Example]) -> Training:
    if not any(example.task.kind != "extract" for example in gold):
        raise click.UsageError("--baseline-data belongs to classification, and --data is extraction")
    classes = [frozenset(map(class_of, example.gold)) for example in examples]
    return Training([example.text for example in examples], classes)


def _settings(gold: Sequence[Example], run: Run, **options: Any) -> dict[str, Any]:
    """What was asked of which model, for whoever compares two reports."""
    tasks = list({id(example.task): example.task for example in gold}.values())
    return options | {
        "models": [dict(zip(("name", "version", "signature"), model, strict=True)) for model in run.models],
        "schemas": [
            {
                "task": task.name,
                "kind": task.kind,
                "schema": task.schema,
                "implicit_aspect": task.implicit_aspect,
                "threshold": task.threshold,
                "fingerprint": task.fingerprint,
            }
            for task in tasks[:MOST_SCHEMAS]
        ],
        "schemas_in_all": len(tasks),
    }


def _write(path: Path, whole: dict[str, Any], report: Report, temperature: float) -> None:
    if path.suffix.lower() == ".json":
        content = json.dumps(whole, ensure_ascii=False, indent=1) + "\n"
    else:
        lines = io.StringIO()
        csv.writer(lines, lineterminator="\n").writerows([CSV_HEADER, *csv_rows(report, temperature)])
        content = lines.getvalue()
    try:
        path.write_text(content, "utf-8")
    except OSError as error:
        raise click.UsageError(f"--report {path} cannot be written: {error.strerror}") from error
