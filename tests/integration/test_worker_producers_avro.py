"""``rexstream run`` and the Avro of producers who never saw its schemas: connectors, other companies' classes, and the
frames of other serializers.
"""

from __future__ import annotations

import json
import uuid
from typing import TYPE_CHECKING, Any, Protocol

import pytest
from avro_values import REVIEWS, framed, messages, said
from confluent_kafka import Producer
from registry_double import RegistryDouble
from worker_run import Run

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from stub_server import StubServer

    from consumer.events import Header

MS = 1_700_000_000_123
TEXT = {"name": "text", "type": "string"}


def record(name: str, *fields: dict[str, Any]) -> str:
    return json.dumps({"type": "record", "name": name, "fields": fields})


def micros(kind: str) -> dict[str, Any]:
    return {"type": "long", "connect.version": 1, "connect.name": f"io.debezium.time.{kind}"}


CONNECT, FLAT, CLASS, ENVELOPE, GUID_S = (
    record("io.confluent.connect.avro.ConnectDefault", TEXT),
    record(
        "shop.public.reviews.Value",
        {"name": "event_id", "type": "long"},
        {"name": "text", "type": ["null", {"type": "string", "connect.default": ""}], "default": None},
        {"name": "created_at", "type": ["null", micros("MicroTimestamp")], "default": None},
        {"name": "__deleted", "type": ["null", "string"], "default": None},
        {"name": "stars", "type": {"type": "int", "connect.default": 0}, "default": 0},
    ),
    record(
        "com.shop.ProductReview",
        {"name": "published", "type": "boolean", "default": "false"},
        {"name": "content", "type": "string", "aliases": ["text"], "default": None},
        {"name": "attributes", "type": ["null", {"type": "map", "values": "string"}], "default": None},
        {"name": "created_at", "type": {"type": "long", "logicalType": "timestamp-millis"}},
    ),
    record("shop.public.reviews.Envelope", {"name": "op", "type": "string"}),
    record("com.shop.Review", TEXT),
)
GUID = uuid.UUID("89791762-2336-4186-9674-299b90a802e2")
CONNECT_ID, FLAT_ID, CLASS_ID, ENVELOPE_ID, JSON_ID, PROTOBUF_ID = range(201, 207)


class Broker(Protocol):
    """The fixture ``mock_broker``."""

    bootstrap: str

    def topic(self, partitions: int, label: str = ...) -> str:
        """A new topic; its name."""


@pytest.fixture
def registry() -> Iterator[RegistryDouble]:
    double = RegistryDouble()
    double.schemas = {CONNECT_ID: CONNECT, FLAT_ID: FLAT, CLASS_ID: CLASS, ENVELOPE_ID: ENVELOPE}
    for number, kind in ((JSON_ID, "JSON"), (PROTOBUF_ID, "PROTOBUF")):
        double.answers[f"/schemas/ids/{number}"] = (200, {"schema": "of its own", "schemaType": kind})
    double.answers[f"/schemas/guids/{GUID}"] = (200, {"schema": GUID_S, "guid": str(GUID)})
    yield double
    double.stop()


def outer(number: int, written_with: str, /, **fields: Any) -> bytes:
    """As ``framed``; what fastavro's writer refuses of a schema is left out."""
    schema = json.loads(written_with)
    for field in schema["fields"]:
        field.pop("default", None)
    return framed(number, json.dumps(schema), **fields)


def as_json(**fields: Any) -> bytes:
    return json.dumps(fields).encode()


def test_the_avro_of_producers_who_do_not_know_us(
    mock_broker: Broker, server: StubServer, registry: RegistryDouble, runs: list[Run], tmp_path: Path
) -> None:
    """Read by its fields, with its times in their units; what cannot be read is named, and nothing waits for it."""
    topics = [mock_broker.topic(1, label) for label in ("in", "out", "dead")]
    plain = mock_broker.topic(1, "json")
    routes = [
        {"input": topics[0], "format": "avro", "tasks": ["sentiment"], "output": topics[1]},
        {"input": plain, "format": "json", "tasks": ["sentiment"], "output": topics[1]},
    ]
    worker = Run(mock_broker.bootstrap, topics, server, tmp_path, routes=routes, registry=registry.url)
    runs.append(worker)
    worker.start()
    year_58299 = {"published": True, "attributes": None, "created_at": MS * 1000}
    guid = [("__value_schema_id", b"\x01" + GUID.bytes)]
    protobuf = b"\x00\x0a\x04good"
    sent: list[tuple[str, bytes, Sequence[Header]]] = [
        (topics[0], outer(CONNECT_ID, CONNECT, text=REVIEWS[0]), []),
        (
            topics[0],
            outer(FLAT_ID, FLAT, event_id=17, text=REVIEWS[1], created_at=MS * 1000, __deleted=None, stars=4),
            [],
        ),
        (topics[0], outer(CLASS_ID, CLASS, content=REVIEWS[2], **year_58299), []),
        (topics[0], framed(1, GUID_S, text=REVIEWS[3])[5:], guid),
        (topics[0], b"\0" + JSON_ID.to_bytes(4) + as_json(event_id="j", text=REVIEWS[4]), []),
        (plain, b"\0" + JSON_ID.to_bytes(4) + as_json(event_id="k", text=REVIEWS[4]), []),
        (topics[0], outer(ENVELOPE_ID, ENVELOPE, op="c"), []),
        (topics[0], b"\0" + PROTOBUF_ID.to_bytes(4) + protobuf, []),
        (plain, b"\0" + PROTOBUF_ID.to_bytes(4) + protobuf, []),
    ]
    producer = Producer({"bootstrap.servers": mock_broker.bootstrap})
    for topic, value, headers in sent:
        producer.produce(topic, value, b"k", headers=list(headers))
    assert producer.flush(20) == 0
    worker.wait(lambda: worker.get("/status")[1]["totals"] == {"done": 6, "dead_letter": 3}, 30)
    # An event counts when it is processed, a little before its outputs are durable.
    worker.wait(lambda: len(messages(worker.bootstrap, topics[1])) == 6 and len(worker.dead_letters()) == 3, 30)

    results = {}
    for message in messages(worker.bootstrap, topics[1]):
        result = json.loads(message.value() or b"")
        results[result["event_id"]] = result
        assert "__value_schema_id" not in said(message)
    assert set(results) == {f"{topics[0]}-0-{offset}" for offset in (0, 2, 3)} | {"17", "j", "k"}
    assert results["17"]["created_at"] == MS
    beyond = results[f"{topics[0]}-0-2"]
    assert beyond["created_at"] is None
    assert any("created_at" in warning for warning in beyond["warnings"])

    letters = [said(letter) for letter in worker.dead_letters()]
    assert sorted(letter["rexstream-dlq-class"] for letter in letters) == [
        "IncompatibleSchema",
        "InvalidFraming",
        "NotAvroSchema",
    ]
    says = {letter["rexstream-dlq-class"]: letter["__dlq.errors.message"] for letter in letters}
    assert "record shop.public.reviews.Envelope" in says["IncompatibleSchema"]
    assert says["NotAvroSchema"].startswith(f"Protobuf frame, id {PROTOBUF_ID}")
    assert says["InvalidFraming"].startswith(f"Protobuf frame, id {PROTOBUF_ID}")
