"""``rexstream compare``: the same reviews through two versions of a model, two models or two schemas."""

from __future__ import annotations

import json
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click
from rich.console import Console

from consumer.cli.annotated_data import DataError, Labels
from consumer.cli.comparison_run import Reviews, Tasks, Turns, read_annotated, read_reviews
from consumer.cli.comparison_sides import SideOptions, both_opened, side_options
from consumer.cli.comparison_tables import comparison_tables
from consumer.cli.input_options import input_options
from consumer.cli.model_source import ModelSource, loaded_tasks, model_options
from consumer.cli.options import Pairs, name_pairs, refuse_unwritable
from consumer.cli.progress import counter
from consumer.evaluation.agreement import furthest
from consumer.evaluation.comparison import SIDES, as_json, comparison, example_json
from consumer.exit_codes import EXIT_FAILED, EXIT_OK
from consumer.local.line_stream import InputError
from consumer.local.review_files import STDIN

if TYPE_CHECKING:
    from collections.abc import Sequence

    from consumer.evaluation.agreement import Compared
    from consumer.evaluation.comparison import Comparison
    from consumer.extraction.task import Task
    from consumer.local.review_files import InputForm

SHARE: Final = click.FloatRange(0, 1)
"""Of bounds."""


def _target(_: click.Context, __: click.Parameter, value: str | None) -> str | None:
    """A file that can be written, seen before two models run for an hour."""
    if value not in (None, "-"):
        refuse_unwritable(Path(value))
    return value


@click.command(name="compare", short_help="Compare two versions of a model, or of a task, on the same reviews.")
@click.option(
    "--input", "--data", "source", required=True, metavar="FILE|-", help="Reviews to ask; - is standard input."
)
@input_options
@click.option("--limit", type=click.IntRange(min=1), help="Read only the first lines.")
@click.option("--task", "task_names", multiple=True, metavar="NAME", help="Task of lines that choose none; repeatable.")
@click.option(
    "--tasks-dir", "tasks_dirs", multiple=True, metavar="DIR", help="Folder with task files beside the shipped ones."
)
@model_options
@side_options("old")
@side_options("new")
@click.option("--gold", is_flag=True, help="The file has annotations, as 'rexstream evaluate' reads them: score both.")
@click.option(
    "--label-field",
    default="label",
    show_default=True,
    help="With --gold: JSON field or column with the label of a text without info_list.",
)
@click.option(
    "--label-map",
    callback=name_pairs("1=正向情感"),
    metavar="LABEL=TYPE,...",
    help="With --gold: types that stand for labels: 1=正向情感,0=负向情感",
)
@click.option(
    "--min-agreement", type=SHARE, metavar="SHARE", help="Exit code 1 where the agreement of a task is lower: 0.95"
)
@click.option(
    "--max-drop",
    type=SHARE,
    metavar="F1",
    help="With --gold: exit code 1 where F1 of a task (accuracy, where each text has one class) is lower by more.",
)
@click.option(
    "--examples",
    type=click.IntRange(min=0),
    default=5,
    show_default=True,
    help="Print this many of the texts with the largest differences. JSON has texts only where this is given.",
)
@click.option(
    "--json", "target", metavar="FILE|-", callback=_target, help="Write a JSON object; to - it replaces the tables."
)
def command(
    source: str,
    form: InputForm,
    limit: int | None,
    task_names: tuple[str, ...],
    tasks_dirs: tuple[str, ...],
    model_source: ModelSource,
    old: SideOptions,
    new: SideOptions,
    gold: bool,
    label_field: str,
    label_map: Pairs,
    min_agreement: float | None,
    max_drop: float | None,
    examples: int,
    target: str | None,
) -> None:
    """Compare two versions of a model, two models, or two schemas of a task, on the same reviews.

    --old-... and --new-... say in what the sides differ; what is given without them (--server, --bundle, --model,
    --checkpoint, TLS) holds for both. Of a server a side may ask a version or a label; a model with another tokenizer
    or other limits is read with its own --old-bundle or --new-bundle. A checkpoint, or a version folder of 'rexstream
    export', runs on this machine. Tasks in --new-tasks-dir take the place of others with their name, on that side.

    Printed for each task and type: agreement (the F measure of what one side finds against the other: 1 is the same),
    with a 95 % interval, and what one side alone found; scores; time, the sides asked in turns, so that a busy machine
    hurts both alike; and the texts with the largest differences, as they are. With --gold also F1 of both, with the
    interval of the difference (paired bootstrap), and the calibration of both.

    Exit code 1: a bound (--min-agreement, --max-drop) is crossed by a task, no text could be compared, or the new side
    cannot process a text that the old one can. 3: a model server is away, or has not got what is asked for.

    \b
    Example:
      rexstream compare --input reviews.jsonl --task product_features --server localhost:8500 \\
        --bundle models/rexuninlu/2/bundle --old-version 1 --new-version 2 --min-agreement 0.95
      rexstream compare --input reviews.csv.gz --column content --task sentiment --new-checkpoint tuned/
      rexstream compare --input absa.jsonl --gold --old-export models/rexuninlu/1 --new-export models/rexuninlu/2 \\
        --max-drop 0.01 --json comparison.json
      rexstream compare --input reviews.txt --task product_features --new-tasks-dir proposed/
    """  # noqa: D301 - click's own mark for a block that is not wrapped
    from consumer.telemetry.logs import configure_logging

    configure_logging("warning", "compare")
    if target not in (None, "-") and source != STDIN and Path(source).resolve() == Path(target).resolve():
        raise click.UsageError(f"--json and --input are both {source}: the reviews would be overwritten")
    if max_drop is not None and not gold:
        raise click.UsageError("--max-drop needs annotations to score: --gold")
    if not any((*old, *new)):
        raise click.UsageError(
            "both sides are the same: say in what they differ, such as --new-checkpoint DIR, --new-version 2 or "
            "--new-tasks-dir DIR"
        )
    tasks = Tasks(*(loaded_tasks(tasks_dirs, (), side.tasks_dirs) for side in (old, new)))
    _refuse_unknown(task_names, tasks)
    if gold:
        chosen = _gold_task(task_names, tasks)
    elif not task_names and form.of(source) != "json":
        names = ", ".join(sorted({**tasks.old, **tasks.new}))
        raise click.UsageError(f"a file of {form.of(source)} names no tasks; choose with --task: {names}")
    with ExitStack() as stack:
        sessions = both_opened(stack, model_source, (old, new))
        engines = [each.engine for each in sessions]
        try:
            if gold:
                reviews = read_annotated(source, form, limit, engines, chosen, Labels(label_field, None, label_map))
            else:
                reviews = read_reviews(source, form, limit, engines, tasks, task_names)
        except (DataError, InputError) as error:
            raise click.UsageError(f"--input {source}: {error}") from error
        if not reviews.lines:
            raise click.UsageError(f"--input {source} holds no review")
        run = Turns(sessions)
        with counter("extractions", len(reviews.asked)) as progress:
            compared = run.run(reviews.asked, progress)
    found = comparison(compared, run.turns)
    crossed = found.crossed(min_agreement, max_drop)
    mistakes = furthest(compared, examples)
    asked = click.get_current_context().get_parameter_source("examples") is click.core.ParameterSource.COMMANDLINE
    if target != "-":
        _print(reviews, run, found, mistakes, crossed)
    if target is not None:
        whole = _head(reviews, run, source, tasks) | as_json(found)
        whole["bounds"] = {"min_agreement": min_agreement, "max_drop": max_drop, "crossed": crossed}
        if asked:
            whole["examples"] = [example_json(each) for each in mistakes]
        _write(target, json.dumps(whole, ensure_ascii=False))
    nothing = not any(each.texts for each in found.agreements)
    sys.exit(EXIT_FAILED if crossed or nothing or found.failed_new else EXIT_OK)


