"""``rexstream run`` with traces: from a producer's ``traceparent`` to that of the result, over real OTLP."""

from __future__ import annotations

import json
import signal
import threading
from typing import TYPE_CHECKING, Protocol

import pytest
from collector import Collector, attributes
from confluent_kafka import Producer
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status
from worker_run import TEXTS, Run, reviews

from consumer.kafka.tools.reader import headers_of, read_to_end

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from stub_server import StubServer

TRACE, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"


class Broker(Protocol):
    """The fixture ``mock_broker``."""

    bootstrap: str

    def topic(self, partitions: int, label: str = ...) -> str:
        """A new topic; its name."""


@pytest.fixture
def collector() -> Iterator[Collector]:
    collector = Collector()
    yield collector
    collector.stop()


@pytest.fixture
def worker(mock_broker: Broker, server: StubServer, collector: Collector, tmp_path: Path) -> Iterator[Run]:
    topics = [mock_broker.topic(2, label) for label in ("in", "out", "dead")]
    tracing = {
        "REXSTREAM_OBSERVABILITY__TRACING__ENDPOINT": collector.endpoint,
        "REXSTREAM_OBSERVABILITY__TRACING__SAMPLE_RATIO": "0",
        "OTEL_SERVICE_NAME": "reviews",
        "http_proxy": "http://127.0.0.1:9",  # is not used, as for the model server
    }
    run = Run(mock_broker.bootstrap, topics, server, tmp_path, environment=tracing)
    yield run
    run.kill()


def send(worker: Run, values: Sequence[tuple[str, bytes]], traceparent: str) -> None:
    producer = Producer({"bootstrap.servers": worker.bootstrap})
    for key, value in values:
        producer.produce(worker.input, value, key, headers=[("traceparent", traceparent), ("tracestate", "ot=th:8")])
    assert producer.flush(30) == 0


def named(spans: Sequence[Span], start: str) -> list[Span]:
    return [span for span in spans if span.name.startswith(start)]


def test_a_trace_leads_from_the_producer_through_the_model_call_to_the_result(
    worker: Run, collector: Collector
) -> None:
    """Producer, event, its tasks, the calls that they share, result: each names the one before it."""
    worker.start()
    send(worker, reviews(3), f"00-{TRACE}-{PARENT}-01")
    worker.send(reviews(20, 3))  # without a trace, and the share of those is 0
    worker.wait_for_results(46)
    spans = collector.wait(lambda spans: len(named(spans, "process ")) == 3 and len(named(spans, "extract ")) == 6)
    events = named(spans, "process ")
    assert {span.trace_id.hex() for span in spans} == {TRACE}
    assert {(span.parent_span_id.hex(), span.kind) for span in events} == {(PARENT, Span.SPAN_KIND_CONSUMER)}
    assert {span.trace_state for span in events} == {"ot=th:8"}
    for event in events:
        said = attributes(event)
        assert {key: said[key] for key in said if key.startswith("messaging.")} == {
            "messaging.system": "kafka",
            "messaging.operation.name": "process",
            "messaging.operation.type": "process",
            "messaging.destination.name": worker.input,
            "messaging.destination.partition.id": said["messaging.destination.partition.id"],
            "messaging.consumer.group.name": worker.group,
            "messaging.kafka.offset": said["messaging.kafka.offset"],
            "messaging.message.body.size": said["messaging.message.body.size"],
        }
        assert said["rexstream.outcome"] == "done"
        assert [each.name for each in event.events] == ["processed"]
        assert event.start_time_unix_nano < event.events[0].time_unix_nano < event.end_time_unix_nano
    ids = {span.span_id for span in events}
    assert {span.parent_span_id for span in named(spans, "extract ")} == ids
    calls = named(spans, "tensorflow.serving.PredictionService/Predict")
    assert calls
    linked = {link.span_id for call in calls for link in call.links}
    assert linked == ids, "every recorded event is linked from a call, and no other"
    assert {link.span_id for event in events for link in event.links} == {call.span_id for call in calls}
    for call in calls:
        said = attributes(call)
        assert call.kind == Span.SPAN_KIND_CLIENT
        assert call.parent_span_id in {link.span_id for link in call.links}
        assert (said["rpc.system.name"], said["rpc.response.status_code"]) == ("grpc", "OK")
        assert said["server.address"] == "127.0.0.1"
        assert said["rexstream.windows"] >= said["rexstream.recorded_events"] >= 1
        assert said["rexstream.padded_tokens"] >= said["rexstream.tokens"] > 0
    parents: dict[str, set[str]] = {}
    for message in read_to_end(worker.bootstrap, worker.output):
        found = dict(headers_of(message))["traceparent"] or b""
        parents.setdefault(json.loads(message.value() or b"")["event_id"], set()).add(found.decode())
    assert {parent for i in range(3) for parent in parents[f"e{i}"]} == {
        f"00-{TRACE}-{span_id.hex()}-01" for span_id in ids
    }
    assert not any(parent.endswith("1") for i in range(3, 23) for parent in parents[f"e{i}"])
    resource = attributes(collector.requests[0].resource_spans[0].resource)
    assert resource["service.name"] == "reviews"
    assert resource["service.instance.id"] == worker.lines()[0]["worker"]
    assert worker.signal(signal.SIGTERM) == 0


