"""Which events are recorded, what their spans and those of their model calls say, and when they end."""

from __future__ import annotations

import asyncio
import threading
import time
from collections import defaultdict
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
import virtual_time
from dispatcher_harness import KNOWN_GOOD, Observer, StubClient, window
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode, format_span_id, format_trace_id

from consumer.batching.policy import LeastTime
from consumer.codecs.outputs import ModelUsed, Routes
from consumer.config.route import RouteConfig
from consumer.config.task_files import load_tasks
from consumer.config.tree import Config
from consumer.delivery.dead_letters import DeadLetters
from consumer.events import BadInput, Outcome, Output, Partition, Place, SourceRecord, Work
from consumer.extraction.task import Extracted
from consumer.serving.dispatch.dispatcher import Dispatcher
from consumer.serving.protocol import Failure, ServingError
from consumer.telemetry import span_export
from consumer.telemetry.metrics import Metrics
from consumer.worker.call_spans import MAX_LINKS, CallSpans, TracedDispatcher, server_of
from consumer.worker.event_processor import EventProcessor
from consumer.worker.event_spans import EventSpans
from consumer.worker.inference import Inference
from consumer.worker.parts import Parts, parts_of
from consumer.worker.task_runner import TaskRunner, WorkBudget
from consumer.worker.tracing import TracedEventProcessor, TracedTaskRunner
from consumer.worker.variant import MOVED, Variant

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from opentelemetry.sdk.trace import ReadableSpan


TRACE, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
SECRET = "一个秘密"
ROUTES = (
    RouteConfig(input="in", tasks=("sentiment",), output="out"),
    RouteConfig(input=r"^shop\..*$", tasks=("sentiment",), output="out2"),
)


def config(ratio: float = 1.0) -> Config:
    tracing = {"endpoint": "http://127.0.0.1:4317", "sample_ratio": ratio}
    return Config.model_validate({"observability": {"tracing": tracing}}).model_copy(update={"routes": ROUTES})


def record(offset: int = 1, traceparent: str | None = f"00-{TRACE}-{PARENT}-01", **more: Any) -> SourceRecord:
    headers = () if traceparent is None else (("traceparent", traceparent.encode()),)
    value = f'{{"event_id": "e{offset}", "text": "{SECRET}"}}'.encode()
    fields: dict[str, Any] = {
        "topic": "in",
        "partition": 0,
        "epoch": 3,
        "key": SECRET.encode(),
        "value": value,
        "timestamp_ms": None,
    }
    return SourceRecord(offset=offset, headers=headers, fetched_at=time.monotonic(), **(fields | more))


@pytest.fixture
def memory(monkeypatch: pytest.MonkeyPatch) -> InMemorySpanExporter:
    """Has every span that ended, in order."""
    memory = InMemorySpanExporter()
    monkeypatch.setattr(span_export, "OTLPSpanExporter", lambda **_: memory)
    monkeypatch.setattr(span_export, "BatchSpanProcessor", lambda exporter, *_: SimpleSpanProcessor(exporter))
    return memory


def said(span: ReadableSpan) -> dict[str, Any]:
    return dict(span.attributes or {})


def identity(span: ReadableSpan) -> str:
    assert span.context is not None
    return f"00-{format_trace_id(span.context.trace_id)}-{format_span_id(span.context.span_id)}"


DONE = Outcome("done", (Output("out", b"k", b"v"),))


def letter(reason: str, stage: str = "decode") -> Output:
    said = (("rexstream-dlq-class", reason.encode()), ("rexstream-dlq-stage", stage.encode()))
    return Output("reviews.dead", b"k", b"v", (("rexstream-dlq-class", SECRET.encode()), *said))


