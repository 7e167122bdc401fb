"""Turns polled records into outcomes: decodes, chooses tasks, extracts, and builds results and dead letters.

``Intake`` runs one asyncio task per record that the Kafka runtime hands over, ``EventProcessor`` is what such a task
does. Both belong to the worker's event loop; neither uses Kafka's client or gRPC.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from dataclasses import replace
from typing import TYPE_CHECKING

import structlog

from consumer.batching.policy import event_deadline
from consumer.codecs.decoding import decode
from consumer.codecs.outputs import TASK, Timing, continue_trace, encode_json, result_fields, result_headers, result_id
from consumer.delivery.dead_letters import Failure, class_name, stack_trace
from consumer.events import BadInput, Outcome, Output, Partition
from consumer.serving.refused import WindowRefused
from consumer.worker.defects import Defects, is_defect
from consumer.worker.task_runner import VERSION_CHANGED, TextBudget

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Hashable, Mapping

    from consumer.codecs.outputs import Routes, Trace
    from consumer.delivery.dead_letters import DeadLetters
    from consumer.events import ReviewEvent, SourceRecord, Stage
    from consumer.extraction.task import Task
    from consumer.kafka.registry.awaited import AwaitedSchemas
    from consumer.telemetry.metrics import EventOutcome, Metrics
    from consumer.worker.task_runner import Inference

NAME_CHARS = 200
"""Most characters kept of a task name that is not configured: it goes into headers, whose size brokers limit."""

_log = structlog.stdlib.get_logger(__name__)


class Intake:
    """Starts a task for every record, and cancels those of partitions that were revoked."""

    def __init__(
        self, process: Callable[[SourceRecord], Awaitable[Outcome]], on_failure: Callable[[Exception], None]
    ) -> None:
        """``on_failure`` is called with what ``process`` raised: a record without an outcome."""
        self._process = process
        self._on_failure = on_failure
        self._loop = asyncio.get_running_loop()
        self._arrived: asyncio.Queue[list[SourceRecord]] = asyncio.Queue()
        self._running: dict[tuple[Partition, int], set[asyncio.Task[None]]] = {}
        """Tasks by partition and epoch."""
        self._ended: dict[Partition, int] = {}
        """The last epoch of each partition that ended; a partition's epochs only grow."""

    def add(self, records: list[SourceRecord]) -> None:
        """Take records. From any thread."""
        self._loop.call_soon_threadsafe(self._arrived.put_nowait, records)

    async def run(self, processed: Callable[[SourceRecord, Outcome], None]) -> None:
        """Start the tasks, until cancelled; each hands its outcome to ``processed``."""
        while True:
            for record in await self._arrived.get():
                partition = Partition.of(record)
                if record.epoch > self._ended.get(partition, -1):
                    task = asyncio.create_task(self._one(record, processed))
                    running = self._running.setdefault((partition, record.epoch), set())
                    running.add(task)
                    task.add_done_callback(running.discard)
                    # Let the loop handle the model's answers between two records, which decoding several at once would
                    # delay.
                    await asyncio.sleep(0)

    def revoke(self, epochs: Mapping[Partition, int]) -> None:
        """Cancel the tasks of partitions that were revoked in these epochs: another member processes their records."""
        for partition, epoch in epochs.items():
            self._ended[partition] = max(epoch, self._ended.get(partition, -1))
            for task in self._running.pop((partition, epoch), set()):
                task.cancel()

    async def _one(self, record: SourceRecord, processed: Callable[[SourceRecord, Outcome], None]) -> None:
        try:
            outcome = await self._process(record)
        except Exception as error:
            _log.exception("this record has no outcome, so nothing from it on is committed")
            self._on_failure(error)
        else:
            processed(record, outcome)


