"""Turns polled records into outcomes: decodes, chooses tasks, extracts, and builds results and dead letters.

``Intake`` runs one asyncio task per record that the Kafka runtime hands over, ``EventProcessor`` is what such a task
does. Both belong to the worker's event loop; neither uses Kafka's client or gRPC.
"""

from __future__ import annotations

import asyncio
import random
import time
from dataclasses import replace
from functools import partial
from itertools import count
from typing import TYPE_CHECKING, Any, Literal

import structlog

from consumer.batching.queue import event_deadline
from consumer.codecs.control_headers import is_for_another_group, without_control
from consumer.codecs.decoding import decode
from consumer.codecs.outputs import Timing, continue_trace, encode_json, result_fields, result_headers
from consumer.delivery.dead_letters import DEFECT, NO_TASK
from consumer.events import BadInput, Outcome, Output
from consumer.serving.refused import WindowRefused
from consumer.telemetry.logs import logged_fields
from consumer.worker.failures import FailedTask, Failures, is_defect

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence

    from consumer.codecs.outputs import Routes, Trace
    from consumer.delivery.dead_letters import DeadLetters
    from consumer.events import Partition, ReviewEvent, SourceRecord, Stage, Work
    from consumer.extraction.task import Task
    from consumer.kafka.registry.awaited import AwaitedSchemas
    from consumer.telemetry.metrics import EventOutcome, Metrics
    from consumer.worker.inference import Inference
    from consumer.worker.mapped_records import MappedRecords
    from consumer.worker.task_runner import WorkBudget

STARTED_BYTES, RECORD_BYTES = 131_072, 512
"""So many bytes of values, each record counting as ``RECORD_BYTES`` more, are started before answers get their turn:
15 ms of small reviews. What starts together leaves in the same calls, and few calls cost less than many."""

HELD_COPIES = 2  # an output that waits is held here, and for a while by the producer

_Ended = tuple[Output, int | None] | FailedTask
"""What a task has: its result and the windows it took, or why it has none."""

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
        self._running: dict[tuple[tuple[str, int], int], dict[int, asyncio.Task[None]]] = {}
        """Tasks by partition and epoch, and in these by offset."""
        self._ended: dict[tuple[str, int], int] = {}
        """The last epoch of each partition that ended; a partition's epochs only grow."""

    def add(self, records: list[SourceRecord]) -> None:
        """Take records. From any thread."""
        self._loop.call_soon_threadsafe(self._arrived.put_nowait, records)

    async def run(self, processed: Callable[[SourceRecord, Outcome], None]) -> None:
        """Start the tasks, until cancelled; each hands its outcome to ``processed``."""
        started = 0
        while True:
            for record in await self._arrived.get():
                partition = record.topic, record.partition  # for speed no ``Partition``, which it equals
                if record.epoch > self._ended.get(partition, -1):
                    running = self._running.setdefault((partition, record.epoch), {})
                    running[record.offset] = asyncio.Task(self._one(record, processed, running), loop=self._loop)
                    started += RECORD_BYTES + len(record.value or b"")
                    if started >= STARTED_BYTES:
                        started = 0
                        await asyncio.sleep(0)

    def revoke(self, epochs: Mapping[Partition, int]) -> None:
        """Cancel the tasks of partitions that were revoked in these epochs: another member processes their records."""
        for partition, epoch in epochs.items():
            self._ended[partition] = max(epoch, self._ended.get(partition, -1))
            for task in list(self._running.pop((partition, epoch), {}).values()):
                task.cancel()

    async def _one(
        self, record: SourceRecord, processed: Callable[[SourceRecord, Outcome], None], running: dict[int, Any]
    ) -> None:
        try:
            outcome = await self._process(record)
        except Exception as error:
            _log.exception("this record has no outcome, so nothing from it on is committed")
            self._on_failure(error)
        else:
            processed(record, outcome)
        finally:
            running.pop(record.offset, None)


def _logged(record: SourceRecord, trace: Trace, known: dict[str, str]) -> dict[str, object]:
    place = {"topic": record.topic, "partition": record.partition, "offset": record.offset}
    return {**place, "trace_id": trace.trace_id, **known}