@pytest.mark.parametrize(
    ("traceparent", "ratio", "recorded"),
    [
        (f"00-{TRACE}-{PARENT}-01", 0.0, True),
        (f"00-{TRACE}-{PARENT}-03", 0.0, True),
        (f"00-{TRACE}-{PARENT}-00", 1.0, False),
        (f"00-{TRACE}-{PARENT}-02", 1.0, False),
        (None, 0.0, False),
        (None, 1.0, True),
        ("what is this", 1.0, True),
        ("what is this", 0.0, False),
    ],
)
def test_the_producer_decides_and_without_one_the_ratio(
    memory: InMemorySpanExporter, traceparent: str | None, ratio: float, recorded: bool
) -> None:
    """The traceparent of the outputs names the span, and says whether there is one."""
    spans = EventSpans(config(ratio), "w")
    one = record(traceparent=traceparent)
    trace = spans.trace(one)
    assert int(trace.traceparent[-2:], 16) & 1 == recorded
    assert trace.continued == ("-" in (traceparent or ""))
    if trace.continued:
        assert trace.trace_id == TRACE
        assert trace.traceparent[-2:] == (traceparent or "")[-2:]
    spans.durable(one, DONE)
    assert [identity(span) for span in memory.get_finished_spans()] == [trace.traceparent[:-3]] * recorded


def test_an_event_has_one_span_however_often_it_is_asked_for(memory: InMemorySpanExporter) -> None:
    spans = EventSpans(config(), "w")
    one = record()
    assert spans.trace(one) == spans.trace(one)
    spans.durable(one, DONE)
    spans.durable(one, DONE)
    (span,) = memory.get_finished_spans()
    assert span.parent is not None
    assert span.parent.is_remote
    assert format_span_id(span.parent.span_id) == PARENT
    assert span.kind is SpanKind.CONSUMER
    assert span.start_time is not None
    assert abs(span.start_time / 1e9 - time.time()) < 60


def test_a_topic_of_a_pattern_has_it_as_its_template(memory: InMemorySpanExporter) -> None:
    """Names of spans are few, however many topics a pattern matches."""
    spans = EventSpans(config(), "w")
    for topic in ("shop.a", "shop.b"):
        one = record(topic=topic)
        spans.trace(one)
        spans.durable(one, DONE)
    found = memory.get_finished_spans()
    assert {span.name for span in found} == {r"process ^shop\..*$"}
    assert [said(span)["messaging.destination.name"] for span in found] == ["shop.a", "shop.b"]
    assert {said(span)["messaging.destination.template"] for span in found} == {r"^shop\..*$"}


@pytest.mark.parametrize(
    ("outcome", "expected"),
    [
        (DONE, ("done", None, None)),
        (Outcome("dropped"), ("dropped", None, None)),
        (Outcome("done", (letter("InvalidJson"),)), ("dead_letter", "InvalidJson", ("InvalidJson",))),
        (
            Outcome("done", (*DONE.outputs, letter("Poison", "extract"), letter("NoTasks"), letter("Poison"))),
            ("partial", "Poison", ("Poison", "NoTasks")),
        ),
    ],
)
def test_a_span_says_what_was_published(
    memory: InMemorySpanExporter, outcome: Outcome, expected: tuple[str, str | None, tuple[str, ...] | None]
) -> None:
    """The classes are those of our own headers, and not of equal ones that the record brought."""
    spans = EventSpans(config(), "w")
    one = record()
    spans.trace(one)
    spans.durable(one, outcome)
    (span,) = memory.get_finished_spans()
    found = said(span)
    assert (
        found["rexstream.outcome"],
        found.get("error.type"),
        found.get("rexstream.dead_letter.classes"),
    ) == expected
    assert span.status.status_code is (StatusCode.ERROR if expected[1] else StatusCode.UNSET)
    assert SECRET not in span.to_json(indent=None) + str(span.status.description)


@pytest.mark.usefixtures("memory")
@pytest.mark.parametrize("state", [SECRET, f"a=1,{SECRET}=2", "a=1,a=" + SECRET])
def test_a_tracestate_that_cannot_be_read_is_not_logged(caplog: pytest.LogCaptureFixture, state: str) -> None:
    """The SDK would quote what a producer put there, for every record."""
    caplog.set_level("DEBUG")
    one = record()
    EventSpans(config(), "w").trace(replace(one, headers=(*one.headers, ("tracestate", state.encode()))))
    assert [record for record in caplog.records if record.thread == threading.get_ident()] == []