def _refuse_unknown(names: Sequence[str], tasks: Tasks) -> None:
    """Raise click.UsageError for a task that neither side has."""
    for name in names:
        if name not in tasks.old and name not in tasks.new:
            known = ", ".join(sorted({**tasks.old, **tasks.new}))
            raise click.UsageError(f"there is no task {name!r}; the tasks are {known}")


def _gold_task(names: Sequence[str], tasks: Tasks) -> tuple[Task, Task] | None:
    """The one task of annotated data, on each side. Raises click.UsageError."""
    if not names:
        return None
    if len(names) > 1:
        raise click.UsageError("--gold is of one task: name one, or none for the schema in the data")
    (name,) = names
    for side, known in zip(SIDES, tasks, strict=True):
        if name not in known:
            raise click.UsageError(f"the {side} side has no task {name!r}; its tasks are {', '.join(sorted(known))}")
    return tasks.old[name], tasks.new[name]


def _print(
    reviews: Reviews, run: Turns, found: Comparison, mistakes: Sequence[Compared], crossed: Sequence[str]
) -> None:
    """The tables, and what a reader has to know, in lines."""
    console = Console(highlight=False)
    for side, models in zip(SIDES, run.models, strict=True):
        names = ", ".join(f"{name} {version}" for name, version, _ in models) or "– (no model was asked)"
        click.echo(f"{side:<10} {names}")
    click.echo(f"{'texts':<10} {reviews.lines}")
    for part in comparison_tables(found, mistakes, console.width):
        console.print(part)
    notes = [
        *(f"{count} lines cannot be read: {reason}" for reason, count in reviews.unreadable.items()),
        *(
            f"task {name} is the {side} side's only ({count} lines): not compared"
            for side, alone in zip(SIDES, reviews.alone, strict=True)
            for name, count in sorted(alone.items())
        ),
        *(
            f"{side} cannot process {count} texts: {reason}"
            for side, failures in zip(SIDES, run.failures, strict=True)
            for reason, count in failures.items()
        ),
    ]
    for note in notes:
        console.print(f"\nNote: {note}.", markup=False)
    for each in crossed:
        console.print(f"\nBound crossed: {each}.", markup=False, style="bold red")


def _head(reviews: Reviews, run: Turns, source: str, tasks: Tasks) -> dict[str, Any]:
    """What was asked of whom."""
    names = sorted({each.task for each in reviews.asked})
    return {
        "data": source,
        "texts": reviews.lines,
        "unreadable": dict(reviews.unreadable),
        "models": {
            side: [dict(zip(("name", "version", "signature"), model, strict=True)) for model in models]
            for side, models in zip(SIDES, run.models, strict=True)
        },
        "tasks": [
            {"task": name}
            | {
                side: known[name].fingerprint if name in known else None
                for side, known in zip(SIDES, tasks, strict=True)
            }
            for name in names
        ],
        "only": {side: dict(sorted(alone.items())) for side, alone in zip(SIDES, reviews.alone, strict=True)},
        "reasons": {side: dict(failures) for side, failures in zip(SIDES, run.failures, strict=True)},
    }


def _write(target: str, content: str) -> None:
    if target == "-":
        click.echo(content)
        return
    try:
        Path(target).write_text(content + "\n", "utf-8")
    except OSError as error:
        raise click.UsageError(f"--json {target} cannot be written: {error.strerror}") from error
