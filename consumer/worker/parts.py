"""The parts of a worker that differ where its events are traced: with a collector configured, those of ``tracing``."""

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING

from consumer.serving.dispatch.dispatcher import Dispatcher
from consumer.worker.event_processor import EventProcessor
from consumer.worker.task_runner import TaskRunner

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from prometheus_client import CollectorRegistry

    from consumer.config.tree import Config
    from consumer.events import Outcome, Partition, SourceRecord
    from consumer.worker.tracing import Tracing


class Parts:
    """Those of a worker that traces nothing. ``Tracing`` has the same names."""

    def __init__(self) -> None:
        self.stopping = asyncio.Event()
        """Set when the worker is to drain and end, by itself or by whoever has its parts."""

    dispatcher = Dispatcher
    task_runner = TaskRunner
    event_processor = EventProcessor
    on_durable: tuple[Callable[[SourceRecord, Outcome], None], ...] = ()
    """To be called with every record whose outputs are durable, on the release thread."""

    def count_in(self, registry: CollectorRegistry) -> None:
        """Count what becomes of spans."""

    def revoked(self, epochs: Mapping[Partition, int]) -> None:
        """These epochs of partitions ended."""

    def close(self, deadline: float) -> None:
        """Send what waits. Blocks, until ``deadline`` (monotonic seconds) at most."""


def parts_of(config: Config, worker: str) -> Parts | Tracing:
    """The parts for this configuration; ``worker`` is the worker's name.

    Raises ImportError without the extra ``otel``, ValueError for a variable ``OTEL_…`` that cannot be.
    """
    if not is_traced(config):
        return Parts()
    # Not at the top: a worker without a collector should not load OpenTelemetry.
    from consumer.worker.tracing import Tracing

    return Tracing(config, worker)


def is_traced(config: Config) -> bool:
    """Whether a collector is configured, and OpenTelemetry's own switch does not say otherwise."""
    switched_off = os.environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true"
    return config.observability.tracing.endpoint is not None and not switched_off
