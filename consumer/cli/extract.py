"""``rexstream extract``: JSON lines in, JSON lines out.

``chunks`` reads lines as they come, ``Lines`` turns each into an ``Entry``, whose extraction can be started, and its
outcome into the line to print.
"""

from __future__ import annotations

import json
import select
import sys
import time
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Final, Literal, NamedTuple, NoReturn

import click

from consumer.cli.model_source import ModelSource, chosen_task, model_options, opened
from consumer.cli.progress import counter
from consumer.codecs.decoding import event_from_fields, parse_json, utf8
from consumer.codecs.outputs import ModelUsed, Timing, result_fields
from consumer.events import BadInput, ReviewEvent
from consumer.exit_codes import EXIT_FAILED, EXIT_OK
from consumer.extraction.reference import start_reference
from consumer.extraction.task import INLINE, ReferenceCrash, Task, parse_schema

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from consumer.extraction.engine import Engine, Extraction
    from consumer.offline import Extracting

CHUNK_LINES: Final = 256
"""Lines whose windows are batched together: enough to fill batches of windows of similar length."""
CHUNK_BYTES: Final = 1_000_000
"""A chunk ends with the line that reaches this, so long lines do not pile up in memory."""
LINGER_SECONDS: Final = 0.05
"""How long a pipe may be silent before the lines that have arrived are processed."""
LEGAL: Final = "legal_output_type_list"


@click.command(name="extract", short_help="Extract from JSON lines, without Kafka.")
@model_options
@click.option("--input", "source", default="-", metavar="FILE|-", help="JSON lines to read; default: standard input.")
@click.option("--output", "target", default="-", metavar="FILE|-", help="Where to write; default: standard output.")
@click.option("--task", "task_name", metavar="NAME", help="Task of lines that name neither a task nor a schema.")
@click.option(
    "--tasks-dir", "tasks_dirs", multiple=True, metavar="DIR", help="Folder with task files beside the shipped ones."
)
@click.option(
    "--reference-output",
    is_flag=True,
    help="Print what the RexUniNLU reference prints: texts hold their own markers, and nothing is validated.",
)
def command(
    model_source: ModelSource,
    source: str,
    target: str,
    task_name: str | None,
    tasks_dirs: tuple[str, ...],
    reference_output: bool,
) -> None:
    """Extract from JSON lines, without Kafka.

    A line is {"text": ..., "task": NAME} or {"text": ..., "schema": {TYPE: {...} or null}, "kind": "extract",
    "classify" or "multi_classify"}; "legal_output_type_list" restricts the paths that may be reported. Results come out
    in input order, while input may still arrive. A line that cannot be processed gives {"error": {"class", "message"}}
    in its place, and the exit code is 1 after the last line.

    Without --checkpoint or --server the shipped demo model is used.

    \b
    Example:
      echo '{"text": "屏幕很清晰，就是有点重"}' | rexstream extract --task product_features
      rexstream extract --server localhost:8500 --bundle models/rexuninlu/1/bundle --input reviews.jsonl
    """  # noqa: D301 - click's own mark for a block that is not wrapped
    from consumer.telemetry.logs import configure_logging

    configure_logging("warning", "extract")
    tasks, task = chosen_task(tasks_dirs, task_name)
    clean = True
    number = 0
    with opened(model_source) as session, ExitStack() as stack:
        if source != "-" and target != "-" and Path(source).resolve() == Path(target).resolve():
            raise click.UsageError(f"--input and --output are both {source}: it would be emptied before it is read")
        read = _stream(stack, "--input", source, "rb")
        write = _stream(stack, "--output", target, "wb")
        lines = Lines(session.engine, tasks, task, reference_output)
        progress = stack.enter_context(counter("lines"))
        for chunk in chunks(read):
            entries = [lines.read(raw, number + index) for index, raw in enumerate(chunk, 1)]
            number += len(chunk)
            for entry, done in zip(entries, session.run([entry.start for entry in entries]), strict=True):
                output = lines.output(entry, done)
                clean = clean and "error" not in output
                write.write(json.dumps(output, ensure_ascii=False, allow_nan=False).encode() + b"\n")
            write.flush()
            progress(number)
    sys.exit(EXIT_OK if clean else EXIT_FAILED)


def _stream(stack: ExitStack, option: str, path: str, mode: Literal["rb", "wb"]) -> BinaryIO:
    """The file that an option names, closed by ``stack``; ``-`` is the standard stream. Raises click.UsageError."""
    if path == "-":
        return sys.stdin.buffer if mode == "rb" else sys.stdout.buffer
    try:
        return stack.enter_context(open(path, mode))
    except OSError as error:
        done = "read" if mode == "rb" else "written"
        raise click.UsageError(f"{option} {path} cannot be {done}: {error.strerror}") from error


