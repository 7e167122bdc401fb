"""Exceptions that nobody foresaw: the record's are tried again and then dead letters, the process's own are raised."""

from __future__ import annotations

import asyncio
import json
from collections import defaultdict
from typing import TYPE_CHECKING, Any

import pytest
from confluent_kafka import KafkaError, KafkaException
from structlog.testing import capture_logs

from consumer.codecs.outputs import ModelUsed, Routes
from consumer.config.route import RouteConfig
from consumer.config.task_files import load_tasks
from consumer.delivery.dead_letters import DeadLetters
from consumer.events import Outcome, Output, SourceRecord
from consumer.extraction.task import Extracted
from consumer.serving.protocol import Failure, ServingError
from consumer.telemetry.metrics import Metrics
from consumer.worker import event_processor
from consumer.worker.event_processor import EventProcessor
from consumer.worker.inference import Inference
from consumer.worker.task_runner import WorkBudget

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from consumer.events import Work
    from consumer.extraction.task import Task

SECRET = "鞋底软"
ROUTE = RouteConfig(input="in", format="json", tasks=("product_features", "sentiment"), output="out")
RECORD = SourceRecord(
    "in", 0, 7, 1, b"k", json.dumps({"event_id": "e", "text": SECRET}).encode(), (("h", b"1"),), 1000, 0.0
)


class PanicException(BaseException):
    """What a panic in Rust arrives as."""


DEFECTS = (KeyError, RecursionError, AssertionError, PanicException, asyncio.CancelledError)


class Bench:
    """A processor whose inference raises what ``failing`` has for a task, as often as it has something."""

    def __init__(self, failing: Mapping[str, list[BaseException]] | None = None) -> None:
        self.failing = {} if failing is None else failing
        self.answered_by = ""
        """The model version that answers a first window."""
        self.metrics = Metrics()
        self.letters = DeadLetters("dead", "group", "1", "spring")
        self.processor = EventProcessor(
            Routes([ROUTE], load_tasks()),
            self.infer,
            self.letters,
            self.metrics,
            budgets=defaultdict(lambda: WorkBudget(100_000_000)),
            model="rex",
            max_value_bytes=1000,
            latency_objective=1.0,
            wall_clock=lambda: 1_790_000_000.0,
            clock=lambda: 0.0,
        )

    async def infer(self, _text: str, task: Task, work: Work) -> Inference:
        work.version = self.answered_by
        if waiting := self.failing.get(task.name):
            raise waiting.pop(0)
        return Inference(Extracted((), (), 1), ModelUsed("rex", "3", "s"), 0.0, 0.0, 0, 0)

    def process(self, record: SourceRecord = RECORD) -> Outcome:
        return asyncio.run(self.processor.process(record))

    def defects(self, stage: str) -> float:
        return (
            self.metrics.registry.get_sample_value("rexstream_dead_letters_total", {"stage": stage, "class": "Defect"})
            or 0.0
        )


def said(output: Output) -> dict[str, str]:
    return {name: (value or b"").decode(errors="replace") for name, value in output.headers}


@pytest.mark.parametrize("kind", DEFECTS)
def test_a_task_that_raises_twice_is_a_dead_letter_and_the_other_task_has_its_result(
    kind: Callable[[str], BaseException],
) -> None:
    """With the stack trace although none is configured; without what the exception says, which may quote the review."""
    bench = Bench({"sentiment": [kind(SECRET), kind(SECRET)]})
    with capture_logs() as lines:
        result, letter = bench.process().outputs
    assert (result.topic, letter.topic) == ("out", "dead")
    assert (letter.key, letter.value) == (RECORD.key, RECORD.value)
    found = said(letter)
    assert found["rexstream-dlq-class"] == "Defect"
    assert (found["rexstream-dlq-stage"], found["rexstream-dlq-task"]) == ("extract", "sentiment")
    assert found["rexstream-dlq-attempts"] == "2"
    assert "in infer" in found["rexstream-dlq-stack-trace"]
    assert found["rexstream-dlq-exception"].endswith(f".{kind('').__class__.__name__}")
    assert "test_event_processor_defects.py" in found["__dlq.errors.message"]
    assert bench.defects("extract") == 1
    assert [line["log_level"] for line in lines] == ["warning", "error"]
    assert "in infer" in lines[1]["exception"]
    assert SECRET not in str(lines) + str(found)


def test_a_second_try_that_goes_well_is_all_there_is_of_it() -> None:
    """A race that is lost once costs no dead letter."""
    bench = Bench({"sentiment": [KeyError("once")]})
    assert [output.topic for output in bench.process().outputs] == ["out", "out"]
    assert bench.defects("extract") == 0


