"""The parts of a worker whose events are traced: those of ``parts``, with spans for an OpenTelemetry collector.

Subclasses of what a worker is made of anyway: they see what passes, and decide nothing.
"""

from __future__ import annotations

import asyncio
from functools import partial
from typing import TYPE_CHECKING, Any

from opentelemetry.context import Context
from opentelemetry.trace import set_span_in_context

from consumer.events import BadInput, Place
from consumer.serving.refused import WindowRefused
from consumer.worker.call_spans import CallSpans, TracedDispatcher
from consumer.worker.event_processor import EventProcessor
from consumer.worker.event_spans import EventSpans, failed
from consumer.worker.task_runner import TaskRunner
from consumer.worker.variant import MOVED, Variant

if TYPE_CHECKING:
    from consumer.config.tree import Config
    from consumer.events import Outcome, SourceRecord, Work
    from consumer.extraction.task import Task
    from consumer.worker.inference import Inference


class Tracing:
    """The names of ``Parts``, and what they are here."""

    def __init__(self, config: Config, worker: str) -> None:
        """Raises ValueError for a variable ``OTEL_…`` that cannot be."""
        self.stopping = asyncio.Event()
        events = EventSpans(config, worker)
        self.dispatcher = partial(TracedDispatcher, CallSpans(events))
        self.task_runner = partial(TracedTaskRunner, events)
        self.event_processor = partial(TracedEventProcessor, events)
        self.on_durable = (events.durable,)
        self.count_in = events.count_in
        self.revoked = events.revoked
        self.close = events.close


class TracedEventProcessor(EventProcessor):
    """An event processor whose outputs name the event's span, which notes when the event is processed."""

    def __init__(self, events: EventSpans, *args: Any, **kwargs: Any) -> None:
        self._events = events
        super().__init__(*args, trace=events.trace, **kwargs)

    async def process(self, record: SourceRecord) -> Outcome:
        """As ``EventProcessor.process``."""
        try:
            outcome = await super().process(record)
        except BaseException as error:
            self._events.no_outcome(record, error)
            raise
        if (event := self._events.of(Place.of(record))) is not None:
            event.span.add_event("processed", {"rexstream.outputs": len(outcome.outputs)})
        return outcome


class TracedTaskRunner(TaskRunner):
    """A task runner with a span for each task of a recorded event, below the event's."""

    def __init__(self, events: EventSpans, *args: Any, **kwargs: Any) -> None:
        self._events = events
        super().__init__(*args, **kwargs)

    async def infer(self, text: str, task: Task, work: Work) -> Inference:
        """As ``TaskRunner.infer``."""
        if (event := self._events.of(work.place)) is None:
            return await super().infer(text, task, work)
        context = set_span_in_context(event.span, Context())
        span = self._events.start_span(f"extract {task.name}", context, attributes={"rexstream.task": task.name})
        if isinstance(work.variant, Variant):
            span.set_attribute("rexstream.variant", work.variant.name)
        try:
            inference = await super().infer(text, task, work)
        except BaseException as error:
            if isinstance(error, asyncio.CancelledError) and error.args == (MOVED,):
                span.set_attribute("rexstream.moved", True)  # no failure: it begins again at another variant
                raise
            # A reason is a slug of ours; of anything else only the class.
            failed(span, error.reason if isinstance(error, (BadInput, WindowRefused)) else type(error).__qualname__)
            raise
        else:
            span.set_attributes(
                {
                    "rexstream.queue_seconds": inference.queued,
                    "rexstream.model_seconds": inference.in_model,
                    "rexstream.windows": inference.extracted.model_calls,
                    "rexstream.restarts": inference.restarts,
                    "rexstream.model.name": inference.model.name,
                    "rexstream.model.version": inference.model.version,
                }
            )
            return inference
        finally:
            span.end()