class EventProcessor:
    """Turns records into outcomes."""

    def __init__(
        self,
        routes: Routes,
        infer: Callable[[str, Task, float, Hashable], Awaitable[Inference]],
        dead_letters: DeadLetters,
        metrics: Metrics,
        *,
        model: str,
        max_value_bytes: int,
        latency_objective: float,
        schemas: AwaitedSchemas | None = None,
        wall_clock: Callable[[], float] = time.time,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """``infer`` is ``TaskRunner.infer``, ``model`` the model's name for dead letters.

        ``latency_objective`` is in seconds. ``schemas`` is None without a registry: Avro values are bare data then, and
        framed with it.
        """
        self._routes = routes
        self._infer = infer
        self._dead_letters = dead_letters
        self._metrics = metrics
        self._defects = Defects(dead_letters, metrics, model, wall_clock)
        self._text_budget = TextBudget()
        self._model = model
        self._max_value_bytes = max_value_bytes
        self._objective = latency_objective
        self._schemas = schemas
        self._wall = wall_clock
        self._clock = clock

    async def process(self, record: SourceRecord) -> Outcome:
        """The outcome of one record: a result or a dead letter per task, or ``dropped`` for a null value.

        What the record makes our own code raise is tried once more, and then a dead letter too (``Defect``): a worker
        that ended for it would meet it again at every start. Raises only what is not the record's: MemoryError, OSError
        and errors of the clients. Cancelling withdraws its windows.
        """
        try:
            return await self._process(record)
        except BaseException as error:
            self._defects.tried_once(error)
        try:
            return await self._process(record)
        except BaseException as error:
            if not is_defect(error):
                raise
            self._metrics.event_processed(record.topic, "dead_letter")
            return Outcome("done", (self._defects.letter(record, error, "decode", None),))

    async def _process(self, record: SourceRecord) -> Outcome:
        if record.value is None:
            self._metrics.event_processed(record.topic, "dropped")
            return Outcome("dropped")
        trace = continue_trace(record.headers, secrets.token_bytes)
        # For every log line of this record; each record is processed in a task, and so in a context, of its own.
        structlog.contextvars.bind_contextvars(
            topic=record.topic, partition=record.partition, offset=record.offset, trace_id=trace.trace_id
        )
        value_format = self._routes.route(record.topic).format
        schemas = self._schemas if value_format == "avro" else None
        try:
            if schemas is not None and len(record.value) <= self._max_value_bytes:
                await schemas.ensure(record.value, record.topic)
            started = self._clock()
            event = decode(record, value_format, self._max_value_bytes, schemas.schema_for if schemas else None)
            chosen = self._routes.choose(record, event)
        except BadInput as bad:
            self._metrics.event_processed(record.topic, "dead_letter")
            return Outcome("done", (self._dead_letter(record, bad, None),))
        self._metrics.stage("decode", self._clock() - started)
        # Outputs with the model rows that each needed; None for a dead letter.
        published: list[tuple[Output, int | None]] = [
            (self._dead_letter(record, bad, name[:NAME_CHARS]), None) for name, bad in chosen.refused
        ]
        structlog.contextvars.bind_contextvars(event_id=event.event_id)
        if chosen.tasks:
            deadline = event_deadline(
                record.timestamp_ms,
                fetched_wall=self._wall() - (self._clock() - record.fetched_at),
                fetched_at=record.fetched_at,
                objective=self._objective,
            )
            runs = (self._run_task(record, event, task, trace, deadline) for task in chosen.tasks)
            published += await asyncio.gather(*runs)
        rows = [each for _, each in published if each is not None]
        outcome: EventOutcome = "dead_letter"
        if rows:
            outcome = "done" if len(rows) == len(published) else "partial"
        self._metrics.event_processed(record.topic, outcome, sum(rows))
        if record.timestamp_ms is not None:
            self._metrics.event_latency("extracted", self._wall() - record.timestamp_ms / 1000)
        return Outcome("done", tuple(output for output, _ in published))

    def too_large(self, record: SourceRecord, refused: Output) -> Output:
        """The dead letter of a result that its topic refuses for its size."""
        try:
            task = next((value.decode() for name, value in reversed(refused.headers) if name == TASK and value), None)
            what = (
                f"the result has {len(refused.value or b'')} bytes, and {len(refused.key or b'')} in its key, more than"
                f" topic {refused.topic} takes; raise its max.message.bytes, or lower limits.facts"
            )
            return self._dead_letter(record, BadInput("produce", "ResultTooLarge", what), task)
        except BaseException as error:
            if not is_defect(error):
                raise
            return self._defects.letter(record, error, "produce", None)

    async def _run_task(
        self,
        record: SourceRecord,
        event: ReviewEvent,
        task: Task,
        trace: Trace,
        deadline: float,
        *,
        again: bool = False,
    ) -> tuple[Output, int | None]:
        stage: Stage = "extract"
        try:
            async with self._text_budget.taken(len(event.text)):
                origin = (record.topic, record.partition, record.offset)
                inference = await self._infer(event.text, task, deadline, origin)
            stage = "produce"
            self._metrics.stage("queue", inference.queued)
            self._metrics.stage("model", inference.in_model)
            return await self._result(record, event, task, trace, inference), inference.extracted.model_calls
        except BadInput as bad:
            return self._dead_letter(record, bad, task.name), None
        except WindowRefused as refused:
            unanswerable = BadInput("extract", refused.reason, str(refused.error))
            return self._dead_letter(record, unanswerable, task.name, refused), None
        except BaseException as error:
            if again and is_defect(error):
                return self._defects.letter(record, error, stage, task.name), None
            self._defects.tried_once(error)
        return await self._run_task(record, event, task, trace, deadline, again=True)

    async def _result(
        self, record: SourceRecord, event: ReviewEvent, task: Task, trace: Trace, inference: Inference
    ) -> Output:
        topic = self._routes.output_topic(record.topic, task.name)
        is_avro = self._routes.route(record.topic).output_format == "avro"
        schema_number = None
        if is_avro and self._schemas is not None:
            schema_number = await self._schemas.result_schema_id(topic, record.topic)
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
        if is_avro:
            # Not at the top: a worker without Avro topics should not load the Avro library.
            from consumer.codecs.avro_codec import encode_avro

            value = encode_avro(fields, schema_number)
        else:
            value = encode_json(fields)
        return Output(
            topic=topic,
            key=record.key,
            value=value,
            headers=result_headers(record.headers, task.name, result_id(event.event_id, task), trace),
            partition=record.partition,
        )

    def _dead_letter(
        self, record: SourceRecord, bad: BadInput, task: str | None, refused: WindowRefused | None = None
    ) -> Output:
        """``refused`` is the cause of ``bad`` when a window could not be answered."""
        raised = refused or bad
        now_ms = int(self._wall() * 1000)
        self._metrics.dead_letter(bad.stage, bad.reason)
        # A name that nobody configured may be anything, review text too.
        logged_task = None if bad.reason == "UnknownTask" else task
        _log.warning("dead letter", stage=bad.stage, reason=bad.reason, task=logged_task)
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