@pytest.mark.parametrize("where", ["decode", "continue_trace", "event_deadline"])
def test_a_record_that_raises_before_its_tasks_is_one_dead_letter(where: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """It names no task, so its replay runs them all."""

    def fail(*_: object, **__: object) -> None:
        raise RecursionError(SECRET)

    monkeypatch.setattr(event_processor, where, fail)
    bench = Bench()
    (letter,) = bench.process().outputs
    assert said(letter)["rexstream-dlq-class"] == "Defect"
    assert "rexstream-dlq-task" not in said(letter)
    assert bench.defects("decode") == 1


def test_a_defect_names_the_model_version_that_had_answered() -> None:
    """Another version may not bring it about. Before the first answer there is none to name."""
    for version in ("7", ""):
        bench = Bench({"sentiment": [KeyError(SECRET), KeyError(SECRET)]})
        bench.answered_by = version
        found = said(bench.process().outputs[-1])
        assert found["rexstream-dlq-class"] == "Defect"
        assert (found["rexstream-dlq-model"], found.get("rexstream-dlq-model-version", "")) == ("rex", version)


@pytest.mark.parametrize("where", ["result_fields", "encode_json", "result_headers"])
def test_a_result_that_cannot_be_written_is_a_dead_letter_of_its_task(
    where: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of each task one."""

    def fail(*_: object, **__: object) -> None:
        raise ValueError(SECRET)

    monkeypatch.setattr(event_processor, where, fail)
    bench = Bench()
    letters = bench.process().outputs
    assert [said(each)["rexstream-dlq-task"] for each in letters] == ["product_features", "sentiment"]
    assert {said(each)["rexstream-dlq-stage"] for each in letters} == {"produce"}
    assert bench.defects("produce") == 2


@pytest.mark.parametrize("value", [RECORD.value, b"{"], ids=["defect", "bad input"])
def test_where_no_dead_letter_can_be_made_of_the_record_a_bare_one_names_its_place(
    value: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What makes the usual one fail must not come back for ever either."""

    def fail(*_: object, **__: object) -> Output:
        raise OverflowError(SECRET)

    monkeypatch.setattr(DeadLetters, "of", fail)
    bench = Bench({"sentiment": [KeyError(), KeyError()]})
    letter = bench.process(SourceRecord("in", 0, 7, 1, b"k", value, (("h", b"1"),), 1000, 0.0)).outputs[-1]
    assert (letter.topic, letter.key, letter.value, letter.partition) == ("dead", None, None, 0)
    found = said(letter)
    assert found["rexstream-dlq-class"] == "Defect"
    assert [found[f"__dlq.errors.{name}"] for name in ("topic", "partition", "offset")] == ["in", "0", "7"]
    assert found["rexstream-dlq-id"].startswith("in-0-7")
    assert found["rexstream-dlq-value-omitted"] == str(len(value))
    assert SECRET not in str(found)


def test_a_result_too_large_whose_dead_letter_raises_is_one_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is made on the release thread, which would end with the worker."""
    bench = Bench()

    def fail(*_: object) -> Output:
        raise UnicodeError(SECRET)

    monkeypatch.setattr(bench.processor._failures, "letter", fail)
    letter = bench.processor.refused(RECORD, Output("out", b"k", b"v"), "size")
    assert said(letter)["rexstream-dlq-class"] == "Defect"
    assert letter.value == RECORD.value


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        OSError(28, "no space left on device"),
        TimeoutError(),
        ServingError(Failure.TRANSIENT, "UNAVAILABLE", "away"),
        KafkaException(KafkaError(KafkaError._FATAL)),
    ],
    ids=lambda error: type(error).__name__,
)
def test_what_is_not_the_records_is_raised(error: BaseException) -> None:
    """At once: the worker ends, and its successor reads the record again. No outage fills the dead-letter topic."""
    bench = Bench({"sentiment": [error, KeyError()]})
    processing = bench.processor.process(RECORD)
    with pytest.raises(type(error)):
        asyncio.run(processing)
    assert len(bench.failing["sentiment"]) == 1
    assert bench.defects("extract") == 0


def test_a_cancellation_that_was_asked_for_is_none() -> None:
    """A revocation withdraws the record; its next owner processes it."""

    async def main(bench: Bench) -> None:
        waits = asyncio.Event()

        async def wait(*_: object) -> Inference:
            waits.set()
            await asyncio.Event().wait()
            raise AssertionError

        bench.processor._infer = wait
        processing = asyncio.create_task(bench.processor.process(RECORD))
        await waits.wait()
        processing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await processing

    bench = Bench()
    asyncio.run(main(bench))
    assert bench.defects("extract") == bench.defects("decode") == 0


def test_a_topic_without_a_route_is_no_reason_to_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor is any other lookup that fails."""
    bench = Bench()
    monkeypatch.setattr(bench.processor, "_routes", Routes([], {}))
    (letter,) = bench.process().outputs
    assert said(letter)["rexstream-dlq-class"] == "Defect"


def test_an_unreadable_exception_is_described_by_its_class() -> None:
    """Its own text is never asked for."""

    class UnreadableError(Exception):
        def __str__(self) -> str:
            raise RuntimeError("no text")

    bench = Bench({"sentiment": [UnreadableError(), UnreadableError()]})
    letter: Any = bench.process().outputs[1]
    assert "UnreadableError" in said(letter)["rexstream-dlq-exception"]
