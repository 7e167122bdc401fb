"""Records of mapped routes: several rows of one record, deletes that go on, and what a replay of a bad row runs."""

from __future__ import annotations

import asyncio
import gc
import gzip
import json
import time
from collections import defaultdict
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal

import pytest

from consumer.codecs.outputs import ModelUsed, Routes
from consumer.config.route import RouteConfig
from consumer.config.task_files import load_tasks
from consumer.delivery.dead_letters import DeadLetters
from consumer.delivery.letters import read_letter, replayed
from consumer.events import BadInput, Outcome, Output, SourceRecord
from consumer.extraction.task import Extracted, Fact
from consumer.serving.protocol import Failure, ServingError
from consumer.serving.refused import WindowRefused
from consumer.telemetry.metrics import Metrics
from consumer.worker import mapped_records
from consumer.worker.event_processor import EventProcessor
from consumer.worker.failures import Failures
from consumer.worker.inference import Inference
from consumer.worker.task_runner import WorkBudget

if TYPE_CHECKING:
    from collections.abc import Mapping

    from consumer.events import Header
    from consumer.extraction.task import Task

TASKS = ("sentiment", "ner")
CANAL = RouteConfig(input="canal", preset="canal", tasks=TASKS, output="out.{task}", fields={"text": "content"})
FORWARD = RouteConfig(input="cdc", preset="debezium", on_delete="forward", tasks=TASKS, output="out.{task}")
PACKED = RouteConfig(
    input="packed", preset="maxwell", tasks=TASKS, output="out.{task}", compression="gzip", encoding="gb18030"
)
PLAIN = RouteConfig(input="plain", tasks=TASKS, output="plain.{task}", on_delete="forward", inline_schemas=False)


@dataclass
class Worker:
    """A processor whose model answers at once, and what it was asked."""

    fail: Mapping[tuple[str, str], Exception] = field(default_factory=dict)
    """(text, task) -> what it raises."""
    text_of_result: str = "好"
    windows: int = 1
    asked: list[tuple[str, str]] = field(default_factory=list)
    most_at_once: int = 0
    metrics: Metrics = field(default_factory=Metrics)

    def process(self, record: SourceRecord) -> Outcome:
        routes = Routes([CANAL, FORWARD, PACKED, PLAIN], load_tasks())
        letters = DeadLetters("dead", "group", "1")
        running = 0

        async def infer(text: str, task: Task, *_: object) -> Inference:
            nonlocal running
            self.asked.append((text, task.name))
            running += 1
            self.most_at_once = max(self.most_at_once, running)
            await asyncio.sleep(0)
            running -= 1
            if (error := self.fail.get((text, task.name))) is not None:
                raise error
            paths = ((Fact("t", self.text_of_result, 0, 1, 0.5),),)
            return Inference(
                Extracted(paths=paths, warnings=(), model_calls=self.windows), ModelUsed("m", "1", "s"), 0.0, 0.0, 0, 0
            )

        processor = EventProcessor(
            routes,
            infer,
            letters,
            self.metrics,
            budgets=defaultdict(lambda: WorkBudget(10**10)),
            model="m",
            max_value_bytes=2_000_000,
            latency_objective=1.0,
        )
        return asyncio.run(processor.process(record))

    def count(self, name: str, **labels: str) -> float:
        return self.metrics.registry.get_sample_value(name, labels) or 0.0


def record(topic: str, value: Any, *headers: Header, key: bytes | None = b"k") -> SourceRecord:
    encoded = None if value is None else json.dumps(value, ensure_ascii=False).encode()
    return SourceRecord(topic, 2, 7, 1, key, encoded, headers, 1_700_000_000_000, 0.0)


def rows(*texts: Any) -> SourceRecord:
    return record("canal", {"type": "INSERT", "isDdl": False, "data": [{"content": text} for text in texts]})


def ids(outcome: Outcome) -> list[tuple[str, str]]:
    """(event id, task) of its results."""
    results = [json.loads(output.value or b"") for output in outcome.outputs if output.topic != "dead"]
    return [(result["event_id"], result["task"]) for result in results]