def test_a_dead_letter_marks_its_span_and_no_span_holds_text(
    worker: Run, collector: Collector, server: StubServer
) -> None:
    """Class and stage, and nothing of what the review says. What a drain makes durable is sent, too."""
    worker.start()
    spoilt = json.dumps({"event_id": "bad", "text": TEXTS[0], "tasks": ["nothing of ours"]}).encode()
    send(worker, [*reviews(2), ("k", b"{"), ("k", spoilt)], f"00-{TRACE}-{PARENT}-01")
    worker.wait_for_results(4)
    worker.wait(lambda: len(worker.dead_letters()) == 2 and worker.lag() == 0)
    server.gate.clear()
    calls = server.calls
    send(worker, reviews(1, 2), f"00-{TRACE}-{PARENT}-01")
    worker.wait(lambda: server.calls > calls)
    release = threading.Timer(0.5, server.gate.set)
    release.start()
    assert worker.signal(signal.SIGTERM) == 0
    release.join()
    spans = named(collector.spans, "process ")
    assert sorted(attributes(span)["rexstream.outcome"] for span in spans) == ["dead_letter"] * 2 + ["done"] * 3
    letters = [span for span in spans if attributes(span)["rexstream.outcome"] == "dead_letter"]
    assert sorted((span.status.code, attributes(span)["error.type"]) for span in letters) == [
        (Status.STATUS_CODE_ERROR, "InvalidJson"),
        (Status.STATUS_CODE_ERROR, "UnknownTask"),
    ]
    sent = b"".join(request.SerializeToString() for request in collector.requests)
    assert not any(text.encode() in sent for text in TEXTS)
    assert b"nothing of ours" not in sent


@pytest.mark.parametrize("how", ["refuses", "hangs"])
def test_a_collector_that_is_dead_stops_nothing(worker: Run, collector: Collector, how: str) -> None:
    """Its spans are counted as failed, the log says so once, and the worker ends in time."""
    if how == "hangs":
        collector.gate.clear()
    else:
        collector.stop()
    worker.environment["OTEL_EXPORTER_OTLP_TIMEOUT"] = "1"
    worker.start()
    send(worker, reviews(40), f"00-{TRACE}-{PARENT}-01")
    worker.wait_for_results(80)
    worker.wait(lambda: 'rexstream_trace_spans_total{end="failed"}' in worker.get("/metrics")[1])
    assert worker.get("/readyz")[0] == 200
    send(worker, reviews(40, 40), f"00-{TRACE}-{PARENT}-01")
    worker.wait_for_results(160)
    worker.wait(lambda: worker.lag() == 0)
    assert worker.signal(signal.SIGTERM) == 0
    lines = worker.lines()
    assert [line["event"] for line in lines].count("the collector takes no spans; they are dropped and counted") == 1
    assert sum(line["logger"].startswith("opentelemetry") for line in lines) <= 1
