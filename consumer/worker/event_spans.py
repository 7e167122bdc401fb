"""Spans of events: each from when its record is fetched until its outputs are durable, or its partition is revoked.

Names are those of the semantic conventions for messaging and Kafka; the project's own begin with ``rexstream.``. No
span holds review text, a key, or the message of an error, which may quote either.
"""

from __future__ import annotations

import asyncio
import random
import time
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

import structlog
from opentelemetry.context import Context
from opentelemetry.trace import (
    NonRecordingSpan,
    SpanContext,
    SpanKind,
    Status,
    StatusCode,
    TraceFlags,
    TraceState,
    format_span_id,
    format_trace_id,
    set_span_in_context,
)

from consumer.codecs.outputs import TRACESTATE, continue_trace
from consumer.config.inputs import InputOf
from consumer.delivery.dead_letters import PREFIX
from consumer.events import Place
from consumer.telemetry.span_export import SpanExport

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterable, Mapping

    from opentelemetry.trace import Span

    from consumer.codecs.outputs import Trace
    from consumer.config.tree import Config
    from consumer.events import Outcome, Output, Partition, SourceRecord

CLOSE_SECONDS = 2.0
"""Longest wait at the end for a collector to take the last spans; never beyond the grace period."""

MAX_CLASSES = 8
"""Classes of dead letters that a span names."""

_log = structlog.stdlib.get_logger(__name__)


class Recorded(NamedTuple):
    """An event that is recorded: from its start until it is durable, or its partition is revoked."""

    span: Span
    trace: Trace


