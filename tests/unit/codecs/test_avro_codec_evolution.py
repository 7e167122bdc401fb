"""Schemas change on one side first: producers before workers or after them, results before their readers."""

from __future__ import annotations

import io
import json
from decimal import Decimal
from typing import Any

import fastavro
import pytest
from avro_frames import EVENT_SCHEMA, datum, framed, known
from hypothesis import given
from hypothesis import strategies as st

from consumer.codecs.avro_codec import encode_avro, result_schema
from consumer.codecs.avro_schemas import parse_writer_schema
from consumer.codecs.decoding import decode_value
from consumer.events import BadInput, ReviewEvent

REVIEW = "表带扣得紧，走时也准。"
TEXT = {"name": "text", "type": "string"}
SHIPPED = json.loads(EVENT_SCHEMA)
FULL = {
    "event_id": "e-9",
    "text": REVIEW,
    "tasks": ["ner"],
    "schema": None,
    "kind": None,
    "product_id": "p",
    "source": "s",
    "language": "zh",
    "created_at": 1_700_000_000_000,
    "attributes": {"shop": "a"},
}
NEWER_FIELDS = (
    {"name": "stars", "type": "int"},
    {"name": "price", "type": {"type": "bytes", "logicalType": "decimal", "precision": 6, "scale": 2}},
    {"name": "photos", "type": {"type": "array", "items": {"type": "record", "name": "Photo", "fields": [TEXT]}}},
    {"name": "channel", "type": {"type": "enum", "name": "Channel", "symbols": ["APP", "WEB"]}},
    {"name": "device", "type": ["null", {"type": "fixed", "name": "Device", "size": 3}]},
)
NEWER = {
    "stars": 4,
    "price": Decimal("20.00"),
    "photos": [{"text": "a"}, {"text": "b"}],
    "channel": "WEB",
    "device": b"xyz",
}


def record_of(*fields: dict[str, Any], name: str = "rexstream.ReviewEvent") -> dict[str, Any]:
    return {"type": "record", "name": name, "fields": list(fields)}


def read(written_with: dict[str, Any], /, **fields: object) -> ReviewEvent:
    """What a worker makes of a datum of a producer with this schema."""
    parsed = parse_writer_schema(json.dumps(written_with))
    return decode_value(framed(datum(written_with, fields), 7), "avro", "t-0-1", known({7: parsed}))


@given(
    st.permutations([*SHIPPED["fields"], *NEWER_FIELDS]), st.sets(st.sampled_from(sorted({*FULL, *NEWER} - {"text"})))
)
def test_any_producer_that_sends_a_text_is_read(order: list[dict[str, Any]], missing: set[str]) -> None:
    """Whichever of our optional fields it lacks, whichever it adds, in whatever order: what it sends arrives."""
    fields = [field for field in order if field["name"] not in missing]
    sent = {name: value for name, value in {**FULL, **NEWER}.items() if name not in missing}
    whole = ReviewEvent("e-9", REVIEW, ("ner",), None, "extract", "p", "s", "zh", 1_700_000_000_000, {"shop": "a"})
    defaults = ReviewEvent("t-0-1", REVIEW)
    event = read(record_of(*fields), **sent)
    for name in FULL:
        assert getattr(event, name) == getattr(defaults if name in missing else whole, name)


@pytest.mark.parametrize(
    ("field", "sent", "arrives"),
    [
        ({"name": "created_at", "type": "int"}, 77, 77),
        ({"name": "created_at", "type": ["int", "null"]}, 77, 77),
        ({"name": "created_at", "type": ["long", "null"]}, 2**40, 2**40),
        ({"name": "source", "type": ["string", "null"]}, "app", "app"),
        ({"name": "source", "type": "string"}, "app", "app"),
        ({"name": "source", "type": "null"}, None, None),
        ({"name": "source", "type": "bytes"}, "应用".encode(), "应用"),
        ({"name": "source", "type": ["null", "long", "string"]}, "app", "app"),
    ],
)
def test_types_that_avro_promotes(field: dict[str, Any], sent: object, arrives: object) -> None:
    """A narrower number, bytes for text, a union in another order or none: no reason to refuse."""
    event = read(record_of(TEXT, field), text=REVIEW, **{field["name"]: sent})
    assert getattr(event, field["name"]) == arrives


@pytest.mark.parametrize(
    ("field", "sent", "arrives"),
    [
        ({"name": "created_at", "type": ["null", "string"]}, "1970-01-02", 86_400_000),
        ({"name": "source", "type": "long"}, 3, "3"),
        ({"name": "source", "type": ["null", "long", "string"]}, 3, "3"),
        ({"name": "source", "type": {"type": "enum", "name": "Shop", "symbols": ["app", "web"]}}, "web", "web"),
        ({"name": "event_id", "type": "long"}, 2**60, str(2**60)),
        ({"name": "attributes", "type": {"type": "map", "values": "int"}}, {"a": 1}, {"a": "1"}),
        ({"name": "attributes", "type": ["null", {"type": "map", "values": ["null", "string"]}]}, None, {}),
        (
            {"name": "attributes", "type": {"type": "map", "values": ["null", "string"]}},
            {"a": None, "b": "c"},
            {"b": "c"},
        ),
        ({"name": "kind", "type": {"type": "enum", "name": "Kind", "symbols": ["classify"]}}, "classify", "classify"),
        ({"name": "product_id", "type": ["null", {"type": "fixed", "name": "F", "size": 2}]}, b"\xff\xfe", None),
    ],
)
def test_metadata_of_other_types_is_converted_as_in_json(field: dict[str, Any], sent: object, arrives: object) -> None:
    """Where that loses nothing; else it is left out, and the review is read."""
    assert getattr(read(record_of(TEXT, field), text=REVIEW, **{field["name"]: sent}), field["name"]) == arrives


