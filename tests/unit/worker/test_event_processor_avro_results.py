"""Avro results: in the registry's framing wherever there is a registry, bare where there is none."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from typing import TYPE_CHECKING, cast

from avro_frames import decode_result

from consumer.codecs.avro_codec import schema_id
from consumer.codecs.outputs import ModelUsed, Routes
from consumer.config.route import RouteConfig
from consumer.config.task_files import load_tasks
from consumer.delivery.dead_letters import DeadLetters
from consumer.events import SourceRecord, Work
from consumer.extraction.task import Extracted
from consumer.telemetry.metrics import Metrics
from consumer.worker.event_processor import EventProcessor
from consumer.worker.inference import Inference
from consumer.worker.task_runner import WorkBudget

if TYPE_CHECKING:
    from consumer.codecs.avro_codec import SchemaId
    from consumer.codecs.avro_schemas import WriterSchema
    from consumer.extraction.task import Task
    from consumer.kafka.registry.awaited import AwaitedSchemas

TASKS = load_tasks()
ROUTE = RouteConfig(input="in", format="json", tasks=("sentiment",), output="out", output_format="avro")


class Registry:
    """Has ids for the result schema; nothing that is read needs it."""

    def __init__(self, ids: dict[str, int]) -> None:
        self._ids = ids

    async def result_schema_id(self, topic: str, input_topic: str) -> int:  # noqa: ARG002
        return self._ids[topic]

    async def ensure(self, value: bytes, input_topic: str, headers: object = ()) -> None:  # noqa: ARG002
        raise AssertionError(value)

    def schema_for(self, number: SchemaId) -> WriterSchema:
        raise AssertionError(number)


async def nothing_found(text: str, task: Task, work: Work) -> Inference:  # noqa: ARG001
    return Inference(Extracted((), (), 1), ModelUsed("m", "1", "s"), 0.0, 0.0, 0, 0)


def value_of(registry: Registry | None, route: RouteConfig = ROUTE) -> bytes:
    """The value of the one result of one event."""
    processor = EventProcessor(
        Routes((route,), TASKS),
        nothing_found,
        DeadLetters("dead", "group", "0"),
        Metrics(),
        budgets=defaultdict(lambda: WorkBudget(100_000_000)),
        model="m",
        max_value_bytes=1000,
        latency_objective=1.0,
        schemas=cast("AwaitedSchemas | None", registry),
    )
    record = SourceRecord("in", 0, 0, 1, None, '{"text": "袋口封得严实"}'.encode(), (), 1000, 0.0)
    (output,) = asyncio.run(processor.process(record)).outputs
    assert output.topic == "out"
    return output.value or b""


def test_with_a_registry_a_result_is_framed_with_its_topics_id() -> None:
    """A reader finds the schema by the id in front."""
    value = value_of(Registry({"out": 31, "elsewhere": 32}))
    assert schema_id(value) == 31
    assert decode_result(value, is_framed=True)["task"] == "sentiment"


def test_without_a_registry_a_result_is_a_bare_datum() -> None:
    """There is no id to put in front."""
    assert decode_result(value_of(None), is_framed=False)["task"] == "sentiment"


def test_json_results_need_no_id() -> None:
    """A registry is not asked about topics that have no Avro."""
    route = RouteConfig(input="in", format="json", tasks=("sentiment",), output="out")
    assert value_of(Registry({}), route).startswith(b"{")