class EventSpans:
    """The spans of one worker's events. The event loop calls all but ``durable``, which the release thread does."""

    def __init__(self, config: Config, worker: str) -> None:
        """Raises ValueError for a variable ``OTEL_…`` that cannot be."""
        settings = config.observability.tracing
        self._export = SpanExport(settings.endpoint or "", worker)
        self._ratio = settings.sample_ratio
        self._group = config.kafka.group_id
        self._dead_letter_topic = config.delivery.dead_letter_topic
        self._input_of = InputOf(route.input for route in config.routes)
        self._events: dict[Place, Recorded] = {}
        self.start_span = self._export.tracer.start_span
        self.count_in = self._export.count_in

    def of(self, place: Hashable) -> Recorded | None:
        """The event at ``place``, if it is recorded and not durable yet."""
        return self._events.get(place)  # type: ignore[call-overload,no-any-return]

    def trace(self, record: SourceRecord) -> Trace:
        """The place in its trace that a record's outputs name: its span's, where it is recorded.

        It is where its producer says so, else for the configured share of events. Once a record, however often it is
        asked for.
        """
        if (found := self._events.get(Place.of(record))) is not None:
            return found.trace
        trace = continue_trace(record.headers, random.randbytes)
        flags = int(trace.traceparent[-2:], 16)
        if flags & TraceFlags.SAMPLED if trace.continued else random.random() < self._ratio:  # noqa: S311
            try:
                return self._begin(record, trace, flags)
            except Exception:
                _log.exception("an event is not recorded")
        return trace

    def _begin(self, record: SourceRecord, trace: Trace, flags: int) -> Trace:
        context = Context()
        if trace.continued:
            states = [value.decode("ascii", "replace") for name, value in record.headers if _is_state(name) and value]
            parent = SpanContext(
                int(trace.trace_id, 16),
                int(trace.parent, 16),
                is_remote=True,
                trace_flags=TraceFlags(flags),
                trace_state=TraceState.from_header(states) if states else None,
            )
            context = set_span_in_context(NonRecordingSpan(parent), context)
        span = self.start_span(
            f"process {self._input_of[record.topic]}",
            context,
            SpanKind.CONSUMER,
            self._attributes(record),
            start_time=time.time_ns() - int((time.monotonic() - record.fetched_at) * 1e9),
        )
        own = span.get_span_context()
        trace_id, flags = format_trace_id(own.trace_id), flags if trace.continued else int(own.trace_flags)
        trace = replace(
            trace,
            trace_id=trace_id,
            traceparent=f"00-{trace_id}-{format_span_id(own.span_id)}-{flags:02x}",
        )
        self._events[Place.of(record)] = Recorded(span, trace)
        return trace

    def _attributes(self, record: SourceRecord) -> dict[str, str | int]:
        attributes: dict[str, str | int] = {
            "messaging.system": "kafka",
            "messaging.operation.name": "process",
            "messaging.operation.type": "process",
            "messaging.destination.name": record.topic,
            "messaging.destination.partition.id": str(record.partition),
            "messaging.consumer.group.name": self._group,
            "messaging.kafka.offset": record.offset,
            "messaging.message.body.size": len(record.value or b""),
        }
        if record.value is None:
            attributes["messaging.kafka.message.tombstone"] = True
        if (pattern := self._input_of[record.topic]) != record.topic:
            attributes["messaging.destination.template"] = pattern
        return attributes

    def durable(self, record: SourceRecord, outcome: Outcome) -> None:
        """All outputs of ``record`` are durable: its span ends, with what ``outcome`` holds."""
        if (event := self._events.pop(Place.of(record), None)) is not None:
            try:
                self._end(event, outcome)
            except Exception:  # it would end the release thread
                _log.exception("an event is not recorded")

    def _end(self, event: Recorded, outcome: Outcome) -> None:
        letters = [each for each in outcome.outputs if each.topic == self._dead_letter_topic]
        kind = "dropped" if outcome.kind == "dropped" else "done"
        if letters:
            kind = "dead_letter" if len(letters) == len(outcome.outputs) else "partial"
            classes = list(dict.fromkeys(_said(each, "class") for each in letters))
            stages = list(dict.fromkeys(_said(each, "stage") for each in letters))
            failed(event.span, classes[0], f"dead letter: {stages[0]}, {classes[0]}")
            event.span.set_attribute("rexstream.dead_letter.classes", classes[:MAX_CLASSES])
        event.span.set_attributes({"rexstream.outcome": kind, "rexstream.dead_letters": len(letters)})
        event.span.end()

    def revoked(self, epochs: Mapping[Partition, int]) -> None:
        """These epochs ended: another worker processes their records."""
        self._leave(place for place in list(self._events) if place.epoch <= epochs.get(place.partition, -1))

    def close(self, deadline: float) -> None:
        """Send what waits, for ``CLOSE_SECONDS`` and to the ``deadline`` (monotonic seconds) at most; blocks so long.

        Events that are not durable are read again, by another worker.
        """
        self._leave(list(self._events))
        self._export.close(min(CLOSE_SECONDS, max(0.0, deadline - time.monotonic())))

    def no_outcome(self, record: SourceRecord, error: BaseException) -> None:
        """Its processing was cancelled, since its partition was revoked, or failed for what is not the record's."""
        place = Place.of(record)
        if (event := self._events.get(place)) is not None and not isinstance(error, asyncio.CancelledError):
            failed(event.span, type(error).__qualname__)
        self._leave((place,))

    def _leave(self, places: Iterable[Place]) -> None:
        """These events are read again, by whoever gets their partition."""
        for place in places:
            if (event := self._events.pop(place, None)) is not None:
                event.span.set_attribute("rexstream.outcome", "revoked")
                event.span.end()


def failed(span: Span, kind: str, description: str | None = None) -> None:
    """``span`` ends in a failure of this kind: a status, a class or a reason of ours, never a message."""
    span.set_attribute("error.type", kind)
    span.set_status(Status(StatusCode.ERROR, description))


def _is_state(header: str) -> bool:
    return header.lower() == TRACESTATE


def _said(letter: Output, name: str) -> str:
    """A header of a dead letter of ours, which stands behind what the record brought."""
    found = next((value for key, value in reversed(letter.headers) if key == PREFIX + name), None)
    return (found or b"_OTHER").decode(errors="replace")