def letters(outcome: Outcome) -> list[dict[str, str]]:
    found = [output for output in outcome.outputs if output.topic == "dead"]
    return [{name: (value or b"").decode() for name, value in output.headers} for output in found]


def as_record(output: Output) -> SourceRecord:
    return SourceRecord(output.topic, 0, 0, 0, output.key, output.value, output.headers, 1, 0.0)


def test_every_row_is_an_event_and_a_bad_one_stops_no_other() -> None:
    """The outputs of all belong to the one record; the letter says which row it is about."""
    worker = Worker()
    outcome = worker.process(rows("好用", None, "一般", ""))
    good = [("canal-2-7#1", "sentiment"), ("canal-2-7#1", "ner"), ("canal-2-7#3", "sentiment"), ("canal-2-7#3", "ner")]
    assert ids(outcome) == good
    first, second = letters(outcome)
    assert (first["rexstream-dlq-class"], first["rexstream-dlq-rows"]) == ("MissingText", "2")
    assert first["__dlq.errors.message"].startswith("row 2 of 4: the event has no text: path content leads to null")
    assert (second["rexstream-dlq-class"], second["rexstream-dlq-rows"]) == ("EmptyText", "4")
    assert first["rexstream-dlq-id"] != second["rexstream-dlq-id"]
    assert worker.count("rexstream_events_total", topic="canal", outcome="partial") == 1
    assert worker.count("rexstream_dead_letters_total", stage="validate", **{"class": "MissingText"}) == 1


def test_bad_rows_leave_nothing_to_the_garbage_collector() -> None:
    """It looks after 100,000 new objects only, and hundreds of records of a megabyte could wait for it."""
    gc.collect()
    gc.disable()
    try:
        Worker().process(replace(rows("好", "", 7), key=b"collected"))
        assert not [each for each in gc.get_objects() if type(each) is SourceRecord and each.key == b"collected"]
    finally:
        gc.enable()


def test_what_fails_in_a_row_fails_for_its_task_alone() -> None:
    """A refused window, a limit and a defect, each in another row, are a letter for each reason."""
    error = ServingError(Failure.TRANSIENT, "UNAVAILABLE", "reset")
    fail = {
        ("a", "ner"): WindowRefused("Poison", error, attempts=5, failing_seconds=1.0, model_version="3"),
        ("b", "sentiment"): BadInput("extract", "TextTooLong", "too long"),
        ("b", "ner"): BadInput("extract", "TextTooLong", "too long"),
        ("c", "ner"): KeyError("c"),
        ("d", "sentiment"): BadInput("extract", "TextTooLong", "too long"),
    }
    outcome = Worker(fail).process(rows("a", "b", "c", "d"))
    said = {
        letter["rexstream-dlq-class"]: (letter["rexstream-dlq-rows"], letter["rexstream-dlq-task"])
        for letter in letters(outcome)
    }
    assert said == {"Poison": ("1", "ner"), "TextTooLong": ("2,4", "sentiment,ner"), "Defect": ("3", "ner")}
    assert ids(outcome) == [("canal-2-7#1", "sentiment"), ("canal-2-7#3", "sentiment"), ("canal-2-7#4", "ner")]


def test_a_replay_runs_the_rows_that_failed_and_no_other() -> None:
    """Their results have the ids that they would have had; those of the other rows do not come again."""
    fail = {("b", "ner"): BadInput("extract", "TextTooLong", "too long")}
    outcome = Worker(fail).process(rows("a", "b", "c"))
    letter = read_letter(as_record(outcome.outputs[-1]))
    assert letter is not None
    assert letter.tasks == ("ner",)
    again = replayed(letter, "group")
    worker = Worker()
    record = SourceRecord("canal", 0, 99, 1, again.key, again.value, again.headers, 1, 0.0)
    assert ids(worker.process(record)) == [("canal-2-7#2", "ner")]
    assert worker.asked == [("b", "ner")]
    # And once more, when it fails in a way that knows no rows: the rows stay narrowed.
    carried = read_letter(as_record(Output("dead", b"k", b"", (*outcome.outputs[-1].headers,))))
    assert carried is not None
    assert (b"2") in [value for name, value in replayed(carried, "group").headers if name == "rexstream-only-rows"]


