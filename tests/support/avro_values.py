"""Avro as producers and readers have it, which know nothing of our codecs: schemas, values, and what comes back."""

from __future__ import annotations

import io
import json
import struct
from pathlib import Path
from typing import TYPE_CHECKING, Any

import fastavro
from confluent_kafka import Producer

from consumer.kafka.tools.reader import headers_of, read_to_end

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from confluent_kafka import Message

_SHIPPED = Path(__file__).parents[2] / "schemas/avro"
EVENT_SCHEMA = (_SHIPPED / "review_event.avsc").read_text("utf-8")
RESULT_SCHEMA = (_SHIPPED / "extraction_result.avsc").read_text("utf-8")

REVIEWS = ("屏幕清楚，电池耐用", "鞋底偏硬，走久了脚疼", "客服耐心，退款也快", "味道淡，分量倒是足", "袋子薄，一提就破")


def writer_schema(*fields: dict[str, Any]) -> str:
    """A producer's schema of events."""
    return json.dumps({"type": "record", "name": "rexstream.ReviewEvent", "fields": fields})


OLDER = writer_schema({"name": "text", "type": "string"}, {"name": "event_id", "type": "string"})
NEWER = json.dumps(
    {
        **json.loads(EVENT_SCHEMA),
        # First, so that whoever reads with a schema of their own reads nonsense.
        "fields": [{"name": "stars", "type": "int", "default": 0}, *json.loads(EVENT_SCHEMA)["fields"]],
    }
)


def debezium_envelope(row: dict[str, Any], namespace: str) -> dict[str, Any]:
    """The schema of change events of a table, whose ``row`` is the record ``Value`` of that namespace."""
    source = {"type": "record", "name": "Source", "fields": [{"name": "table", "type": "string"}]}
    return {
        "type": "record",
        "name": "Envelope",
        "namespace": namespace,
        "fields": [
            {"name": "before", "type": ["null", row], "default": None},
            {"name": "after", "type": ["null", "Value"], "default": None},
            {"name": "source", "type": source},
            {"name": "op", "type": "string"},
            {"name": "ts_ms", "type": ["null", "long"], "default": None},
        ],
        "connect.name": f"{namespace}.Envelope",
    }


def avro(written_with: str, /, **fields: Any) -> bytes:
    """A bare datum."""
    out = io.BytesIO()
    fastavro.schemaless_writer(out, json.loads(written_with), fields)
    return out.getvalue()


def framed(number: int, written_with: str, /, **fields: Any) -> bytes:
    """A datum in Confluent's wire format."""
    return struct.pack(">bI", 0, number) + avro(written_with, **fields)


def read_avro(schema: str, datum: bytes) -> dict[str, Any]:
    """Also that nothing is left behind it."""
    stream = io.BytesIO(datum)
    fields: Any = fastavro.schemaless_reader(stream, json.loads(schema), None)
    assert stream.tell() == len(datum)
    result: dict[str, Any] = fields
    return result


def schema_number(value: bytes) -> int:
    """The id in front of a value in Confluent's wire format."""
    magic, number = struct.unpack_from(">bI", value)
    assert magic == 0
    return int(number)


def send(bootstrap: str, topic: str, values: Sequence[bytes]) -> None:
    """One batch, each value with a key of its own: none waits for another's results."""
    # It lingers until the flush: of two batches the second would wait behind what the first one pauses.
    producer = Producer({"bootstrap.servers": bootstrap, "linger.ms": 60_000})
    failed: list[object] = []
    for number, value in enumerate(values):
        producer.produce(topic, value, f"k{number}", on_delivery=lambda e, _: failed.append(e) if e else None)
    assert producer.flush(10) == 0
    assert failed == []


def messages(bootstrap: str, topic: str) -> list[Message]:
    """What a topic holds now."""
    return list(read_to_end(bootstrap, topic))


def said(letter: Message) -> dict[str, str]:
    """Headers of a dead letter, as text."""
    return {name: (value or b"").decode() for name, value in headers_of(letter)}


def by_event(results: Iterable[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Each event's one result."""
    found = {}
    for result in results:
        assert result["event_id"] not in found
        found[result["event_id"]] = result
    return found


def assert_spans_are_of(result: Mapping[str, Any], text: str) -> None:
    """Offsets count from the start of the review, whatever it came wrapped in."""
    facts = [fact for path in result["extractions"] for fact in path if fact["span"] is not None]
    assert facts
    assert all(text[fact["start"] : fact["end"]] == fact["span"] for fact in facts)
