"""Spans on their way to a collector: nobody waits for it, and what it does not take is counted."""

from __future__ import annotations

import re
import subprocess
import sys
import threading
import time
from collections import Counter
from typing import TYPE_CHECKING, Any

import grpc
import pytest
from certificates import Authority
from collector import Collector, attributes
from opentelemetry.sdk.trace.export import SpanExportResult
from structlog.testing import capture_logs

from consumer.telemetry import span_export
from consumer.telemetry.metrics import Metrics
from consumer.telemetry.span_export import SpanExport

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from opentelemetry.sdk.trace import ReadableSpan


class Exporter:
    """In place of OTLP: takes what it gets, or fails, once ``gate`` is set."""

    def __init__(self, **_: Any) -> None:
        self.gate = threading.Event()
        self.gate.set()
        self.taken = 0
        self.result: SpanExportResult | Exception = SpanExportResult.SUCCESS
        self.ended = False

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        self.gate.wait(30)
        if isinstance(self.result, Exception):
            raise self.result
        self.taken += len(spans)
        return self.result

    def shutdown(self) -> None:
        self.ended = True
        self.gate.set()


class Bench:
    """A ``SpanExport`` before an ``Exporter``, with small bounds."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, queue: int = 16, every_ms: int = 1) -> None:
        self.exporter = Exporter()
        monkeypatch.setattr(span_export, "OTLPSpanExporter", lambda **_: self.exporter)
        monkeypatch.setattr(span_export, "QUEUE_SPANS", queue)
        monkeypatch.setattr(span_export, "BATCH_SPANS", 8)
        monkeypatch.setattr(span_export, "EVERY_MS", every_ms)
        self.ends: Counter[str] = Counter()
        self.export = SpanExport("http://127.0.0.1:4317", "w")
        self.export.on_ended = lambda end, spans: self.ends.update({end: spans})

    def span(self, count: int = 1) -> None:
        for _ in range(count):
            self.export.tracer.start_span("s").end()

    def wait(self, **ends: int) -> None:
        deadline = time.monotonic() + 20
        while any(self.ends[end] < count for end, count in ends.items()):
            assert time.monotonic() < deadline, self.ends
            time.sleep(0.005)


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> Iterator[Bench]:
    bench = Bench(monkeypatch)
    yield bench
    bench.export.close(0.0)


def test_what_is_sent_is_counted(bench: Bench) -> None:
    bench.span(12)
    bench.wait(exported=12)
    bench.span(4)
    bench.export.close(30.0)
    assert bench.ends == {"exported": bench.exporter.taken} == {"exported": 16}
    assert bench.exporter.ended


def test_the_counter_is_among_the_workers_metrics_once_there_are_traces(bench: Bench) -> None:
    """With a help that says what a spike means, as all have."""
    metrics = Metrics()
    assert "trace_spans" not in metrics.exposition()[0].decode()
    bench.export.count_in(metrics.registry)
    bench.span(3)
    bench.export.close(30.0)
    body = metrics.exposition()[0].decode()
    assert 'rexstream_trace_spans_total{end="exported"} 3.0' in body
    assert re.search("HELP rexstream_trace_spans_total .* spike .*", body)


def test_what_comes_faster_than_the_collector_takes_is_dropped_and_counted_and_nobody_waits(bench: Bench) -> None:
    """The queue is full, and ending a span is still a matter of microseconds; nothing is lost uncounted."""
    bench.exporter.gate.clear()
    bench.span(1000)
    assert 1000 - 16 - 8 * 2 <= bench.ends["queue_full"] <= 1000 - 16
    bench.exporter.gate.set()
    bench.export.close(30.0)
    assert sum(bench.ends.values()) == 1000
    assert bench.ends["exported"] == bench.exporter.taken


def test_a_close_waits_no_longer_than_it_may(bench: Bench) -> None:
    """A collector that does not answer costs the spans that wait, which are counted, and not the grace period."""
    bench.exporter.gate.clear()
    bench.exporter.result = SpanExportResult.FAILURE
    bench.span(12)
    began = time.monotonic()
    bench.export.close(0.05)
    assert time.monotonic() - began < 10
    assert bench.exporter.ended
    bench.span()  # an event that ends after all
    deadline = time.monotonic() + 10
    while sum(bench.ends.values()) < 13 and time.monotonic() < deadline:
        time.sleep(0.005)
    assert sum(bench.ends.values()) == 13
    assert bench.ends["exported"] == 0
    assert bench.ends["abandoned"] >= 1


@pytest.mark.parametrize("result", [SpanExportResult.FAILURE, ValueError("no such field")])
def test_a_failure_is_logged_when_it_begins_and_when_it_ends(
    bench: Bench, result: SpanExportResult | Exception
) -> None:
    with capture_logs() as lines:
        bench.exporter.result = result
        for count in (1, 2, 3):
            bench.span()
            bench.wait(failed=count)
        bench.exporter.result = SpanExportResult.SUCCESS
        bench.span()
        bench.wait(exported=1)
        bench.export.close(10.0)
    events = [line["event"] for line in lines if "collector" in line["event"]]
    assert events == [
        "the collector takes no spans; they are dropped and counted",
        "the collector takes spans again",
    ]


def test_the_resource_names_this_worker_and_what_the_operator_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment.name=shop,service.version=mine")
    collector = Collector()
    try:
        export = SpanExport(collector.endpoint, "worker-7")
        export.tracer.start_span("s").end()
        export.close(10.0)
        collector.wait(lambda spans: len(spans) == 1)
        said = attributes(collector.requests[0].resource_spans[0].resource)
    finally:
        collector.stop()
    assert said["service.name"] == "rexstream"
    assert said["service.instance.id"] == "worker-7"
    assert said["service.version"] == "mine"
    assert said["deployment.environment.name"] == "shop"


def test_an_authority_and_a_token_come_from_the_standard_variables(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A file that is not there is refused: the SDK would go on with public authorities."""
    authority = Authority()
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_CERTIFICATE", str(tmp_path / "ca.pem"))
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", "authorization=Bearer%20abc")
    collector = Collector(grpc.ssl_server_credentials([authority.issue("collector")[::-1]]))
    try:
        with pytest.raises(ValueError, match=r"OTEL_EXPORTER_OTLP_CERTIFICATE names .*ca.pem"):
            SpanExport(collector.endpoint, "w")
        (tmp_path / "ca.pem").write_bytes(authority.pem)
        export = SpanExport(collector.endpoint, "w")
        export.tracer.start_span("s").end()
        export.close(10.0)
        collector.wait(lambda spans: len(spans) == 1)
    finally:
        collector.stop()
    assert collector.metadata["authorization"] == "Bearer abc"


def test_a_variable_that_cannot_be_is_a_value_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_COMPRESSION", "zip")
    with pytest.raises(ValueError, match="OTEL_EXPORTER_OTLP_COMPRESSION"):
        SpanExport("http://127.0.0.1:4317", "w")


def test_a_header_that_cannot_be_read_is_named_and_not_shown(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """It is a token, most likely: the SDK would log it and go on without."""
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TRACES_HEADERS", "a=b,Bearer hunter2")
    with pytest.raises(ValueError, match="OTEL_EXPORTER_OTLP_TRACES_HEADERS") as caught:
        SpanExport("http://127.0.0.1:4317", "w")
    assert "hunter2" not in str(caught.value) + caplog.text


def test_a_worker_without_a_collector_does_not_load_opentelemetry() -> None:
    program = (
        "import sys\n"
        "from consumer.config.tree import Config\n"
        "import consumer.worker.lifecycle, consumer.worker.start_checks, consumer.cli.run\n"
        "from consumer.worker.parts import parts_of\n"
        "parts_of(Config(), 'w')\n"
        "sys.exit(any(name.partition('.')[0] == 'opentelemetry' for name in sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", program], timeout=60).returncode == 0