@pytest.mark.parametrize(
    ("field", "sent"),
    [
        ({"name": "tasks", "type": "string"}, "ner"),
        ({"name": "tasks", "type": {"type": "array", "items": "int"}}, [1]),
        ({"name": "schema", "type": ["null", "long"]}, 5),
        ({"name": "text", "type": ["null", "long", "string"]}, 5),
        ({"name": "text", "type": {"type": "array", "items": "string"}}, ["ner"]),
        ({"name": "text", "type": {"type": "record", "name": "Body", "fields": []}}, {}),
    ],
)
def test_types_that_avro_does_not_promote(field: dict[str, Any], sent: object) -> None:
    """Of what decides, a dead letter of one class, never a value taken for what it is not."""
    fields = (field,) if field["name"] == "text" else (TEXT, field)
    with pytest.raises(BadInput, match=f"field {field['name']} of record rexstream.ReviewEvent") as caught:
        read(record_of(*fields), **{"text": REVIEW, field["name"]: sent})
    assert (caught.value.stage, caught.value.reason) == ("decode", "IncompatibleSchema")


def test_an_alias_is_a_name() -> None:
    """A producer that renames the text and says how it was called is read, also in one branch of a union."""
    schema = record_of({"name": "body", "type": "string", "aliases": ["content", "text"]})
    assert read(schema, body=REVIEW).text == REVIEW
    parsed = parse_writer_schema(json.dumps([record_of(name="Ping"), schema]))
    value = framed(b"\x02" + datum(schema, {"body": REVIEW}), 7)
    assert decode_value(value, "avro", "t-0-1", known({7: parsed})).text == REVIEW


def test_a_name_goes_before_an_alias() -> None:
    """Whichever of the two stands first."""
    schema = record_of({"name": "body", "type": "string", "aliases": ["text"]}, TEXT)
    assert read(schema, body="no", text=REVIEW).text == REVIEW


def test_a_record_of_another_namespace_is_read() -> None:
    """Producers keep their classes where they like."""
    assert read(record_of(TEXT, name="com.shop.reviews.ReviewEvent"), text=REVIEW).text == REVIEW


def result() -> dict[str, Any]:
    return {
        "result_id": "r",
        "event_id": "e",
        "task": "ner",
        "task_fingerprint": "0123456789abcdef",
        "extractions": [[{"type": "品牌", "span": "表带", "start": 0, "end": 2, "score": 0.9}]],
        "model": {"name": "m", "version": "1", "signature": "s"},
        "record": {"topic": "in", "partition": 1, "offset": 2, "timestamp": None},
        "product_id": None,
        "source": "app",
        "language": None,
        "created_at": 5,
        "attributes": {},
        "timing": {"queued_ms": 1.0, "model_ms": 2.0, "total_ms": 3.0, "model_calls": 1},
        "warnings": [],
        "processed_at": 9,
    }


def test_a_reader_of_yesterdays_results_reads_todays() -> None:
    """It does not see fields that its schema lacks."""
    schema = json.loads(json.dumps(result_schema()))
    known = {"result_id", "event_id", "task", "extractions"}
    reader: Any = {
        "type": "record",
        "name": "rexstream.ExtractionResult",
        "fields": [field for field in schema["fields"] if field["name"] in known],
    }
    written = io.BytesIO(encode_avro(result(), None))
    read_back = fastavro.schemaless_reader(written, result_schema(), fastavro.parse_schema(reader))
    assert read_back == {name: value for name, value in result().items() if name in known}


def test_a_reader_of_tomorrows_results_reads_todays() -> None:
    """New fields take their defaults, and numbers may have grown."""
    text = json.dumps(result_schema()).replace(
        '"name": "start", "type": ["null", "int"]', '"name": "start", "type": ["null", "long"]'
    )
    reader = json.loads(text)
    reader["fields"].append({"name": "confidence", "type": ["null", "double"], "default": None})
    parsed: Any = fastavro.parse_schema(reader)
    read_back = fastavro.schemaless_reader(io.BytesIO(encode_avro(result(), None)), result_schema(), parsed)
    assert read_back == {**result(), "confidence": None}


def test_a_reader_of_todays_results_reads_those_before_fingerprints() -> None:
    """A topic keeps results of the release before; a record in Confluent's frame has the schema of its writer."""
    schema: Any = json.loads(json.dumps(result_schema()))
    schema["fields"] = [field for field in schema["fields"] if field["name"] != "task_fingerprint"]
    written = io.BytesIO()
    fastavro.schemaless_writer(written, fastavro.parse_schema(schema), result())
    written.seek(0)
    read_back = fastavro.schemaless_reader(written, fastavro.parse_schema(schema), result_schema())
    assert read_back == {**result(), "task_fingerprint": ""}
