"""The section ``observability.tracing``: which events are recorded, and where their spans go."""

from __future__ import annotations

from typing import Annotated

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
