"""One line of ``rexstream extract``: from JSON to an extraction, and from its outcome to JSON."""

from __future__ import annotations

import select
import time
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any, BinaryIO, Final, NoReturn

from consumer.codecs.decoding import event_from_fields, parse_json, utf8
from consumer.codecs.outputs import ModelUsed, Timing, result_fields
from consumer.events import BadInput
from consumer.extraction.reference import start_reference
from consumer.extraction.task import INLINE, ReferenceCrash, Task, parse_schema

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from consumer.events import ReviewEvent
    from consumer.extraction.engine import Engine, Extraction
    from consumer.offline import Extracting


# Reading JSON lines as they come.

CHUNK_LINES: Final = 256
"""Lines that are worked on together: enough to fill batches of windows of like length."""
CHUNK_BYTES: Final = 1_000_000
"""A chunk ends with the line that reaches this, so long lines do not pile up in memory."""
LINGER_SECONDS: Final = 0.05
"""How long a pipe may be silent before what has come through it is worked on."""


def chunks(stream: BinaryIO) -> Iterator[list[bytes]]:
    """Lines without their ends, in chunks; those that hold nothing but white space are left out.

    From a file chunks are full. From a pipe or a terminal a chunk is what has arrived when nothing more comes for a
    moment, so that ``tail -f`` sees its results.
    """
    # One read of the system at a time: what a larger read would buffer, select does not see.
    read1: Callable[[int], bytes] = getattr(stream, "read1", stream.read)
    lines: list[bytes] = []
    size = 0
    rest = b""
    while True:
        if lines and not _has_more(stream):
            yield lines
            lines, size = [], 0
        block = read1(65_536)
        *whole, rest = (rest + block).split(b"\n") if block else (rest, b"")
        for line in whole:
            if not line.strip():
                continue
            lines.append(line)
            size += len(line)
            if len(lines) == CHUNK_LINES or size >= CHUNK_BYTES:
                yield lines
                lines, size = [], 0
        if not block:
            if lines:
                yield lines
            return


def _has_more(stream: BinaryIO) -> bool:
    try:
        return bool(select.select([stream], [], [], LINGER_SECONDS)[0])
    except (OSError, ValueError):
        return True  # no file descriptor, or none that can be waited for: it is read to its end


LEGAL: Final = "legal_output_type_list"


@dataclass(frozen=True, slots=True)
class Entry:
    """A line. ``start`` begins its extraction, again if need be; it raises BadInput or ReferenceCrash."""

    start: Callable[[], Extraction]
    reference: bool
    event: ReviewEvent | None = None
    task: Task | None = None

    def output(self, done: Extracting) -> dict[str, Any]:
        """What is printed for this line: a result, or an error in its place."""
        if done.extraction is None:
            return self._error(done.failure)
        if self.event is None or self.task is None:
            try:
                return {"output": done.extraction.reference_output()}
            except ReferenceCrash as crash:
                return self._error(crash)
        extracted = done.extraction.result()
        model = done.model or ModelUsed("", "", "")  # every type was skipped: nobody was asked
        model_ms, total_ms = (round(seconds * 1000, 3) for seconds in (done.model_seconds, done.total_seconds))
        timing = Timing(None, model_ms, total_ms, extracted.model_calls)
        return result_fields(self.event, self.task, extracted, model, timing, int(time.time() * 1000), None)

    def _error(self, failure: BadInput | ReferenceCrash | None) -> dict[str, Any]:
        reason = failure.reason if isinstance(failure, BadInput) else type(failure).__name__
        error = {"class": reason, "message": str(failure)}
        return {"output": None, "error": error} if self.reference else {"error": error}


class Lines:
    """Reads lines. ``default`` is the task of those that name neither a task nor a schema.

    ``reference``: texts hold their own markers, schemas are taken as they are, nothing is validated.
    """

    def __init__(self, engine: Engine, tasks: Mapping[str, Task], default: Task | None, reference: bool) -> None:
        self._engine = engine
        self._tasks = tasks
        self._default = default
        self._reference = reference

    def read(self, raw: bytes, number: int) -> Entry:
        """Read the line with this number, from 1. What is wrong with it is raised by its ``start``."""
        try:
            fields = parse_json(utf8(raw).removeprefix("\ufeff"))
            if not isinstance(fields, dict):
                raise _invalid('the line is not a JSON object; send {"text": ..., "task": ...}')
            return self._reference_entry(fields) if self._reference else self._entry(fields, number)
        except BadInput as failure:
            return Entry(partial(_fail, failure), self._reference)

    def _entry(self, fields: Mapping[str, Any], number: int) -> Entry:
        event = event_from_fields(fields, f"line-{number}")
        if event.schema is not None:
            task = Task(INLINE, event.kind, parse_schema(event.schema, self._engine.limits))
        else:
            task = self._named(fields)
        legal = _legal_paths(fields)
        if legal is not None:
            task = replace(task, legal_paths=legal)
        return Entry(partial(self._engine.start, event.text, task), False, event, task)

    def _reference_entry(self, fields: Mapping[str, Any]) -> Entry:
        text, schema = fields.get("text"), fields.get("schema")
        if not isinstance(text, str):
            raise _invalid("field text is missing or not a string")
        if schema is None:
            schema = self._named(fields).schema
        return Entry(partial(start_reference, self._engine, text, schema, _legal_paths(fields)), True)

    def _named(self, fields: Mapping[str, Any]) -> Task:
        name = fields.get("task")
        if name is None and self._default is not None:
            return self._default
        known = ", ".join(sorted(self._tasks))
        if name is None:
            raise _invalid(f"the line has neither a schema nor a task; add one, or pass --task with one of {known}")
        if not isinstance(name, str) or name not in self._tasks:
            raise BadInput("validate", "UnknownTask", f"the line names a task that does not exist; there are {known}")
        return self._tasks[name]


def _fail(failure: BadInput) -> NoReturn:
    raise failure


def _legal_paths(fields: Mapping[str, Any]) -> frozenset[tuple[str, ...]] | None:
    raw = fields.get(LEGAL)
    if raw is None:
        return None
    paths = [path for path in raw if isinstance(path, list)] if isinstance(raw, list) else []
    if paths != raw or not all(isinstance(name, str) for path in paths for name in path):
        raise _invalid(f"field {LEGAL} is not a list of paths, each a list of type names")
    return frozenset(map(tuple, paths))


def _invalid(message: str) -> BadInput:
    return BadInput("validate", "InvalidEvent", message)
