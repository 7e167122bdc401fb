"""``rexstream extract``: JSON lines in, JSON lines out."""

from __future__ import annotations

import json
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import click

from consumer.cli.extract_lines import chunks
from consumer.cli.model_source import model_options, opened
from consumer.cli.progress import counter

if TYPE_CHECKING:
    from collections.abc import Callable

    from consumer.cli.extract_lines import Lines
    from consumer.cli.model_source import ModelSource, Session


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
    from consumer.cli.extract_lines import Lines
    from consumer.config.problems import ConfigError
    from consumer.config.task_files import load_tasks
    from consumer.telemetry.logs import configure_logging

    configure_logging("warning", "extract")
    try:
        tasks = load_tasks(tasks_dirs)
    except ConfigError as error:
        raise click.UsageError(str(error)) from error
    if task_name is not None and task_name not in tasks:
        raise click.UsageError(f"there is no task {task_name!r}; the tasks are {', '.join(sorted(tasks))}")
    with opened(model_source) as session, ExitStack() as stack:
        read, write = _streams(stack, source, target)
        lines = Lines(session.engine, tasks, tasks[task_name] if task_name is not None else None, reference_output)
        clean = _extract(session, lines, read, write, stack.enter_context(counter("lines")))
    if not clean:
        sys.exit(1)


def _extract(session: Session, lines: Lines, read: BinaryIO, write: BinaryIO, progress: Callable[[int], None]) -> bool:
    """Work through the input chunk by chunk. Whether every line gave a result."""
    clean = True
    number = 0
    for chunk in chunks(read):
        entries = [lines.read(raw, number + index) for index, raw in enumerate(chunk, 1)]
        number += len(chunk)
        for entry, done in zip(entries, session.run([entry.start for entry in entries]), strict=True):
            output = entry.output(done)
            clean = clean and "error" not in output
            write.write(json.dumps(output, ensure_ascii=False, allow_nan=False).encode() + b"\n")
        write.flush()
        progress(number)
    return clean


def _streams(stack: ExitStack, source: str, target: str) -> tuple[BinaryIO, BinaryIO]:
    """Open input and output. Raises click.UsageError."""
    if source != "-" and target != "-" and Path(source).resolve() == Path(target).resolve():
        raise click.UsageError(f"--input and --output are both {source}: it would be emptied before it is read")
    read: BinaryIO = sys.stdin.buffer
    write: BinaryIO = sys.stdout.buffer
    try:
        if source != "-":
            read = stack.enter_context(open(source, "rb"))  # noqa: SIM115 - the stack closes it
    except OSError as error:
        raise click.UsageError(f"--input {source} cannot be read: {error.strerror}") from error
    try:
        if target != "-":
            write = stack.enter_context(open(target, "wb"))  # noqa: SIM115 - the stack closes it
    except OSError as error:
        raise click.UsageError(f"--output {target} cannot be written: {error.strerror}") from error
    return read, write
