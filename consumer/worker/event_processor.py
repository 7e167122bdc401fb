"""One record, from its bytes to its outcome: decode, choose tasks, extract, and say what is to be published."""

from __future__ import annotations

import asyncio
import secrets
import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Protocol

import structlog

from consumer.batching.policy import event_deadline
from consumer.codecs.decoding import decode
from consumer.codecs.results import TASK, Timing, continue_trace, encode_json, result_fields, result_headers, result_id
from consumer.delivery.dead_letters import Failure, class_name, stack_trace
from consumer.events import BadInput, Outcome, Output
from consumer.serving.refused import WindowRefused
from consumer.worker.task_runner import VERSION_CHANGED, TextBudget

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Hashable
    from typing import Any

    from consumer.codecs.avro_codec import ParsedSchema
    from consumer.codecs.results import Trace
    from consumer.codecs.routing import Routes
    from consumer.delivery.dead_letters import DeadLetters
    from consumer.events import ReviewEvent, SourceRecord, Stage
    from consumer.extraction.task import Task
    from consumer.telemetry.metrics import EventOutcome, LatencyPoint
    from consumer.telemetry.metrics import Stage as MetricStage
    from consumer.worker.task_runner import Inference

NAME_CHARS = 200
"""What is kept of a task name that nobody configured: it goes into headers, which brokers limit."""

_log = structlog.stdlib.get_logger(__name__)


class ProcessingObserver(Protocol):
    """Metric hooks; ``Metrics`` of the telemetry package has them."""

    def event_finished(self, topic: str, outcome: EventOutcome) -> None:
        """A record of the input ``topic`` has its outcome."""

    def event_latency(self, point: LatencyPoint, seconds: float) -> None:
        """Seconds from the record's broker timestamp to ``point``."""

    def event_windows(self, windows: int) -> None:
        """Model rows that the event needed."""

    def stage(self, stage: MetricStage, seconds: float) -> None:
        """Seconds spent in a stage."""

    def dead_letter(self, stage: Stage, reason: str) -> None:
        """A dead letter was made."""


class Schemas(Protocol):
    """Schemas for Avro values in Confluent's wire format."""

    async def ensure(self, value: bytes) -> None:
        """Wait until the schema of ``value`` is known. Raises BadInput for a value without a known one."""
        ...

    def schema_for(self, number: int) -> ParsedSchema:
        """The schema of an id that ``ensure`` made known."""
        ...

    async def result_schema_id(self, topic: str) -> int:
        """Wait until the result schema has an id on an output topic; the id."""
        ...


class Infer(Protocol):
    """``TaskRunner.infer``."""

    def __call__(self, text: str, task: Task, deadline: float, origin: Hashable) -> Awaitable[Inference]:
        """Extract a task from a text."""
        ...


@dataclass(frozen=True, slots=True)
class _Published:
    output: Output
    windows: int
    is_result: bool