def chunks(stream: BinaryIO) -> Iterator[list[bytes]]:
    """Lines without their ends, in chunks; those that hold nothing but white space are left out.

    From a file chunks are full. From a pipe or a terminal a chunk is what has arrived when nothing more comes for a
    moment, so that ``tail -f`` sees its results.
    """
    # One read call of the system at a time: select does not see what a larger read would leave in Python's buffer.
    read1: Callable[[int], bytes] = getattr(stream, "read1", stream.read)
    lines: list[bytes] = []
    size = 0
    rest = b""
    while True:
        block = read1(65_536)
        *whole, rest = (rest + block).split(b"\n") if block else (rest, b"")
        for line in filter(bytes.strip, whole):
            lines.append(line)
            size += len(line)
            if len(lines) == CHUNK_LINES or size >= CHUNK_BYTES:
                yield lines
                lines, size = [], 0
        if lines and not (block and _has_more(stream)):
            yield lines
            lines, size = [], 0
        if not block:
            return


def _has_more(stream: BinaryIO) -> bool:
    try:
        return bool(select.select([stream], [], [], LINGER_SECONDS)[0])
    except (OSError, ValueError):
        return True  # no file descriptor, or none that can be waited for: it is read to its end


class Entry(NamedTuple):
    """A line. ``start`` begins its extraction, again if need be; it raises BadInput or ReferenceCrash.

    ``event`` and ``task`` are None for reference output, and where the line itself is what ``start`` raises for.
    """

    start: Callable[[], Extraction]
    event: ReviewEvent | None = None
    task: Task | None = None


@dataclass(frozen=True, slots=True)
class Lines:
    """Turns input lines into entries, and their outcomes into output."""

    engine: Engine
    tasks: Mapping[str, Task]
    default: Task | None
    """The task of lines that name neither a task nor a schema."""
    reference: bool
    """Texts hold their own markers, schemas are taken as they are, nothing is validated."""

    def read(self, raw: bytes, number: int) -> Entry:
        """Read the line with this number, from 1. What is wrong with it is raised by its ``start``."""
        try:
            fields = parse_json(utf8(raw).removeprefix("\ufeff"))
            if not isinstance(fields, dict):
                raise BadInput(
                    "validate", "InvalidEvent", 'the line is not a JSON object; send {"text": ..., "task": ...}'
                )
            return self._reference_entry(fields) if self.reference else self._entry(fields, number)
        except BadInput as failure:
            return Entry(partial(_fail, failure))

    def output(self, entry: Entry, done: Extracting) -> dict[str, Any]:
        """What is printed for a line: a result, or an error in its place."""
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
        reason = failure.reason if isinstance(failure, BadInput) else type(failure).__name__
        error = {"class": reason, "message": str(failure)}
        return {"output": None, "error": error} if self.reference else {"error": error}

    def _entry(self, fields: Mapping[str, Any], number: int) -> Entry:
        event = event_from_fields(fields, f"line-{number}")
        if event.schema is not None:
            task = Task(INLINE, event.kind, parse_schema(event.schema, self.engine.limits))
        else:
            task = self._named(fields)
        legal = _legal_paths(fields)
        if legal is not None:
            task = replace(task, legal_paths=legal)
        return Entry(partial(self.engine.start, event.text, task), event, task)

    def _reference_entry(self, fields: Mapping[str, Any]) -> Entry:
        text, schema = fields.get("text"), fields.get("schema")
        if not isinstance(text, str):
            raise BadInput("validate", "InvalidEvent", "field text is missing or not a string")
        if schema is None:
            schema = self._named(fields).schema
        return Entry(partial(start_reference, self.engine, text, schema, _legal_paths(fields)))

    def _named(self, fields: Mapping[str, Any]) -> Task:
        name = fields.get("task")
        if name is None and self.default is not None:
            return self.default
        known = ", ".join(sorted(self.tasks))
        if name is None:
            raise BadInput(
                "validate",
                "InvalidEvent",
                f"the line has neither a schema nor a task; add one, or pass --task with one of {known}",
            )
        if not isinstance(name, str) or name not in self.tasks:
            raise BadInput("validate", "UnknownTask", f"the line names a task that does not exist; there are {known}")
        return self.tasks[name]


def _fail(failure: BadInput) -> NoReturn:
    raise failure


def _legal_paths(fields: Mapping[str, Any]) -> frozenset[tuple[str, ...]] | None:
    raw = fields.get(LEGAL)
    if raw is None:
        return None
    paths = [path for path in raw if isinstance(path, list)] if isinstance(raw, list) else []
    if paths != raw or not all(isinstance(name, str) for path in paths for name in path):
        raise BadInput("validate", "InvalidEvent", f"field {LEGAL} is not a list of paths, each a list of type names")
    return frozenset(map(tuple, paths))
