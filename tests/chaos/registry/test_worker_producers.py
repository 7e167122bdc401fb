"""Streams of Debezium, Kafka Connect and CloudEvents on Apache Kafka, with a real registry, in both delivery modes."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from avro_values import REVIEWS, debezium_envelope, messages
from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic
from confluent_kafka.schema_registry import SchemaRegistryClient
from confluent_kafka.schema_registry.avro import AvroSerializer
from confluent_kafka.serialization import MessageField, SerializationContext
from stub_server import StubServer
from worker_run import Run

from consumer.kafka.tools.reader import headers_of

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

pytestmark = pytest.mark.timeout(300)

MS = 1_700_000_000_123
ROW = {
    "type": "record",
    "name": "Value",
    "fields": [
        {"name": "id", "type": "long"},
        {"name": "content", "type": ["null", "string"], "default": None},
        {
            "name": "created_at",
            "type": ["null", {"type": "long", "connect.version": 1, "connect.name": "io.debezium.time.MicroTimestamp"}],
            "default": None,
        },
        {
            "name": "price",
            "type": {"type": "bytes", "logicalType": "decimal", "precision": 10, "scale": 2, "connect.version": 1},
        },
    ],
    "connect.name": "shop.shop.reviews.Value",
}
ENVELOPE = json.dumps(debezium_envelope(ROW, "shop.shop.reviews"))
CONNECT = json.dumps(
    {
        "type": "record",
        "name": "ConnectDefault",
        "namespace": "io.confluent.connect.avro",
        "fields": [
            {"name": "text", "type": "string"},
            {"name": "event_id", "type": "int"},
            {"name": "attributes", "type": ["null", {"type": "map", "values": ["null", "string"]}], "default": None},
            {"name": "created_at", "type": {"type": "int", "logicalType": "date"}},
        ],
    }
)


@pytest.mark.parametrize("mode", ["at_least_once", "exactly_once"])
def test_each_producer_is_read_by_its_route(
    kafka: str, registry_url: str, tmp_path: Path, new_topic: Callable[[str], str], mode: str
) -> None:
    """Ids, times and attributes arrive in our units and types; a delete follows its result under the same key."""
    cdc, connect, cloud, out, dead = topics = [new_topic(label) for label in ("cdc", "connect", "cloud", "out", "dead")]
    admin = AdminClient({"bootstrap.servers": kafka})
    for created in admin.create_topics([NewTopic(topic, 1, 1) for topic in topics]).values():
        created.result(30)
    shared: dict[str, Any] = {"tasks": ["sentiment"], "output": out}
    fields = {"text": "content", "event_id": "id", "attributes": {"price": "price", "table": "source.table"}}
    routes = [
        {"input": cdc, "format": "avro", "preset": "debezium", "on_delete": "forward", "fields": fields, **shared},
        {"input": connect, "format": "avro", **shared},
        {"input": cloud, "preset": "cloudevents", **shared},
    ]
    client = SchemaRegistryClient({"url": registry_url})
    envelope, plain = AvroSerializer(client, ENVELOPE), AvroSerializer(client, CONNECT)

    def change(op: str, before: str | None, after: str | None) -> bytes | None:
        rows = [
            None if text is None else {"id": 1004, "content": text, "created_at": MS * 1000 + 7, "price": b"\x26\x01"}
            for text in (before, after)
        ]
        value = {"before": rows[0], "after": rows[1], "source": {"table": "reviews"}, "op": op}
        written: bytes | None = envelope(value, SerializationContext(cdc, MessageField.VALUE))
        return written

    row = {"text": REVIEWS[1], "event_id": 17, "attributes": {"stars": "5", "colour": None}, "created_at": 19_675}
    event = {"specversion": "1.0", "id": "A1", "source": "/shop", "type": "t", "time": "2026-11-01T08:00:00+08:00"}
    binary = {f"ce_{name}": value.encode() for name, value in {**event, "id": "A2"}.items()}
    sent: list[tuple[str, bytes, bytes | None, dict[str, bytes]]] = [
        (cdc, b"1004", change("c", None, REVIEWS[0]), {}),
        (cdc, b"1004", change("d", REVIEWS[0], None), {}),
        (cdc, b"1004", None, {}),
        (connect, b"17", plain(row, SerializationContext(connect, MessageField.VALUE)), {}),
        (
            cloud,
            b"c",
            json.dumps({**event, "data": {"text": REVIEWS[2]}}, ensure_ascii=False).encode(),
            {"content-type": b"application/cloudevents+json; charset=UTF-8"},
        ),
        (cloud, b"c", json.dumps({"text": REVIEWS[3], "language": "zh"}).encode(), binary),
    ]
    server = StubServer()
    worker = Run(
        kafka,
        [cdc, out, dead],
        server,
        tmp_path,
        routes=routes,
        registry=registry_url,
        delivery={"mode": mode},
    )
    producer = Producer({"bootstrap.servers": kafka})
    for topic, key, value, headers in sent:
        producer.produce(topic, value, key, headers=list(headers.items()))
    assert producer.flush(20) == 0
    try:
        worker.start()
        worker.wait(lambda: len(messages(kafka, out)) == len(sent), 60)
    finally:
        worker.kill()
        server.stop()
    found: dict[bytes | None, list[Any]] = {}
    for message in messages(kafka, out):
        value = message.value()
        found.setdefault(message.key(), []).append(None if value is None else json.loads(value))
        assert not [name for name, _ in headers_of(message) if name.startswith(("ce_", "content"))]
    (review, *deletes), (bought,), events = found[b"1004"], found[b"17"], found[b"c"]
    assert deletes == [None, None]
    assert (review["event_id"], review["created_at"]) == ("1004", MS)
    assert review["attributes"] == {"price": "97.29", "table": "reviews"}
    assert (bought["event_id"], bought["created_at"], bought["attributes"]) == (
        "17",
        19_675 * 86_400_000,
        {"stars": "5"},
    )
    assert [each["event_id"] for each in events] == ["A1", "A2"]
    assert {each["created_at"] for each in events} == {1_793_491_200_000}
    assert {each["source"] for each in events} == {"/shop"}
    assert [each["warnings"] for each in (review, bought, *events)] == [[]] * 4
    assert messages(kafka, dead) == []