class EventProcessor:
    """Turns records into outcomes. Knows nothing of Kafka's client, nor of gRPC."""

    def __init__(
        self,
        routes: Routes,
        infer: Infer,
        dead_letters: DeadLetters,
        observer: ProcessingObserver,
        *,
        model: str,
        max_value_bytes: int,
        latency_objective: float,
        schemas: Schemas | None = None,
        wall_clock: Callable[[], float] = time.time,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """``model`` is the name that dead letters give; ``latency_objective`` is in seconds.

        ``schemas`` is None without a registry: Avro values are bare data then, and framed with it.
        """
        self._routes = routes
        self._infer = infer
        self._dead_letters = dead_letters
        self._observer = observer
        self._room = TextBudget()
        self._model = model
        self._max_value_bytes = max_value_bytes
        self._objective = latency_objective
        self._schemas = schemas
        self._wall = wall_clock
        self._clock = clock

    async def process(self, record: SourceRecord) -> Outcome:
        """The outcome of one record: a result or a dead letter per task, or ``dropped`` for a null value.

        Bad input never raises; what does raise is a defect of ours. Cancelling withdraws its windows.
        """
        if record.value is None:
            self._observer.event_finished(record.topic, "dropped")
            return Outcome("dropped")
        trace = continue_trace(record.headers, secrets.token_bytes)
        # For every log line of this record; each record is processed in a task, and so in a context, of its own.
        structlog.contextvars.bind_contextvars(
            topic=record.topic, partition=record.partition, offset=record.offset, trace_id=trace.trace_id
        )
        try:
            event, tasks, refused = await self._decode(record)
        except BadInput as bad:
            self._observer.event_finished(record.topic, "dead_letter")
            return Outcome("done", (self._dead_letter(record, bad, None),))
        published = [
            _Published(self._dead_letter(record, bad, name[:NAME_CHARS]), 0, is_result=False) for name, bad in refused
        ]
        structlog.contextvars.bind_contextvars(event_id=event.event_id)
        if tasks:
            published += await asyncio.gather(*(self._run_task(record, event, task, trace) for task in tasks))
        self._finished(record, published)
        return Outcome("done", tuple(each.output for each in published))

    def too_large(self, record: SourceRecord, refused: Output) -> Output:
        """The dead letter of a result that its topic refuses for its size."""
        task = next((value.decode() for name, value in reversed(refused.headers) if name == TASK and value), None)
        what = (
            f"the result has {len(refused.value or b'')} bytes, more than topic {refused.topic} takes; raise its"
            " max.message.bytes, or lower limits.facts"
        )
        return self._dead_letter(record, BadInput("produce", "ResultTooLarge", what), task)

    async def _decode(
        self, record: SourceRecord
    ) -> tuple[ReviewEvent, tuple[Task, ...], tuple[tuple[str, BadInput], ...]]:
        value_format = self._routes.value_format(record.topic)
        schemas = self._schemas if value_format == "avro" else None
        if schemas is not None and len(record.value or b"") <= self._max_value_bytes:
            await schemas.ensure(record.value or b"")
        started = self._clock()
        event = decode(record, value_format, self._max_value_bytes, schemas.schema_for if schemas else None)
        chosen = self._routes.choose(record, event)
        self._observer.stage("decode", self._clock() - started)
        return event, chosen.tasks, chosen.refused

    async def _run_task(self, record: SourceRecord, event: ReviewEvent, task: Task, trace: Trace) -> _Published:
        deadline = event_deadline(
            record.timestamp_ms,
            fetched_wall=self._wall() - (self._clock() - record.fetched_at),
            fetched_at=record.fetched_at,
            objective=self._objective,
        )
        try:
            async with self._room.taken(len(event.text)):
                origin = (record.topic, record.partition, record.offset)
                inference = await self._infer(event.text, task, deadline, origin)
        except BadInput as bad:
            return _Published(self._dead_letter(record, bad, task.name), 0, is_result=False)
        except WindowRefused as refused:
            unanswerable = BadInput("extract", refused.reason, str(refused.error))
            letter = self._dead_letter(record, unanswerable, task.name, refused)
            return _Published(letter, 0, is_result=False)
        self._observer.stage("queue", inference.queued)
        self._observer.stage("model", inference.in_model)
        topic = self._routes.output_topic(record.topic, task.name)
        number = await self._result_schema_id(record.topic, topic)
        output = self._result(record, event, task, trace, inference, topic, number)
        return _Published(output, inference.extracted.model_calls, is_result=True)

    async def _result_schema_id(self, input_topic: str, output_topic: str) -> int | None:
        """What stands before every Avro result where there is a registry."""
        if self._schemas is None or self._routes.route(input_topic).output_format != "avro":
            return None
        return await self._schemas.result_schema_id(output_topic)

    def _result(
        self,
        record: SourceRecord,
        event: ReviewEvent,
        task: Task,
        trace: Trace,
        inference: Inference,
        topic: str,
        schema_number: int | None,
    ) -> Output:
        warnings = list(inference.extracted.warnings)
        if inference.overflowed:
            warnings.append(f"cells_overflowed: {inference.overflowed} windows repeated on the dense signature")
        if inference.restarts:
            warnings.append(VERSION_CHANGED)
        timing = Timing(
            queued_ms=round(inference.queued * 1000, 3),
            model_ms=round(inference.in_model * 1000, 3),
            total_ms=round((self._clock() - record.fetched_at) * 1000, 3),
            model_calls=inference.extracted.model_calls,
        )
        fields = result_fields(
            event,
            task,
            replace(inference.extracted, warnings=tuple(warnings)),
            inference.model,
            timing,
            int(self._wall() * 1000),
            record,
        )
        return Output(
            topic=topic,
            key=record.key,
            value=self._encode(record.topic, fields, schema_number),
            headers=result_headers(record.headers, task.name, result_id(event.event_id, task), trace),
            partition=record.partition,
        )

    def _encode(self, input_topic: str, fields: dict[str, Any], schema_number: int | None) -> bytes:
        if self._routes.route(input_topic).output_format == "json":
            return encode_json(fields)
        # Not at the top: a worker without Avro topics should not load the Avro library.
        from consumer.codecs.avro_codec import encode_avro

        return encode_avro(fields, schema_number)

    def _dead_letter(
        self, record: SourceRecord, bad: BadInput, task: str | None, refused: WindowRefused | None = None
    ) -> Output:
        """``refused`` is what lies behind ``bad`` when a window of it could not be answered."""
        raised = refused or bad
        now_ms = int(self._wall() * 1000)
        self._observer.dead_letter(bad.stage, bad.reason)
        # A name that nobody configured may be anything, review text too.
        said = None if bad.reason == "UnknownTask" else task
        _log.warning("dead letter", stage=bad.stage, reason=bad.reason, task=said)
        failure = Failure(
            stage=bad.stage,
            reason=bad.reason,
            message=bad.message,
            first_failed_at_ms=now_ms - round(refused.failing_seconds * 1000 if refused else 0.0),
            exception=class_name(raised),
            cause=class_name(raised.__cause__),
            stack_trace=stack_trace(raised) if self._dead_letters.stack_traces else None,
            attempts=refused.attempts if refused else 1,
            task=task,
            model=self._model if bad.stage == "extract" else None,
            model_version=refused.model_version if refused else bad.model_version,
        )
        return self._dead_letters.of(record, failure, now_ms)

    def _finished(self, record: SourceRecord, published: list[_Published]) -> None:
        results = sum(each.is_result for each in published)
        outcome: EventOutcome = "done" if results == len(published) else "partial" if results else "dead_letter"
        self._observer.event_finished(record.topic, outcome)
        self._observer.event_windows(sum(each.windows for each in published))
        if record.timestamp_ms is not None:
            self._observer.event_latency("extracted", self._wall() - record.timestamp_ms / 1000)