def test_revoked_partitions_end_their_spans_and_no_others(memory: InMemorySpanExporter) -> None:
    """Of ended epochs only; nothing is kept of them."""
    spans = EventSpans(config(), "w")
    records = [record(1), record(2, epoch=4), record(3, partition=1)]
    for one in records:
        spans.trace(one)
    spans.revoked({Partition("in", 0): 3})
    (span,) = memory.get_finished_spans()
    assert (said(span)["messaging.kafka.offset"], said(span)["rexstream.outcome"]) == (1, "revoked")
    spans.durable(records[0], DONE)
    assert len(memory.get_finished_spans()) == 1
    spans.close(0.0)
    assert [said(span)["messaging.kafka.offset"] for span in memory.get_finished_spans()] == [1, 2, 3]


def test_a_defect_of_tracing_is_no_events(memory: InMemorySpanExporter, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its trace goes on, unrecorded, and the release thread lives."""

    def fail(*_: object, **__: object) -> None:
        raise KeyError("tracing")

    spans = EventSpans(config(), "w")
    spans.trace(record(1))
    monkeypatch.setattr(spans, "_end", fail)
    spans.durable(record(1), DONE)
    monkeypatch.setattr(spans, "start_span", fail)
    assert spans.trace(record(2)).trace_id == TRACE
    assert spans.of(Place.of(record(2))) is None
    assert memory.get_finished_spans() == ()


class Failing:
    """Inference that raises what it is told to, else finds nothing."""

    def __init__(self, *errors: BaseException) -> None:
        self.errors = list(errors)

    async def infer(self, *_: object) -> Inference:
        if self.errors:
            raise self.errors.pop(0)
        return Inference(Extracted((), (), 1), ModelUsed("rex", "3", "s"), 0.0, 0.0, 0, 0)


def processor(spans: EventSpans, infer: Failing) -> TracedEventProcessor:
    return TracedEventProcessor(
        spans,
        Routes(ROUTES, load_tasks()),
        infer.infer,
        DeadLetters("reviews.dead", "group", "1"),
        Metrics(),
        budgets=defaultdict(lambda: WorkBudget(100_000_000)),
        model="rex",
        max_value_bytes=1000,
        latency_objective=1.0,
    )


def test_a_result_names_the_span_also_after_a_second_try(memory: InMemorySpanExporter) -> None:
    """One event, one span, though our own code failed once."""
    spans = EventSpans(config(), "w")
    outcome = asyncio.run(processor(spans, Failing(KeyError(SECRET))).process(record()))
    spans.durable(record(), outcome)
    (span,) = memory.get_finished_spans()
    assert dict(outcome.outputs[0].headers)["traceparent"] == f"{identity(span)}-01".encode()
    assert [event.name for event in span.events] == ["processed"]


@pytest.mark.parametrize(
    ("errors", "reason"),
    [
        ((BadInput("extract", "TextTooLong", SECRET),), "TextTooLong"),
        ((KeyError(SECRET), KeyError(SECRET)), "Defect"),
    ],
)
def test_what_becomes_a_dead_letter_is_told_without_its_message(
    memory: InMemorySpanExporter, errors: Sequence[BaseException], reason: str
) -> None:
    spans = EventSpans(config(), "w")
    spans.durable(record(), asyncio.run(processor(spans, Failing(*errors)).process(record())))
    (span,) = memory.get_finished_spans()
    assert said(span)["error.type"] == reason
    assert SECRET not in span.to_json(indent=None) + str(span.status.description)


def test_a_record_without_an_outcome_ends_its_span(memory: InMemorySpanExporter) -> None:
    """Its partition was revoked, or the process is at fault."""
    spans = EventSpans(config(), "w")

    async def cancelled() -> None:
        waiting = Failing()
        waiting.infer = lambda *_: asyncio.sleep(1000)  # type: ignore[method-assign,assignment]
        task = asyncio.create_task(processor(spans, waiting).process(record(1)))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        with pytest.raises(OSError, match=SECRET):
            await processor(spans, Failing(OSError(SECRET))).process(record(2))

    asyncio.run(cancelled())
    revoked, failed = memory.get_finished_spans()
    assert said(revoked)["rexstream.outcome"] == "revoked"
    assert "error.type" not in said(revoked)
    assert said(failed)["error.type"] == "OSError"
    assert SECRET not in failed.to_json(indent=None) + str(failed.status.description)


@pytest.mark.parametrize("moved", [True, False])
def test_an_extraction_that_is_moved_to_another_variant_has_not_failed(
    memory: InMemorySpanExporter, monkeypatch: pytest.MonkeyPatch, moved: bool
) -> None:
    """Its span says so, and at which variant it was; one that is cancelled for its event's revocation has failed."""

    async def for_ever(*_: object) -> Inference:
        await asyncio.Event().wait()
        raise AssertionError

    monkeypatch.setattr(TaskRunner, "infer", for_ever)
    spans = EventSpans(config(), "w")
    spans.trace(record())
    work = Work(Place.of(record()), 1, 0)
    work.variant = Variant("canary", *[None] * 5)  # type: ignore[arg-type]

    async def body() -> None:
        runner = TracedTaskRunner(spans, None, None, {}, event_tokens=1, share=None, over_share=print)
        task = asyncio.create_task(runner.infer("", load_tasks()["sentiment"], work))
        await asyncio.sleep(0)
        task.cancel(*[MOVED] * moved)
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(body())
    (span,) = memory.get_finished_spans()
    assert said(span)["rexstream.variant"] == "canary"
    assert said(span).get("rexstream.moved", False) == moved
    assert span.status.status_code is (StatusCode.UNSET if moved else StatusCode.ERROR)


def dispatch(spans: EventSpans, client: StubClient, body: Callable[[Dispatcher], Awaitable[None]]) -> None:
    """Run ``body`` beside a traced dispatcher in virtual time."""

    async def main() -> None:
        dispatcher = TracedDispatcher(
            CallSpans(spans),
            {"10.0.0.1:8500": client},
            LeastTime(16_384, 2),
            window(KNOWN_GOOD),
            "m",
            Observer(),
            lambda *_: None,
            asyncio.get_running_loop().time,
        )
        pump = asyncio.create_task(dispatcher.pump())
        try:
            await body(dispatcher)
        finally:
            pump.cancel()

    virtual_time.run(main())


def test_a_call_is_linked_with_the_recorded_events_that_it_serves(memory: InMemorySpanExporter) -> None:
    """With few of many, and with none that is not recorded; a call without one has no span, nor has a health probe."""
    spans = EventSpans(config(0.0), "w")
    events = [record(offset) for offset in range(100)]
    for one in events:
        spans.trace(one)
    other = record(1000, traceparent=None)
    spans.trace(other)

    async def body(dispatcher: Dispatcher) -> None:
        await dispatcher.health_probe()
        await dispatcher.submit(window(7), 0.0, 0, Place.of(other))
        places = [Place.of(each) for each in (other, *events)]
        both = [*((2, place) for place in places), *((3, place) for place in places)]
        await asyncio.gather(*(dispatcher.submit(window(mark), 0.0, 0, place) for mark, place in both))

    client = StubClient()
    dispatch(spans, client, body)
    calls = list(memory.get_finished_spans())
    assert len(calls) == sum(bool({2, 3} & set(marks)) for marks in client.calls)
    assert {span.name for span in calls} == {"tensorflow.serving.PredictionService/Predict"}
    assert all(len(span.links) <= MAX_LINKS for span in calls)
    assert sum(said(span)["rexstream.windows"] for span in calls) == 202
    assert {(said(span)["server.address"], said(span)["server.port"]) for span in calls} == {("10.0.0.1", 8500)}
    for one in events:
        spans.durable(one, DONE)
    back = {span.context.span_id for span in calls if span.context is not None}
    ended = memory.get_finished_spans()[len(calls) :]
    assert all({link.context.span_id for link in span.links} <= back and span.links for span in ended)


def test_a_failed_call_has_its_status_and_its_repeat_a_span_of_its_own(memory: InMemorySpanExporter) -> None:
    spans = EventSpans(config(0.0), "w")
    spans.trace(record())
    errors = [
        ServingError(Failure.TRANSIENT, "UNAVAILABLE", SECRET),
        ServingError(Failure.TRANSIENT, "ANSWER", SECRET),
    ]

    async def body(dispatcher: Dispatcher) -> None:
        await dispatcher.submit(window(2), 0.0, 0, Place.of(record()))

    dispatch(spans, StubClient(lambda marks: errors.pop(0) if errors and 2 in marks else None), body)
    first, second, third = memory.get_finished_spans()
    found = [(said(each).get("rpc.response.status_code"), said(each).get("error.type")) for each in (first, second)]
    assert found == [("UNAVAILABLE", "UNAVAILABLE"), (None, "ANSWER")]
    assert (said(third)["rpc.response.status_code"], said(third)["rexstream.model.version"]) == ("OK", "1")
    assert {each.status.status_code for each in (first, second)} == {StatusCode.ERROR}
    assert SECRET not in first.to_json() + second.to_json() + str(first.status.description)


def test_calls_to_a_server_that_is_found_later_have_spans(memory: InMemorySpanExporter) -> None:
    """A name that has another address now."""
    spans = EventSpans(config(0.0), "w")
    spans.trace(record())
    made: list[str] = []

    def connect(address: str) -> StubClient:
        made.append(address)
        return StubClient()

    async def body(dispatcher: Dispatcher) -> None:
        dispatcher.resolved(["10.0.0.2:8500"], connect)
        await asyncio.sleep(1)
        await dispatcher.submit(window(2), 0.0, 0, Place.of(record()))

    dispatch(spans, StubClient(), body)
    (call,) = memory.get_finished_spans()
    assert [said(call)["server.address"]] == [each.partition(":")[0] for each in made] == ["10.0.0.2"]


def test_a_window_that_is_withdrawn_or_answered_is_not_kept(memory: InMemorySpanExporter) -> None:
    spans = EventSpans(config(0.0), "w")
    spans.trace(record())
    calls = CallSpans(spans)

    async def body() -> None:
        loop = asyncio.get_running_loop()
        same = window(2)
        first, again, withdrawn = (loop.create_future() for _ in range(3))
        calls.submitted(same, Place.of(record()), first)
        first.set_result(None)
        calls.submitted(same, Place.of(record()), again)
        calls.submitted(window(3), Place.of(record()), withdrawn)
        withdrawn.cancel()
        await asyncio.sleep(0)
        assert [each[0] for each in calls._waiting.values()] == [again]
        again.set_result(None)
        await asyncio.sleep(0)

    asyncio.run(body())
    assert calls._waiting == {}
    assert memory.get_finished_spans() == ()


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        ("model:8500", ("model", 8500)),
        ("10.0.0.1:8500", ("10.0.0.1", 8500)),
        ("[::1]:8500", ("::1", 8500)),
        ("ipv6:[::1]:8500", ("::1", 8500)),
        ("dns:///model.shop.svc:8500", ("model.shop.svc", 8500)),
        ("dns://10.0.0.53/model:8500", ("model", 8500)),
        ("unix:/run/serving.sock", ("/run/serving.sock", None)),
    ],
)
def test_the_address_of_a_server(target: str, expected: tuple[str, int | None]) -> None:
    found = server_of(target)
    assert (found["server.address"], found.get("server.port")) == expected


def test_a_worker_without_a_collector_has_its_parts_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not one call more for an event; OpenTelemetry's own switch has the same effect."""
    monkeypatch.setenv("OTEL_SDK_DISABLED", "true")
    for parts in (parts_of(Config(), "w"), parts_of(config(), "w")):
        assert type(parts) is Parts
        assert (parts.dispatcher, parts.task_runner, parts.event_processor, parts.on_durable) == (
            Dispatcher,
            TaskRunner,
            EventProcessor,
            (),
        )


def test_tracing_has_every_name_of_the_parts(memory: InMemorySpanExporter) -> None:
    traced = parts_of(config(), "w")
    for name in vars(Parts):
        if not name.startswith("__"):
            assert callable(getattr(traced, name)) or name == "on_durable"
    traced.close(time.monotonic())
    assert memory.get_finished_spans() == ()
