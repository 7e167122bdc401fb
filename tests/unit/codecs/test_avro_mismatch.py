"""What a dead letter says about a producer's schema: enough to map its topic with it."""

from __future__ import annotations

import json
from typing import Any

import pytest
from avro_frames import datum, framed, known

from consumer.codecs.avro_schemas import JSON_PAYLOAD, parse_writer_schema
from consumer.codecs.decoding import decode_value
from consumer.events import BadInput

REVIEW = "袖口容易起球"


def refused(schema: Any, sent: Any) -> BadInput:
    parsed = parse_writer_schema(json.dumps(schema))
    with pytest.raises(BadInput) as caught:
        decode_value(framed(datum(schema, sent), 7), "avro", "t-0-1", known({7: parsed}))
    assert REVIEW not in caught.value.message
    return caught.value


def record(*fields: dict[str, Any], name: str = "com.shop.ProductReview") -> dict[str, Any]:
    return {"type": "record", "name": name, "fields": list(fields)}


BODY = {"name": "body", "type": "string"}


def test_a_missing_text_is_explained() -> None:
    """By the record, its fields, what is wanted, and the key that maps."""
    stars = {"name": "stars", "type": "int"}
    bad = refused(record(BODY, stars), {"body": REVIEW, "stars": 4})
    assert (bad.stage, bad.reason) == ("decode", "IncompatibleSchema")
    assert bad.message == (
        "record com.shop.ProductReview of schema 7 has no field text, which must be string; its fields are body, "
        "stars; name the one to read in the route's key fields, as in fields: {text: NAME}"
    )


@pytest.mark.parametrize(
    ("kind", "sent", "says"),
    [
        ("int", 7, "int"),
        (["null", "boolean", "string"], True, "null or boolean or string"),
        ({"type": "array", "items": {"type": "map", "values": "string"}}, [{}], "array of map of string"),
        ({"type": "record", "name": "Body", "namespace": "com.shop", "fields": []}, {}, "record com.shop.Body"),
        ({"type": "long", "logicalType": "timestamp-millis"}, 5, "long"),
    ],
)
def test_a_text_of_another_type_is_explained(kind: Any, sent: Any, says: str) -> None:
    """By both types."""
    bad = refused(record({"name": "text", "type": kind}), {"text": sent})
    assert bad.reason == "IncompatibleSchema"
    assert bad.message.startswith(
        f"field text of record com.shop.ProductReview of schema 7 is {says}, but must be string; its fields are text;"
    )


def test_tasks_and_schema_are_explained_alike() -> None:
    """They decide, too."""
    text = {"name": "text", "type": "string"}
    for name, kind, sent, wanted in (
        ("tasks", "string", "ner", "null or array of string"),
        ("schema", "double", 1.5, "null or string"),
    ):
        bad = refused(record(text, {"name": name, "type": kind}), {"text": REVIEW, name: sent})
        assert bad.message.startswith(
            f"field {name} of record com.shop.ProductReview of schema 7 is {kind}, but must be {wanted};"
        )


def test_the_branch_that_was_sent_is_named() -> None:
    """Of a union, whatever else is in it."""
    ping = record(BODY, name="Ping")
    union = ["null", ping, record({"name": "text", "type": "string"})]
    assert refused(union, ("Ping", {"body": REVIEW})).message.startswith("record Ping of schema 7 has no field text")
    assert refused(union, None).message.startswith("the value, of schema 7, is null, but must be a record")
    for kind, sent in (("string", REVIEW), ("bytes", REVIEW.encode()), ("int", 7)):
        assert refused({"type": kind}, sent).message.startswith(
            f"the value, of schema 7, is {kind}, but must be a record"
        )


def test_a_text_that_is_null_is_missing() -> None:
    """The schema allows it, and other values of it are read."""
    assert refused(record({"name": "text", "type": ["null", "string"]}), {"text": None}).reason == "MissingText"
    bad = refused(record({"name": "text", "type": "bytes"}), {"text": b"\xff"})
    assert bad.reason == "InvalidUtf8"


def test_a_message_is_short_however_wide_the_schema() -> None:
    """Names come from outside."""
    fields = [{"name": f"field_{number}" + "x" * 50, "type": "int"} for number in range(500)]
    bad = refused(record(*fields, name="N" * 5000), {field["name"]: 1 for field in fields})
    assert len(bad.message) < 2500


def test_json_of_a_json_schema_is_refused_as_json_is() -> None:
    """There is no record to speak of."""
    with pytest.raises(BadInput) as caught:
        decode_value(framed(b"{}", 7), "avro", "t-0-1", known({7: JSON_PAYLOAD}))
    assert caught.value.reason == "MissingText"
