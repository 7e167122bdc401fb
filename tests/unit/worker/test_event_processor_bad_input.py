"""Every kind of bad input: what becomes of it, and that its neighbours in the same batch are not touched."""

from __future__ import annotations

import asyncio
import gc
import json
from collections import defaultdict
from typing import TYPE_CHECKING, Any, cast

import pytest
from avro_frames import EVENT_SCHEMA, datum, framed, known
from stub_model import StubModel, engine

from consumer.batching.policy import LeastTime
from consumer.batching.queue import EventShare
from consumer.codecs.avro_codec import schema_id
from consumer.codecs.avro_schemas import event_schema
from consumer.codecs.outputs import Routes
from consumer.config.route import RouteConfig
from consumer.config.task_files import load_tasks
from consumer.delivery.dead_letters import DeadLetters
from consumer.events import BadInput, Outcome, SourceRecord
from consumer.extraction.task import ExtractionLimits
from consumer.resilience.backoff import Backoff
from consumer.serving.dispatch.dispatcher import Dispatcher
from consumer.serving.protocol import Failure, ServingError
from consumer.telemetry.metrics import Metrics
from consumer.worker.event_processor import EventProcessor
from consumer.worker.task_runner import TaskRunner, WorkBudget

if TYPE_CHECKING:
    from collections.abc import Sequence

    from consumer.codecs.avro_codec import SchemaId
    from consumer.codecs.avro_schemas import WriterSchema
    from consumer.events import Header, Work
    from consumer.extraction.task import Task
    from consumer.extraction.window import Window
    from consumer.kafka.registry.awaited import AwaitedSchemas
    from consumer.worker.inference import Inference

NOW = 1_790_000_000.0
TASKS = load_tasks()
ROUTES = (
    RouteConfig(input="json.in", format="json", tasks=("product_features", "sentiment"), output="out.{task}"),
    RouteConfig(input="text.in", format="text", tasks=("sentiment",), output="out"),
    RouteConfig(input="avro.in", format="avro", tasks=("sentiment",), output="out"),
)
KNOWN_ID = 7
NEIGHBOURS = ["包装很结实，物流也快", "屏幕偏暗，但是音质好", "味道一般，不会再买", "客服耐心，退货顺利"]


class Registry:
    """Knows one schema."""

    async def ensure(self, value: bytes, input_topic: str, headers: Sequence[Header]) -> None:  # noqa: ARG002
        if schema_id(value, headers) != KNOWN_ID:
            raise BadInput("decode", "UnknownSchemaId", "the registry has no such schema")

    def schema_for(self, number: SchemaId) -> WriterSchema:
        return known({KNOWN_ID: event_schema()})(number)

    async def result_schema_id(self, topic: str, input_topic: str) -> int:  # noqa: ARG002
        raise AssertionError(f"no route to {topic} writes Avro")


def record(value: bytes | None, offset: int, topic: str = "json.in", key: bytes | None = b"k") -> SourceRecord:
    headers = (("source-header", b"\xff"), ("nothing", None))
    return SourceRecord(topic, 3, offset, 1, key, value, headers, int(NOW * 1000) - 50, 0.0)


def as_json(**fields: object) -> bytes:
    return json.dumps(fields, ensure_ascii=False).encode()


def process(records: Sequence[SourceRecord], model: StubModel | None = None) -> list[Outcome]:
    """All records at once, through the event processor, the dispatcher and a stub model, so that they share batches."""

    async def main() -> list[Outcome]:
        it = engine(ExtractionLimits())
        window = it.start("好", TASKS["sentiment"]).windows[0]
        metrics = Metrics()
        budgets: defaultdict[str, WorkBudget] = defaultdict(lambda: WorkBudget(100_000_000))
        dispatcher = Dispatcher(
            {"one:1": model or StubModel()},
            LeastTime(16_384, 1),
            window,
            "stub",
            metrics,
            lambda *_: None,
            backoff=Backoff(0.001, 0.01),
        )
        processor = EventProcessor(
            Routes(ROUTES, TASKS),
            TaskRunner(
                it,
                dispatcher,
                budgets,
                event_tokens=49_152,
                share=EventShare(16_384, 1.0, 1.0),
                over_share=metrics.window_over_share,
            ).infer,
            DeadLetters("dead", "group", "0"),
            metrics,
            budgets=budgets,
            model="stub",
            max_value_bytes=1_048_576,
            latency_objective=1.0,
            schemas=cast("AwaitedSchemas", Registry()),
            wall_clock=lambda: NOW,
            clock=lambda: 0.0,
        )
        pump = asyncio.create_task(dispatcher.pump())
        try:
            async with asyncio.timeout(30):
                return await asyncio.gather(*(processor.process(each) for each in records))
        finally:
            pump.cancel()

    return asyncio.run(main())


