"""Avro review events: framing, evolution of the producer's schema, damage."""

from __future__ import annotations

import io
import json
from decimal import Decimal
from typing import Any

import avro_frames
import fastavro
import pytest
from avro_frames import framed, known

from consumer.codecs.avro_codec import SchemaId, schema_id
from consumer.codecs.avro_schemas import WriterSchema, parse_writer_schema
from consumer.codecs.decoding import decode_value
from consumer.events import BadInput, ReviewEvent

REVIEW = "拉链顺滑，肩带有点短。"


def datum(schema: dict[str, Any], **fields: object) -> bytes:
    return avro_frames.datum(schema, fields)


def record_of(*fields: dict[str, Any]) -> dict[str, Any]:
    return {"type": "record", "name": "ReviewEvent", "namespace": "rexstream", "fields": list(fields)}


def decoded(schema: dict[str, Any], value: bytes) -> ReviewEvent:
    parsed = parse_writer_schema(json.dumps(schema))
    return decode_value(framed(value, 7), "avro", "t-0-1", known({7: parsed}))


def refused(schema: dict[str, Any], value: bytes) -> BadInput:
    with pytest.raises(BadInput) as caught:
        decoded(schema, value)
    return caught.value


TEXT = {"name": "text", "type": "string"}


def test_a_bare_datum_of_the_shipped_schema() -> None:
    """Without a registry a value is a datum of the shipped schema, and all fields arrive."""
    fields = {
        "event_id": "e-1",
        "text": REVIEW,
        "tasks": ["ner"],
        "schema": '{"品牌": null}',
        "kind": "extract",
        "product_id": "p",
        "source": "s",
        "language": "zh",
        "created_at": 1_690_000_000_123,
        "attributes": {"a": "b"},
    }
    assert decode_value(avro_frames.datum(avro_frames.EVENT_SCHEMA, fields), "avro", "t-0-1") == ReviewEvent(
        "e-1", REVIEW, ("ner",), {"品牌": None}, "extract", "p", "s", "zh", 1_690_000_000_123, {"a": "b"}
    )


def test_an_older_producer_lacks_fields() -> None:
    """Fields that the producer's schema does not have take their defaults."""
    assert decoded(record_of(TEXT), datum(record_of(TEXT), text=REVIEW)) == ReviewEvent("t-0-1", REVIEW)


def test_a_newer_producer_has_more_fields() -> None:
    """Fields that the shipped schema does not have are skipped, wherever they stand."""
    schema = record_of(
        {"name": "rating", "type": {"type": "bytes", "logicalType": "decimal", "precision": 4, "scale": 1}},
        TEXT,
        {"name": "seen", "type": {"type": "long", "logicalType": "timestamp-millis"}},
        {"name": "source", "type": "string"},
    )
    value = datum(schema, text=REVIEW, rating=Decimal("2.5"), seen=2**62, source="app")
    assert decoded(schema, value) == ReviewEvent("t-0-1", REVIEW, source="app")


def test_a_later_shipped_schema_reads_todays_data() -> None:
    """Today's data can be read by a schema that has one more field with a default and lacks one of ours."""
    later = json.loads(avro_frames.EVENT_SCHEMA)
    fields = [field for field in later["fields"] if field["name"] != "language"]
    reader = {
        "type": "record",
        "name": "rexstream.ReviewEvent",
        "fields": [*fields, {"name": "stars", "type": "int", "default": 0}],
    }
    out = io.BytesIO()
    today = json.loads(avro_frames.EVENT_SCHEMA)
    fastavro.schemaless_writer(out, today, {"text": REVIEW, "language": "zh"})
    read = fastavro.schemaless_reader(io.BytesIO(out.getvalue()), today, fastavro.parse_schema(reader))
    assert isinstance(read, dict)
    assert read["text"] == REVIEW
    assert read["stars"] == 0
    assert "language" not in read


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (b"", "InvalidFraming"),
        (b"\x00\x00\x00\x01", "InvalidFraming"),
        (b"\x01\x00\x00\x00\x07", "InvalidFraming"),
        (b"{\x00\x00\x00\x07", "InvalidFraming"),
        (b"\x00\x00\x00\x00\x09", "UnknownSchemaId"),
        (b"\x00\x00\x00\x00\x07", "InvalidAvro"),
    ],
)
def test_damaged_frames_are_refused(value: bytes, reason: str) -> None:
    """A bad frame, an unknown schema and a missing datum are told apart."""
    parsed = parse_writer_schema(json.dumps(record_of(TEXT)))
    with pytest.raises(BadInput) as caught:
        decode_value(value, "avro", "t-0-1", known({7: parsed}))
    assert (caught.value.stage, caught.value.reason) == ("decode", reason)


