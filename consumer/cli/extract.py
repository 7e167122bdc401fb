"""``rexstream extract``: reviews in, JSON lines out, without Kafka.

A file's rows become Kafka's events (``local/review_files.py``). ``Lines`` turns each into entries, one for each of its
tasks, whose extraction can be started, and their outcomes into the lines to print.
"""

from __future__ import annotations

import json
import sys
import time
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Final, NamedTuple, NoReturn

import click

from consumer.cli import suggestions
from consumer.cli.input_options import id_field_option, input_options
from consumer.cli.model_source import ModelSource, loaded_tasks, model_options, opened
from consumer.cli.options import config_options, loaded, refuse_unreadable
from consumer.cli.progress import counter
from consumer.codecs.decoding import event_from_fields
from consumer.codecs.outputs import ModelUsed, Routes, Timing, result_fields
from consumer.config.route import RouteConfig
from consumer.events import BadInput, ReviewEvent, SourceRecord
from consumer.exit_codes import EXIT_FAILED, EXIT_OK
from consumer.extraction.reference import start_reference
from consumer.extraction.task import ReferenceCrash, Task
from consumer.local.line_stream import InputError
from consumer.local.review_files import STDIN, InputForm, open_reviews

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from consumer.codecs.outputs import Chosen
    from consumer.extraction.engine import Engine, Extraction
    from consumer.local.review_files import Row
    from consumer.offline import Extracting

LEGAL: Final = "legal_output_type_list"
HERE: Final = "extract"
"""Topic of the route that stands for this command's own options."""


@click.command(name="extract", short_help="Extract from files of reviews, without Kafka.")
@model_options
@click.option(
    "--input",
    "source",
    default=STDIN,
    metavar="FILE|-",
    shell_complete=suggestions.files,
    help="Reviews to read; default: standard input.",
)
@click.option(
    "--output",
    "target",
    default="-",
    metavar="FILE|-",
    shell_complete=suggestions.files,
    help="Where to write; default: standard output.",
)
@id_field_option
@input_options
@click.option(
    "--task",
    "task_names",
    multiple=True,
    metavar="NAME",
    shell_complete=suggestions.tasks,
    help="Task of lines that choose none; may be repeated.",
)
@click.option(
    "--tasks-dir", "tasks_dirs", multiple=True, metavar="DIR", help="Folder with task files beside the shipped ones."
)
@click.option(
    "--reference-output",
    is_flag=True,
    help="Print what the RexUniNLU reference prints: texts hold their own markers, and nothing is validated.",
)
@click.option(
    "--route",
    "route_name",
    metavar="TOPIC",
    shell_complete=suggestions.topics,
    help="Read values as the route with this input topic does; see below.",
)
@config_options
@click.option("--records", "described", is_flag=True, help="With --route: records, as 'tail --json' prints them.")
@click.option("--whole", is_flag=True, help="With --route: the file is one value, byte for byte.")
@click.option("--no-model", is_flag=True, help="With --route: print the events that were read, and ask no model.")
def command(
    model_source: ModelSource,
    source: str,
    target: str,
    form: InputForm,
    task_names: tuple[str, ...],
    tasks_dirs: tuple[str, ...],
    reference_output: bool,
    route_name: str | None,
    config_file: str | None,
    overrides: tuple[str, ...],
    **sample: bool,
) -> None:
    """Extract from files of reviews, without Kafka.

    A line of JSON is an event as a worker reads it: {"text": ..., "tasks": [NAME, ...]} or {"text": ..., "schema":
    {TYPE: {...} or null}, "kind": "extract", "classify" or "multi_classify"}. Here "legal_output_type_list" restricts
    the paths that may be reported; a worker does not read it. Lines of text and rows of CSV run --task; of CSV, columns
    event_id, product_id, source, language and created_at are the event's, and all others but the text attributes.

    Results come out in input order, one line for each task of an event, while input may still arrive. What cannot be
    processed gives {"error": {"line", "class", "stage", "message"}} in its place, and the exit code is 1 after the last
    line.

    Without --checkpoint or --server the shipped demo model is used.

    --route tries a route of --config on a sample, without Kafka: a line is a record's value as its producer sends it,
    or, with --records, a record with key, headers and timestamp as 'rexstream tail --json' and 'kcat -J' print it. All
    of a file is one value with --whole, for Avro, and for values that are compressed. What the worker would publish is
    printed: results (as JSON), {"error": ...} for a dead letter, {"tombstone": ...}, and {"dropped": ...} for what is
    dropped on purpose. The model is that of the configuration, if it has one.

    \b
    Example:
      echo '{"text": "屏幕很清晰，就是有点重"}' | rexstream extract --task product_features
      rexstream extract --input reviews.csv.gz --column content --encoding gb18030 --task sentiment
      rexstream extract --server localhost:8500 --bundle models/rexuninlu/1/bundle --input reviews.jsonl
      rexstream extract --config worker.yaml --route shop.reviews --input sample.jsonl --no-model
    """  # noqa: D301 - click's own mark for a block that is not wrapped
    from consumer.telemetry.logs import configure_logging

    configure_logging("warning" if route_name is None else "error", "extract")
    if source != STDIN and target != "-" and Path(source).resolve() == Path(target).resolve():
        raise click.UsageError(f"--input and --output are both {source}: it would be emptied before it is read")
    if route_name is not None:
        from consumer.cli.route_sample import print_route

        if task_names or tasks_dirs or reference_output or form != InputForm():
            raise click.UsageError("with --route the configuration says what values hold and which tasks run")
        _refuse_unreadable(source)
        with ExitStack() as stack:
            try:
                found = loaded(config_file, overrides)
                clean = print_route(found, route_name, model_source, source, sample, _output(stack, target))
            except InputError as error:
                raise click.UsageError(f"--input {source} cannot be read: {error}") from error
        sys.exit(EXIT_OK if clean else EXIT_FAILED)
    given = click.get_current_context().get_parameter_source("config_file")
    if overrides or any(sample.values()) or given is click.core.ParameterSource.COMMANDLINE:
        raise click.UsageError("--config, --set, --records, --whole and --no-model belong to --route")
    tasks = loaded_tasks(tasks_dirs, task_names)
    if not task_names and form.of(source) != "json":
        raise click.UsageError(f"a file of {form.of(source)} names no tasks; choose with --task: {', '.join(tasks)}")
    _refuse_unreadable(source)
    clean = True
    with opened(model_source) as session, ExitStack() as stack:
        try:
            reviews = stack.enter_context(open_reviews(source, form))
            write = _output(stack, target)
            lines = Lines(session.engine, tasks, task_names, reviews.form, reference_output)
            progress = stack.enter_context(counter("lines"))
            for chunk in reviews.chunks():
                entries = [entry for row in chunk for entry in lines.read(row)]
                for entry, done in zip(entries, session.run([entry.start for entry in entries]), strict=True):
                    output = lines.output(entry, done)
                    clean = clean and "error" not in output
                    write.write(json.dumps(output, ensure_ascii=False, allow_nan=False).encode() + b"\n")
                write.flush()
                progress(chunk[-1].number)
        except InputError as error:
            raise click.UsageError(f"--input {source} cannot be read: {error}") from error
    sys.exit(EXIT_OK if clean else EXIT_FAILED)


