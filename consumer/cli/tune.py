"""``rexstream tune``: which batches a model server is fastest with, and the ``batching`` settings that follow.

``load_test`` measures, ``consumer.batching`` concludes, ``tuning_profile`` holds both and ``tuning_page`` shows it.
"""

from __future__ import annotations

import json
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click
from rich.console import Console

from consumer.batching.tuning import median_length, shapes
from consumer.cli import suggestions
from consumer.cli.input_options import input_options
from consumer.cli.load_test import LoadTest, VersionChanged, sampled
from consumer.cli.model_source import ModelSource, loaded_tasks, opened, server_options
from consumer.cli.options import config_options, loaded, refuse_unwritable
from consumer.cli.progress import countdown
from consumer.cli.tuning_page import page
from consumer.cli.tuning_profile import Lengths, Profile, Settings, fitted
from consumer.codecs.decoding import event_from_fields
from consumer.config.names import runnable
from consumer.config.shipped import shipped
from consumer.config.tree import ModelConfig
from consumer.events import BadInput
from consumer.exit_codes import EXIT_FAILED, EXIT_OK
from consumer.extraction.task import INLINE
from consumer.local.line_stream import InputError
from consumer.local.review_files import InputForm, open_reviews

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from consumer.cli.model_source import Session
    from consumer.config.tree import Config
    from consumer.extraction.task import Task

SAMPLES: Final = "schemas/samples/reviews.jsonl"
MOST_REVIEWS: Final = 400
"""Reviews that are read: as many as ship."""
SAMPLE_SHARE, GRID_SHARE = 0.2, 0.8
"""Of the time: until the first, reviews are asked for windows; until the second, single calls are measured."""


def _writable(_: click.Context, __: click.Parameter, value: str | None) -> Path | None:
    """A file that can be written, seen before minutes go by."""
    if value is None:
        return None
    refuse_unwritable(path := Path(value))
    return path


@click.command(name="tune", short_help="Measure a model server, and recommend batching settings for it.")
@config_options
@server_options
@click.option(
    "--input",
    "source",
    metavar="FILE|-",
    shell_complete=suggestions.files,
    help="Reviews; - is standard input. Default: the 400 that ship with rexstream.",
)
@input_options
@click.option(
    "--task",
    "task_names",
    multiple=True,
    metavar="NAME",
    shell_complete=suggestions.tasks,
    help="Task to ask; may be repeated. Default: the routes'.",
)
@click.option(
    "--tasks-dir", "tasks_dirs", multiple=True, metavar="DIR", help="Folder with task files beside the shipped ones."
)
@click.option(
    "--minutes",
    type=click.FloatRange(0, min_open=True),
    default=3.0,
    show_default=True,
    help="Longest time to measure.",
)
@click.option(
    "--longest",
    type=click.FloatRange(0, min_open=True),
    default=2.0,
    show_default=True,
    metavar="SECONDS",
    help="Make no call that is expected to take longer.",
)
@click.option(
    "--max-tokens",
    type=click.IntRange(512),
    default=16_384,
    show_default=True,
    help="Largest call to try, in padded tokens. The default is what an export is warmed up for; larger ones may not "
    "fit into the server's memory.",
)
@click.option(
    "--objective",
    type=click.FloatRange(0, min_open=True),
    default=2.0,
    show_default=True,
    metavar="SECONDS",
    help="A review's result should be there after so long: a call may take a third of it.",
)
@click.option("--out", callback=_writable, metavar="FILE", help="Write all figures to this file, as JSON.")
@click.option("--json", "as_json", is_flag=True, help="Print the same JSON instead of the page.")
def command(
    config_file: str | None,
    overrides: tuple[str, ...],
    model_source: ModelSource,
    source: str | None,
    form: InputForm,
    task_names: tuple[str, ...],
    tasks_dirs: tuple[str, ...],
    minutes: float,
    longest: float,
    max_tokens: int,
    objective: float,
    out: Path | None,
    as_json: bool,
) -> None:
    """Measure a model server, and recommend batching settings for it.

    The server gets as many calls as it can answer, so use one that nobody else is using: what others send makes the
    figures worse, and this makes their calls wait. Windows are made of real reviews, the first 400 of the input: each
    is asked --task, or else the tasks of the configuration's routes, level by level.

    Measured are single calls by number and length of their windows, the small ones first, and then calls at once. A
    formula for the time of a call is fitted to that; from it follow batching.max_tokens and batching.max_in_flight of
    the workers, and how many reviews a second one server does. docs/tuning.md explains all figures, and the fields of
    --out and --json.

    Without --server the model server of the configuration is measured (model.target). Exit code 1 when the figures are
    not to be trusted, since equal calls differ too much or the formula does not fit; they are printed all the same.

    \b
    Example:
      rexstream tune --server localhost:8500 --bundle models/rexuninlu/1/bundle
      rexstream tune --config worker.yaml --input reviews.csv.gz --column content --out profile.json
      rexstream tune --config worker.yaml --minutes 10 --longest 5 --max-tokens 65536 --objective 5
    """  # noqa: D301 - click's own mark for a block that is not wrapped
    from consumer.telemetry.logs import configure_logging

    configure_logging("warning", "tune")
    found = loaded(config_file, overrides)
    if model_source.server is None:
        if model_source.bundle or model_source.tls or model_source.model != ModelConfig().name:
            raise click.UsageError(
                "--bundle, --model and the options for TLS belong to --server; without it the server of the "
                "configuration is measured, with model.target, model.bundle, model.name and model.tls"
            )
        model_source = model_source.on_server(found.config.model)
    tasks = _tasks(found.config, tasks_dirs, task_names)
    path = source or str(shipped(SAMPLES))
    texts, passed_over = _texts(path, form)
    settings = Settings(
        model_source.server or "",
        source or "the shipped sample",
        tuple(task.name for task in tasks),
        minutes,
        longest,
        objective,
        max_tokens,
        passed_over,
    )
    with opened(model_source, found.config.limits.of_extraction()) as session, countdown(minutes * 60) as under_way:
        try:
            profile = session.runner.run(_measured(session, texts, tasks, settings, under_way))
        except VersionChanged as changed:
            raise click.ClickException(str(changed)) from None
    content = json.dumps(profile.as_json(), ensure_ascii=False, indent=1)
    try:
        if out is not None:
            out.write_text(content + "\n", "utf-8")
    except OSError as error:
        raise click.ClickException(f"--out {out} cannot be written: {error.strerror}") from error
    finally:  # what minutes of measuring found is seen even where a disk is full
        if as_json:
            click.echo(content)
        else:
            console = Console(highlight=False)
            for part in page(profile):
                console.print(part)
    sys.exit(EXIT_FAILED if profile.doubts else EXIT_OK)