@pytest.mark.parametrize("why", ["size", "no key"])
def test_a_result_that_its_topic_refuses_is_its_rows_alone(why: Literal["size", "no key"]) -> None:
    """Its letter is no copy of that of another row, and a replay runs that row and no other."""
    source = rows("a", "b", "c")
    failures = Failures(DeadLetters("dead", "group", "1"), Metrics(), "m", time.time)
    refused = [failures.of_refused(source, output, why) for output in Worker().process(source).outputs]
    found = [read_letter(as_record(output)) for output in refused]
    assert len({letter.id for letter in found if letter is not None}) == len(refused) == 6
    headers = dict(refused[3].headers)
    assert (headers["rexstream-dlq-model"], headers["rexstream-dlq-model-version"]) == (b"m", b"1")
    assert found[3] is not None
    again = replayed(found[3], "group")
    record = SourceRecord("canal", 0, 99, 1, again.key, again.value, again.headers, 1, 0.0)
    assert ids(Worker().process(record)) == [("canal-2-7#2", "ner")]


@pytest.mark.parametrize(("header", "reason"), [(b"9", "InvalidHeader"), (b"x", "InvalidHeader"), (b"1-", "")])
def test_a_header_that_names_no_row(header: bytes, reason: str) -> None:
    """Anyone may write it: it can leave out rows of its own record, and nothing else."""
    source = rows("a", "b")
    outcome = Worker().process(
        SourceRecord("canal", 2, 7, 1, b"k", source.value, (("rexstream-only-rows", header),), 1, 0.0)
    )
    if reason:
        assert [letter["rexstream-dlq-class"] for letter in letters(outcome)] == [reason]
    else:
        assert ids(outcome) == [("canal-2-7#1", "sentiment"), ("canal-2-7#1", "ner")]


def test_however_many_rows_fail_for_one_reason_they_share_a_letter() -> None:
    """Each letter has the whole value in it."""
    (letter,) = letters(Worker().process(rows(*[None] * 1000)))
    assert letter["rexstream-dlq-rows"] == "1-1000"
    assert len(letter["__dlq.errors.message"]) < 300
    (letter,) = letters(Worker().process(rows(*[None] * 1001)))
    assert letter["rexstream-dlq-class"] == "TooManyRows"


def test_few_rows_are_under_way_at_once() -> None:
    """All tasks of each, and other events' windows are not behind all of them."""
    worker = Worker()
    assert len(ids(worker.process(rows(*"abcdefghijklmnopqrst")))) == 40
    assert worker.most_at_once == mapped_records.ROWS_AT_ONCE * len(TASKS)


