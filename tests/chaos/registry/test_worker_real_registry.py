"""``rexstream run`` on Apache Kafka with a real registry, which crashes, hangs and comes back.

Producer and reader are Confluent's own serializers, so that nobody but the worker uses our codecs.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from avro_values import NEWER, OLDER, RESULT_SCHEMA, REVIEWS, messages, send
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic
from confluent_kafka.schema_registry import SchemaRegistryClient
from confluent_kafka.schema_registry.avro import AvroDeserializer, AvroSerializer
from confluent_kafka.serialization import MessageField, SerializationContext
from stub_server import StubServer
from worker_run import Run

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from apicurio import Apicurio


# It waits for the worker's backoff, 30 seconds at most, after every fault.
pytestmark = pytest.mark.timeout(600)
PATIENCE = 180.0


class Shop:
    """A producer and a reader with the registry's address and nothing else."""

    def __init__(self, url: str, topic: str) -> None:
        self._client = SchemaRegistryClient({"url": url})
        self._context = SerializationContext(topic, MessageField.VALUE)
        self._serializers = {schema: AvroSerializer(self._client, schema) for schema in (OLDER, NEWER)}
        self._deserializer = AvroDeserializer(self._client)

    def event(self, schema: str, name: str) -> bytes:
        """A value with the id that the registry has for ``schema``."""
        fields: dict[str, Any] = {"event_id": name, "text": REVIEWS[len(name) % len(REVIEWS)]}
        value = self._serializers[schema](fields, self._context)
        assert isinstance(value, bytes)
        return value

    def read(self, value: bytes | None) -> Any:
        """A result as any reader of the registry sees it."""
        return self._deserializer(value, self._context)


def test_a_registry_that_crashes_hangs_and_comes_back(
    kafka: str, private_registry: Apicurio, tmp_path: Path, new_topic: Callable[[str], str]
) -> None:
    """Away at the start, killed and hung under events: those of known schemas get their results, those of a new one
    wait with the pause reason "registry", nothing is dead-lettered, and each gets its one result when it is back.
    """
    topics = [new_topic(label) for label in ("in", "out", "dead")]
    admin = AdminClient({"bootstrap.servers": kafka})
    for created in admin.create_topics([NewTopic(topic, 1, 1) for topic in topics]).values():
        created.result(30)
    route = {"input": topics[0], "format": "avro", "tasks": ["sentiment"], "output": topics[1], "output_format": "avro"}
    server = StubServer()
    settings = {"REXSTREAM_KAFKA__REGISTRY__TIMEOUT_SECONDS": "1"}
    private_registry.start()
    shop = Shop(private_registry.url, topics[0])
    first, *known = [shop.event(OLDER, f"known{number}") for number in range(6)]
    new = [shop.event(NEWER, f"new{number}") for number in range(4)]
    private_registry.stop()
    worker = Run(kafka, topics, server, tmp_path, routes=[route], registry=private_registry.url, environment=settings)

    def results() -> list[str]:
        return sorted(shop.read(message.value())["event_id"] for message in messages(kafka, topics[1]))

    def paused() -> bool:
        return bool(worker.get("/status")[1]["paused"] == ["registry"])

    def waiting() -> list[str]:
        return [reason for reason in worker.get("/readyz")[1]["reasons"] if "schema registry" in reason]

    try:
        worker.start()
        send(kafka, topics[0], [first])
        worker.wait(paused, PATIENCE)
        assert waiting()
        private_registry.start()
        worker.wait(lambda: results() == ["known0"], PATIENCE)
        worker.wait(lambda: worker.get("/readyz")[0] == 200, PATIENCE)

        private_registry.kill()
        send(kafka, topics[0], [new[0], *known])
        worker.wait(lambda: results() == [f"known{number}" for number in range(6)], PATIENCE)
        worker.wait(paused, PATIENCE)
        private_registry.start()
        worker.wait(lambda: len(results()) == 7, PATIENCE)

        # The worker knows both schemas now: a third, under a registry that takes connections and says nothing.
        third = json.dumps({**json.loads(NEWER), "doc": "once more"})
        shop._serializers[third] = AvroSerializer(shop._client, third)
        hung = [shop.event(third, f"hung{number}") for number in range(3)]
        private_registry.pause()
        send(kafka, topics[0], [*hung, *new[1:]])
        worker.wait(lambda: len(results()) >= 10, PATIENCE)
        worker.wait(paused, PATIENCE)
        assert len(results()) == 10
        assert "hung0" not in results()
        private_registry.resume()
        worker.wait(lambda: len(results()) == 13, PATIENCE)
        worker.wait(lambda: worker.lag() == 0, PATIENCE)
        worker.wait(lambda: worker.get("/readyz")[0] == 200, PATIENCE)

        values = [shop.read(message.value()) for message in messages(kafka, topics[1])]
        assert len({value["result_id"] for value in values}) == len(values) == 13
        assert set(values[0]) == {field["name"] for field in json.loads(RESULT_SCHEMA)["fields"]}
        assert worker.dead_letters() == []
    finally:
        worker.kill()
        server.gate.set()
        server.stop()