async def _measured(
    session: Session, texts: Sequence[str], tasks: Sequence[Task], settings: Settings, under_way: Callable[[str], None]
) -> Profile:
    """The whole measurement. Raises Unanswered, VersionChanged; click.UsageError where no window came of the input."""
    began, seconds = time.monotonic(), settings.minutes * 60
    date = datetime.now(UTC).isoformat(timespec="seconds")
    sample = await sampled(session, texts, tasks, began + SAMPLE_SHARE * seconds, under_way)
    if not sample.windows:
        raise click.UsageError(
            f"--input: none of the {sample.reviews} reviews asks anything of the model with task "
            f"{', '.join(settings.tasks)}; try one with rexstream extract"
        )
    lengths = Lengths.of(sample)
    test = LoadTest(session.client, sample.windows, settings.longest, under_way)
    grid = await test.grid(shapes(lengths.every, settings.max_tokens), began + GRID_SHARE * seconds)
    if not grid.cells:
        raise click.ClickException(f"not even the smallest call was answered: {grid.left_out[0].why}")
    cost, budget = fitted(grid, lengths, settings)
    median = median_length(lengths.every)
    at_once = await test.at_once(budget.rows, median, cost.seconds(budget.rows, median), began + seconds)
    return Profile(date, test.model or ("", ""), settings, lengths, grid, cost, budget, at_once)


def _tasks(config: Config, tasks_dirs: Sequence[str], names: Sequence[str]) -> list[Task]:
    """Those of --task, or all that the routes run. Raises click.UsageError."""
    known = loaded_tasks((*config.tasks_dirs, *tasks_dirs), names)
    chosen = names or [name for route in config.routes for name in runnable(route, known) if name != INLINE]
    if not chosen:
        raise click.UsageError("the configuration's routes have no tasks of their own; choose some with --task")
    return [known[name] for name in dict.fromkeys(chosen)]


def _texts(path: str, form: InputForm) -> tuple[list[str], int]:
    """The first reviews of a file, and how many lines before them hold none. Raises click.UsageError."""
    texts: list[str] = []
    passed_over = 0
    bad = ""
    try:
        with open_reviews(path, form) as reviews:
            for row in reviews:
                try:
                    event = event_from_fields(reviews.form.event(row, reviews.form.fields(row)), "-")
                    texts.append(event.text)
                except BadInput as failure:
                    passed_over += 1
                    bad = bad or f"; line {row.number}: {failure.message}"
                if len(texts) == MOST_REVIEWS:
                    break
    except InputError as error:
        raise click.UsageError(f"--input {path} cannot be read: {error}") from error
    if not texts:
        raise click.UsageError(f"--input {path} has no review{bad}")
    return texts, passed_over