@pytest.mark.parametrize("bound", ["bytes", "windows"])
def test_rows_that_make_too_much_are_left_to_a_replay(bound: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The letter names the rows that were not run, and a replay goes on with those."""
    monkeypatch.setattr(mapped_records, "RESULTS_BYTES", 40_000)
    text, windows = ("好" * 1000, 1) if bound == "bytes" else ("好", 5_000)
    outcome = Worker(text_of_result=text, windows=windows).process(rows(*"abcdefghijklmnopqrst"))
    (letter,) = letters(outcome)
    assert (letter["rexstream-dlq-class"], letter["rexstream-dlq-rows"]) == ("TooManyRows", "9-20")
    assert len(ids(outcome)) == 16
    assert sum(len(output.value or b"") for output in outcome.outputs) < 2 * mapped_records.RESULTS_BYTES
    found = read_letter(as_record(outcome.outputs[-1]))
    assert found is not None
    again = replayed(found, "group")
    rest = Worker().process(SourceRecord("canal", 0, 99, 1, again.key, again.value, again.headers, 1, 0.0))
    assert len(ids(rest)) == 24
    assert ids(rest)[0] == ("canal-2-7#9", "sentiment")


DELETE = {"op": "d", "before": {"id": 5}, "after": None, "source": {}}
TOMBSTONES = ["out.ner", "out.sentiment"]


@pytest.mark.parametrize("value", [None, DELETE, {"payload": DELETE, "schema": None}, {"id": 5, "__deleted": "true"}])
def test_a_delete_goes_on_to_every_topic_of_the_routes_results(value: Any) -> None:
    """Under the same key, on the partition that the row's results have."""
    worker = Worker()
    outcome = worker.process(record("cdc", value, ("traceparent", b"00-" + b"a" * 32 + b"-" + b"b" * 16 + b"-01")))
    assert outcome.kind == "done"
    assert sorted(output.topic for output in outcome.outputs) == TOMBSTONES
    for output in outcome.outputs:
        assert (output.key, output.value, output.partition, output.timestamp_ms) == (b"k", None, 2, None)
        ((name, value),) = output.headers
        assert name == "traceparent"
        assert value is not None
        assert value[3:35] == b"a" * 32
    assert worker.count("rexstream_events_total", topic="cdc", outcome="deleted") == 1


@pytest.mark.parametrize(
    ("topic", "value", "key", "reason"),
    [
        ("cdc", None, None, "delete_without_key"),
        ("cdc", DELETE, None, "delete_without_key"),
        ("cdc", {"ts_ms": 5}, b"k", "no_review"),
        ("cdc", {"op": "u", "after": {"text": "__debezium_unavailable_value"}}, b"k", "text_unavailable"),
        ("canal", None, b"k", "null_value"),
        ("canal", {"type": "DELETE", "data": [{}]}, b"k", "delete"),
        ("canal", {"type": "QUERY", "isDdl": True, "data": None}, b"k", "no_review"),
    ],
)
def test_what_is_dropped_is_counted(topic: str, value: Any, key: bytes | None, reason: str) -> None:
    """By why; nothing is published for it."""
    worker = Worker()
    assert worker.process(record(topic, value, key=key)) == Outcome("dropped")
    assert worker.count("rexstream_dropped_total", reason=reason) == 1
    assert worker.count("rexstream_events_total", topic=topic, outcome="dropped") == 1


def test_deletes_go_on_without_any_mapping_too() -> None:
    """A null value is a delete on any topic; its events are as ever."""
    worker = Worker()
    outcome = worker.process(record("plain", None))
    assert sorted(output.topic for output in outcome.outputs) == ["plain.ner", "plain.sentiment"]
    assert ids(worker.process(record("plain", {"text": "好", "event_id": "e"}))) == [("e", "sentiment"), ("e", "ner")]
    (letter,) = letters(worker.process(record("plain", None, key=b"x" * 65_537)))
    assert letter["rexstream-dlq-class"] == "KeyTooLarge"


def test_a_mapped_value_may_be_packed() -> None:
    """Encoding and compression come before the envelope."""
    value = json.dumps({"type": "insert", "data": {"text": "好用", "event_id": 5}}, ensure_ascii=False).encode(
        "gb18030"
    )
    worker = Worker()
    packed = SourceRecord("packed", 0, 1, 1, b"k", gzip.compress(value), (), 1, 0.0)
    assert ids(worker.process(packed)) == [("5", "sentiment"), ("5", "ner")]
    assert worker.asked[0][0] == "好用"


def test_one_row_is_an_event_like_any_other() -> None:
    """Its letter names no row, and what its headers are too many for is said."""
    worker = Worker()
    value = {"op": "c", "after": {"text": "好", "event_id": 5}, "source": {"db": "x"}}
    assert ids(worker.process(record("cdc", value))) == [("5", "sentiment"), ("5", "ner")]
    (letter,) = letters(worker.process(record("cdc", {"op": "c", "after": {"id": 1}, "source": {}})))
    assert "rexstream-dlq-rows" not in letter
    assert letter["rexstream-dlq-id"] == "cdc-2-7"
    many = tuple((f"h{number}", b"") for number in range(300))
    for source in (record("cdc", value, *many), rows("好")):
        outcome = worker.process(SourceRecord(source.topic, 2, 7, 1, b"k", source.value, many, 1, 0.0))
        result = json.loads(outcome.outputs[0].value or b"")
        assert any("headers" in warning for warning in result["warnings"])
        assert len(outcome.outputs[0].headers) < 10
