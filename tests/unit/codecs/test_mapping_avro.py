"""Rows out of Avro that Debezium and Connect write with a schema registry."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import avro_frames
import pytest
from avro_frames import framed
from avro_values import debezium_envelope

from consumer.codecs.avro_schemas import WriterSchema, parse_writer_schema
from consumer.codecs.decoding import read_value
from consumer.codecs.mapping import FieldMapping
from consumer.config.route import Preset, RouteConfig
from consumer.events import BadInput, SourceRecord

if TYPE_CHECKING:
    from consumer.codecs.avro_codec import SchemaId

MICROS = {"type": "long", "connect.version": 1, "connect.name": "io.debezium.time.MicroTimestamp"}
NUMBER = {
    "type": "record",
    "name": "VariableScaleDecimal",
    "namespace": "io.debezium.data",
    "fields": [{"name": "scale", "type": "int"}, {"name": "value", "type": "bytes"}],
    "connect.name": "io.debezium.data.VariableScaleDecimal",
}
ROW: dict[str, Any] = {
    "type": "record",
    "name": "Value",
    "namespace": "shop.public.reviews",
    "fields": [
        {"name": "id", "type": NUMBER},
        {"name": "content", "type": ["null", "string"], "default": None},
        {"name": "created_at", "type": ["null", MICROS], "default": None},
        {"name": "stars", "type": {"type": "int", "connect.type": "int16"}},
    ],
    "connect.name": "shop.public.reviews.Value",
}
ENVELOPE = debezium_envelope(ROW, "shop.public.reviews")
FIELDS = {"text": "content", "event_id": ["id", "$key"], "attributes": {"stars": "stars", "table": "source.table"}}


def read(schema: Any, value: Any, preset: Preset, fields: dict[str, Any] | None = None) -> Any:
    schemas: dict[SchemaId, WriterSchema] = {7: parse_writer_schema(json.dumps(schema))}
    record = SourceRecord("in", 0, 7, 1, b"\0\0\0\0\x05\x02", b"", (), None, 0.0)
    route = RouteConfig(input="in", format="avro", preset=preset, fields=FIELDS if fields is None else fields)
    read = read_value(framed(avro_frames.datum(schema, value), 7), "avro", schemas.__getitem__, ())
    return FieldMapping(route).read(read, record, "in-0-7")


def row(content: str | None) -> dict[str, Any]:
    return {
        "id": {"scale": 0, "value": b"\x03\xec"},
        "content": content,
        "created_at": 1_700_000_000_123_456,
        "stars": 5,
    }


def change(op: str, before: Any, after: Any) -> dict[str, Any]:
    return {"before": before, "after": after, "source": {"table": "reviews"}, "op": op, "ts_ms": 1_700_000_000_500}


def test_change_events_in_avro() -> None:
    """Their row in a union, a time of microseconds, an id of any scale; and a key that is Avro too is no id."""
    event = read(ENVELOPE, change("u", None, row("好用")), "debezium")
    assert (event.event_id, event.text, event.created_at) == ("1004", "好用", 1_700_000_000_123)
    assert (event.attributes, event.warnings) == ({"stars": "5", "table": "reviews"}, ())
    assert read(ENVELOPE, change("d", row(None), None), "debezium") == "delete"
    event = read(ENVELOPE, change("c", None, row("好用")), "debezium", {"text": "after.content", "event_id": "$key"})
    assert event.event_id == "in-0-7"
    with pytest.raises(BadInput, match="path content leads to null"):
        read(ENVELOPE, change("c", None, row(None)), "debezium")


def test_unwrapped_rows_in_avro() -> None:
    """As ExtractNewRecordState leaves them, with what it adds."""
    deleted = {"name": "__deleted", "type": ["null", "string"], "default": None}
    schema = {**ROW, "fields": [*ROW["fields"], deleted]}
    assert read(schema, {**row("好用"), "__deleted": "false"}, "debezium").event_id == "1004"
    assert read(schema, {**row(None), "__deleted": "true"}, "debezium") == "delete"


def test_rows_of_a_jdbc_source_in_avro() -> None:
    """Of a record that Connect calls ConnectDefault, with a decimal and a timestamp."""
    decimal = {"type": "bytes", "logicalType": "decimal", "precision": 9, "scale": 2}
    fields = [
        {"name": "id", "type": "long"},
        {"name": "content", "type": "string"},
        {"name": "price", "type": {**decimal, "connect.name": "org.apache.kafka.connect.data.Decimal"}},
        {"name": "created_at", "type": {"type": "long", "logicalType": "timestamp-millis"}},
    ]
    schema = {"type": "record", "name": "ConnectDefault", "namespace": "io.confluent.connect.avro", "fields": fields}
    value = {"id": 5, "content": "面料薄", "price": b"\x24\xa8", "created_at": 1_700_000_000_000}
    bare = {
        **schema,
        "fields": [*fields[:2], {"name": "price", "type": "bytes"}, {"name": "created_at", "type": "long"}],
    }
    schemas: dict[SchemaId, WriterSchema] = {7: parse_writer_schema(json.dumps(schema))}
    record = SourceRecord("in", 0, 7, 1, None, b"", (), None, 0.0)
    content = read_value(framed(avro_frames.datum(bare, value), 7), "avro", schemas.__getitem__, ())
    mapping = FieldMapping(
        RouteConfig(input="in", preset="connect", fields={**FIELDS, "attributes": {"price": "price"}})
    )
    event: Any = mapping.read(content, record, "in-0-7")
    assert (event.event_id, event.text, event.created_at) == ("5", "面料薄", 1_700_000_000_000)
    assert event.attributes == {"price": "93.84"}


def test_a_datetime_in_avro_is_in_the_zone_that_the_route_says() -> None:
    """One of Debezium's, which has no zone; a timestamp of Avro's own counts in UTC."""
    fields = {"text": "content", "created_at": {"from": "created_at", "utc_offset": "+08:00"}}
    event = read(ENVELOPE, change("c", None, row("好用")), "debezium", fields)
    assert event.created_at == 1_700_000_000_123 - 8 * 3_600_000
    for logical, ahead in (("timestamp-millis", 0), ("local-timestamp-millis", 8), ("local-timestamp-micros", 8)):
        kind = {"type": "long", "logicalType": logical}
        parts = [{"name": "content", "type": "string"}, {"name": "created_at", "type": kind}]
        sent = 1_700_000_000_123 * (1000 if logical.endswith("micros") else 1)
        value = {"content": "好用", "created_at": sent}
        event = read({"type": "record", "name": "R", "fields": parts}, value, "connect", fields)
        assert event.created_at == 1_700_000_000_123 - ahead * 3_600_000
