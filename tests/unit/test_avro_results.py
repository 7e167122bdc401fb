"""Avro results: in the registry's framing wherever there is a registry, bare where there is none."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from consumer.codecs.avro_codec import decode_result
from consumer.codecs.framing import schema_id
from consumer.codecs.results import ModelUsed
from consumer.codecs.routing import Routes
from consumer.config import RouteConfig
from consumer.delivery.dead_letters import DeadLetters
from consumer.events import SourceRecord
from consumer.extraction.facts import Extracted
from consumer.inference import Inference
from consumer.pipeline import Pipeline
from consumer.tasks import load_tasks
from consumer.telemetry.metrics import Metrics

if TYPE_CHECKING:
    from consumer.codecs.avro_codec import ParsedSchema
    from consumer.extraction.task import Task

TASKS = load_tasks()
ROUTE = RouteConfig(input="in", format="json", tasks=("sentiment",), output="out", output_format="avro")


class Registry:
    """Present; nothing that is read needs it."""

    async def ensure(self, value: bytes) -> None:
        raise AssertionError(value)

    def schema_for(self, number: int) -> ParsedSchema:
        raise AssertionError(number)


async def nothing_found(text: str, task: Task, deadline: float) -> Inference:  # noqa: ARG001
    return Inference(Extracted((), (), 1), ModelUsed("m", "1", "s"), 0.0, 0.0, 0, 0)


def value_of(registry: Registry | None, ids: dict[str, int] | None) -> bytes:
    """The value of the one result of one event."""
    pipeline = Pipeline(
        Routes((ROUTE,), TASKS),
        nothing_found,
        DeadLetters("dead", "group", "0"),
        Metrics(),
        model="m",
        max_value_bytes=1000,
        latency_objective=1.0,
        schemas=registry,
        result_schema_ids=ids,
    )
    record = SourceRecord("in", 0, 0, 1, None, '{"text": "袋口封得严实"}'.encode(), (), 1000, 0.0)
    (output,) = asyncio.run(pipeline.process(record)).outputs
    assert output.topic == "out"
    return output.value or b""


def test_with_a_registry_a_result_is_framed_with_its_topics_id() -> None:
    """A reader finds the schema by the id in front."""
    value = value_of(Registry(), {"out": 31, "elsewhere": 32})
    assert schema_id(value) == 31
    assert decode_result(value, is_framed=True)["task"] == "sentiment"


def test_without_a_registry_a_result_is_a_bare_datum() -> None:
    """There is no id to put in front."""
    assert decode_result(value_of(None, None), is_framed=False)["task"] == "sentiment"


@pytest.mark.parametrize("ids", [None, {}, {"elsewhere": 31}])
def test_with_a_registry_a_topic_without_an_id_is_a_defect(ids: dict[str, int] | None) -> None:
    """Never a bare datum among framed ones, which every reader of the topic would trip over."""
    with pytest.raises(KeyError, match="out"):
        value_of(Registry(), ids)
