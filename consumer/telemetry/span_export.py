"""Sends spans to an OpenTelemetry collector, on a thread of its own.

Nobody waits for it. What the collector does not take is dropped and counted. Imported only where tracing is on: the
library belongs to the extra ``otel``.
"""

from __future__ import annotations

import logging
import os
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import structlog
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import OTELResourceDetector, Resource
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.sampling import ALWAYS_ON
from opentelemetry.util.re import parse_env_headers
from prometheus_client import Counter

from consumer import __version__
from consumer.telemetry.metric_declarations import TRACING_COUNTERS

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from opentelemetry.context import Context
    from opentelemetry.sdk.trace import Span
    from opentelemetry.trace import Tracer
    from prometheus_client import CollectorRegistry

SpansEnd = Literal["exported", "failed", "queue_full", "abandoned"]

QUEUE_SPANS = 4096
"""Spans that wait for the collector, some 5 KB each: 20 MB while it is away."""

BATCH_SPANS = 512
EVERY_MS = 1000
"""A batch leaves when it is full, or after so long."""

_FILES = [
    f"OTEL_EXPORTER_OTLP_{signal}{what}"
    for signal in ("", "TRACES_")
    for what in ("CERTIFICATE", "CLIENT_CERTIFICATE", "CLIENT_KEY")
]
"""Variables of the SDK that name files."""

_HEADERS = ("OTEL_EXPORTER_OTLP_HEADERS", "OTEL_EXPORTER_OTLP_TRACES_HEADERS")

_log = structlog.stdlib.get_logger(__name__)
for _name in ("opentelemetry.util.re", "opentelemetry.trace.span"):
    logging.getLogger(_name).setLevel(logging.CRITICAL)  # they would log a header that they cannot read
_sdk_log = logging.getLogger("opentelemetry.exporter")
_sdk_log.setLevel(logging.ERROR)  # it warns of every single try


class SpanExport(SpanProcessor, SpanExporter):
    """Stands before and behind the SDK's queue, and counts what goes in and out."""

    def __init__(self, endpoint: str, worker: str) -> None:
        """``endpoint``: URL of the collector's OTLP/gRPC port, ``worker``: the name of this worker.

        Connects to nothing yet. Raises ValueError for a variable ``OTEL_…`` that cannot be.
        """
        self.on_ended: Callable[[SpansEnd, int], None] = lambda end, spans: None  # noqa: ARG005
        """Is called with what became of so many spans, from any thread."""
        self._endpoint = endpoint
        self._lock = threading.Lock()
        self._waiting = 0
        self._closed = False
        self._failing = False
        for name in _HEADERS:
            each = [part for part in os.environ.get(name, "").split(",") if part.strip()]
            if not all(parse_env_headers(part, liberal=True) for part in each):
                raise ValueError(f"{name} has a part that is not name=value; write a space as %20, a comma as %2C")
        for name in _FILES:
            if (path := os.environ.get(name)) and not Path(path).is_file():  # the SDK would do without it
                raise ValueError(f"{name} names {path}, which is no file; correct it, or unset the variable")
        try:
            self._exporter = OTLPSpanExporter(
                endpoint=endpoint,
                insecure=endpoint.lower().startswith("http:"),
                channel_options=(("grpc.enable_http_proxy", 0),),  # type: ignore[arg-type]  # as for the model server
            )
        except Exception as error:  # the SDK has a class of its own for some variables, and RuntimeError for others
            raise ValueError(
                f"OpenTelemetry's exporter cannot be made: {error}; look at the OTEL_ variables"
            ) from error
        own = {"service.name": "rexstream", "service.version": __version__, "service.instance.id": worker}
        # What the operator says of this service in OTEL_SERVICE_NAME and OTEL_RESOURCE_ATTRIBUTES goes before our own.
        resource = Resource.create().merge(Resource(own)).merge(OTELResourceDetector().detect())
        self._queue = BatchSpanProcessor(self, QUEUE_SPANS, EVERY_MS, BATCH_SPANS)
        self._provider = TracerProvider(ALWAYS_ON, resource, shutdown_on_exit=False)
        self._provider.add_span_processor(self)
        self.tracer: Tracer = self._provider.get_tracer("rexstream", __version__)

    def count_in(self, registry: CollectorRegistry) -> None:
        """Count there what becomes of spans, from now on."""
        (name, (text, labels)), *_ = TRACING_COUNTERS.items()
        counter = Counter(name, text, labels, registry=registry)
        self.on_ended = lambda end, spans: counter.labels(end).inc(spans)

    # Before the queue, on whichever thread a span ends.

    def on_start(self, span: Span, parent_context: Context | None = None) -> None:
        """A span has begun: nothing to do."""

    def on_end(self, span: ReadableSpan) -> None:
        """Queue a span, or drop it where too many wait."""
        with self._lock:
            end: SpansEnd | None = "abandoned" if self._closed else None
            if end is None and self._waiting >= QUEUE_SPANS:
                end = "queue_full"
            self._waiting += end is None
        if end is None:
            self._queue.on_end(span)
        else:
            self.on_ended(end, 1)

    # Behind it, on the SDK's thread.

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Send spans; blocks for ten seconds at most, unless ``OTEL_EXPORTER_OTLP_TIMEOUT`` says otherwise."""
        with self._lock:
            if self._closed:
                return SpanExportResult.FAILURE  # they are counted already
            self._waiting -= len(spans)
        try:
            result = self._exporter.export(spans)
        except Exception:
            _log.exception("spans cannot be exported")
            result = SpanExportResult.FAILURE
        failed = result is not SpanExportResult.SUCCESS
        self.on_ended("failed" if failed else "exported", len(spans))
        if failed is not self._failing:
            self._failing = failed
            # The SDK has said why, once; it would go on about it for each batch.
            _sdk_log.setLevel(logging.CRITICAL if failed else logging.ERROR)
            if failed:
                _log.warning("the collector takes no spans; they are dropped and counted", endpoint=self._endpoint)
            else:
                _log.info("the collector takes spans again", endpoint=self._endpoint)
        return result

    def shutdown(self) -> None:
        """The SDK's own end, of processor and exporter: ``close`` does all of it."""

    def force_flush(self, timeout_millis: int | None = None) -> bool:  # noqa: ARG002
        """Nothing is kept here."""
        return True

    def close(self, seconds: float) -> None:
        """Send what waits within ``seconds``; what is left then is dropped. Blocks so long at most."""
        closing = threading.Thread(target=self._queue.shutdown, name="rexstream-spans", daemon=True)
        closing.start()
        closing.join(seconds)
        with self._lock:
            self._closed = True
            left, self._waiting = self._waiting, 0
        self._exporter.shutdown()  # ends the call that is under way
        if left:
            self.on_ended("abandoned", left)
            _log.warning("spans were not sent before the end", spans=left, endpoint=self._endpoint)
