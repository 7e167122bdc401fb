"""Targets: results as they are published, and whole records from their bytes to their outcome."""

from __future__ import annotations

import asyncio
import json
from collections import defaultdict
from functools import partial
from typing import TYPE_CHECKING, Any

import structlog
from avro_frames import decode_result
from fuzz_decoders import a_bare_datum, a_json_value, a_text_value
from fuzz_engine import CALLS, ENGINE, Question, a_question, check_facts, drive
from fuzz_headers import a_header_list, check_sendable
from fuzzing import CANARY, Target, a_name, a_text, bad, require

from consumer.codecs.avro_codec import encode_avro
from consumer.codecs.decoding import event_from_fields
from consumer.codecs.outputs import ModelUsed, Routes, Timing, encode_json, result_fields, result_id
from consumer.config.route import RouteConfig
from consumer.config.task_files import load_tasks
from consumer.delivery.dead_letters import PREFIX, DeadLetters
from consumer.events import BadInput, ReviewEvent, SourceRecord, Work
from consumer.telemetry.metrics import Metrics
from consumer.worker.event_processor import EventProcessor
from consumer.worker.inference import Inference
from consumer.worker.task_runner import WorkBudget

if TYPE_CHECKING:
    from random import Random

    from consumer.events import Outcome
    from consumer.extraction.task import Task

MODEL = ModelUsed("rexuninlu", "3", "serving_default")
TIMING = Timing(queued_ms=0.5, model_ms=1.25, total_ms=2.0, model_calls=1)


def a_result(random: Random) -> tuple[Question, dict[str, Any], SourceRecord | None]:
    question = a_question(random)
    fields = {
        "text": question.text,
        "event_id": a_text(random, 2),
        "source": random.choice((None, a_text(random, 2))),
        "created_at": random.choice((None, 0, -(2**63), 2**63 - 1)),
        "attributes": {a_name(random): a_text(random, 2)},
    }
    return question, fields, a_record(random, "json") if random.random() < 0.8 else None


def check_result(given: tuple[Question, dict[str, Any], SourceRecord | None]) -> str:
    question, raw, record = given
    try:
        event: ReviewEvent = event_from_fields(raw, "reviews.raw-0-1")
        result = drive(ENGINE.start(event.text, question.task), question.seed, question.density)
    except BadInput as error:
        return bad(error)
    fields = result_fields(event, question.task, result, MODEL, TIMING, 1_800_000_000_000, record)
    require(fields["result_id"] == result_id(event.event_id, question.task), "an id that is not repeatable")
    for path in fields["extractions"]:
        for fact in path:
            if fact["span"] is not None:
                require(event.text[fact["start"] : fact["end"]] == fact["span"], "a span that does not stand there")
    require(json.loads(encode_json(fields)) == fields, "JSON that says something else")
    for number in (None, 7):
        again = decode_result(encode_avro(fields, number), is_framed=number is not None)
        require(again["extractions"] == fields["extractions"], "Avro with other facts")
        require(again["attributes"] == fields["attributes"] and again["event_id"] == event.event_id, "another event")
    return f"{'facts' if result.paths else 'nothing'}"


# -- whole records ----------------------------------------------------------------------------------------------------

_FORMATS: dict[str, Any] = {"json": partial(a_json_value, damage=0.2), "text": a_text_value, "avro": a_bare_datum}
_TASKS: dict[str, Task] = dict(load_tasks())
_ROUTES = Routes(
    [
        RouteConfig(input="json", format="json", tasks=("sentiment",), output="out.{task}"),
        RouteConfig(input="text", format="text", tasks=("product_features", "category"), output_format="avro"),
        RouteConfig(input="avro", format="avro", tasks=()),
    ],
    _TASKS,
)


def a_record(random: Random, topic: str) -> SourceRecord:
    return SourceRecord(
        topic=topic,
        partition=random.choice((0, 3)),
        offset=random.choice((0, 2**62)),
        epoch=1,
        key=random.choice((None, b"k", random.randbytes(6))),
        value=None if random.random() < 0.02 else _FORMATS[topic](random),
        headers=a_header_list(random) if random.random() < 0.5 else (),
        timestamp_ms=random.choice((None, -1, 0, 1_700_000_000_000, 2**62)),
        fetched_at=0.0,
    )


async def _infer(text: str, task: Task, work: Work) -> Inference:
    del work
    extracted = drive(ENGINE.start(text, task), len(text), 0.5)
    check_facts(Question(text, task, 0, 0.5), extracted)
    return Inference(extracted, MODEL, queued=0.0, in_model=0.0, overflowed=0, restarts=0)


_BUDGETS: dict[str, WorkBudget] = defaultdict(lambda: WorkBudget(100_000_000))
_PIPELINE = EventProcessor(
    _ROUTES,
    _infer,
    DeadLetters("reviews.dead", "group", "1.0"),
    Metrics(),
    budgets=_BUDGETS,
    model="rexuninlu",
    max_value_bytes=120_000,
    latency_objective=1.0,
)
_RUNNER = asyncio.Runner()


def check_record(record: SourceRecord) -> str:
    said: list[str] = []

    def keep(_: Any, __: str, line: Any) -> Any:
        said.append(json.dumps(line, ensure_ascii=False, default=repr))
        raise structlog.DropEvent

    structlog.configure(processors=[keep])
    try:
        outcome: Outcome = _RUNNER.run(_PIPELINE.process(record))
    finally:
        structlog.reset_defaults()
    _BUDGETS[record.topic].durable(record)
    require(not any(CANARY in line for line in said), f"the log repeats the review: {said}")
    if record.value is None:
        require(outcome.kind == "dropped", "a null value that is not dropped")
        return "dropped"
    results = 0
    for output in outcome.outputs:
        check_sendable(output.headers)
        require(output.key == record.key and output.value is not None, "another key, or no value")
        if output.topic == "reviews.dead":
            require(output.value == record.value, "a dead letter with another value")
            message = dict(output.headers)["__dlq.errors.message"] or b""
            quoted = dict(output.headers)[PREFIX + "class"] == b"InvalidSchema"
            require(quoted or CANARY.encode() not in message, f"the letter's message repeats the review: {message!r}")
        else:
            results += 1
            if output.topic != "reviews.extracted":
                fields = json.loads(output.value or b"")
                require(fields["record"]["topic"] == record.topic, "another record")
                require(fields["timing"]["model_calls"] <= CALLS, "too many calls")
    return f"{results} results, {len(outcome.outputs) - results} dead letters"


TARGETS = (
    Target("results", 30, a_result, check_result),
    Target("records", 20, lambda random: a_record(random, random.choice(tuple(_FORMATS))), check_record),
)
