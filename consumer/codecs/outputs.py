"""Tasks and results of an event: which tasks it runs, to which topics their results go, and what a result holds.

The event processor gets an event's tasks and each result's topic from ``Routes``, and makes the result here: its
fields, its JSON (Avro: ``avro_codec``) and its headers, which continue the trace that the record brought.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import orjson

from consumer.codecs.control_headers import CONTROL_HEADERS, only_tasks_of
from consumer.codecs.metadata import dropped
from consumer.codecs.packing import Packing
from consumer.config.inputs import ByInput
from consumer.config.names import TASK_NAME, output_topic, result_topics, runnable
from consumer.events import EARLIEST_MS, LATEST_MS, BadInput
from consumer.extraction.task import INLINE, Task

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from consumer.config.route import RouteConfig
    from consumer.events import Header, ReviewEvent, SourceRecord
    from consumer.extraction.task import Extracted, Fact

TASK = "rexstream-task"
TASK_FINGERPRINT = "rexstream-task-fingerprint"
RESULT_ID = "rexstream-result-id"
TRACEPARENT = "traceparent"
TRACESTATE = "tracestate"

CLOUDEVENT_PREFIXES = ("ce_", "ce-", "cloudevents:", "cloudevents_")
"""What the names of a binary CloudEvent's headers begin with: in Kafka, and where they came as they are from HTTP, AMQP
or JMS."""


class Dropped(NamedTuple):
    """Headers of a review that are not copied to its results, in lower case."""

    names: frozenset[str]
    prefixes: tuple[str, ...]

    def and_also(self, patterns: Iterable[str]) -> Dropped:
        """With a route's own: names in any case, or what they begin with and an asterisk."""
        lower = [pattern.lower() for pattern in patterns]
        return Dropped(
            self.names.union(name for name in lower if not name.endswith("*")),
            (*self.prefixes, *(name[:-1] for name in lower if name.endswith("*"))),
        )


DROPPED = Dropped(
    CONTROL_HEADERS
    | frozenset(
        {
            TASK,
            TASK_FINGERPRINT,
            RESULT_ID,
            TRACEPARENT,
            "content-type",
            "contenttype",
            "content_type",
            "content-encoding",
            "contentencoding",
            "content_encoding",
            "content-transfer-encoding",
            "content-length",
            "content-md5",
            "content-digest",
            "originalcontenttype",  # Spring Cloud Stream
            "__typeid__",  # Spring: the class of the value, of what is in it and of a map's keys in it
            "__contenttypeid__",
            "__keytypeid__",
            "__value_schema_id",  # Confluent
            "value.schema.version.id",  # Cloudera
        }
    ),
    (*CLOUDEVENT_PREFIXES, "apicurio.value."),
)
"""Those that results set themselves; those that say what the review's value is and how it is serialised, which would be
wrong for the result's; and those that a replay tells the worker, which another worker that reads the results would take
as told to itself. What describes the key (``__key_schema_id``, ``apicurio.key.*``, ``__Key_TypeId__``) goes on with it.
docs/delivery.md has the list."""

_encode = json.JSONEncoder().encode  # as ``json.dumps``, which looks at its options first
_TRACEPARENT_VALUE = re.compile(rb"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?", re.DOTALL)


@dataclass(slots=True)
class Chosen:
    """What to do with an event: tasks to run, and what it asks for that it may not have."""

    tasks: tuple[Task, ...]
    refused: tuple[tuple[tuple[str, ...], BadInput], ...]
    """``(task names, why)``, a dead letter each: at most one for the tasks that it names and one for its schema. Of the
    names only those that a task can have, for a replay; they need not be configured ones: never use one as a metric
    label or topic."""