def facts(outcome: Outcome) -> list[tuple[str, Any]]:
    """The facts in the results of an outcome, without what differs from run to run."""
    found = []
    for output in outcome.outputs:
        assert output.topic.startswith("out"), dict(output.headers)
        result = json.loads(output.value or b"")
        found.append((output.topic, [result[k] for k in ("result_id", "event_id", "task", "extractions", "warnings")]))
    return found


def headers(outcome: Outcome, index: int = 0) -> dict[str, str]:
    return {name: (value or b"").decode(errors="replace") for name, value in outcome.outputs[index].headers}


def avro(text: str) -> bytes:
    return datum(EVENT_SCHEMA, {"event_id": "a", "text": text})


def nested(levels: int) -> dict[str, Any]:
    tree: dict[str, Any] = {"叶": None}
    for _ in range(levels):
        tree = {"层": tree}
    return tree


BAD = [
    pytest.param("json.in", b'{"text": "\xff\xfe"}', "InvalidUtf8", "decode", id="not UTF-8"),
    pytest.param("text.in", b"\xff\xfe", "InvalidUtf8", "decode", id="not UTF-8 as text"),
    pytest.param("json.in", b'{"text": ', "InvalidJson", "decode", id="not JSON"),
    pytest.param("json.in", b"[]", "InvalidEvent", "validate", id="not an object"),
    pytest.param("json.in", b"", "InvalidJson", "decode", id="empty value"),
    pytest.param("avro.in", framed(avro("好"), 9), "UnknownSchemaId", "decode", id="wrong Avro schema id"),
    pytest.param("avro.in", framed(avro("好用又便宜"), KNOWN_ID)[:-4], "InvalidAvro", "decode", id="truncated Avro"),
    pytest.param("avro.in", b"\x00\x00", "InvalidFraming", "decode", id="too short for a frame"),
    pytest.param("json.in", as_json(event_id="x"), "MissingText", "validate", id="missing text"),
    pytest.param("json.in", as_json(text=""), "EmptyText", "validate", id="empty text"),
    pytest.param("json.in", as_json(text=" \n\t"), "EmptyText", "validate", id="only white space"),
    pytest.param("json.in", as_json(text=7), "InvalidEvent", "validate", id="text of another type"),
    pytest.param("json.in", b'{"text": "' + b"a" * 1_048_577 + b'"}', "ValueTooLarge", "decode", id="value too large"),
    pytest.param("json.in", as_json(text="好", schema=nested(12)), "SchemaTooDeep", "validate", id="schema too deep"),
    pytest.param(
        "json.in",
        as_json(text="好", schema={f"类{i}": None for i in range(600)}),
        "SchemaTooWide",
        "validate",
        id="schema too wide",
    ),
    pytest.param("json.in", as_json(text="好", schema={"a": ["b"]}), "InvalidSchema", "validate", id="not a tree"),
    pytest.param("json.in", as_json(text="好", schema=[1]), "InvalidEvent", "validate", id="schema of another type"),
    pytest.param("json.in", as_json(text="好", tasks=["没有这个"]), "UnknownTask", "validate", id="unknown task"),
]


@pytest.mark.parametrize(("topic", "value", "reason", "stage"), BAD)
def test_bad_input_is_one_dead_letter_and_its_neighbours_are_unharmed(
    topic: str, value: bytes, reason: str, stage: str
) -> None:
    """The original travels to the dead-letter topic with the reason; the results beside it are what they were."""
    good = [record(as_json(event_id=f"n{i}", text=text), 10 + i) for i, text in enumerate(NEIGHBOURS)]
    bad = record(value, 5, topic)
    alone = process(good)
    together = process([*good[:2], bad, *good[2:]])
    outcome = together.pop(2)
    assert [facts(o) for o in together] == [facts(o) for o in alone]
    assert all(len(o.outputs) == 2 for o in together)

    (letter,) = outcome.outputs
    assert (letter.topic, letter.key, letter.value, letter.partition) == ("dead", b"k", value, 3)
    assert letter.headers[:2] == bad.headers, "the record's own headers come through as they were"
    found = headers(outcome)
    assert found["rexstream-dlq-class"] == reason
    assert found["rexstream-dlq-stage"] == stage
    assert found["rexstream-dlq-id"].startswith(f"{topic}-3-5")
    assert found["__dlq.errors.message"]


