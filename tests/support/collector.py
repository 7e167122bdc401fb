"""An OpenTelemetry collector for tests, which keeps what it gets: OTLP over gRPC on loopback, the official messages."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import grpc
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse
from opentelemetry.proto.collector.trace.v1.trace_service_pb2_grpc import (
    TraceServiceServicer,
    add_TraceServiceServicer_to_server,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
    from opentelemetry.proto.trace.v1.trace_pb2 import Span


class Collector(TraceServiceServicer):
    """Serves from its creation until ``stop``. ``gate`` holds calls back while it is clear.

    With ``credentials`` over TLS.
    """

    def __init__(self, credentials: grpc.ServerCredentials | None = None) -> None:
        self.gate = threading.Event()
        self.gate.set()
        self.requests: list[ExportTraceServiceRequest] = []
        self._server = grpc.server(ThreadPoolExecutor(4))
        add_TraceServiceServicer_to_server(self, self._server)  # type: ignore[no-untyped-call]
        if credentials is None:
            self.endpoint = f"http://127.0.0.1:{self._server.add_insecure_port('127.0.0.1:0')}"
        else:
            self.endpoint = f"https://127.0.0.1:{self._server.add_secure_port('127.0.0.1:0', credentials)}"
        self.metadata: dict[str, str | bytes] = {}
        """Of the last call."""
        self._server.start()

    def Export(self, request: ExportTraceServiceRequest, context: Any) -> ExportTraceServiceResponse:  # noqa: N802
        while not self.gate.wait(0.1) and context.is_active():
            pass
        self.metadata = dict(context.invocation_metadata())
        self.requests.append(request)
        return ExportTraceServiceResponse()

    @property
    def spans(self) -> list[Span]:
        """All that came, in order of arrival."""
        resources = [each for request in list(self.requests) for each in request.resource_spans]
        return [span for each in resources for scope in each.scope_spans for span in scope.spans]

    def wait(self, until: Callable[[list[Span]], bool], seconds: float = 30) -> list[Span]:
        """The spans, once they are all that is waited for."""
        deadline = time.monotonic() + seconds
        while not until(spans := self.spans):
            assert time.monotonic() < deadline, [(span.name, attributes(span)) for span in spans]
            time.sleep(0.05)
        return spans

    def stop(self) -> None:
        self.gate.set()
        self._server.stop(None).wait()


def attributes(span: Any) -> dict[str, Any]:
    """Those of a span, a resource or an event, as Python has them."""
    return {each.key: _value(each.value) for each in span.attributes}


def _value(value: Any) -> Any:
    kind = value.WhichOneof("value")
    return [_value(each) for each in value.array_value.values] if kind == "array_value" else getattr(value, kind)