class Routes:
    """The routes by input topic, with the tasks they may use. ``inputs``: topics, and patterns of topics, to read."""

    def __init__(self, routes: Iterable[RouteConfig], tasks: Mapping[str, Task]) -> None:
        routes = tuple(routes)
        self.any_mapped = any(route.is_mapped or route.on_delete == "forward" for route in routes)
        """Whether one has a mapping, or forwards deletes."""
        by_input = {route.input: route for route in routes}
        self._tasks = dict(tasks)
        self.inputs = tuple(by_input)
        self.packings = ByInput(self.inputs, lambda each: Packing.of(by_input[each]))
        """By input topic: how its values are packed, None where they are not."""
        self.dropped = ByInput(self.inputs, lambda each: DROPPED.and_also(by_input[each].drop_headers))
        """Headers that are not copied to results, by input topic."""
        # Computed once, not for every event.
        names = {route.input: runnable(route, self._tasks) for route in by_input.values()}
        self._routes = ByInput(self.inputs, by_input.__getitem__)
        self._allowed = ByInput(
            self.inputs, lambda each: {name: self._tasks[name] for name in names[each] if name != INLINE}
        )
        self._output_topics = ByInput(
            self.inputs, lambda each: {name: output_topic(by_input[each].output, name) for name in names[each]}
        )

    def route(self, topic: str) -> RouteConfig:
        """The route of an input topic. Raises KeyError for a topic that is none."""
        return self._routes[topic]

    def result_topics(self, route: RouteConfig) -> tuple[str, ...]:
        """Every topic that results of a route can go to."""
        return tuple(result_topics(route, self._tasks))

    def output_topic(self, input_topic: str, task: str) -> str:
        """The topic for results of ``task`` on events of ``input_topic``, which may run it."""
        return self._output_topics[input_topic][task]

    def choose(self, record: SourceRecord, event: ReviewEvent) -> Chosen:
        """The tasks that an event runs.

        An event's own choice, its ``tasks`` and its ``schema``, takes the place of the route's tasks; the schema
        becomes a task named ``inline``. Of both it has what the route allows (``event_tasks``, ``inline_schemas``). A
        replay's header then narrows the choice. Raises BadInput NoTasks (stage ``validate``) when nothing is left,
        InvalidEvent for a choice in a field ``task``, InvalidHeader for a header that cannot be read.
        """
        route, allowed = self._routes[record.topic], self._allowed[record.topic]
        if event.task is not None and event.task in self._tasks:
            what = (
                f'field task names the task {event.task}, but an event names tasks in a list: "tasks": ["{event.task}"]'
            )
            raise BadInput("validate", "InvalidEvent", f"{what}; a field task of another meaning needs routes.fields")
        names = event.tasks or (route.tasks if event.schema is None else ())
        only = only_tasks_of(record.headers) if record.headers else None
        if only is not None:
            names = tuple(name for name in names if name in only)
        tasks = [allowed[name] for name in names if name in allowed]
        refused: list[tuple[tuple[str, ...], BadInput]] = []
        if len(tasks) < len(names):
            refused.append(self._refused(record.topic, tuple(name for name in names if name not in allowed)))
        if event.schema is not None and (only is None or INLINE in only):
            if route.inline_schemas:
                tasks.append(Task(name=INLINE, kind=event.kind, schema=event.schema))
            else:
                what = (
                    f"topic {record.topic} takes no schema of an event's own; set inline_schemas of its route to true"
                )
                refused.append(((INLINE,), BadInput("validate", "SchemaNotAllowed", what)))
        if not tasks and not refused:
            what = f"topic {record.topic} has no tasks for this event and it brings none"
            if only is not None:
                what = "its header rexstream-only-tasks names none of the tasks that this event would run"
            raise BadInput("validate", "NoTasks", f"{what}; add tasks to the route, or send tasks or a schema")
        return Chosen(tuple(tasks), tuple(refused))

    def _refused(self, topic: str, names: Sequence[str]) -> tuple[tuple[str, ...], BadInput]:
        """One refusal for all ``names`` that the route of ``topic`` does not allow."""
        foreign = [name for name in names if name in self._tasks]
        unknown = [name for name in names if name not in self._tasks]
        said = []
        if unknown:
            # Their lengths, not the names: any field of an event may hold review text.
            lengths = ", ".join(str(len(name)) for name in unknown[:_NAMED])
            said.append(f"{len(unknown)} unknown tasks (names of {lengths} characters)")
        if foreign:
            listed = ", ".join(foreign[:_NAMED])
            said.append(
                f"{len(foreign)} tasks that are not its route's ({listed}): add them to its tasks, or set its "
                "event_tasks to any"
            )
        what = (
            f"the event asks topic {topic} for {' and for '.join(said)}; it may ask for "
            f"{', '.join(self._allowed[topic]) or 'none'}"
        )
        possible = tuple(name for name in names if TASK_NAME.fullmatch(name) and name != INLINE)
        return possible, BadInput("validate", "UnknownTask" if unknown else "TaskNotAllowed", what)


_NAMED = 10
"""Refused tasks that a message describes one by one."""


class ModelUsed(NamedTuple):
    """The model that answered every window of a result."""

    name: str
    version: str
    signature: str


@dataclass(slots=True)
class Timing:
    """Milliseconds. ``queued_ms`` is the time before the first model call, None where there is no queue."""

    queued_ms: float | None
    model_ms: float
    total_ms: float
    model_calls: int


def result_id(event_id: str, task: Task) -> str:
    """64 hex digits, equal for the same event, task name and schema: what consumers can deduplicate by."""
    canonical = f"[{_encode(event_id)}, {task.name_and_fingerprint}]"
    return hashlib.sha256(canonical.encode()).hexdigest()


