"""The section ``observability``: what a worker shows of itself."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from consumer.config.section import Section, Text


class TracingConfig(Section):
    """Traces of events, sent to an OpenTelemetry collector over OTLP/gRPC: ``pip install 'rexstream[otel]'``. Without
    ``endpoint`` none are, and they cost nothing. docs/operations.md has the spans, and the environment variables that
    count.
    """

    endpoint: Text | None = None
    """The collector, such as ``http://otel-collector:4317``; ``https://`` for TLS."""
    sample_ratio: Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)] = 0.01
    """Share of the events without a ``traceparent`` of their own that are recorded, 0 to 1. Of the others those whose
    producer recorded them are, and no others."""


class ObservabilityConfig(Section):
    """What a worker shows of itself."""

    http: str = "127.0.0.1:9464"
    """Address of /metrics, /livez, /readyz, /status; port 0 takes a free one; an empty string turns it off."""
    http_hosts: tuple[Text, ...] = ()
    """Names, without port, under which clients reach that address, such as a Service's ``rexstream.shop.svc``; ``*.``
    before a name stands for all below it. A request for any other host gets 403, so that no web page can read a worker
    by giving its own name this address (DNS rebinding). Addresses and ``localhost`` need not be named: kubelet and
    Prometheus use those."""
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    """The least severe log lines that are written."""
    tracing: TracingConfig = TracingConfig()