class EventProcessor:
    """Turns records into outcomes."""

    def __init__(
        self,
        routes: Routes,
        infer: Callable[[str, Task, Work], Awaitable[Inference]],
        dead_letters: DeadLetters,
        metrics: Metrics,
        *,
        budgets: Mapping[str, WorkBudget],
        model: str,
        max_value_bytes: int,
        latency_objective: float,
        schemas: AwaitedSchemas | None = None,
        trace: Callable[[SourceRecord], Trace] = lambda record: continue_trace(record.headers, random.randbytes),
        wall_clock: Callable[[], float] = time.time,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """``infer`` is ``TaskRunner.infer`` with the same ``budgets``, ``model`` the model's name for dead letters, and
        ``trace`` gives the place in its trace that a record's outputs name.

        ``latency_objective`` is in seconds. ``schemas`` is None without a registry: Avro values are bare data then, and
        framed with it.
        """
        self._routes = routes
        self._infer = infer
        self._group = dead_letters.group
        self._failures = Failures(dead_letters, metrics, model, wall_clock)
        self._metrics = metrics
        self._budgets = budgets
        self._arrivals = count()
        self._max_value_bytes = max_value_bytes
        self._objective = latency_objective
        self._schemas = schemas
        self._trace = trace
        self._wall = wall_clock
        self._clock = clock
        self._mapped: MappedRecords | None = None
        if routes.any_mapped:
            # Not at the top: a worker without mappings should not load what they need.
            from consumer.worker.mapped_records import MappedRecords

            self._mapped = MappedRecords(routes, self._failures, metrics, max_value_bytes, trace)

    async def process(self, record: SourceRecord) -> Outcome:
        """The outcome of one record: a result or a dead letter per task; ``dropped`` for a null value, and for a replay
        that is for another consumer group.

        What the record makes our own code raise is tried once more, and then a dead letter too (``Defect``): a worker
        that ended for it would meet it again at every start. Raises only what is not the record's: MemoryError, OSError
        and errors of the clients. Cancelling withdraws its windows. What it makes counts in the budget until it is
        durable.
        """
        number = next(self._arrivals)
        try:
            return await self._process(record, number)
        except BaseException as error:
            self._failures.tried_once(error)
        try:
            return await self._process(record, number)
        except BaseException as error:
            if not is_defect(error):
                raise
            self._metrics.event_processed(record.topic, "dead_letter")
            return Outcome("done", (self._failures.defect(record, error, "decode", ()),))

    async def _process(self, record: SourceRecord, number: int) -> Outcome:
        if record.headers:
            record = self._believed(record)
            if is_for_another_group(record.headers, self._group):
                return self._dropped(record, "other_group")
        if record.value is None:
            return self._mapped.no_review(record, "null_value") if self._mapped else self._dropped(record, "null_value")
        trace = self._trace(record)
        # Each record is processed in a task, and so in a context, of its own.
        logged_fields.set(partial(_logged, record, trace, known := {}))
        route, packing = self._routes.route(record.topic), self._routes.packings[record.topic]
        schemas = self._schemas if route.format == "avro" else None
        decodes, refused = len(record.value) <= self._max_value_bytes, None
        if schemas is not None and decodes:
            try:
                await schemas.ensure(record.value, record.topic, record.headers)
            except BadInput as bad:
                decodes, refused = False, bad
        budget = self._budgets[record.topic]
        size = len(record.value) if decodes else 0
        if decodes and packing is not None:
            size = packing.size(record.value, self._max_value_bytes)
        work = await budget.enter(number, record, size)
        try:
            work.deadline = event_deadline(
                record.timestamp_ms,
                fetched_wall=self._wall() - (self._clock() - record.fetched_at),
                fetched_at=record.fetched_at,
                objective=self._objective,
            )
            try:
                if refused is not None:
                    raise refused
                if schemas is not None and len(record.value) <= self._max_value_bytes:
                    # Others may have taken its place in the cache.
                    await schemas.ensure(record.value, record.topic, record.headers)
                started = self._clock()
                schema_for = schemas.schema_for if schemas else None
                if self._mapped is None or not route.is_mapped:
                    event = decode(record, route.format, self._max_value_bytes, schema_for, packing)
                else:
                    run = partial(self._run_tasks, record, trace, work)
                    found = await self._mapped.event_or_outcome(record, schema_for, packing, run)
                    if isinstance(found, Outcome):
                        return self._held(budget, work, found)
                    event = found
                chosen = self._routes.choose(record, event)
            except BadInput as bad:
                bad.__traceback__ = None  # its frames hold it, and the record: a cycle for the garbage collector
                self._metrics.event_processed(record.topic, "dead_letter")
                return self._held(budget, work, Outcome("done", (self._failures.letter(record, bad, ()),)))
            self._metrics.stage("decode", self._clock() - started)
            known["event_id"] = event.event_id
            # Before the tasks run: each says when it failed.
            letters = [self._failures.letter(record, bad, names or (NO_TASK,)) for names, bad in chosen.refused]
            if len(chosen.tasks) == 1:  # for speed: every coroutine that waits is resumed for each answer
                ended = [await self._run_task(record, event, chosen.tasks[0], trace, work)]
            else:
                ended = await self._run_tasks(record, trace, work, event, chosen.tasks)
            return self._held(budget, work, self._outcome(record, letters, ended))
        except BaseException:
            budget.leave(work)
            raise

    @staticmethod
    def _held(budget: WorkBudget, work: Work, outcome: Outcome) -> Outcome:
        budget.keep(work, HELD_COPIES * sum([output.held_bytes for output in outcome.outputs]))
        return outcome

    def _outcome(self, record: SourceRecord, outputs: list[Output], ended: Sequence[_Ended]) -> Outcome:
        done = [each for each in ended if not isinstance(each, FailedTask)]
        rows = [windows for _, windows in done if windows is not None]
        outputs += self._failures.beside(record, ended) if len(done) < len(ended) else [output for output, _ in done]
        outcome: EventOutcome = "dead_letter" if not rows else "done" if len(rows) == len(outputs) else "partial"
        self._metrics.event_processed(record.topic, outcome, sum(rows))
        if record.timestamp_ms is not None:
            self._metrics.event_latency("extracted", self._wall() - record.timestamp_ms / 1000)
        return Outcome("done", tuple(outputs))

    def refused(self, record: SourceRecord, refused: Output, why: Literal["size", "no key"]) -> Output:
        """The dead letter of a result that its topic refuses: for its size, or because it has no key."""
        return self._failures.of_refused(self._believed(record), refused, why)

    def _believed(self, record: SourceRecord) -> SourceRecord:
        """The record without control headers, where its route believes none."""
        if self._routes.route(record.topic).control_headers:
            return record
        return replace(record, headers=without_control(record.headers))

    def _dropped(self, record: SourceRecord, reason: Literal["null_value", "other_group"]) -> Outcome:
        self._metrics.event_processed(record.topic, "dropped")
        self._metrics.event_dropped(reason)
        return Outcome("dropped")

    async def _run_tasks(
        self, record: SourceRecord, trace: Trace, work: Work, event: ReviewEvent, tasks: Sequence[Task]
    ) -> list[_Ended]:
        """All of ``tasks`` side by side."""
        return await asyncio.gather(*(self._run_task(record, event, task, trace, work) for task in tasks))

    async def _run_task(
        self, record: SourceRecord, event: ReviewEvent, task: Task, trace: Trace, work: Work, *, again: bool = False
    ) -> _Ended:
        stage: Stage = "extract"
        try:
            inference = await self._infer(event.text, task, work)
            stage = "produce"
            self._metrics.stage("queue", inference.queued)
            self._metrics.stage("model", inference.in_model)
            topic, schema_number = self._routes.output_topic(record.topic, task.name), None
            if self._schemas is not None and self._routes.route(record.topic).output_format == "avro":
                schema_number = await self._schemas.result_schema_id(topic, record.topic)
            output = self._result(record, event, task, trace, inference, topic, schema_number)
            budget = self._budgets[record.topic]
            if not budget.take(work, HELD_COPIES * output.held_bytes):
                await budget.queue.wait(work)
            extracted, restarts = inference.extracted, inference.restarts
            warned = bool(extracted.warnings or inference.overflowed or restarts)
            self._metrics.result_made(
                inference.model, task.name, len(extracted.paths), warned=warned, restarts=restarts
            )
            return output, extracted.model_calls
        except BadInput as bad:
            return FailedTask(task.name, int(self._wall() * 1000), bad)
        except WindowRefused as refused:
            unanswerable = BadInput("extract", refused.reason, str(refused.error))
            return FailedTask(task.name, int(self._wall() * 1000), unanswerable, refused)
        except BaseException as error:
            if again and is_defect(error):
                why = BadInput(stage, DEFECT, "", work.version or None)
                return FailedTask(task.name, int(self._wall() * 1000), why, defect=error)
            self._failures.tried_once(error)
        return await self._run_task(record, event, task, trace, work, again=True)

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
        extracted = inference.extracted
        if inference.overflowed or inference.restarts:
            extracted = replace(extracted, warnings=(*extracted.warnings, *inference.warnings))
        timing = Timing(
            queued_ms=round(inference.queued * 1000, 3),
            model_ms=round(inference.in_model * 1000, 3),
            total_ms=round((self._clock() - record.fetched_at) * 1000, 3),
            model_calls=extracted.model_calls,
        )
        fields = result_fields(event, task, extracted, inference.model, timing, int(self._wall() * 1000), record)
        if self._routes.route(record.topic).output_format == "avro":
            # Not at the top: a worker without Avro topics should not load the Avro library.
            from consumer.codecs.avro_codec import encode_avro

            value = encode_avro(fields, schema_number)
        else:
            value = encode_json(fields)
        carried, dropped = record.headers if event.carries_headers else (), self._routes.dropped[record.topic]
        return Output(
            topic=topic,
            key=record.key,
            value=value,
            headers=result_headers(carried, task, fields["result_id"], trace, dropped),
            partition=record.partition,
            model_version=inference.model.version,
        )