def result_fields(
    event: ReviewEvent,
    task: Task,
    extracted: Extracted,
    model: ModelUsed,
    timing: Timing,
    processed_at_ms: int,
    record: SourceRecord | None,
) -> dict[str, Any]:
    """The fields of an ``ExtractionResult``, made of JSON types; ``processed_at_ms`` counts from 1970.

    Without a record, outside Kafka, there is no ``record``; without a queue there is no ``queued_ms``.
    """
    warnings = (*event.warnings, *extracted.warnings)
    place = None
    if record is not None:
        timestamp = record.timestamp_ms
        if timestamp is not None and not EARLIEST_MS <= timestamp <= LATEST_MS:
            timestamp = None
            warnings = (*warnings, dropped("record.timestamp", "is a time outside the years 1 to 9999"))
        place = {"topic": record.topic, "partition": record.partition, "offset": record.offset, "timestamp": timestamp}
    return {
        "result_id": result_id(event.event_id, task),
        "event_id": event.event_id,
        "task": task.name,
        "task_fingerprint": task.fingerprint,
        "extractions": [[_fact_fields(fact) for fact in path] for path in extracted.paths],
        "model": {"name": model.name, "version": model.version, "signature": model.signature},
        **({} if place is None else {"record": place}),
        "product_id": event.product_id,
        "source": event.source,
        "language": event.language,
        "created_at": event.created_at,
        "attributes": dict(event.attributes),
        "timing": {
            **({} if timing.queued_ms is None else {"queued_ms": timing.queued_ms}),
            "model_ms": timing.model_ms,
            "total_ms": timing.total_ms,
            "model_calls": timing.model_calls,
        },
        "warnings": list(warnings),
        "processed_at": processed_at_ms,
    }


def _fact_fields(fact: Fact) -> dict[str, Any]:
    # By hand, like all of a result: ``asdict`` copies every value deeply, and took a sixth of an event's time.
    return {"type": fact.type, "span": fact.span, "start": fact.start, "end": fact.end, "score": fact.score}


def encode_json(fields: dict[str, Any]) -> bytes:
    """The fields of a result as one line of UTF-8 JSON.

    Raises ValueError for a score or a time that is no finite number, and for text with half a surrogate pair.
    """
    fractions = sum(fields["timing"].values()) + sum([fact["score"] for path in fields["extractions"] for fact in path])
    if not math.isfinite(fractions):  # orjson writes null
        raise ValueError("a score or a time of the result is not finite, and JSON has no such number")
    try:
        return bytes(memoryview(orjson.dumps(fields)))  # a copy: orjson's own (3.13) keeps 8 to 16 times the room
    except TypeError:  # an integer of more than 64 bits, or what cannot be written at all
        return json.dumps(fields, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()


@dataclass(slots=True)
class Trace:
    """A place in a W3C trace, which leads from the producer of a review to the reader of its results."""

    trace_id: str
    """32 hex digits."""
    traceparent: str
    """Header value, version 00: the trace id, this worker's span id and the flags."""
    continued: bool
    """Whether the record brought the trace, or it starts here."""
    parent: str = ""
    """16 hex digits: the span that the record comes from; empty where the trace starts here."""


def continue_trace(headers: Sequence[Header], random_bytes: Callable[[int], bytes]) -> Trace:
    """The trace of a record, with a new span id; a new trace when it brings none or one that breaks the standard.

    ``random_bytes`` gives that many. Source of the rules: W3C Trace Context, section 3.2. Two different ``traceparent``
    headers count as none.
    """
    found = {value for key, value in headers if key.lower() == TRACEPARENT and value is not None} if headers else ()
    match = _TRACEPARENT_VALUE.fullmatch(next(iter(found))) if len(found) == 1 else None
    drawn = random_bytes(24).hex()
    span_id, started = drawn[:16], drawn[16:]
    if match is not None:
        version, trace_id, parent, flags, rest = match.groups()
        if version != b"ff" and trace_id.strip(b"0") and parent.strip(b"0") and (rest is None or version != b"00"):
            # Of a later version only the flag that version 00 defines may be passed on.
            kept = flags.decode() if version == b"00" else f"{int(flags, 16) & 1:02x}"
            name = trace_id.decode()
            return Trace(name, f"00-{name}-{span_id}-{kept}", True, parent.decode())
    return Trace(started, f"00-{started}-{span_id}-00", continued=False)


def result_headers(
    carried: Sequence[Header], task: Task, identifier: str, trace: Trace, dropped: Dropped = DROPPED
) -> tuple[Header, ...]:
    """Headers of a result: the record's own but for the ``dropped``, in order, then task, result id and trace.

    The tracestate of a trace that could not be continued is not carried over either (W3C Trace Context, section 3.3).
    """
    names, prefixes = dropped
    kept = [
        header
        for header in carried
        if (name := header[0].lower()) not in names
        and not name.startswith(prefixes)
        and (trace.continued or name != TRACESTATE)
    ]
    return (
        *kept,
        (TASK, task.name.encode()),
        (TASK_FINGERPRINT, task.fingerprint.encode()),
        (RESULT_ID, identifier.encode()),
        (TRACEPARENT, trace.traceparent.encode()),
    )