def test_every_truncation_is_refused() -> None:
    """No prefix of a datum passes for a whole one."""
    whole = datum(record_of(TEXT, {"name": "source", "type": "string"}), text=REVIEW, source="app")
    schema = record_of(TEXT, {"name": "source", "type": "string"})
    for end in range(len(whole)):
        assert refused(schema, whole[:end]).reason == "InvalidAvro"


def test_bytes_behind_the_datum_are_refused_by_number() -> None:
    """Left-over bytes mean a wrong schema."""
    error = refused(record_of(TEXT), datum(record_of(TEXT), text=REVIEW) + b"xyz")
    assert error.reason == "InvalidAvro"
    assert "3 bytes" in error.message


def test_a_schema_without_text_is_incompatible() -> None:
    """A producer whose schema has no text cannot be read."""
    schema = record_of({"name": "body", "type": "string"})
    assert refused(schema, datum(schema, body=REVIEW)).reason == "IncompatibleSchema"


def test_a_schema_that_is_no_record_is_incompatible() -> None:
    """A bare string is no event."""
    parsed = parse_writer_schema('"string"')
    out = io.BytesIO()
    fastavro.schemaless_writer(out, "string", REVIEW)
    with pytest.raises(BadInput) as caught:
        decode_value(framed(out.getvalue(), 7), "avro", "t-0-1", known({7: parsed}))
    assert caught.value.reason == "IncompatibleSchema"


def test_an_event_may_be_one_type_of_a_union() -> None:
    """Topics with several record types are written with a union; the event among them is read."""
    other = {"type": "record", "name": "Ping", "fields": []}
    union = [other, record_of(TEXT)]
    out = io.BytesIO()
    fastavro.schemaless_writer(out, fastavro.parse_schema(union), ("rexstream.ReviewEvent", {"text": REVIEW}))
    parsed = parse_writer_schema(json.dumps(union))
    assert decode_value(framed(out.getvalue(), 7), "avro", "t-0-1", known({7: parsed})).text == REVIEW


def test_a_null_text_is_refused() -> None:
    """A producer whose text may be null is read until it is null."""
    schema = record_of({"name": "text", "type": ["null", "string"]})
    assert decoded(schema, datum(schema, text=REVIEW)).text == REVIEW
    assert refused(schema, datum(schema, text=None)).reason == "MissingText"


def test_other_errors_of_the_resolver_pass() -> None:
    """A registry that cannot be asked is no fault of the event."""

    def unavailable(number: SchemaId) -> WriterSchema:
        raise TimeoutError(f"schema {number}")

    with pytest.raises(TimeoutError):
        decode_value(framed(b"", 7), "avro", "t-0-1", unavailable)


@pytest.mark.parametrize(
    "text",
    [
        '{"type": "recrd"}',
        "{}",
        "[]",
        '{"type": "record", "name": "R", "fields": [{}]}',
        '{"type": "array", "items": "Unheard"}',
        "nonsense",
        "17",
        "[" * 100_000,
    ],
)
def test_what_is_no_schema_is_a_value_error(text: str) -> None:
    """A registry's answer is checked before it is used."""
    with pytest.raises(ValueError, match=r"."):
        parse_writer_schema(text)


def test_an_id_uses_all_32_bits() -> None:
    """The highest byte first, after a zero."""
    assert schema_id(b"\x00\x00\x00\x01\x02x") == 258
    assert schema_id(b"\x00\xff\xff\xff\xff") == 2**32 - 1