def _refuse_unreadable(source: str) -> None:
    """Raise click.UsageError for an input that is not there, before the model is waited for."""
    if source != STDIN:
        refuse_unreadable("--input", source)


def _output(stack: ExitStack, path: str) -> BinaryIO:
    """The file of --output, closed by ``stack``; ``-`` is standard output. Raises click.UsageError."""
    if path == "-":
        return sys.stdout.buffer
    try:
        return stack.enter_context(open(path, "wb"))
    except OSError as error:
        raise click.UsageError(f"--output {path} cannot be written: {error.strerror}") from error


class Entry(NamedTuple):
    """One task of a line. ``start`` begins its extraction, again if need be; it raises BadInput or ReferenceCrash.

    ``event`` and ``task`` are None for reference output, and where the line itself is what ``start`` raises for.
    """

    number: int
    """Of the line."""
    start: Callable[[], Extraction]
    event: ReviewEvent | None = None
    task: Task | None = None


class Lines:
    """Turns rows of a file into entries, and their outcomes into output."""

    def __init__(
        self, engine: Engine, tasks: Mapping[str, Task], default: Sequence[str], form: InputForm, reference: bool
    ) -> None:
        """``default``: names of the tasks of lines that choose none.

        ``reference``: texts hold their own markers, schemas are taken as they are, nothing is validated.
        """
        self._engine = engine
        self._tasks = tasks
        self._default = tuple(default)
        self._form = form
        self._reference = reference
        self._routes = Routes([RouteConfig(input=HERE, tasks=self._default, event_tasks="any")], tasks)

    def read(self, row: Row) -> list[Entry]:
        """The entries of a row, at least one. What is wrong with it is raised by an entry's ``start``."""
        try:
            fields = self._form.event(row, self._form.fields(row))
            return self._reference_entries(row.number, fields) if self._reference else self._entries(row.number, fields)
        except BadInput as failure:
            if failure.reason == "MissingText" and row.cells is None:
                what = f"{failure.message}, or name the field that is, with --text-field"
                failure = BadInput(failure.stage, failure.reason, what)
            return [Entry(row.number, partial(_fail, failure))]

    def output(self, entry: Entry, done: Extracting) -> dict[str, Any]:
        """What is printed for an entry: a result, or an error in its place."""
        failure = done.failure
        if done.extraction is not None and entry.event is not None and entry.task is not None:
            extracted = done.extraction.result()
            model = done.model or ModelUsed("", "", "")  # every type was skipped: no model was called
            model_ms, total_ms = (round(seconds * 1000, 3) for seconds in (done.model_seconds, done.total_seconds))
            timing = Timing(None, model_ms, total_ms, extracted.model_calls)
            return result_fields(entry.event, entry.task, extracted, model, timing, int(time.time() * 1000), None)
        if done.extraction is not None:
            try:
                return {"output": done.extraction.reference_output()}
            except ReferenceCrash as crash:
                failure = crash
        reason, stage = (
            (failure.reason, failure.stage) if isinstance(failure, BadInput) else (type(failure).__name__, "extract")
        )
        error = {"line": entry.number, "class": reason, "stage": stage, "message": str(failure)}
        if entry.task is not None:
            error["task"] = entry.task.name
        return {"output": None, "error": error} if self._reference else {"error": error}

    def _entries(self, number: int, fields: Mapping[str, Any]) -> list[Entry]:
        _refuse_task(fields)
        event = event_from_fields(fields, f"line-{number}")
        chosen = self._chosen(number, event)
        legal = _legal_paths(fields)
        if legal is not None:
            note = f"{LEGAL}: a worker does not read this field; it reports all paths of the schema"
            event = replace(event, warnings=(*event.warnings, note))
        tasks = chosen.tasks if legal is None else [replace(task, legal_paths=legal) for task in chosen.tasks]
        return [
            *(Entry(number, partial(_fail, bad)) for _, bad in chosen.refused),
            *(Entry(number, partial(self._engine.start, event.text, task), event, task) for task in tasks),
        ]

    def _chosen(self, number: int, event: ReviewEvent) -> Chosen:
        """As a worker chooses. Raises BadInput."""
        if not self._default and event.tasks is None and event.schema is None:
            raise BadInput(
                "validate",
                "NoTasks",
                "the line has neither tasks nor a schema; add one, or pass --task with one of "
                f"{', '.join(sorted(self._tasks))}",
            )
        chosen = self._routes.choose(SourceRecord(HERE, 0, number, 0, None, None, (), None, 0.0), event)
        refused = (
            (names, BadInput(bad.stage, bad.reason, bad.message.replace(f" topic {HERE}", "")))
            for names, bad in chosen.refused
        )
        return replace(chosen, refused=tuple(refused))

    def _reference_entries(self, number: int, fields: Mapping[str, Any]) -> list[Entry]:
        _refuse_task(fields)
        text, schemas = fields.get("text"), [fields.get("schema")]
        if not isinstance(text, str):
            raise BadInput("validate", "InvalidEvent", "field text is missing or not a string")
        if schemas == [None]:
            named = event_from_fields({"text": "-", "tasks": fields.get("tasks")}, "-")
            chosen = self._chosen(number, named)
            for _, bad in chosen.refused:
                raise bad
            schemas = [task.schema for task in chosen.tasks]
        legal = _legal_paths(fields)
        return [Entry(number, partial(start_reference, self._engine, text, schema, legal)) for schema in schemas]


def _fail(failure: BadInput) -> NoReturn:
    raise failure


def _refuse_task(fields: Mapping[str, Any]) -> None:
    """Raise BadInput for the singular, which says nothing to a worker."""
    if isinstance(fields.get("task"), (str, list)) and not fields.get("tasks"):
        what = 'field task is not part of an event; write its tasks as a list, such as "tasks": ["sentiment"]'
        raise BadInput("validate", "InvalidEvent", what)


def _legal_paths(fields: Mapping[str, Any]) -> frozenset[tuple[str, ...]] | None:
    raw = fields.get(LEGAL)
    if raw is None:
        return None
    paths = [path for path in raw if isinstance(path, list)] if isinstance(raw, list) else []
    if paths != raw or not all(isinstance(name, str) for path in paths for name in path):
        raise BadInput("validate", "InvalidEvent", f"field {LEGAL} is not a list of paths, each a list of type names")
    return frozenset(map(tuple, paths))
