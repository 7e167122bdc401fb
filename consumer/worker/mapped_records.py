"""Records of routes with a mapping: values of several rows, and deletes that go on to the result topics.

The event processor comes here for such routes alone, and for null values where one forwards deletes. A value of one row
becomes an event, and goes the way of all events.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

import structlog

from consumer.codecs.control_headers import only_rows_of
from consumer.codecs.decoding import KEY_BYTES, opened, read_value, without_headers
from consumer.codecs.mapping import FieldMapping
from consumer.codecs.outputs import TRACEPARENT
from consumer.delivery.dead_letters import NO_TASK
from consumer.events import BadInput, Outcome, Output, ReviewEvent
from consumer.worker.failures import FailedRow, FailedTask

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from consumer.codecs.avro_codec import SchemaFor
    from consumer.codecs.mapping import RowEvent, Rows
    from consumer.codecs.outputs import Chosen, Routes, Trace
    from consumer.codecs.packing import Packing
    from consumer.codecs.presets import NoReview
    from consumer.config.route import RouteConfig
    from consumer.events import SourceRecord
    from consumer.extraction.task import Task
    from consumer.telemetry.metrics import EventOutcome, Metrics
    from consumer.worker.failures import Failures

    Run = Callable[[ReviewEvent, Sequence[Task]], Awaitable[list["Ended"]]]

ROWS_AT_ONCE = 8
"""Rows of one record under extraction: their windows share calls, and other events do not wait behind all of them."""

RESULTS_BYTES = 32 * 1024 * 1024
"""Of the results of one record. Once they are more, its further rows are a dead letter: a replay goes on with those."""

ROWS_WINDOWS = 65_536
"""Model windows of all rows of one record; beyond, the same."""

Ended = tuple[Output, int | None] | FailedTask
"""What a task of an event came to: its result with the windows that it took, or why there is none."""


class _Done(NamedTuple):
    """What one row came to."""

    outputs: list[Output]
    windows: list[int]
    failed: list[FailedRow]


class MappedRecords:
    """What a worker does with the records of its routes that have a mapping or forward deletes."""

    def __init__(
        self,
        routes: Routes,
        failures: Failures,
        metrics: Metrics,
        max_value_bytes: int,
        trace: Callable[[SourceRecord], Trace],
    ) -> None:
        self._routes = routes
        self._trace = trace
        self._failures = failures
        self._metrics = metrics
        self._max_value_bytes = max_value_bytes
        self._mappings: dict[str, FieldMapping] = {}
        """By the input of their route."""

    async def event_or_outcome(
        self,
        record: SourceRecord,
        schema_for: SchemaFor | None,
        packing: Packing | None,
        run: Run,
    ) -> ReviewEvent | Outcome:
        """The event in a record, or its outcome where it has none, or several.

        ``run`` runs tasks on an event. Raises BadInput for what is wrong with the record as a whole.
        """
        started = time.monotonic()
        route = self._routes.route(record.topic)
        value, default_id, too_many = opened(record, self._max_value_bytes, packing)
        read = read_value(value, route.format, schema_for, record.headers)
        mapping = self._mappings.get(route.input)
        if mapping is None:
            mapping = self._mappings[route.input] = FieldMapping(route)
        found = mapping.read(read, record, default_id)
        if isinstance(found, ReviewEvent):
            return without_headers(found, too_many) if too_many else found
        if isinstance(found, str):
            return self.no_review(record, found)
        self._metrics.stage("decode", time.monotonic() - started)
        return await self._rows(record, found, too_many, run)

    def no_review(self, record: SourceRecord, why: NoReview) -> Outcome:
        """The outcome of a record without a review: nothing, or its delete, forwarded to the topics of its results."""
        route = self._routes.route(record.topic)
        forwards = route.on_delete == "forward" and why in ("delete", "null_value")
        if not forwards or record.key is None:
            self._metrics.event_processed(record.topic, "dropped")
            self._metrics.event_dropped("delete_without_key" if forwards else why)
            return Outcome("dropped")
        if len(record.key) > KEY_BYTES:
            what = f"the key has {len(record.key)} bytes; at most {KEY_BYTES} are allowed, each tombstone carries it"
            self._metrics.event_processed(record.topic, "dead_letter")
            return Outcome("done", (self._failures.letter(record, BadInput("validate", "KeyTooLarge", what), ()),))
        self._metrics.event_processed(record.topic, "deleted")
        return Outcome("done", self._tombstones(record, route))

    def _tombstones(self, record: SourceRecord, route: RouteConfig) -> tuple[Output, ...]:
        trace = self._trace(record)
        headers = ((TRACEPARENT, trace.traceparent.encode()),)
        return tuple(
            Output(topic, record.key, None, headers, record.partition) for topic in self._routes.result_topics(route)
        )

    async def _rows(
        self,
        record: SourceRecord,
        rows: Rows,
        too_many: str,
        run: Run,
    ) -> Outcome:
        """All rows, a few at a time; what fails in one is its own dead letter and stops no other."""
        only = only_rows_of(record.headers)
        wanted = rows if only is None else rows.only(only)
        numbers = wanted.numbers
        if not numbers:
            what = "its header rexstream-only-rows names none of its rows; replay the dead letter again"
            raise BadInput("validate", "InvalidHeader", what)
        structlog.contextvars.bind_contextvars(rows=len(numbers))
        outputs: list[Output] = []
        windows: list[int] = []
        failed: list[FailedRow] = []
        size = 0
        for first in range(0, len(numbers), ROWS_AT_ONCE):
            if size > RESULTS_BYTES or sum(windows) > ROWS_WINDOWS:
                failed += _left(numbers[first:], size, sum(windows))
                break
            events = wanted.events(first, ROWS_AT_ONCE)
            for done in await asyncio.gather(*(self._row(record, row, too_many, run) for row in events)):
                outputs += done.outputs
                windows += done.windows
                failed += done.failed
            size = sum(len(output.value or b"") for output in outputs)
        letters = list(self._failures.of_rows(record, failed, len(rows.numbers)))
        outcome: EventOutcome = "done" if not letters else "partial" if outputs else "dead_letter"
        self._metrics.event_processed(record.topic, outcome, sum(windows))
        if record.timestamp_ms is not None:
            self._metrics.event_latency("extracted", time.time() - record.timestamp_ms / 1000)
        return Outcome("done", (*outputs, *letters))

    async def _row(
        self,
        record: SourceRecord,
        row: RowEvent,
        too_many: str,
        run: Run,
    ) -> _Done:
        done = _Done([], [], [])
        try:
            event = row.event
            if isinstance(event, BadInput):
                raise event
            if too_many:
                event = without_headers(event, too_many)
            chosen: Chosen = self._routes.choose(record, event)
        except BadInput as bad:
            bad.__traceback__ = None  # its frames hold it, and the record: a cycle for the garbage collector
            done.failed.append(FailedRow(row.number, (), FailedTask("", int(time.time() * 1000), bad)))
            return done
        for names, why in chosen.refused:
            refused = FailedTask("", int(time.time() * 1000), why)
            done.failed.append(FailedRow(row.number, names or (NO_TASK,), refused))
        for ended in await run(event, chosen.tasks) if chosen.tasks else ():
            if isinstance(ended, FailedTask):
                done.failed.append(FailedRow(row.number, (ended.name,), ended))
            else:
                output, asked = ended
                done.outputs.append(replace(output, row=row.number))
                done.windows.append(asked or 0)
        return done


def _left(numbers: Sequence[int], size: int, windows: int) -> list[FailedRow]:
    what = (
        f"the rows before took {windows} model windows and made {size} bytes of results, more than one record may; "
        "replay this dead letter for the rows that are left, or send fewer rows in one record"
    )
    bad = BadInput("extract", "TooManyRows", what)
    return [FailedRow(number, (), FailedTask("", int(time.time() * 1000), bad)) for number in numbers]