def test_bad_input_leaves_nothing_to_the_garbage_collector() -> None:
    """It looks after 100,000 new objects only, and thousands of records of a megabyte could wait for it."""
    inputs = [cast("tuple[str, bytes]", each.values[:2]) for each in BAD]
    gc.collect()
    gc.disable()
    try:
        process([record(value, number, topic, b"collected") for number, (topic, value) in enumerate(inputs)])
        assert not [each for each in gc.get_objects() if type(each) is SourceRecord and each.key == b"collected"]
    finally:
        gc.enable()


@pytest.mark.parametrize("topic", ["json.in", "text.in"])
def test_a_text_over_the_limit_is_a_dead_letter_per_task(topic: str) -> None:
    """The tasks of the event are known by then, so each of them has a dead letter."""
    text = "很" * 10_001
    outcome, *_ = process([record(as_json(text=text) if topic == "json.in" else text.encode(), 1, topic)])
    tasks = {"json.in": ["product_features", "sentiment"], "text.in": ["sentiment"]}[topic]
    assert [headers(outcome, i)["rexstream-dlq-task"] for i in range(len(outcome.outputs))] == tasks
    assert headers(outcome)["rexstream-dlq-class"] == "TextTooLong"


def test_a_null_value_is_dropped() -> None:
    """A tombstone is no review: no output, and an outcome for the ledger."""
    assert process([record(None, 1)]) == [Outcome("dropped")]


def test_an_unknown_task_leaves_the_events_other_tasks_their_results() -> None:
    """One dead letter for the task that does not exist, a result for the one that does."""
    (outcome,) = process([record(as_json(event_id="e", text="声音很大", tasks=["nope", "sentiment"]), 1)])
    assert [output.topic for output in outcome.outputs] == ["dead", "out.sentiment"]
    assert headers(outcome)["rexstream-dlq-task"] == "nope"


def test_a_duplicate_event_id_gives_equal_result_ids_and_different_records() -> None:
    """Duplicates are not bad input: whoever reads the results recognises them by result_id."""
    value = as_json(event_id="same", text="包装破了", tasks=["sentiment"])
    outcomes = process([record(value, 1), record(value, 2)])
    first, second = (json.loads(outcome.outputs[0].value or b"") for outcome in outcomes)
    assert first["result_id"] == second["result_id"]
    assert (first["record"]["offset"], second["record"]["offset"]) == (1, 2)
    assert first["extractions"] == second["extractions"]


def test_an_inline_schema_is_a_task_of_its_own_on_the_plain_topic() -> None:
    """Its name never reaches a topic."""
    value = as_json(event_id="e", text="屏幕清晰", schema={"配件": None}, kind="extract")
    (outcome,) = process([record(value, 1)])
    (output,) = outcome.outputs
    assert output.topic == "out"
    assert json.loads(output.value or b"")["task"] == "inline"


def test_a_window_that_the_model_refuses_is_a_dead_letter_of_its_task_only() -> None:
    """A batch fault is bisected down to the event at fault; every other event of the batch has its result."""
    poison = engine().start("毒药评论", TASKS["sentiment"]).windows[0].input_ids.tobytes()

    def fail(windows: Sequence[Window]) -> ServingError | None:
        if any(w.input_ids.tobytes() == poison for w in windows):
            return ServingError(Failure.BATCH_FAULT, "INVALID_ARGUMENT", "indices out of range")
        return None

    good = [record(as_json(event_id=f"n{i}", text=text), 10 + i) for i, text in enumerate(NEIGHBOURS)]
    bad = record(as_json(event_id="bad", text="毒药评论"), 5)
    alone = process(good)
    together = process([bad, *good], StubModel(fail))
    outcome = together.pop(0)
    assert [facts(o) for o in together] == [facts(o) for o in alone]
    assert [output.topic for output in outcome.outputs] == ["out.product_features", "dead"]
    assert headers(outcome, 1)["rexstream-dlq-class"] == "BatchFault"
    assert headers(outcome, 1)["rexstream-dlq-task"] == "sentiment"
    found = headers(outcome, 1)
    assert (found["rexstream-dlq-model"], found["rexstream-dlq-model-version"]) == ("stub", "1")
    assert found["rexstream-dlq-exception"] == "consumer.serving.refused.WindowRefused"
    assert found["rexstream-dlq-attempts"] == found["__dlq.errors.delivery.count"] == "2"


def test_a_refused_window_leaves_nothing_to_the_garbage_collector() -> None:
    """The frames of its call hold its future, and so the refusal itself."""

    class Refusing(StubModel):
        async def predict(self, windows: Sequence[Window], padded_length: int, timeout: float) -> Any:
            if any(window.length > 60 for window in windows):
                try:
                    raise OSError("as gRPC's own error")
                except OSError as error:
                    raise ServingError(Failure.BATCH_FAULT, "INVALID_ARGUMENT", "out of range") from error
            return await super().predict(windows, padded_length, timeout)

    gc.collect()
    gc.disable()
    try:
        bad = record(as_json(text="毒药评论" * 20, tasks=["sentiment"]), 1, key=b"collected")
        good = [record(as_json(text=text, tasks=["sentiment"]), 10 + i) for i, text in enumerate(NEIGHBOURS)]
        outcome, *_ = process([bad, *good], Refusing())
        assert headers(outcome)["rexstream-dlq-class"] == "BatchFault"
        del bad
        assert not [each for each in gc.get_objects() if type(each) is SourceRecord and each.key == b"collected"]
    finally:
        gc.enable()


def test_an_outage_makes_no_dead_letter() -> None:
    """Whatever is in flight waits, and is answered when the model server is back."""
    calls = 0

    def fail(_: Sequence[Window]) -> ServingError | None:
        nonlocal calls
        calls += 1
        return ServingError(Failure.TRANSIENT, "UNAVAILABLE", "gone") if calls < 12 else None

    good = [record(as_json(event_id=f"n{i}", text=text), 10 + i) for i, text in enumerate(NEIGHBOURS)]
    outcomes = process(good, StubModel(fail))
    assert all(output.topic.startswith("out") for outcome in outcomes for output in outcome.outputs)


def test_a_result_never_mixes_two_model_versions() -> None:
    """A hot swap between two levels of one event starts it again, and the result carries a warning."""

    class Swapped(StubModel):
        async def predict(self, windows: Sequence[Window], padded_length: int, timeout: float) -> Any:
            self.version = "1" if len(self.batches) == 0 else "2"
            return await super().predict(windows, padded_length, timeout)

    model = Swapped()
    value = as_json(event_id="e", text="电池耐用，屏幕清晰", tasks=["product_features"])
    (outcome,) = process([record(value, 1)], model)
    result = json.loads(outcome.outputs[0].value or b"")
    assert result["model"]["version"] == "2"
    assert any("model_version_changed" in warning for warning in result["warnings"])
    assert len(model.batches) == 4, "two levels, of which the first was answered by the old version and the rest again"


def test_results_carry_headers_key_and_trace_of_their_record() -> None:
    """What a producer attaches comes out at the other end."""
    trace = ("traceparent", b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")
    carried = (("a", b"1"), ("a", b"2"), ("content-type", b"application/json"), ("n", None), trace)
    source = SourceRecord("json.in", 2, 9, 1, b"key", as_json(text="好", tasks=["sentiment"]), carried, 1000, 0.0)
    (outcome,) = process([source])
    (output,) = outcome.outputs
    assert (output.key, output.partition) == (b"key", 2)
    assert output.headers[:3] == (("a", b"1"), ("a", b"2"), ("n", None))
    names = dict(output.headers)
    assert names["rexstream-task"] == b"sentiment"
    assert names["rexstream-result-id"] == json.loads(output.value or b"")["result_id"].encode()
    assert (names["traceparent"] or b"").startswith(b"00-0af7651916cd43dd8448eb211c80319c-")
    assert names["traceparent"] != trace[1]


def test_a_result_too_large_for_its_topic_becomes_a_dead_letter_of_stage_produce() -> None:
    """The original record is what travels, so that it can be replayed when the topic takes larger results."""
    source = record(as_json(text="好"), 4)

    async def nothing(text: str, task: Task, work: Work) -> Inference:
        raise AssertionError(f"{task.name} of {work.place} is not to be run on {len(text)} characters")

    processor = EventProcessor(
        Routes(ROUTES, TASKS),
        nothing,
        DeadLetters("dead", "g", "0"),
        Metrics(),
        budgets=defaultdict(lambda: WorkBudget(100_000_000)),
        model="m",
        max_value_bytes=1,
        latency_objective=1,
    )
    (outcome,) = process([source])
    letter = processor.refused(source, outcome.outputs[1], "size")
    found = headers(Outcome("done", (letter,)))
    assert letter.value == source.value
    assert found["rexstream-dlq-stage"] == "produce"
    assert found["rexstream-dlq-class"] == "ResultTooLarge"
    assert found["rexstream-dlq-task"] == "sentiment"
    assert (found["rexstream-dlq-model"], found["rexstream-dlq-model-version"]) == ("m", "1")
